package runbook

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func exprScope() Scope {
	return Scope{
		"inputs": map[string]any{"point": "latest", "n": int64(3), "half": 0.5, "yes": true, "no": false, "empty": "", "word": "false", "none": nil},
		"steps": map[string]any{
			"assess":        map[string]any{"damaged": true, "relations": []any{"a", "b", int64(7)}, "deep": map[string]any{"x": "y"}},
			"keep-evidence": map[string]any{"path": "/e"},
			"later":         Unknown,
			"half-known":    map[string]any{"list": []any{"a", Unknown}},
			"skipped":       nil,
		},
		"objective": map[string]any{"rto": "2h"},
		"each":      "element",
	}
}

func TestExprEval(t *testing.T) {
	t.Parallel()
	tests := []struct {
		text string
		want any
	}{
		{`inputs.point`, "latest"},
		{`inputs.point == "latest"`, true},
		{`inputs.point != 'latest'`, false},
		{`inputs.n == 3`, true},
		{`inputs.n == 3.0`, true},
		{`inputs.n == "3"`, false},
		{`inputs.half == 0.5`, true},
		{`-2`, int64(-2)},
		{`"a\"b\\c"`, `a"b\c`},
		{`not inputs.yes`, false},
		{`not not inputs.yes`, true},
		{`inputs.yes and not inputs.no`, true},
		{`inputs.no or inputs.yes and inputs.no`, false},
		{`(inputs.yes or inputs.no) and inputs.yes`, true},
		{`not inputs.no == true`, true}, // not binds weaker than ==
		{`inputs.word or inputs.empty`, false},
		{`steps.keep-evidence.path`, "/e"},
		{`steps.assess.deep.x`, "y"},
		{`steps.assess.deep.missing.more`, nil},
		{`"b" in steps.assess.relations`, true},
		{`7 in steps.assess.relations`, true},
		{`"c" in steps.assess.relations`, false},
		{`"x" in steps.assess.deep`, true},
		{`"x" in steps.skipped.list`, false},
		{`each == "element"`, true},
		// what is absent equals what outputs leave away
		{`steps.skipped.damaged == false`, true},
		{`steps.skipped.count == 0`, true},
		{`steps.skipped.path == ""`, true},
		{`steps.skipped.path == "x"`, false},
		{`not steps.skipped.damaged`, true},
		{`inputs.none == steps.skipped.x`, true},
		// unknown goes on
		{`steps.later.path`, Unknown},
		{`steps.later.path == "x"`, Unknown},
		{`steps.later.path != "x"`, Unknown},
		{`not steps.later.path`, Unknown},
		{`"a" in steps.later.list`, Unknown},
		{`"a" in steps.half-known.list`, true},
		{`"b" in steps.half-known.list`, Unknown},
		{`steps.later.x in steps.assess.relations`, Unknown},
		{`steps.later.x in steps.assess.deep`, Unknown},
	}
	for _, tt := range tests {
		e, err := ParseExpr(tt.text)
		if err != nil {
			t.Errorf("%s: %v", tt.text, err)
			continue
		}
		got, err := e.Eval(exprScope())
		if err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s = %#v, %v; want %#v", tt.text, got, err, tt.want)
		}
		// The text alone, as it comes back from JSON, means the same.
		if again, err := (&Expr{Text: e.Text}).Eval(exprScope()); err != nil || !reflect.DeepEqual(again, tt.want) {
			t.Errorf("%s printed as %s = %#v, %v; want %#v", tt.text, e.Text, again, err, tt.want)
		}
	}
}

