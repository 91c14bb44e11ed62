package runbook

import (
	"strings"

	"github.com/toolboxai/relight/action"
)

func stepKeys() []string {
	return []string{
		"id", "do", "with", "run", "ask", "choose", "wait", "needs", "when", "each", "retry", "timeout",
		"danger", "target", "probe", "verify", "undo", "if_fails", "on_demand", "clock",
	}
}

// clocks are those that a step can stop; the others are marked when a run starts (DESIGN §1.3).
func clocks() []string { return []string{"recovered", "verified", "re-protected"} }

func kinds() []string { return []string{"do", "run", "ask", "choose", "wait"} }

// stepReader reads one step.
type stepReader struct {
	*draft
	s *stepDraft
	n *yamlNode
}

func (d *draft) step(sec *section) {
	if len(d.rb.Phases) == 0 {
		d.suggest(sec.at, "write a phase before it: ## Recover", "a step stands outside of any phase")
		return
	}
	title := unnumber(sec.heading)
	st := &Step{ID: slug(sec.heading), Title: title, Prose: sec.prose, Line: sec.at.line}
	for _, c := range sec.checklist {
		st.Checklist = append(st.Checklist, c.text)
	}
	s := &stepDraft{step: st, at: sec.at, keys: map[string]pos{}, phase: len(d.rb.Phases) - 1}
	d.steps = append(d.steps, s)
	phase := &d.rb.Phases[s.phase]
	phase.Steps = append(phase.Steps, st)
	for _, extra := range sec.fences[min(1, len(sec.fences)):] {
		d.suggest(extra.at, "make it a step of its own, with a heading ###", "the step has a second step fence")
	}
	keep := func(u use) { s.uses = append(s.uses, u) }
	d.prose(title, sec.at, keep)
	d.prose(sec.prose, sec.at, keep)
	for _, c := range sec.checklist {
		d.prose(c.text, c.at, keep)
	}
	n := &yamlNode{at: sec.at, kind: yamlMap}
	if len(sec.fences) > 0 {
		f := sec.fences[0]
		if n = d.readYAML(f.yaml, f.before, "the step fence"); n == nil {
			st.Kind, st.Ask = KindAsk, &Ask{Text: st.Title} // what it is cannot be read; the fault is reported
			return
		}
	}
	r := &stepReader{d, s, n}
	r.read()
}

func (r *stepReader) read() {
	r.object(r.n, "a step fence", stepKeys()...)
	for _, k := range r.n.keys {
		r.s.keys[k.name] = k.value.at
	}
	st := r.s.step
	if id := r.n.key("id"); id != nil {
		st.ID = r.text(id, "id")
	}
	if !idForm.MatchString(st.ID) {
		r.suggest(r.s.where("id"), "write id: with lower case letters, digits and dashes", "%q cannot be the id of a step", st.ID)
	}
	r.kind()
	r.modifiers()
}

// kind reads the one thing that the step does.
func (r *stepReader) kind() {
	var given []string
	for _, k := range r.n.keys {
		for _, kind := range kinds() {
			if k.name == kind {
				given = append(given, kind)
			}
		}
	}
	if len(given) > 1 {
		r.add(r.s.where(given[1]), "the step has both %s; make two steps of it", strings.Join(given, " and "))
	}
	st := r.s.step
	kind := "ask"
	if len(given) > 0 {
		kind = given[0]
	}
	st.Kind = Kind(kind)
	n := r.n.key(kind)
	if w := r.n.key("with"); w != nil && kind != "do" {
		r.suggest(w.at, "give a command its values through env", "with belongs to do")
	}
	switch st.Kind {
	case KindDo:
		st.Do = r.action(n, r.n.key("with"), "do", use{each: true})
	case KindRun:
		st.Run = r.command(n, use{each: true})
	case KindChoose:
		st.Choose = r.choose(n)
	case KindWait:
		st.Wait = r.wait(n)
	default:
		st.Ask = r.ask(n)
	}
}

