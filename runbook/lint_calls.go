package runbook

import (
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/action"
)

// lintDanger checks what a step says of its danger, as far as no registry is needed.
func (d *draft) lintDanger(s *stepDraft) {
	st := s.step
	if at, ok := s.keys["target"]; ok && st.Kind != KindRun {
		d.add(at, "target belongs to run; an action names its target itself")
	}
	if at, ok := s.keys["danger"]; ok && (st.Kind == KindChoose || st.Kind == KindWait) {
		d.add(at, "a %s changes nothing; danger does not belong to it", st.Kind)
	}
	if st.Kind != KindRun || !st.Danger.Destructive() {
		return
	}
	if st.Target == "" {
		d.suggest(s.where("danger"), "write target: NAME, to be typed before it runs", "a command of danger %s needs a target", st.Danger)
	}
	if st.Retry > 0 && st.Probe == nil {
		d.suggest(s.where("retry"), "write a probe, or leave retry away",
			"a command of danger %s is retried without a probe, so it might be done twice", st.Danger)
	}
	d.undoStated(s, st.Danger, false)
}

func (d *draft) undoStated(s *stepDraft, danger action.Danger, own bool) {
	if _, stated := s.keys["undo"]; stated || own || !danger.Destructive() {
		return
	}
	d.suggest(s.where("danger"), "write undo: none if there is no way back",
		"step %q is of danger %s and does not say how it is undone", s.step.ID, danger)
}

// lintCalls checks every call against the registry.
func (d *draft) lintCalls(reg *action.Registry) {
	if reg == nil {
		return
	}
	for _, s := range d.steps {
		for _, c := range s.calls {
			d.lintCall(reg, s, c)
		}
		if at, ok := s.keys["probe"]; ok && s.step.Kind == KindDo {
			if a, err := reg.Lookup(s.step.Do.Action); err == nil && a.HasProbe() {
				d.add(at, "the action %s has its own probe", a.Name())
			}
		}
	}
}

func (d *draft) lintCall(reg *action.Registry, s *stepDraft, c callDraft) {
	if c.call.Action == "" {
		return
	}
	a, err := reg.Lookup(c.call.Action)
	if err != nil {
		d.noAction(reg, c, err)
		return
	}
	d.lintWith(a, c)
	switch c.role {
	case "do":
		d.lintDo(s, a, c.at)
	case "undo":
	default:
		if a.Danger().Rank() > 0 {
			d.add(c.at, "%s must only read, and %s is of danger %s", c.role, a.Name(), a.Danger())
		}
	}
}

func (d *draft) noAction(reg *action.Registry, c callDraft, err error) {
	near := strings.TrimPrefix(relight.DidYouMean(c.call.Action, reg.Names()), "; ")
	if near == "" {
		near = relight.HintOf(err)
	}
	d.suggest(c.at, near, "there is no action %q", c.call.Action)
}

func (d *draft) lintDo(s *stepDraft, a action.Action, at pos) {
	st := s.step
	switch {
	case s.stated == "" && a.Danger().Destructive():
		d.suggest(at, "write danger: "+string(a.Danger()), "the action %s is of danger %s, and the step does not say so", a.Name(), a.Danger())
	case s.stated != "" && s.stated.Rank() < a.Danger().Rank():
		d.add(s.where("danger"), "the action %s is of danger %s, not %s", a.Name(), a.Danger(), s.stated)
	}
	if a.Danger().Rank() > st.Danger.Rank() {
		st.Danger = a.Danger()
	}
	if s.stated.Destructive() && !(a.HasPlan() && a.HasProbe()) {
		d.add(s.where("danger"), "the action %s has no plan and no probe, as danger %s needs", a.Name(), s.stated)
	}
	d.undoStated(s, st.Danger, a.HasUndo())
	if st.Undo != nil && a.HasUndo() {
		d.add(s.where("undo"), "the action %s has its own undo", a.Name())
	}
}

func (d *draft) lintWith(a action.Action, c callDraft) {
	names := []string{}
	for _, f := range a.Fields() {
		names = append(names, f.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(c.call.With)) {
		f, ok := a.Field(name)
		if !ok {
			d.unknown(c.withAt[name], "input", name, names)
			continue
		}
		d.lintInput(c, f, name)
	}
	for _, f := range a.Fields() {
		v, given := c.call.With[f.Name]
		if f.Required && (!given || v.Template == "" && (v.Literal == nil || v.Literal == "")) {
			d.add(c.at, "%s needs the input %s%s", a.Name(), f.Name, help(f))
		}
	}
}

func help(f action.Field) string {
	if f.Help == "" {
		return ""
	}
	return " (" + f.Help + ")"
}

// lintInput checks one value and gives it the field's own name.
func (d *draft) lintInput(c callDraft, f action.Field, name string) {
	v := c.call.With[name]
	if name != f.Name {
		if _, twice := c.call.With[f.Name]; twice {
			d.add(c.withAt[name], "the input %q is given twice", f.Name)
		}
		delete(c.call.With, name)
		c.call.With[f.Name] = v
	}
	if v.Template != "" {
		return
	}
	if err := f.Check(v.Literal); err != nil {
		for _, e := range unjoin(err) {
			d.add(c.withAt[name], "%s", e)
		}
	}
}

func unjoin(err error) []error {
	var many interface{ Unwrap() []error }
	if errors.As(err, &many) {
		return many.Unwrap()
	}
	return []error{err}
}