// The tables of Kleene's logic.
func TestExprThreeValues(t *testing.T) {
	t.Parallel()
	values := []any{false, Unknown, true}
	rank := func(v any) int {
		for i, x := range values {
			if x == v {
				return i
			}
		}
		t.Fatalf("%v is no truth value", v)
		return 0
	}
	for _, a := range values {
		for _, b := range values {
			s := Scope{"inputs": map[string]any{"a": a, "b": b}}
			for text, want := range map[string]any{
				"inputs.a and inputs.b": values[min(rank(a), rank(b))],
				"inputs.a or inputs.b":  values[max(rank(a), rank(b))],
				"not inputs.a":          values[2-rank(a)],
			} {
				e, err := ParseExpr(text)
				if err != nil {
					t.Fatal(err)
				}
				if got, err := e.Eval(s); err != nil || got != want {
					t.Errorf("%s with %v, %v = %v, %v; want %v", text, a, b, got, err, want)
				}
			}
		}
	}
}

func TestExprBoolAndList(t *testing.T) {
	t.Parallel()
	parse := func(text string) *Expr {
		e, err := ParseExpr(text)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	if v, unknown, err := parse("steps.assess.damaged").Bool(exprScope()); !v || unknown || err != nil {
		t.Errorf("damaged: %v, %v, %v", v, unknown, err)
	}
	if v, unknown, err := parse("steps.later.damaged").Bool(exprScope()); v || !unknown || err != nil {
		t.Errorf("later: %v, %v, %v", v, unknown, err)
	}
	if _, _, err := parse("inputs.point").Bool(exprScope()); err == nil || !strings.Contains(err.Error(), "neither true nor false") {
		t.Errorf("text as a condition: %v", err)
	}
	if l, unknown, err := parse("steps.assess.relations").List(exprScope()); len(l) != 3 || unknown || err != nil {
		t.Errorf("list: %v, %v, %v", l, unknown, err)
	}
	if l, unknown, err := parse("steps.skipped.list").List(exprScope()); len(l) != 0 || unknown || err != nil {
		t.Errorf("absent list: %v, %v, %v", l, unknown, err)
	}
	if _, unknown, err := parse("steps.later.list").List(exprScope()); !unknown || err != nil {
		t.Errorf("unknown list: %v, %v", unknown, err)
	}
	if _, _, err := parse("inputs.point").List(exprScope()); err == nil {
		t.Error("text was taken for a list")
	}
}

func TestExprRunTimeFaults(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`inputs.point.x`:              `inputs.point is "latest", it has no field "x"`,
		`nothing.here`:                "nothing is not known here",
		`"a" in inputs.point`:         "not a list",
		`inputs.point and inputs.yes`: `"latest" is neither true nor false`,
		`not 5`:                       "5 is neither true nor false",
	} {
		e, err := ParseExpr(text)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := e.Eval(exprScope()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	// What decides alone hides what stands behind it.
	e, _ := ParseExpr(`inputs.no and inputs.point.x`)
	if v, err := e.Eval(exprScope()); v != false || err != nil {
		t.Errorf("short circuit: %v, %v", v, err)
	}
}

func TestExprParseFaults(t *testing.T) {
	t.Parallel()
	tests := []struct {
		text   string
		offset int
		want   string
	}{
		{``, 0, "empty"},
		{`  `, 0, "empty"},
		{`a == `, 5, "the end where a value was expected"},
		{`a == b == c`, 7, "do not chain"},
		{`a && b`, 2, "write and"},
		{`a || b`, 2, "write or"},
		{`!a`, 0, "write not"},
		{`a = b`, 2, "write =="},
		{`a + b`, 2, `"+" cannot stand`},
		{`(a`, 2, `")" was expected`},
		{`a)`, 1, "the end of the expression"},
		{`"open`, 0, "not closed"},
		{`a..b`, 0, "not a dotted lookup"},
		{`a.`, 0, "not a dotted lookup"},
		{`1x`, 0, "not a number"},
		{`0x10`, 0, "not a number"},
		{`a is b`, 2, "write =="},
		{`a b`, 2, `"b" where the end`},
		{`and`, 0, "a value was expected"},
		{`a in`, 4, "a value"},
		{`é`, 0, `"é" cannot stand`},
		{strings.Repeat("(", 500) + "a", 101, "nested too deeply"},
		{strings.Repeat("not ", 500) + "a", 404, "nested too deeply"},
	}
	for _, tt := range tests {
		_, err := ParseExpr(tt.text)
		e := faultOf(err)
		if e == nil || !strings.Contains(e.msg, tt.want) || e.offset != tt.offset {
			t.Errorf("%.20q: %#v; want %q at %d", tt.text, err, tt.want, tt.offset)
		}
	}
}

func TestExprCanonicalForm(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		`((a)) and(b)`:         `a and b`,
		`(a and b) or c`:       `a and b or c`,
		`a and (b or c)`:       `a and (b or c)`,
		`a or (b or c)`:        `a or (b or c)`,
		`not (a == 'x')`:       `not a == "x"`,
		`(not a) == b`:         `(not a) == b`,
		`(a == b) == (c != d)`: `(a == b) == (c != d)`,
		`not (a and b)`:        `not (a and b)`,
		`1.50`:                 `1.5`,
		`2.0`:                  `2`,
	} {
		e, err := ParseExpr(in)
		if err != nil || e.Text != want {
			t.Errorf("%s: %v, %v; want %s", in, e, err, want)
		}
	}
}

func genNode(depth int) *rapid.Generator[node] {
	return rapid.Custom(func(t *rapid.T) node {
		if depth == 0 || rapid.IntRange(0, 3).Draw(t, "leaf") == 0 {
			switch rapid.IntRange(0, 4).Draw(t, "kind") {
			case 0:
				return &literalNode{rapid.String().Draw(t, "string")}
			case 1:
				return &literalNode{rapid.Int64().Draw(t, "int")}
			case 2:
				return &literalNode{normal(rapid.Float64Range(-1e18, 1e18).Draw(t, "float"))}
			case 3:
				return &literalNode{rapid.Bool().Draw(t, "bool")}
			default:
				return &refNode{path: rapid.SliceOfN(rapid.StringMatching(`x[a-z0-9_-]{0,5}`), 1, 4).Draw(t, "path")}
			}
		}
		if rapid.Bool().Draw(t, "not") {
			return &notNode{genNode(depth-1).Draw(t, "of")}
		}
		op := rapid.SampledFrom([]string{"and", "or", "==", "!=", "in"}).Draw(t, "op")
		return &binaryNode{op, genNode(depth-1).Draw(t, "left"), genNode(depth-1).Draw(t, "right")}
	})
}

// Whatever is printed reads back as the same expression.
func TestExprPrintRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := genNode(4).Draw(t, "node")
		text := printExpr(n)
		back, err := parseExpr(text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		forget(back)
		if !reflect.DeepEqual(n, back) {
			t.Fatalf("%s was read as %s", text, printExpr(back))
		}
	})
}

