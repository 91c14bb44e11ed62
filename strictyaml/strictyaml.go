// Package strictyaml decodes YAML that people write: an unknown key, a wrong type or a doubled key is an error with its line, column
// and, for a key, the nearest known one. It promises never to guess: what decodes without error is exactly what was written.
package strictyaml

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"strings"

	"github.com/goccy/go-yaml"

	"github.com/toolboxai/relight"
)

// Problem is one error in a document.
type Problem struct {
	File    string
	Line    int // from 1
	Column  int // from 1
	Message string
	Nearest string // the known key nearest to an unknown one, or ""
}

// Error is "file:line:column: message (did you mean …?)".
func (p *Problem) Error() string {
	s := fmt.Sprintf("%s:%d:%d: %s", p.File, p.Line, p.Column, p.Message)
	if p.Nearest != "" {
		s += fmt.Sprintf(" (did you mean %q?)", p.Nearest)
	}
	return s
}

// Decode reads one YAML document of file into the struct that into points to. firstLine is the line of file at which src begins.
func Decode(file string, firstLine int, src []byte, into any) error {
	dec := yaml.NewDecoder(bytes.NewReader(src), yaml.Strict(), yaml.DisallowUnknownField())
	err := dec.Decode(into)
	if err == nil || errors.Is(err, io.EOF) {
		return nil
	}
	p := &Problem{File: file, Line: firstLine, Column: 1, Message: err.Error()}
	var y yaml.Error
	if !errors.As(err, &y) {
		return p
	}
	p.Message = y.GetMessage()
	if t := y.GetToken(); t != nil && t.Position != nil {
		p.Line, p.Column = firstLine+t.Position.Line-1, t.Position.Column
	}
	var wrong *yaml.TypeError
	if errors.As(err, &wrong) {
		p.Message = fmt.Sprintf("%s stands where %s is expected", kindText(wrong.SrcType), kindText(wrong.DstType))
	}
	var unknown *yaml.UnknownFieldError
	if errors.As(err, &unknown) {
		key := unknownKey(p.Message)
		p.Message = fmt.Sprintf("unknown key %q", key)
		p.Nearest = relight.Nearest(key, keysOf(reflect.TypeOf(into), map[reflect.Type]bool{}))
	}
	return p
}

// kindText names a type in the words of the document, not of the program.
func kindText(t reflect.Type) string {
	if t == nil {
		return "nothing"
	}
	switch t.Kind() {
	case reflect.String:
		return "text"
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int64, reflect.Uint64:
		return "a whole number"
	case reflect.Float64:
		return "a number"
	case reflect.Slice:
		return "a list"
	case reflect.Map, reflect.Struct:
		return "a mapping"
	default:
		return "a " + t.Kind().String()
	}
}

func unknownKey(message string) string {
	if m := regexp.MustCompile(`"([^"]+)"`).FindStringSubmatch(message); m != nil {
		return m[1]
	}
	return message
}

// keysOf gathers every key that a document of type t may hold, at any depth.
func keysOf(t reflect.Type, seen map[reflect.Type]bool) []string {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Map {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || seen[t] {
		return nil
	}
	seen[t] = true
	var keys []string
	for i := range t.NumField() {
		f := t.Field(i)
		if name, _, _ := strings.Cut(f.Tag.Get("yaml"), ","); name != "" && name != "-" {
			keys = append(keys, name)
		}
		keys = append(keys, keysOf(f.Type, seen)...)
	}
	return keys
}
