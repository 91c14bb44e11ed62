package runbook

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/action"
)

// ResolveInputs makes the inputs of a run from what was given: strict, typed, with defaults. The result holds every
// input; one that was not given and has no default is "" (string, duration, time) or nil (int, bool).
func (rb *Runbook) ResolveInputs(given map[string]any) (map[string]any, error) {
	var errs []error
	names := []string{}
	out := map[string]any{}
	for _, in := range rb.Inputs {
		names = append(names, in.Name)
		v, err := in.resolve(given[in.Name])
		if err != nil {
			errs = append(errs, err)
		}
		out[in.Name] = v
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if !slices.Contains(names, name) {
			errs = append(errs, fmt.Errorf("there is no input %q%s", name, relight.DidYouMean(name, names)))
		}
	}
	if len(errs) > 0 {
		return nil, &relight.Error{
			Op: "read the inputs of", Subject: rb.Name, Code: relight.CodeUsage, Err: errors.Join(errs...),
			Hint: "see the inputs with: relight runbook show " + rb.Name,
		}
	}
	return out, nil
}

func (in Input) resolve(v any) (any, error) {
	if v == nil || v == "" {
		if in.Required {
			return nil, fmt.Errorf("input %s is missing%s", in.Name, help(action.Field{Help: in.Help}))
		}
		v = in.Default
	}
	if v == "" {
		if in.Type == "int" || in.Type == "bool" {
			return nil, nil
		}
		return "", nil
	}
	c, err := in.convert(v)
	if err != nil {
		return nil, fmt.Errorf("input %s: %w", in.Name, err)
	}
	return c, nil
}
