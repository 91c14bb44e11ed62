package runbook

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// maxDepth bounds the nesting of an expression, so that no text can exhaust the stack.
const maxDepth = 100

// exprError is a fault at a byte offset of the expression's text.
type exprError struct {
	offset int
	msg    string
}

func (e *exprError) Error() string { return e.msg }

// faultOf finds the fault in what parsing an expression returned; nil where it is another error.
func faultOf(err error) *exprError {
	var e *exprError
	if errors.As(err, &e) {
		return e
	}
	return nil
}

// ParseExpr reads an expression. Its Text becomes the canonical form: one spacing, only the parentheses needed.
func ParseExpr(text string) (*Expr, error) {
	n, err := parseExpr(text)
	if err != nil {
		return nil, err
	}
	return &Expr{Text: printExpr(n), node: n}, nil
}

func parseExpr(text string) (node, error) {
	p := &exprParser{text: text}
	if err := p.next(); err != nil {
		return nil, err
	}
	if p.tok.kind == tokEnd {
		return nil, &exprError{0, "the expression is empty"}
	}
	n, err := p.or(0)
	if err != nil {
		return nil, err
	}
	if p.tok.kind != tokEnd {
		return nil, p.unexpected("the end of the expression")
	}
	return n, nil
}

type tokenKind int

const (
	tokEnd     tokenKind = iota
	tokWord              // dotted lookup or a keyword
	tokLiteral           // string or number
	tokSymbol            // == != ( )
)

type exprToken struct {
	kind   tokenKind
	text   string
	value  any
	offset int
}

type exprParser struct {
	text string
	at   int
	tok  exprToken
}

func (p *exprParser) fail(offset int, format string, args ...any) error {
	return &exprError{offset, fmt.Sprintf(format, args...)}
}

func (p *exprParser) unexpected(want string) error {
	got := strconv.Quote(p.tok.text)
	if p.tok.kind == tokEnd {
		got = "the end"
	}
	hint := ""
	if p.tok.kind == tokWord && strings.HasPrefix(strings.ToLower(p.tok.text), "is") {
		hint = "; write =="
	}
	return p.fail(p.tok.offset, "%s where %s was expected%s", got, want, hint)
}

// next reads one token.
func (p *exprParser) next() error {
	for p.at < len(p.text) && strings.IndexByte(" \t\r\n", p.text[p.at]) >= 0 {
		p.at++
	}
	start := p.at
	p.tok = exprToken{offset: start}
	if start == len(p.text) {
		return nil
	}
	c := p.text[start]
	switch {
	case c == '"' || c == '\'':
		return p.str(c)
	case isDigit(c) || c == '-' && start+1 < len(p.text) && isDigit(p.text[start+1]):
		return p.number()
	case isLetter(c):
		p.tok.kind, p.tok.text = tokWord, p.take(func(c byte) bool { return isLetter(c) || isDigit(c) || c == '-' || c == '.' })
		return nil
	case c == '(' || c == ')':
		p.at++
	case strings.HasPrefix(p.text[start:], "==") || strings.HasPrefix(p.text[start:], "!="):
		p.at += 2
	default:
		return p.symbolFault(start)
	}
	p.tok.kind, p.tok.text = tokSymbol, p.text[start:p.at]
	return nil
}

func (p *exprParser) symbolFault(start int) error {
	for sign, instead := range map[string]string{"&&": "and", "||": "or", "!": "not", "=": "=="} {
		if strings.HasPrefix(p.text[start:], sign) {
			return p.fail(start, "%q is not an operator; write %s", sign, instead)
		}
	}
	r := []rune(p.text[start:])[0]
	return p.fail(start, "%q cannot stand in an expression; there are ==, !=, and, or, not, in and parentheses", string(r))
}

func (p *exprParser) take(in func(byte) bool) string {
	start := p.at
	for p.at < len(p.text) && in(p.text[p.at]) {
		p.at++
	}
	return p.text[start:p.at]
}

