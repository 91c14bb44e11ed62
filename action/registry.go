package action

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/toolboxai/relight"
)

// Registry holds the actions that exist. It never changes once made, so it may be shared.
type Registry struct {
	byName map[string]Action
	names  []string
}

// NewRegistry refuses a second action of one name and whatever Define found wrong; all faults are reported at once.
func NewRegistry(actions ...Action) (*Registry, error) {
	r := &Registry{byName: make(map[string]Action, len(actions))}
	var errs []error
	for _, a := range actions {
		switch _, taken := r.byName[a.name]; {
		case a.err != nil:
			errs = append(errs, a.err)
		case a.run == nil:
			errs = append(errs, errors.New("an action was not made by New or Define"))
		case taken:
			errs = append(errs, fmt.Errorf("action %q is registered twice", a.name))
		default:
			r.byName[a.name] = a
			r.names = append(r.names, a.name)
		}
	}
	slices.Sort(r.names)
	if len(errs) > 0 {
		return nil, fmt.Errorf("register actions: %w", errors.Join(errs...))
	}
	return r, nil
}

// Lookup finds an action by name; the error names the nearest one.
func (r *Registry) Lookup(name string) (Action, error) {
	a, ok := r.byName[name]
	if ok {
		return a, nil
	}
	return Action{}, &relight.Error{
		Op: "find action", Subject: name, Code: relight.CodeUsage,
		Err:  fmt.Errorf("there is no such action%s", relight.DidYouMean(name, r.names)),
		Hint: r.inNoun(name),
	}
}

func (r *Registry) inNoun(name string) string {
	noun, _, _ := strings.Cut(name, ".")
	var same []string
	for _, n := range r.names {
		if strings.HasPrefix(n, noun+".") {
			same = append(same, n)
		}
	}
	if len(same) == 0 {
		return "there are actions on " + strings.Join(r.nouns(), ", ")
	}
	return noun + " has " + strings.Join(same, ", ")
}

func (r *Registry) nouns() []string {
	var nouns []string
	for _, n := range r.names {
		noun, _, _ := strings.Cut(n, ".")
		nouns = append(nouns, noun)
	}
	return slices.Compact(nouns)
}

// Names lists the names, sorted.
func (r *Registry) Names() []string { return slices.Clone(r.names) }

// List gives the actions, sorted by name.
func (r *Registry) List() []Action {
	list := make([]Action, 0, len(r.names))
	for _, n := range r.names {
		list = append(list, r.byName[n])
	}
	return list
}
