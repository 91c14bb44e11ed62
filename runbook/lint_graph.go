package runbook

import (
	"slices"
	"strings"
)

// lintSteps checks that every step that is named exists.
func (d *draft) lintSteps(g *graph) {
	ids := []string{}
	for _, s := range d.steps {
		ids = append(ids, s.step.ID)
	}
	for _, s := range d.steps {
		d.lintNeeds(g, s, ids)
		if to := s.step.IfFails; to != "" {
			d.lintIfFails(g, s, ids)
		}
		if s.step.Choose != nil {
			d.lintOptions(g, s, ids)
		}
		d.lintDanger(s)
	}
}

func (d *draft) lintNeeds(g *graph, s *stepDraft, ids []string) {
	for i, need := range s.step.Needs {
		if !s.needsGiven {
			break
		}
		switch {
		case need == s.step.ID:
			d.add(s.needsAt[i], "step %q needs itself", need)
		case g.byID[need] == nil:
			d.unknown(s.needsAt[i], "step", need, ids)
		case slices.Contains(s.step.Needs[:i], need):
			d.add(s.needsAt[i], "step %q is needed twice", need)
		}
	}
}

func (d *draft) lintIfFails(g *graph, s *stepDraft, ids []string) {
	switch to := s.step.IfFails; {
	case to == s.step.ID:
		d.suggest(s.where("if_fails"), "use retry", "step %q goes to itself when it fails", to)
	case g.byID[to] == nil:
		d.unknown(s.where("if_fails"), "step", to, ids)
	}
}

func (d *draft) lintOptions(g *graph, s *stepDraft, ids []string) {
	for i, o := range s.step.Choose.Options {
		for j, id := range o.Steps {
			at := s.optionAt[i][j]
			switch {
			case id == s.step.ID:
				d.add(at, "option %q leads back to the choice itself", o.ID)
			case g.byID[id] == nil:
				d.unknown(at, "step", id, ids)
			case slices.Contains(o.Steps[:j], id):
				d.add(at, "option %q names step %q twice", o.ID, id)
			}
		}
	}
}

// lintCycles reports each circle once, and says whether there is none.
func (d *draft) lintCycles(g *graph) bool {
	const (
		white = iota
		grey
		black
	)
	colour, ok := map[string]int{}, true
	var path []string
	var visit func(id string)
	visit = func(id string) {
		colour[id] = grey
		path = append(path, id)
		for _, b := range g.before[id] {
			switch colour[b] {
			case white:
				visit(b)
			case grey:
				ok = false
				circle := append(slices.Clone(path[slices.Index(path, b):]), b)
				slices.Reverse(circle)
				d.add(g.byID[id].where("needs"), "steps go in a circle: %s", strings.Join(circle, " → "))
			}
		}
		path = path[:len(path)-1]
		colour[id] = black
	}
	for _, s := range d.steps {
		if colour[s.step.ID] == white {
			visit(s.step.ID)
		}
	}
	return ok
}

// sure gives, for each step, the steps that are settled before it whatever happens. There must be no circle.
func (g *graph) sure() map[string]map[string]bool {
	known := map[string]map[string]bool{}
	var of func(id string) map[string]bool
	of = func(id string) map[string]bool {
		if set, ok := known[id]; ok {
			return set
		}
		set := map[string]bool{}
		known[id] = set
		join := func(other string) {
			set[other] = true
			for k := range of(other) {
				set[k] = true
			}
		}
		for _, need := range g.byID[id].step.Needs {
			if g.byID[need] != nil && need != id {
				join(need)
			}
		}
		for k := range g.common(id, of) {
			set[k] = true
		}
		return set
	}
	for id := range g.byID {
		of(id)
	}
	return known
}

// common is what is settled whichever way an on-demand step was reached.
func (g *graph) common(id string, of func(string) map[string]bool) map[string]bool {
	var all map[string]bool
	for _, w := range g.demanders[id] {
		if g.byID[w.by] == nil || w.by == id {
			continue
		}
		way := map[string]bool{w.by: true}
		for k := range of(w.by) {
			way[k] = true
		}
		if all == nil {
			all = way
			continue
		}
		for k := range all {
			if !way[k] {
				delete(all, k)
			}
		}
	}
	return all
}

// order sorts the steps so that each stands behind what it waits for; otherwise as in the document.
func (rb *Runbook) order() []*Step {
	var steps []*Step
	for _, p := range rb.Phases {
		steps = append(steps, p.Steps...)
	}
	d := &draft{faults: &faults{}, rb: rb}
	for _, s := range steps {
		d.steps = append(d.steps, &stepDraft{step: s, needsGiven: true})
	}
	g := d.graph()
	done, list := map[string]bool{}, []*Step{}
	ready := func(s *Step) bool {
		return !done[s.ID] && !slices.ContainsFunc(g.before[s.ID], func(b string) bool { return !done[b] })
	}
	for {
		i := slices.IndexFunc(steps, ready)
		if i < 0 {
			return list
		}
		done[steps[i].ID] = true
		list = append(list, steps[i])
	}
}
