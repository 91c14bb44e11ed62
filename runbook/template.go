package runbook

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/toolboxai/relight/action"
)

// piece of a template: text, or an expression.
type piece struct {
	text   string
	expr   node
	offset int // of the expression's text within the template
}

// splitTemplate cuts text at {{ … }}.
func splitTemplate(text string) ([]piece, error) {
	var pieces []piece
	at := 0
	for {
		open := strings.Index(text[at:], "{{")
		if open < 0 {
			return append(pieces, piece{text: text[at:]}), nil
		}
		open += at
		length := closing(text[open+2:])
		if length < 0 {
			return nil, &exprError{open, "{{ is not closed by }}"}
		}
		inner := text[open+2 : open+2+length]
		n, err := parseExpr(inner)
		if err != nil {
			e := faultOf(err)
			return nil, &exprError{open + 2 + e.offset, e.msg}
		}
		pieces = append(pieces, piece{text: text[at:open]}, piece{expr: n, offset: open + 2})
		at = open + 2 + length + 2
	}
}

// maxExpr bounds an expression in a template, so that no text takes more than linear time.
const maxExpr = 1000

// closing finds }} outside of quotes; -1 when there is none, or none near.
func closing(s string) int {
	var quote byte
	for i := 0; i < min(len(s), maxExpr); i++ {
		switch {
		case quote != 0 && s[i] == '\\':
			i++
		case quote != 0:
			if s[i] == quote {
				quote = 0
			}
		case s[i] == '"' || s[i] == '\'':
			quote = s[i]
		case strings.HasPrefix(s[i:], "}}"):
			return i
		}
	}
	return -1
}

// NewValue makes a value of what stands in a file: a string with {{ }} is a template, all else a literal.
func NewValue(v any) (Value, error) {
	text, ok := v.(string)
	if !ok || !strings.Contains(text, "{{") {
		return Value{Literal: normal(v)}, nil
	}
	pieces, err := splitTemplate(text)
	if err != nil {
		return Value{}, err
	}
	return Value{Template: joinTemplate(pieces)}, nil
}

func joinTemplate(pieces []piece) string {
	var b strings.Builder
	for _, p := range pieces {
		if p.expr == nil {
			b.WriteString(p.text)
			continue
		}
		b.WriteString("{{ " + printExpr(p.expr) + " }}")
	}
	return b.String()
}

// Eval computes the value. A template that is exactly one expression keeps the expression's type; any other gives
// a string, or Unknown when one part is unknown.
func (v Value) Eval(s Scope) (any, error) {
	if v.Template == "" {
		return v.Literal, nil
	}
	return expand(v.Template, s)
}

// EvalAll computes a whole `with:`. known is false when at least one value is Unknown.
func EvalAll(with map[string]Value, s Scope) (values map[string]any, known bool, err error) {
	values, known = make(map[string]any, len(with)), true
	for name, v := range with {
		x, err := v.Eval(s)
		if err != nil {
			return nil, false, fmt.Errorf("%s: %w", name, err)
		}
		values[name] = x
		known = known && x != Unknown
	}
	return values, known, nil
}

// ExpandText fills the templates of a text for people: what is unknown reads "unknown", what is absent "".
func ExpandText(text string, s Scope) (string, error) {
	pieces, err := splitTemplate(text)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, p := range pieces {
		if p.expr == nil {
			b.WriteString(p.text)
			continue
		}
		v, err := p.expr.eval(s)
		if err != nil {
			return "", err
		}
		b.WriteString(asText(v))
	}
	return b.String(), nil
}

// ExpandProse is ExpandText for prose, where a {{ }} that is no expression of ours is left as it stands.
func ExpandProse(text string, s Scope) string {
	var b strings.Builder
	for _, p := range splitProse(text) {
		if p.expr == nil {
			b.WriteString(p.text)
			continue
		}
		v, err := p.expr.eval(s)
		if err != nil {
			b.WriteString(p.text)
			continue
		}
		b.WriteString(asText(v))
	}
	return b.String()
}

// splitProse is splitTemplate where a {{ that begins no expression is text. A piece with an expression has its source
// as text too.
func splitProse(text string) []piece {
	var pieces []piece
	from, at := 0, 0
	for {
		open := strings.Index(text[at:], "{{")
		if open < 0 {
			return append(pieces, piece{text: text[from:]})
		}
		open += at
		at = open + 2
		length := closing(text[at:])
		if length < 0 {
			continue
		}
		n, err := parseExpr(text[at : at+length])
		if err != nil {
			continue
		}
		end := at + length + 2
		pieces = append(pieces, piece{text: text[from:open]}, piece{text: text[open:end], expr: n, offset: open + 2})
		from, at = end, end
	}
}

func expand(text string, s Scope) (any, error) {
	pieces, err := splitTemplate(text)
	if err != nil {
		return nil, err
	}
	if one := onlyExpr(pieces); one != nil {
		return one.eval(s)
	}
	var b strings.Builder
	for _, p := range pieces {
		if p.expr == nil {
			b.WriteString(p.text)
			continue
		}
		v, err := p.expr.eval(s)
		if err != nil || v == Unknown {
			return v, err
		}
		b.WriteString(asText(v))
	}
	return b.String(), nil
}

func onlyExpr(pieces []piece) node {
	var only node
	for _, p := range pieces {
		switch {
		case p.text != "", p.expr != nil && only != nil:
			return nil
		case p.expr != nil:
			only = p.expr
		}
	}
	return only
}

func asText(v any) string {
	switch x := v.(type) {
	case nil:
		return ""
	case string:
		return x
	case []any, []string, map[string]any, map[string]string:
		raw, err := json.Marshal(x)
		if err != nil {
			return fmt.Sprint(x)
		}
		return string(raw)
	default:
		return fmt.Sprint(x)
	}
}

// UnmarshalJSON keeps whole numbers whole.
func (v *Value) UnmarshalJSON(raw []byte) error {
	var plain struct {
		Literal  any    `json:"literal"`
		Template string `json:"template"`
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	d.UseNumber()
	if err := d.Decode(&plain); err != nil {
		return fmt.Errorf("read value: %w", err)
	}
	literal, err := action.Plain(plain.Literal)
	if err != nil {
		return fmt.Errorf("read value: %w", err)
	}
	*v = Value{Literal: literal, Template: plain.Template}
	return nil
}
