package runbook

import (
	"strconv"
	"strings"
)

func printExpr(n node) string {
	var b strings.Builder
	n.print(&b, bindOr)
	return b.String()
}

func (n *literalNode) print(b *strings.Builder, _ int) {
	switch v := n.value.(type) {
	case string:
		b.WriteByte('"')
		b.WriteString(strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(v))
		b.WriteByte('"')
	case int64:
		b.WriteString(strconv.FormatInt(v, 10))
	case float64:
		text := strconv.FormatFloat(v, 'f', -1, 64)
		b.WriteString(text)
		if !strings.Contains(text, ".") {
			b.WriteString(".0") // without a point it would be read as a whole number
		}
	case bool:
		b.WriteString(strconv.FormatBool(v))
	}
}

func (n *refNode) print(b *strings.Builder, _ int) { b.WriteString(strings.Join(n.path, ".")) }

func (n *notNode) print(b *strings.Builder, parent int) {
	enclose(b, parent > bindNot, func() {
		b.WriteString("not ")
		n.of.print(b, bindNot)
	})
}

func (n *binaryNode) print(b *strings.Builder, parent int) {
	own, left, right := bindCompare, bindPrimary, bindPrimary
	switch n.op {
	case "or":
		own, left, right = bindOr, bindOr, bindAnd
	case "and":
		own, left, right = bindAnd, bindAnd, bindNot
	}
	enclose(b, parent > own, func() {
		n.left.print(b, left)
		b.WriteString(" " + n.op + " ")
		n.right.print(b, right)
	})
}

func enclose(b *strings.Builder, need bool, inner func()) {
	if need {
		b.WriteByte('(')
	}
	inner()
	if need {
		b.WriteByte(')')
	}
}

func (n *literalNode) refs(func(*refNode))   {}
func (n *refNode) refs(fn func(*refNode))    { fn(n) }
func (n *notNode) refs(fn func(*refNode))    { n.of.refs(fn) }
func (n *binaryNode) refs(fn func(*refNode)) { n.left.refs(fn); n.right.refs(fn) }
