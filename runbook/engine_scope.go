package runbook

import (
	"encoding/json"
	"time"
)

// scope is what expressions of a step can see. A step that has not ended is Unknown; one that was skipped or has failed
// is absent, because it gave nothing.
func (s *State) scope(item *StepState) Scope {
	steps := map[string]any{}
	for _, u := range s.Steps {
		steps[u.ID] = u.seen()
	}
	sc := Scope{
		"inputs": s.Inputs, "steps": steps, "objective": ObjectiveScope(s.Runbook),
		"run": map[string]any{
			"id": string(s.Run), "mode": string(s.Mode), "actor": s.Actor, "sandbox": s.Sandbox,
			"started": s.Started.Format(time.RFC3339Nano),
		},
	}
	if item == nil {
		return sc
	}
	if item.Effected { // for its verification and its undo
		steps[item.step.ID] = item.Output
	}
	if item.step.Each != nil {
		sc["each"] = item.Element
		if !item.isItem() {
			sc["each"] = Unknown // the list itself is not known yet
		}
	}
	return sc
}

func (u *StepState) seen() any {
	switch u.Status {
	case StepSucceeded:
		if u.Output == nil {
			return map[string]any{}
		}
		return u.Output
	case StepSkipped, StepFailed:
		return nil
	case StepExamined:
		if u.Examined != nil && u.Examined.Verdict == AlreadyDone && u.Output != nil {
			return u.Output
		}
	}
	return Unknown
}

func (u *StepState) isItem() bool { return u.step != nil && u.ID != u.step.ID }

func (s *State) condition(x *Expr, item *StepState) (yes, known bool, err error) {
	yes, unknown, err := x.Bool(s.scope(item))
	return yes, !unknown, err
}

func (s *State) elements(x *Expr) (list []any, known bool, err error) {
	list, unknown, err := x.List(s.scope(nil))
	return list, !unknown, err
}

// Budget is the time that a phase may take, and has taken.
type Budget struct {
	Phase    string        `json:"phase"`
	Title    string        `json:"title"`
	Budget   time.Duration `json:"budget,omitempty"` // 0: none
	Started  time.Time     `json:"started,omitzero"`
	Finished time.Time     `json:"finished,omitzero"`
	Spent    time.Duration `json:"spent"`
	Left     time.Duration `json:"left"` // below zero: overspent
}

// Budgets counts down the phases as of now.
func (s *State) Budgets(now time.Time) []Budget {
	var list []Budget
	for _, p := range s.Runbook.Phases {
		b := Budget{Phase: p.ID, Title: p.Title, Budget: p.Budget}
		b.Started, b.Finished = s.span(p)
		end := b.Finished
		if end.IsZero() {
			end = now
		}
		if !b.Started.IsZero() {
			b.Spent = end.Sub(b.Started)
		}
		if b.Budget > 0 {
			b.Left = b.Budget - b.Spent
		}
		list = append(list, b)
	}
	return list
}

// span is from the first start in a phase to its last end; the end is zero while something is open.
func (s *State) span(p Phase) (first, last time.Time) {
	done := true
	for _, step := range p.Steps {
		u := s.index[step.ID]
		done = done && u.settled()
		if !u.Started.IsZero() && (first.IsZero() || u.Started.Before(first)) {
			first = u.Started
		}
		if u.Status != StepSkipped && u.Finished.After(last) {
			last = u.Finished
		}
	}
	if !done || first.IsZero() {
		last = time.Time{}
	}
	return first, last
}

// Elapsed is the time between two clocks; false if one of them has not been marked.
func (s *State) Elapsed(from, to string) (time.Duration, bool) {
	a, ok := s.Clocks[from]
	b, also := s.Clocks[to]
	return b.Sub(a), ok && also
}

// outputOf gives a value the form in which outputs are journaled.
func outputOf(v any) (json.RawMessage, error) {
	if v == nil {
		return json.RawMessage("{}"), nil
	}
	return json.Marshal(v)
}
