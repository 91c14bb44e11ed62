package action

import (
	"bytes"
	"encoding"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"time"
)

// OutField is one field of an action's output, by its JSON name.
type OutField struct {
	Name   string     `json:"name"`
	Type   string     `json:"type"` // a JSON type, or "any"
	Fields []OutField `json:"fields,omitempty"`
	Open   bool       `json:"open,omitempty"` // holds keys that are known only at run time
}

// Output is what later steps look up: out as JSON would carry it, with whole numbers as int64.
// nil gives an empty map.
func Output(out any) (map[string]any, error) {
	if out == nil {
		return map[string]any{}, nil
	}
	raw, err := json.Marshal(out)
	if err != nil {
		return nil, fmt.Errorf("write the output: %w", err)
	}
	return ReadOutput(raw)
}

// ReadOutput is Output for JSON that was journaled.
func ReadOutput(raw []byte) (map[string]any, error) {
	var m map[string]any
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if err := d.Decode(&m); err != nil {
		return nil, fmt.Errorf("read the output: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, fmt.Errorf("read the output: something follows it")
	}
	if m == nil {
		m = map[string]any{}
	}
	if _, err := Plain(m); err != nil {
		return nil, fmt.Errorf("read the output: %w", err)
	}
	return m, nil
}

// Plain replaces, within what a decoder with UseNumber gave, each number by an int64 or a float64.
func Plain(v any) (any, error) {
	switch x := v.(type) {
	case json.Number:
		if n, err := x.Int64(); err == nil {
			return n, nil
		}
		return x.Float64()
	case map[string]any:
		for k, e := range x {
			p, err := Plain(e)
			if err != nil {
				return nil, err
			}
			x[k] = p
		}
	case []any:
		for i, e := range x {
			p, err := Plain(e)
			if err != nil {
				return nil, err
			}
			x[i] = p
		}
	}
	return v, nil
}

// as gives out its type back: it may be typed already, a map, or JSON.
func as[Out any](out any) (Out, error) {
	var o Out
	if typed, ok := out.(Out); ok {
		return typed, nil
	}
	raw, ok := out.(json.RawMessage)
	if !ok {
		var err error
		if raw, err = json.Marshal(out); err != nil {
			return o, err
		}
	}
	return o, json.Unmarshal(raw, &o)
}

// outFields lists what encoding/json would write of t. open: keys that cannot be known from the type.
func outFields(t reflect.Type, seen []reflect.Type) (fields []OutField, open bool) {
	for i := range t.NumField() {
		sf := t.Field(i)
		name, _, _ := strings.Cut(sf.Tag.Get("json"), ",")
		if name == "-" {
			continue
		}
		if sf.Anonymous && name == "" {
			inner := sf.Type
			if inner.Kind() == reflect.Pointer {
				inner = inner.Elem()
			}
			if inner.Kind() == reflect.Struct {
				more, o := outFields(inner, append(seen, t))
				fields, open = append(fields, more...), open || o
				continue
			}
		}
		if !sf.IsExported() {
			continue
		}
		if name == "" {
			name = sf.Name
		}
		fields = append(fields, outField(name, sf.Type, append(seen, t)))
	}
	return fields, open
}

func outField(name string, t reflect.Type, seen []reflect.Type) OutField {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	f := OutField{Name: name, Type: jsonType(t)}
	switch {
	case f.Type == "any":
		f.Open = true
	case f.Type == "object" && t.Kind() == reflect.Struct && !slices.Contains(seen, t):
		f.Fields, f.Open = outFields(t, seen)
	case f.Type == "object":
		f.Open = true
	}
	return f
}

func jsonType(t reflect.Type) string {
	marshals := func(i reflect.Type) bool { return t.Implements(i) || reflect.PointerTo(t).Implements(i) }
	switch {
	case t == reflect.TypeFor[time.Time]():
		return "string"
	case marshals(reflect.TypeFor[json.Marshaler]()):
		return "any"
	case marshals(reflect.TypeFor[encoding.TextMarshaler]()):
		return "string"
	}
	switch t.Kind() {
	case reflect.Bool:
		return "boolean"
	case reflect.String:
		return "string"
	case reflect.Float32, reflect.Float64:
		return "number"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "integer"
	case reflect.Slice, reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 && t.Kind() == reflect.Slice {
			return "string"
		}
		return "array"
	case reflect.Map, reflect.Struct:
		return "object"
	default:
		return "any"
	}
}
