package runbook

import "slices"

// gate says whether a step may be reached at all.
type gate int

const (
	open gate = iota
	undecided
	shut
)

// gateOf judges a step that is reached only through a choice or a failure. All others stand open.
func (s *State) gateOf(step *Step) (gate, string) {
	why, gated, waits := "not needed", step.OnDemand, false
	for _, u := range s.Steps {
		if option := optionOf(u.step, step.ID); option != nil {
			gated, why = true, "not chosen"
			if s.Mode == Dry || u.Status == StepSucceeded && u.Chosen == option.ID {
				return open, ""
			}
			waits = waits || !u.settled()
		}
		if u.step.IfFails == step.ID {
			if s.Mode == Dry || u.Status == StepFailed && u.Divert == step.ID {
				return open, ""
			}
			waits = waits || !u.settled()
		}
	}
	switch {
	case !gated:
		return open, ""
	case waits:
		return undecided, ""
	default:
		return shut, why
	}
}

// optionOf finds the option of a choice that holds the step.
func optionOf(choice *Step, id string) *Option {
	if choice.Choose == nil {
		return nil
	}
	for i, o := range choice.Choose.Options {
		if slices.Contains(o.Steps, id) {
			return &choice.Choose.Options[i]
		}
	}
	return nil
}

// needsMet says whether everything that step waits for is behind it. A failed step that goes on elsewhere counts for the
// step it goes on at, and for all others once that one is done.
func (s *State) needsMet(step *Step) bool {
	return !slices.ContainsFunc(step.Needs, func(need string) bool { return !s.met(need, step.ID, len(s.Steps)) })
}

func (s *State) met(need, wanting string, hops int) bool {
	u := s.index[need]
	if u == nil || hops < 0 {
		return false
	}
	switch u.Status {
	case StepSucceeded, StepSkipped, StepExamined:
		return true
	case StepFailed:
		return u.Divert != "" && (u.Divert == wanting || s.met(u.Divert, wanting, hops-1))
	default:
		return false
	}
}

// failed lists the steps whose failure nothing takes up.
func (s *State) failed() []*StepState {
	var list []*StepState
	for _, u := range s.units() {
		if u.Status == StepFailed && u.Divert == "" {
			list = append(list, u)
		}
	}
	return list
}

// divertOf is where the run goes on when step has failed; "" if nowhere, or if that step has run already.
func (s *State) divertOf(step *Step) string {
	to := s.index[step.IfFails]
	if to == nil || to.Status != StepPending && to.Status != StepUndone {
		return ""
	}
	return step.IfFails
}

// startable lists the units that may start now, in document order, elements one after the other.
func (s *State) startable() []*StepState {
	var list []*StepState
	for _, u := range s.Steps {
		if u.settled() || u.Status == StepRunning {
			continue
		}
		if u.Expanded {
			if next := firstOpen(u.Items); next != nil {
				list = append(list, next)
			}
			continue
		}
		if g, _ := s.gateOf(u.step); g == open && s.needsMet(u.step) {
			list = append(list, u)
		}
	}
	return list
}

func firstOpen(items []*StepState) *StepState {
	for _, i := range items {
		if i.Status == StepRunning || i.Status == StepFailed {
			return nil
		}
		if !i.settled() {
			return i
		}
	}
	return nil
}