// str reads a quoted string; a backslash takes the next character as it is.
func (p *exprParser) str(quote byte) error {
	start := p.at
	var b strings.Builder
	for p.at++; p.at < len(p.text); p.at++ {
		c := p.text[p.at]
		switch {
		case c == quote:
			p.at++
			p.tok = exprToken{kind: tokLiteral, text: p.text[start:p.at], value: b.String(), offset: start}
			return nil
		case c == '\\' && p.at+1 < len(p.text):
			p.at++
			b.WriteByte(p.text[p.at])
		default:
			b.WriteByte(c)
		}
	}
	return p.fail(start, "the string is not closed")
}

func (p *exprParser) number() error {
	start := p.at
	p.at++ // a sign or the first digit
	text := p.text[start:p.at] + p.take(func(c byte) bool { return isDigit(c) || isLetter(c) || c == '.' || c == '-' })
	p.tok = exprToken{kind: tokLiteral, text: text, offset: start}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		p.tok.value = n
		return nil
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || strings.ContainsAny(text, "xXpP_iInN") {
		return p.fail(start, "%q is not a number; quote it if it is text", text)
	}
	p.tok.value = normal(f)
	return nil
}

func (p *exprParser) word(w string) bool { return p.tok.kind == tokWord && p.tok.text == w }

func (p *exprParser) or(depth int) (node, error) {
	return p.chain(depth, "or", p.and)
}

func (p *exprParser) and(depth int) (node, error) {
	return p.chain(depth, "and", p.not)
}

func (p *exprParser) chain(depth int, op string, operand func(int) (node, error)) (node, error) {
	left, err := operand(depth)
	for err == nil && p.word(op) {
		if err = p.next(); err != nil {
			break
		}
		var right node
		right, err = operand(depth)
		left = &binaryNode{op, left, right}
	}
	return left, err
}

func (p *exprParser) not(depth int) (node, error) {
	if !p.word("not") {
		return p.compare(depth)
	}
	if depth > maxDepth {
		return nil, p.fail(p.tok.offset, "the expression is nested too deeply")
	}
	if err := p.next(); err != nil {
		return nil, err
	}
	of, err := p.not(depth + 1)
	return &notNode{of}, err
}

func (p *exprParser) compare(depth int) (node, error) {
	left, err := p.primary(depth)
	if err != nil || !p.comparison() {
		return left, err
	}
	op := p.tok.text
	if err := p.next(); err != nil {
		return nil, err
	}
	right, err := p.primary(depth)
	if err == nil && p.comparison() {
		return nil, p.fail(p.tok.offset, "comparisons do not chain; join them with and")
	}
	return &binaryNode{op, left, right}, err
}

func (p *exprParser) comparison() bool {
	return p.word("in") || p.tok.kind == tokSymbol && (p.tok.text == "==" || p.tok.text == "!=")
}

func (p *exprParser) primary(depth int) (node, error) {
	t := p.tok
	switch {
	case depth > maxDepth:
		return nil, p.fail(t.offset, "the expression is nested too deeply")
	case t.kind == tokLiteral:
		return &literalNode{t.value}, p.next()
	case t.kind == tokSymbol && t.text == "(":
		return p.group(depth)
	case t.kind == tokWord:
		return p.lookup(t)
	default:
		return nil, p.unexpected("a value")
	}
}

func (p *exprParser) group(depth int) (node, error) {
	if err := p.next(); err != nil {
		return nil, err
	}
	n, err := p.or(depth + 1)
	if err != nil {
		return nil, err
	}
	if p.tok.kind != tokSymbol || p.tok.text != ")" {
		return nil, p.unexpected(`")"`)
	}
	return n, p.next()
}

func (p *exprParser) lookup(t exprToken) (node, error) {
	switch t.text {
	case "true", "false":
		return &literalNode{t.text == "true"}, p.next()
	case "and", "or", "not", "in":
		return nil, p.unexpected("a value")
	}
	path := strings.Split(t.text, ".")
	for _, part := range path {
		if part == "" {
			return nil, p.fail(t.offset, "%q is not a dotted lookup", t.text)
		}
	}
	return &refNode{path, t.offset}, p.next()
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func isLetter(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' }
