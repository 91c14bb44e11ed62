package runbook

import (
	"slices"
	"strings"

	"github.com/toolboxai/relight/action"
)

// useLinter checks lookups: that what is looked up exists, and is there when it is looked up.
type useLinter struct {
	*draft
	g    *graph
	reg  *action.Registry
	sure map[string]map[string]bool
}

func (d *draft) lintUses(g *graph, reg *action.Registry) {
	l := &useLinter{d, g, reg, g.sure()}
	for _, u := range d.uses {
		l.use(nil, u)
	}
	for _, s := range d.steps {
		for _, u := range s.uses {
			l.use(s, u)
		}
	}
}

func (l *useLinter) use(s *stepDraft, u use) {
	switch u.path[0] {
	case "inputs":
		l.input(u)
	case "objective":
		l.oneField(u, "rto", "rpo", "immediate")
	case "run":
		l.oneField(u, "id", "started", "mode", "actor", "sandbox")
	case "each":
		if !u.each || s == nil || s.step.Each == nil {
			l.add(u.at, "each is known only inside a step that has each")
		}
	case "steps":
		l.step(s, u)
	default:
		l.unknown(u.at, "name", u.path[0], []string{"inputs", "steps", "objective", "run", "each"})
	}
}

func (l *useLinter) input(u use) {
	names := []string{}
	for _, in := range l.rb.Inputs {
		names = append(names, in.Name)
	}
	switch {
	case len(u.path) != 2:
		l.add(u.at, "%q does not name an input; write inputs.NAME", strings.Join(u.path, "."))
	case !slices.Contains(names, u.path[1]):
		l.unknown(u.at, "input", u.path[1], names)
	}
}

func (l *useLinter) oneField(u use, fields ...string) {
	switch {
	case len(u.path) != 2:
		l.add(u.at, "write %s.%s", u.path[0], strings.Join(fields, " or "+u.path[0]+"."))
	case !slices.Contains(fields, u.path[1]):
		l.unknown(u.at, "field of "+u.path[0], u.path[1], fields)
	}
}

func (l *useLinter) step(s *stepDraft, u use) {
	if len(u.path) < 3 {
		l.add(u.at, "%q does not name an output; write steps.ID.FIELD", strings.Join(u.path, "."))
		return
	}
	id := u.path[1]
	of := l.g.byID[id]
	switch {
	case of == nil:
		ids := []string{}
		for _, o := range l.steps {
			ids = append(ids, o.step.ID)
		}
		l.unknown(u.at, "step", id, ids)
		return
	case s == nil:
		l.add(u.at, "prose outside of steps cannot show the output of step %q", id)
		return
	case of == s && !u.after:
		l.add(u.at, "step %q cannot see its own output before it has run", id)
		return
	case of != s && !l.sure[s.step.ID][id]:
		l.suggest(u.at, "add it to needs", "step %q is not sure to come before step %q", id, s.step.ID)
		return
	}
	l.output(of.step, u)
}

// output checks the field against what the step gives.
func (l *useLinter) output(of *Step, u use) {
	fields, open := l.outputs(of)
	path := u.path[2:]
	for i, name := range path {
		if open {
			return
		}
		j := slices.IndexFunc(fields, func(f action.OutField) bool { return f.Name == name })
		if j < 0 {
			l.unknownField(u, fields, name, strings.Join(u.path[:2+i], "."))
			return
		}
		f := fields[j]
		if i+1 < len(path) && f.Type != "object" && !f.Open {
			l.add(u.at, "%s is of type %s and has no field %q", strings.Join(u.path[:3+i], "."), f.Type, path[i+1])
			return
		}
		fields, open = f.Fields, f.Open
	}
}

func (l *useLinter) unknownField(u use, fields []action.OutField, name, of string) {
	known := []string{}
	for _, f := range fields {
		known = append(known, f.Name)
	}
	l.suggest(u.at, nearOrAll(name, known), "%s has no output %q", of, name)
}

func named(names ...string) []action.OutField {
	var list []action.OutField
	for _, n := range names {
		list = append(list, action.OutField{Name: n, Type: "string"})
	}
	return list
}

// outputs of a step are those that the engine gives it (docs/runbooks.md, "Outputs").
func (l *useLinter) outputs(st *Step) (fields []action.OutField, open bool) {
	if st.Each != nil {
		return []action.OutField{{Name: "count", Type: "integer"}, {Name: "items", Type: "array"}}, false
	}
	switch st.Kind {
	case KindDo:
		return l.outputsOf(st.Do)
	case KindRun:
		return named("exit", "stdout", "stderr"), false
	case KindAsk:
		return named("answer", "actor"), false
	case KindChoose:
		return named("chosen"), false
	default:
		return named("seconds"), false
	}
}

func (l *useLinter) outputsOf(c *Call) (fields []action.OutField, open bool) {
	if l.reg == nil {
		return nil, true
	}
	a, err := l.reg.Lookup(c.Action)
	if err != nil {
		return nil, true
	}
	return a.OutFields()
}
