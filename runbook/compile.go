package runbook

import (
	"slices"

	"github.com/toolboxai/relight/action"
)

// Compile reads a runbook. name is what messages call the file. With a nil registry the actions stay unchecked.
// The error holds Problems: all faults of the file, in its order.
func Compile(src []byte, name string, reg *action.Registry) (*Runbook, error) {
	d := check(src, name, reg)
	if err := d.err(); err != nil {
		return nil, err
	}
	if err := d.rb.seal(); err != nil {
		return nil, err
	}
	return d.rb, nil
}

// Lint gives the faults of a file; none means that it compiles.
func Lint(src []byte, name string, reg *action.Registry) []Problem {
	return check(src, name, reg).sorted()
}

func check(src []byte, name string, reg *action.Registry) *draft {
	d := parse(src, name)
	g := d.graph()
	d.lintSteps(g)
	d.lintCalls(reg)
	if d.lintCycles(g) {
		d.lintUses(g, reg)
	}
	return d
}

// graph is the order of the steps. Edges say what must be settled before what.
type graph struct {
	d         *draft
	byID      map[string]*stepDraft
	index     map[string]int      // place in the document
	demanders map[string][]demand // who can ask for an on-demand step
	before    map[string][]string // step → all that must be settled before it
}

// demand is one way to reach an on-demand step.
type demand struct {
	by     string
	option string // "" when it is by failure
	prev   string // the step before it in the option's list
}

// graph resolves what steps are on demand and what each one waits for.
func (d *draft) graph() *graph {
	g := &graph{
		d: d, byID: map[string]*stepDraft{}, index: map[string]int{},
		demanders: map[string][]demand{}, before: map[string][]string{},
	}
	for i, s := range d.steps {
		if first, ok := g.byID[s.step.ID]; ok {
			d.add(s.where("id"), "there is a step %q already, in line %d", s.step.ID, first.at.line)
			continue
		}
		g.byID[s.step.ID], g.index[s.step.ID] = s, i
	}
	for _, s := range d.steps {
		g.demandsOf(s)
	}
	for _, s := range d.steps {
		g.onDemand(s)
	}
	for i, s := range d.steps {
		if !s.needsGiven {
			s.step.Needs = g.defaultNeeds(i)
		}
	}
	g.edges()
	return g
}

func (g *graph) demandsOf(s *stepDraft) {
	if to := s.step.IfFails; to != "" {
		g.demanders[to] = append(g.demanders[to], demand{by: s.step.ID})
	}
	if s.step.Choose == nil {
		return
	}
	for _, o := range s.step.Choose.Options {
		prev := ""
		for _, id := range o.Steps {
			if id == s.step.ID {
				continue // reported by lintOptions
			}
			g.demanders[id] = append(g.demanders[id], demand{by: s.step.ID, option: o.ID, prev: prev})
			prev = id
		}
	}
}

func (g *graph) onDemand(s *stepDraft) {
	named := len(g.demanders[s.step.ID]) > 0
	at, stated := s.keys["on_demand"]
	switch {
	case named && stated && !s.step.OnDemand:
		g.d.add(at, "step %q is named by %q, so it is on demand", s.step.ID, g.demanders[s.step.ID][0].by)
	case !named && s.step.OnDemand:
		g.d.suggest(at, "name it in an option's steps or in if_fails, or leave on_demand away",
			"step %q can never be reached: it is on demand and nothing names it", s.step.ID)
	}
	s.step.OnDemand = named || s.step.OnDemand
}

// defaultNeeds is what a step without `needs` waits for (docs/runbooks.md, "Order").
func (g *graph) defaultNeeds(i int) []string {
	s := g.d.steps[i]
	if s.step.OnDemand {
		return g.defaultOnDemand(s)
	}
	var needs []string
	for j := i - 1; j >= 0; j-- {
		prev := g.d.steps[j].step
		if !prev.OnDemand {
			needs = append(needs, prev.ID)
			break
		}
		if g.demandedBefore(prev.ID, i) {
			needs = append(needs, prev.ID)
		}
	}
	slices.Reverse(needs)
	return needs
}

func (g *graph) defaultOnDemand(s *stepDraft) []string {
	var needs []string
	for _, w := range g.demanders[s.step.ID] {
		switch {
		case w.option == "":
			continue
		case w.prev == "":
			needs = append(needs, w.by)
		default:
			needs = append(needs, w.prev)
		}
	}
	slices.Sort(needs)
	return slices.Compact(needs)
}

// demandedBefore says whether everything that can ask for a step stands before place i of the document.
func (g *graph) demandedBefore(id string, i int) bool {
	return !slices.ContainsFunc(g.demanders[id], func(w demand) bool { return g.index[w.by] >= i })
}

// edges: a need comes first; so does whoever can ask for an on-demand step; and who needs a step that may go to
// another waits for that one too.
func (g *graph) edges() {
	for _, s := range g.d.steps {
		id := s.step.ID
		add := func(before string) {
			if _, known := g.byID[before]; known && before != id && !slices.Contains(g.before[id], before) {
				g.before[id] = append(g.before[id], before)
			}
		}
		for _, need := range s.step.Needs {
			add(need)
			if n, ok := g.byID[need]; ok && n.step.IfFails != id {
				add(n.step.IfFails)
			}
		}
		for _, w := range g.demanders[id] {
			add(w.by)
		}
	}
}
