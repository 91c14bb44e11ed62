package runbook

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestValueEval(t *testing.T) {
	t.Parallel()
	tests := []struct {
		in   any
		want any
	}{
		{"plain", "plain"},
		{int64(3), int64(3)},
		{true, true},
		{nil, nil},
		{"{{ inputs.n }}", int64(3)}, // one expression keeps its type
		{"{{inputs.yes}}", true},
		{" {{ inputs.n }}", " 3"},
		{"{{ inputs.n }}{{ inputs.n }}", "33"},
		{"at {{ inputs.point }} on {{ each }}", "at latest on element"},
		{"{{ steps.later.path }}", Unknown},
		{"x {{ steps.later.path }}", Unknown},
		{"x{{ steps.skipped.path }}y", "xy"},
		{`{{ "}}" }}`, "}}"},
		{`{{ "{{.Names}}" }}`, "{{.Names}}"},
		{"{{ steps.assess.relations }}", []any{"a", "b", int64(7)}},
		{"r={{ steps.assess.relations }}", `r=["a","b",7]`},
	}
	for _, tt := range tests {
		v, err := NewValue(tt.in)
		if err != nil {
			t.Errorf("%v: %v", tt.in, err)
			continue
		}
		raw, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		var back Value
		if err := json.Unmarshal(raw, &back); err != nil {
			t.Fatal(err)
		}
		for _, v := range []Value{v, back} {
			got, err := v.Eval(exprScope())
			if err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Errorf("%v = %#v, %v; want %#v", tt.in, got, err, tt.want)
			}
		}
	}
}

func TestNewValueFaults(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{"x {{ a": "not closed", "{{ }}": "empty", "{{ a b }}": `"b" where`} {
		if _, err := NewValue(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", in, err, want)
		}
	}
}

func TestEvalAll(t *testing.T) {
	t.Parallel()
	with := map[string]Value{"a": {Literal: int64(1)}, "b": {Template: "{{ steps.later.x }}"}}
	values, known, err := EvalAll(with, exprScope())
	if err != nil || known || values["b"] != Unknown || values["a"] != int64(1) {
		t.Errorf("got %v, %v, %v", values, known, err)
	}
	if _, _, err := EvalAll(map[string]Value{"c": {Template: "{{ gone.x }}"}}, exprScope()); err == nil || !strings.HasPrefix(err.Error(), "c: ") {
		t.Errorf("the fault does not name its value: %v", err)
	}
}

func TestExpandProseKeepsWhatIsNotOurs(t *testing.T) {
	t.Parallel()
	in := "within {{ objective.rto }}: `docker ps --format '{{.Names}}'`, {{ gone.x }}, {{ steps.later.x }}, {{ open"
	want := "within 2h: `docker ps --format '{{.Names}}'`, {{ gone.x }}, unknown, {{ open"
	if got := ExpandProse(in, exprScope()); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if _, err := ExpandText(in, exprScope()); err == nil {
		t.Error("a text with a fault was expanded")
	}
}

// The canonical form of a template means the same, and is its own canonical form.
func TestTemplateCanonicalForm(t *testing.T) {
	t.Parallel()
	parts := rapid.SampledFrom([]string{"text ", "{{ inputs.n }}", "{{inputs.point=='x'}}", `{{ "}}" }}`, "}}", "{", "{{ steps.later.x }}", "é"})
	rapid.Check(t, func(t *rapid.T) {
		in := strings.Join(rapid.SliceOfN(parts, 1, 6).Draw(t, "parts"), "")
		v, err := NewValue(in)
		if err != nil || v.Template == "" {
			return // "{" before "{{" may make another template of it
		}
		again, err := NewValue(v.Template)
		if err != nil || again != v {
			t.Fatalf("%q: %q became %q: %v", in, v.Template, again.Template, err)
		}
	})
}
