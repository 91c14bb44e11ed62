package action

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
)

// Type is how a field is written.
type Type string

// The types of an input field.
const (
	TypeString   Type = "string"
	TypeBool     Type = "bool"
	TypeInt      Type = "int"
	TypeFloat    Type = "float"
	TypeDuration Type = "duration"
	TypeStrings  Type = "strings"
)

// Field is one input of an action.
type Field struct {
	Name     string   `json:"name"` // in `with:` and in JSON: "verify_before"
	Help     string   `json:"help,omitempty"`
	Type     Type     `json:"type"`
	Default  string   `json:"default,omitempty"`
	Required bool     `json:"required,omitempty"`
	Enum     []string `json:"enum,omitempty"`
	index    []int
}

// Flag is the name on the command line: "verify-before".
func (f Field) Flag() string { return strings.ReplaceAll(f.Name, "_", "-") }

// fieldsOf reads the tags of an input struct.
func fieldsOf(t reflect.Type) ([]Field, error) {
	if t.Kind() != reflect.Struct {
		return nil, fmt.Errorf("the input is a %s, not a struct", t)
	}
	var fields []Field
	var errs []error
	for _, sf := range reflect.VisibleFields(t) {
		if sf.Anonymous {
			if sf.Type.Kind() != reflect.Struct {
				errs = append(errs, fmt.Errorf("input field %s: only a struct can be embedded", sf.Name))
			}
			continue
		}
		if !sf.IsExported() || sf.Tag.Get("flag") == "-" {
			continue
		}
		f, err := fieldOf(sf)
		if err == nil && slices.ContainsFunc(fields, func(o Field) bool { return o.Name == f.Name }) {
			err = errors.New("the name is taken by another field")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("input field %s: %w", sf.Name, err))
			continue
		}
		fields = append(fields, f)
	}
	return fields, errors.Join(errs...)
}

func fieldOf(sf reflect.StructField) (Field, error) {
	f := Field{
		Name: canonical(sf.Tag.Get("flag")), Help: sf.Tag.Get("help"), Default: sf.Tag.Get("default"),
		Required: sf.Tag.Get("required") == "true", index: sf.Index,
	}
	if f.Name == "" {
		f.Name = canonical(snake(sf.Name))
	}
	if e := sf.Tag.Get("enum"); e != "" {
		f.Enum = strings.Split(e, ",")
	}
	typ, err := typeOf(sf.Type)
	if err != nil {
		return f, err
	}
	f.Type = typ
	if f.Required && f.Default != "" {
		return f, errors.New("it is required and has a default; choose one")
	}
	if f.Default != "" {
		if _, err := f.convert(f.Default); err != nil {
			return f, fmt.Errorf("the default: %w", err)
		}
	}
	return f, nil
}

func typeOf(t reflect.Type) (Type, error) {
	switch {
	case t == reflect.TypeFor[time.Duration]():
		return TypeDuration, nil
	case t.Kind() == reflect.String:
		return TypeString, nil
	case t.Kind() == reflect.Bool:
		return TypeBool, nil
	case t.Kind() == reflect.Int || t.Kind() == reflect.Int64:
		return TypeInt, nil
	case t.Kind() == reflect.Float64:
		return TypeFloat, nil
	case t.Kind() == reflect.Slice && t.Elem() == reflect.TypeFor[string]():
		return TypeStrings, nil
	default:
		return "", fmt.Errorf("a %s cannot be an input", t)
	}
}

// canonical lets people write verify-before or verify_before.
func canonical(name string) string { return strings.ReplaceAll(name, "-", "_") }

func snake(name string) string {
	var b strings.Builder
	runes := []rune(name)
	upper := func(i int) bool { return i >= 0 && i < len(runes) && runes[i] >= 'A' && runes[i] <= 'Z' }
	for i, r := range runes {
		startsWord := upper(i) && i > 0 && (!upper(i-1) || i+1 < len(runes) && !upper(i+1))
		if startsWord {
			b.WriteByte('_')
		}
		b.WriteString(strings.ToLower(string(r)))
	}
	return b.String()
}
