package runbook

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// object checks that n is a mapping of known keys.
func (f *faults) object(n *yamlNode, what string, known ...string) bool {
	if n.kind != yamlMap {
		f.add(n.at, "%s is not a mapping; it has %s", what, strings.Join(known, ", "))
		return false
	}
	for _, k := range n.keys {
		if !slices.Contains(known, k.name) {
			f.unknown(k.at, "key", k.name, known)
		}
	}
	return true
}

// text reads a scalar as text; a missing node gives "".
func (f *faults) text(n *yamlNode, what string) string {
	if n == nil || n.kind == yamlScalar && n.value == nil {
		return ""
	}
	if n.kind != yamlScalar {
		f.add(n.at, "%s is not text", what)
		return ""
	}
	return asText(n.value)
}

// texts reads a list of texts, or a single one.
func (f *faults) texts(n *yamlNode, what string) (list []string, at []pos) {
	switch {
	case n == nil || n.kind == yamlScalar && n.value == nil:
		return nil, nil
	case n.kind == yamlScalar:
		return []string{asText(n.value)}, []pos{n.at}
	case n.kind == yamlMap:
		f.add(n.at, "%s is not a list", what)
		return nil, nil
	}
	for _, item := range n.items {
		if item.kind != yamlScalar || item.value == nil {
			f.add(item.at, "%s holds something that is not text", what)
			continue
		}
		list, at = append(list, asText(item.value)), append(at, item.at)
	}
	return list, at
}

func (f *faults) boolean(n *yamlNode, what string) bool {
	if n == nil {
		return false
	}
	b, ok := n.value.(bool)
	if !ok {
		f.add(n.at, "%s is neither true nor false", what)
	}
	return b
}

func (f *faults) duration(n *yamlNode, what string) time.Duration {
	if n == nil {
		return 0
	}
	if n.kind != yamlScalar {
		f.add(n.at, "%s is not a duration such as 90s, 15m or 2h", what)
		return 0
	}
	d, err := parseDuration(asText(n.value))
	if err != nil {
		f.add(n.at, "%s: %s", what, err)
	}
	return d
}

// positive reads a duration that must leave some time.
func (f *faults) positive(n *yamlNode, what string) time.Duration {
	before := len(f.list)
	d := f.duration(n, what)
	if n != nil && d == 0 && len(f.list) == before {
		f.add(n.at, "%s leaves no time", what)
	}
	return d
}

func parseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is not a duration such as 90s, 15m or 2h", s)
	}
	return d, nil
}

func (f *faults) oneOf(n *yamlNode, what string, known []string) string {
	s := f.text(n, what)
	if s != "" && !slices.Contains(known, s) {
		f.unknown(n.at, what, s, known)
		return ""
	}
	return s
}

func (f *faults) date(n *yamlNode, what string) string {
	s := f.text(n, what)
	if s == "" {
		return ""
	}
	if _, err := time.Parse(time.DateOnly, s); err != nil {
		f.add(n.at, "%s: %q is not a date such as 2025-10-02", what, s)
	}
	return s
}

var idForm = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]*$`)

// plainValue is the literal that a node stands for.
func (f *faults) plainValue(n *yamlNode, what string) any {
	switch n.kind {
	case yamlScalar:
		return n.value
	case yamlList:
		list := make([]any, 0, len(n.items))
		for _, item := range n.items {
			f.noTemplate(item, what)
			list = append(list, f.plainValue(item, what))
		}
		return list
	default:
		m := map[string]any{}
		for _, k := range n.keys {
			f.noTemplate(k.value, what)
			m[k.name] = f.plainValue(k.value, what)
		}
		return m
	}
}

func (f *faults) noTemplate(n *yamlNode, what string) {
	if s, ok := n.value.(string); ok && strings.Contains(s, "{{") {
		f.add(n.at, "a template cannot stand inside a list or mapping; give all of %s as one expression", what)
	}
}

// within is the place of a byte of a scalar's text.
func (n *yamlNode) within(offset int) pos {
	text, _ := n.value.(string)
	if offset > len(text) {
		offset = len(text)
	}
	line := strings.Count(text[:offset], "\n")
	switch {
	case n.block && n.indent >= 0:
		return pos{n.at.line + 1 + line, n.indent + 1 + offset - (strings.LastIndex(text[:offset], "\n") + 1)}
	case line > 0, n.block:
		return n.at
	case n.quoted:
		return pos{n.at.line, n.at.column + 1 + offset}
	default:
		return pos{n.at.line, n.at.column + offset}
	}
}
