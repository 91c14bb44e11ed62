package action

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/toolboxai/relight"
)

// Decode makes the action's input from named values: strings from flags and templates, typed values from YAML and
// JSON. It is strict: an unknown name, a value of another type, a value outside the enum and a missing required
// value are errors, all of them reported at once. An empty string and nil count as not given.
func (a Action) Decode(values map[string]any) (any, error) {
	if a.in == nil || a.err != nil {
		return nil, fmt.Errorf("action %q is not defined", a.name)
	}
	given, errs := a.match(values)
	in := reflect.New(a.in).Elem()
	for _, f := range a.fields {
		v, ok := given[f.Name]
		if (!ok || empty(v)) && f.Default != "" {
			v, ok = f.Default, true
		}
		if !ok || empty(v) {
			if f.Required {
				errs = append(errs, fmt.Errorf("%s is missing%s", f.Name, because(f.Help)))
			}
			continue
		}
		c, err := f.convert(v)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		set(in.FieldByIndex(f.index), c)
	}
	if len(errs) > 0 {
		return nil, &relight.Error{Op: "read the inputs of", Subject: a.name, Code: relight.CodeUsage, Err: errors.Join(errs...)}
	}
	return in.Interface(), nil
}

// Field finds an input by the name that a person wrote.
func (a Action) Field(name string) (Field, bool) {
	i := slices.IndexFunc(a.fields, func(f Field) bool { return f.Name == canonical(name) })
	if i < 0 {
		return Field{}, false
	}
	return a.fields[i], true
}

// Check says whether one literal can be the value of f.
func (f Field) Check(v any) error {
	if empty(v) {
		return nil
	}
	_, err := f.convert(v)
	return err
}

func (a Action) match(values map[string]any) (map[string]any, []error) {
	given := map[string]any{}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(values)) {
		f, ok := a.Field(name)
		if !ok {
			errs = append(errs, fmt.Errorf("there is no input %q%s", name, relight.DidYouMean(name, a.fieldNames())))
			continue
		}
		if _, twice := given[f.Name]; twice {
			errs = append(errs, fmt.Errorf("input %q is given twice", f.Name))
		}
		given[f.Name] = values[name]
	}
	return given, errs
}

func (a Action) fieldNames() []string {
	names := make([]string, 0, len(a.fields))
	for _, f := range a.fields {
		names = append(names, f.Name)
	}
	return names
}

func because(help string) string {
	if help == "" {
		return ""
	}
	return " (" + help + ")"
}

func empty(v any) bool {
	s, ok := v.(string)
	return v == nil || ok && s == ""
}

// set converts to the field's own type, which may be a named one.
func set(field reflect.Value, v any) { field.Set(reflect.ValueOf(v).Convert(field.Type())) }

// convert gives the Go value of f's type: string, bool, int64, float64, time.Duration or []string.
func (f Field) convert(v any) (any, error) {
	out, err := convertTo(f.Type, v)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name, err)
	}
	for _, word := range words(out) {
		if len(f.Enum) > 0 && !slices.Contains(f.Enum, word) {
			return nil, fmt.Errorf("%s: %q is none of %s%s", f.Name, word, strings.Join(f.Enum, ", "), relight.DidYouMean(word, f.Enum))
		}
	}
	return out, nil
}

func words(v any) []string {
	if list, ok := v.([]string); ok {
		return list
	}
	return []string{fmt.Sprint(v)}
}

func convertTo(t Type, v any) (any, error) {
	switch t {
	case TypeString:
		return toString(v)
	case TypeBool:
		return toBool(v)
	case TypeInt:
		return toInt(v)
	case TypeFloat:
		return toFloat(v)
	case TypeDuration:
		return toDuration(v)
	case TypeStrings:
		return toStrings(v)
	default:
		return nil, fmt.Errorf("type %q is not known", t)
	}
}

func toString(v any) (string, error) {
	switch x := v.(type) {
	case string:
		return x, nil
	case time.Time:
		return x.Format(time.RFC3339Nano), nil
	case bool, int, int64, uint64, float64, json.Number, time.Duration:
		return fmt.Sprint(x), nil
	default:
		return "", fmt.Errorf("a %s is not a string", kindOf(v))
	}
}

func toBool(v any) (bool, error) {
	switch x := v.(type) {
	case bool:
		return x, nil
	case string:
		if b, err := strconv.ParseBool(x); err == nil {
			return b, nil
		}
	}
	return false, fmt.Errorf("%v is neither true nor false", v)
}

func toInt(v any) (int64, error) {
	switch x := v.(type) {
	case int:
		return int64(x), nil
	case int64:
		return x, nil
	case uint64:
		if x <= math.MaxInt64 {
			return int64(x), nil
		}
	case float64:
		if x == math.Trunc(x) && math.Abs(x) < 1<<53 {
			return int64(x), nil
		}
	case json.Number:
		return toInt(x.String())
	case string:
		if n, err := strconv.ParseInt(x, 10, 64); err == nil {
			return n, nil
		}
	}
	return 0, fmt.Errorf("%v is not a whole number", v)
}

func toFloat(v any) (float64, error) {
	switch x := v.(type) {
	case float64:
		return x, nil
	case json.Number:
		return toFloat(x.String())
	case string:
		if n, err := strconv.ParseFloat(x, 64); err == nil && !math.IsNaN(n) && !math.IsInf(n, 0) {
			return n, nil
		}
		return 0, fmt.Errorf("%q is not a number", x)
	}
	n, err := toInt(v)
	if err != nil {
		return 0, fmt.Errorf("%v is not a number", v)
	}
	return float64(n), nil
}

func toDuration(v any) (time.Duration, error) {
	switch x := v.(type) {
	case time.Duration:
		return x, nil
	case string:
		if d, err := time.ParseDuration(x); err == nil {
			return d, nil
		}
	}
	return 0, fmt.Errorf("%v is not a duration such as 90s, 15m or 2h", v)
}

func toStrings(v any) ([]string, error) {
	switch x := v.(type) {
	case []string:
		return x, nil
	case string:
		return SplitList(x), nil
	case []any:
		list := make([]string, 0, len(x))
		for _, e := range x {
			s, err := toString(e)
			if err != nil {
				return nil, err
			}
			list = append(list, s)
		}
		return list, nil
	}
	return nil, fmt.Errorf("a %s is not a list of strings", kindOf(v))
}

// SplitList splits a list written as one string at its commas; `\,` is a comma of an element.
func SplitList(s string) []string {
	parts := strings.Split(s, ",")
	list := parts[:0]
	for i, element := range parts {
		if n := len(list); i > 0 && strings.HasSuffix(list[n-1], `\`) {
			list[n-1] = strings.TrimSuffix(list[n-1], `\`) + "," + element
			continue
		}
		list = append(list, element)
	}
	for i := range list {
		list[i] = strings.TrimSpace(list[i])
	}
	return list
}

func kindOf(v any) string {
	switch v.(type) {
	case map[string]any:
		return "mapping"
	case []any, []string:
		return "list"
	default:
		return fmt.Sprintf("%T", v)
	}
}
