package runbook

import (
	"errors"
	"fmt"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

type yamlKind int

const (
	yamlScalar yamlKind = iota
	yamlList
	yamlMap
)

// yamlNode is a value with its place in the file. Anchors, aliases and tags have no place in a runbook.
type yamlNode struct {
	at     pos
	kind   yamlKind
	value  any // of a scalar: string, int64, float64, bool or nil
	block  bool
	indent int // of a block scalar's text; -1 when its lines are folded
	quoted bool
	keys   []yamlKey
	items  []*yamlNode
}

type yamlKey struct {
	name  string
	at    pos
	value *yamlNode
}

// key finds the value of a key; nil when it is absent.
func (n *yamlNode) key(name string) *yamlNode {
	for _, k := range n.keys {
		if k.name == name {
			return k.value
		}
	}
	return nil
}

// yamlReader turns YAML that starts at a line of the file into nodes.
type yamlReader struct {
	*faults
	before int // lines of the file before the YAML
}

// readYAML gives nil, after reporting why, for what is no YAML mapping.
func (f *faults) readYAML(text string, before int, what string) *yamlNode {
	r := &yamlReader{f, before}
	file, err := parseYAML(text)
	if err != nil {
		r.syntax(err, what)
		return nil
	}
	switch {
	case len(file.Docs) > 1:
		f.add(r.at(file.Docs[1].Body), "%s holds more than one YAML document", what)
		return nil
	case len(file.Docs) == 0 || file.Docs[0].Body == nil:
		return &yamlNode{at: pos{before + 1, 1}, kind: yamlMap}
	}
	n := r.node(file.Docs[0].Body, 0)
	if n == nil {
		return nil
	}
	if n.kind == yamlScalar && n.value == nil {
		n.kind = yamlMap
	}
	if n.kind != yamlMap {
		f.add(n.at, "%s is not a mapping of keys to values", what)
		return nil
	}
	return n
}

// parseYAML guards against a parser that panics on hostile text.
func parseYAML(text string) (file *ast.File, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the YAML cannot be read (%v)", r)
		}
	}()
	return parser.ParseBytes([]byte(text), 0, parser.AllowDuplicateMapKey())
}

func (r *yamlReader) syntax(err error, what string) {
	at, msg := pos{r.before + 1, 1}, err.Error()
	var y yaml.Error
	if errors.As(err, &y) {
		msg = y.GetMessage()
		if t := y.GetToken(); t != nil && t.Position != nil {
			at = pos{r.before + t.Position.Line, t.Position.Column}
		}
	}
	r.add(at, "%s is not valid YAML: %s", what, strings.TrimSpace(msg))
}

func (r *yamlReader) at(n ast.Node) pos {
	if n == nil || n.GetToken() == nil || n.GetToken().Position == nil {
		return pos{r.before + 1, 1}
	}
	p := n.GetToken().Position
	return pos{r.before + p.Line, p.Column}
}

func (r *yamlReader) node(n ast.Node, depth int) *yamlNode {
	if depth > maxDepth {
		r.add(r.at(n), "this is nested too deeply")
		return nil
	}
	out := &yamlNode{at: r.at(n)}
	switch x := n.(type) {
	case *ast.MappingNode:
		return r.mapping(out, x.Values, depth)
	case *ast.MappingValueNode:
		return r.mapping(out, []*ast.MappingValueNode{x}, depth)
	case *ast.SequenceNode:
		out.kind = yamlList
		for _, v := range x.Values {
			if item := r.node(v, depth+1); item != nil {
				out.items = append(out.items, item)
			}
		}
		return out
	case *ast.AnchorNode, *ast.AliasNode, *ast.TagNode:
		r.add(out.at, "a runbook has no use for a YAML %s", strings.ToLower(n.Type().String()))
		return nil
	case *ast.LiteralNode:
		out.block, out.value, out.indent = true, x.Value.Value, indentOf(x)
	case *ast.StringNode:
		out.value = x.Value
		out.quoted = x.Token.Type == token.DoubleQuoteType || x.Token.Type == token.SingleQuoteType
	case ast.ScalarNode:
		out.value = yamlNumber(x.GetValue())
	case nil:
		return out
	default:
		r.add(out.at, "a runbook has no use for a YAML %s", strings.ToLower(n.Type().String()))
		return nil
	}
	return out
}

func indentOf(n *ast.LiteralNode) int {
	if strings.HasPrefix(n.Start.Value, ">") {
		return -1
	}
	for line := range strings.Lines(n.Value.Token.Origin) {
		if text := strings.TrimLeft(line, " "); strings.TrimSpace(text) != "" {
			return len(line) - len(text)
		}
	}
	return 0
}

func yamlNumber(v any) any {
	switch x := v.(type) {
	case int:
		return int64(x)
	case uint64:
		if x <= 1<<63-1 {
			return int64(x)
		}
		return fmt.Sprint(x)
	default:
		return normal(v)
	}
}

func (r *yamlReader) mapping(out *yamlNode, values []*ast.MappingValueNode, depth int) *yamlNode {
	out.kind = yamlMap
	for i, v := range values {
		at := r.at(v.Key)
		if i == 0 {
			out.at = at
		}
		if v.Key.IsMergeKey() {
			r.add(at, "a runbook has no use for YAML merge keys")
			continue
		}
		name := v.Key.GetToken().Value
		if out.key(name) != nil {
			r.add(at, "the key %q is given twice", name)
			continue
		}
		if value := r.node(v.Value, depth+1); value != nil {
			out.keys = append(out.keys, yamlKey{name, at, value})
		}
	}
	return out
}
