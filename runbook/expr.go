package runbook

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// UnknownValue is the type of Unknown.
type UnknownValue string

// Unknown is what a dry run cannot know. Operators carry it on: it is never true, never false.
const Unknown UnknownValue = "unknown"

// Scope is what an expression can see: inputs, steps, objective, run and, inside a step with `each`, each.
// A step that is not finished yet is Unknown in a dry run; one that was skipped is absent.
type Scope map[string]any

// Eval computes the value: a string, int64, float64, bool, list, mapping, nil (absent) or Unknown.
func (e *Expr) Eval(s Scope) (any, error) {
	if e.node == nil {
		parsed, err := parseExpr(e.Text)
		if err != nil {
			return nil, err
		}
		return parsed.eval(s)
	}
	return e.node.eval(s)
}

// Bool computes a condition; unknown says that it cannot be known. An absent value is false.
func (e *Expr) Bool(s Scope) (value, unknown bool, err error) {
	v, err := e.Eval(s)
	if err != nil {
		return false, false, fmt.Errorf("evaluate %s: %w", e.Text, err)
	}
	if v == Unknown {
		return false, true, nil
	}
	value, err = truth(v)
	if err != nil {
		return false, false, fmt.Errorf("evaluate %s: %w", e.Text, err)
	}
	return value, false, nil
}

// List computes the elements of an `each`.
func (e *Expr) List(s Scope) (list []any, unknown bool, err error) {
	v, err := e.Eval(s)
	if err != nil {
		return nil, false, fmt.Errorf("evaluate %s: %w", e.Text, err)
	}
	switch x := v.(type) {
	case UnknownValue:
		return nil, true, nil
	case nil:
		return nil, false, nil
	case []any:
		return x, false, nil
	case []string:
		for _, s := range x {
			list = append(list, s)
		}
		return list, false, nil
	default:
		return nil, false, fmt.Errorf("evaluate %s: %s is not a list", e.Text, describe(v))
	}
}

// UnmarshalJSON reads the text that MarshalJSON wrote.
func (e *Expr) UnmarshalJSON(raw []byte) error {
	var text string
	if err := json.Unmarshal(raw, &text); err != nil {
		return fmt.Errorf("read expression: %w", err)
	}
	parsed, err := ParseExpr(text)
	if err != nil {
		return err
	}
	*e = *parsed
	return nil
}

// node is a part of an expression.
type node interface {
	eval(Scope) (any, error)
	print(b *strings.Builder, parent int)
	refs(func(*refNode))
}

// Binding strengths, weakest first; a child that binds weaker than its place gets parentheses.
const (
	bindOr = iota + 1
	bindAnd
	bindNot
	bindCompare
	bindPrimary
)

type (
	literalNode struct{ value any } // string, int64, float64 or bool
	refNode     struct {
		path   []string
		offset int // in the text, for messages
	}
	notNode    struct{ of node }
	binaryNode struct {
		op          string // "and", "or", "==", "!=", "in"
		left, right node
	}
)

func (n *literalNode) eval(Scope) (any, error) { return n.value, nil }

func (n *refNode) eval(s Scope) (any, error) {
	v, ok := s[n.path[0]]
	if !ok {
		return nil, fmt.Errorf("%s is not known here", n.path[0])
	}
	for i, key := range n.path[1:] {
		switch x := v.(type) {
		case UnknownValue:
			return Unknown, nil
		case nil:
			return nil, nil
		case map[string]any:
			v = x[key]
		case map[string]string:
			v = x[key]
		default:
			return nil, fmt.Errorf("%s is %s, it has no field %q", strings.Join(n.path[:i+1], "."), describe(v), key)
		}
	}
	return normal(v), nil
}

func (n *notNode) eval(s Scope) (any, error) {
	v, err := condition(n.of, s)
	if err != nil || v == Unknown {
		return v, err
	}
	return v == false, nil
}

func (n *binaryNode) eval(s Scope) (any, error) {
	switch n.op {
	case "and":
		return n.logic(s, false)
	case "or":
		return n.logic(s, true)
	}
	left, err := n.left.eval(s)
	if err != nil {
		return nil, err
	}
	right, err := n.right.eval(s)
	if err != nil {
		return nil, err
	}
	if n.op == "in" {
		return contains(right, left)
	}
	same := equal(left, right)
	if same == Unknown || n.op == "==" {
		return same, nil
	}
	return same == false, nil
}

// logic is `and` (decides = false) and `or` (decides = true): one side that decides is enough, even when the
// other is unknown.
func (n *binaryNode) logic(s Scope, decides bool) (any, error) {
	left, err := condition(n.left, s)
	if err != nil || left == decides {
		return left, err
	}
	right, err := condition(n.right, s)
	if err != nil || right == decides {
		return right, err
	}
	if left == Unknown || right == Unknown {
		return Unknown, nil
	}
	return !decides, nil
}

// condition gives true, false or Unknown.
func condition(n node, s Scope) (any, error) {
	v, err := n.eval(s)
	if err != nil || v == Unknown {
		return v, err
	}
	return truth(v)
}

func truth(v any) (bool, error) {
	switch x := v.(type) {
	case nil:
		return false, nil
	case bool:
		return x, nil
	case string:
		// inputs and answers arrive as text
		if b, err := strconv.ParseBool(x); err == nil {
			return b, nil
		}
		if x == "" {
			return false, nil
		}
	}
	return false, fmt.Errorf("%s is neither true nor false", describe(v))
}

// normal makes numbers comparable: whole ones are int64.
func normal(v any) any {
	switch x := v.(type) {
	case int:
		return int64(x)
	case float64:
		if n := int64(x); float64(n) == x && n > -1<<53 && n < 1<<53 {
			return n
		}
	}
	return v
}

// equal compares. An absent value equals false, 0 and the empty string, because outputs omit these.
func equal(a, b any) any {
	if a == Unknown || b == Unknown {
		return Unknown
	}
	a, b = normal(a), normal(b)
	if a == nil || b == nil {
		return zero(a) && zero(b)
	}
	switch x := a.(type) {
	case string, bool, int64, float64:
		return x == b
	default:
		return false
	}
}

func zero(v any) bool {
	switch x := v.(type) {
	case nil:
		return true
	case []any:
		return len(x) == 0
	case map[string]any:
		return len(x) == 0
	default:
		return v == "" || v == false || v == int64(0) || v == float64(0)
	}
}

func contains(in, what any) (any, error) {
	switch list := in.(type) {
	case UnknownValue:
		return Unknown, nil
	case nil:
		return false, nil
	case map[string]any:
		if what == Unknown {
			return Unknown, nil
		}
		key, ok := what.(string)
		_, has := list[key]
		return ok && has, nil
	case []any:
		return containsAny(list, what), nil
	case []string:
		all := make([]any, len(list))
		for i, s := range list {
			all[i] = s
		}
		return containsAny(all, what), nil
	default:
		return nil, fmt.Errorf("right of `in` stands %s, not a list", describe(in))
	}
}

func containsAny(list []any, what any) any {
	var found any = false
	for _, e := range list {
		switch equal(e, what) {
		case true:
			return true
		case Unknown:
			found = Unknown
		}
	}
	return found
}

func describe(v any) string {
	switch x := v.(type) {
	case nil:
		return "an absent value"
	case string:
		return strconv.Quote(x)
	case []any, []string:
		return "a list"
	case map[string]any, map[string]string:
		return "a mapping"
	default:
		return fmt.Sprint(x)
	}
}