func forget(n node) { n.refs(func(r *refNode) { r.offset = 0 }) }

func TestExprParseNeverPanics(t *testing.T) {
	t.Parallel()
	words := rapid.SampledFrom([]string{"a.b", "and", "or", "not", "in", "==", "!=", "(", ")", `"x"`, "'", "1", "-", ".", "{{", "}}", " ", "é"})
	rapid.Check(t, func(t *rapid.T) {
		text := strings.Join(rapid.SliceOf(words).Draw(t, "words"), rapid.SampledFrom([]string{"", " "}).Draw(t, "space"))
		e, err := ParseExpr(text)
		if err != nil {
			if at := faultOf(err).offset; at < 0 || at > len(text) {
				t.Fatalf("fault at %d of %q", at, text)
			}
			return
		}
		if again, err := ParseExpr(e.Text); err != nil || again.Text != e.Text {
			t.Fatalf("%q: canonical form %q is not stable: %v", text, e.Text, err)
		}
	})
}

func ExampleExpr_Eval() {
	e, _ := ParseExpr(`inputs.point == "latest" and steps.assess.damaged`)
	v, _ := e.Eval(Scope{"inputs": map[string]any{"point": "latest"}, "steps": Unknown})
	fmt.Println(e.Text, "=", v)
	// Output: inputs.point == "latest" and steps.assess.damaged = unknown
}