func (r *stepReader) modifiers() {
	st, n := r.s.step, r.n
	if needs := n.key("needs"); needs != nil {
		r.s.needsGiven = true
		st.Needs, r.s.needsAt = r.texts(needs, "needs")
	}
	st.When = r.expr(n.key("when"), use{})
	st.Each = r.expr(n.key("each"), use{})
	st.Retry = r.retry(n.key("retry"))
	st.Timeout = r.positive(n.key("timeout"), "timeout")
	r.s.stated = action.Danger(r.oneOf(n.key("danger"), "danger", action.Dangers()))
	st.Danger = r.s.stated
	st.Target = r.template(n.key("target"), use{each: true})
	st.Probe = r.call(n.key("probe"), "probe", use{each: true})
	st.Verify = r.call(n.key("verify"), "verify", use{each: true, after: true})
	if u := n.key("undo"); u != nil && u.value == "none" {
		st.UndoNone = true
	} else {
		st.Undo = r.call(u, "undo", use{each: true, after: true})
	}
	st.IfFails = r.text(n.key("if_fails"), "if_fails")
	st.OnDemand = r.boolean(n.key("on_demand"), "on_demand")
	st.Clock = r.oneOf(n.key("clock"), "clock", clocks())
}

func (r *stepReader) retry(n *yamlNode) int {
	if n == nil {
		return 0
	}
	i, ok := n.value.(int64)
	if !ok || i < 0 || i > 1000 {
		r.add(n.at, "retry is a number of further attempts, up to 1000")
		return 0
	}
	return int(i)
}

// expr reads an expression and keeps its lookups.
func (r *stepReader) expr(n *yamlNode, how use) *Expr {
	if n == nil {
		return nil
	}
	if n.kind != yamlScalar || n.value == nil {
		r.add(n.at, "this is not an expression")
		return nil
	}
	text := asText(n.value)
	if trimmed := strings.TrimSpace(text); strings.HasPrefix(trimmed, "{{") && strings.HasSuffix(trimmed, "}}") {
		r.add(n.at, "an expression stands here by itself; leave {{ }} away")
		return nil
	}
	e, err := ParseExpr(text)
	if err != nil {
		r.exprFault(n, err)
		return nil
	}
	r.keep(n, 0, e.node, how)
	return e
}

func (r *stepReader) exprFault(n *yamlNode, err error) {
	offset := 0
	if e := faultOf(err); e != nil {
		offset = e.offset
	}
	r.add(n.within(offset), "%s", err)
}

// keep notes the lookups of an expression that begins at a byte of the node's text. The tree's own text is the
// file's, so offsets are still those of the file.
func (r *stepReader) keep(n *yamlNode, base int, e node, how use) {
	e.refs(func(ref *refNode) {
		how.path, how.at = ref.path, n.within(base+ref.offset)
		r.s.uses = append(r.s.uses, how)
	})
}

// template reads text with templates and gives it in canonical form.
func (r *stepReader) template(n *yamlNode, how use) string {
	v := r.value(n, "the text", how)
	if v.Template != "" {
		return v.Template
	}
	return asText(v.Literal)
}

func (r *stepReader) value(n *yamlNode, what string, how use) Value {
	if n == nil {
		return Value{}
	}
	text, ok := n.value.(string)
	if !ok || n.kind != yamlScalar || !strings.Contains(text, "{{") {
		return Value{Literal: normal(r.plainValue(n, what))}
	}
	pieces, err := splitTemplate(text)
	if err != nil {
		r.exprFault(n, err)
		return Value{Literal: text}
	}
	for _, p := range pieces {
		if p.expr != nil {
			r.keep(n, p.offset, p.expr, how)
		}
	}
	return Value{Template: joinTemplate(pieces)}
}

// prose notes the lookups of the templates in prose. A {{ }} that is no expression is left to the reader.
func (d *draft) prose(text string, at pos, keep func(use)) {
	for _, p := range splitProse(text) {
		if p.expr != nil {
			p.expr.refs(func(ref *refNode) { keep(use{path: ref.path, at: at, prose: true}) })
		}
	}
}
