package runbook

import (
	"fmt"
	"strings"
	"time"

	"github.com/toolboxai/relight"
)

// Outcome holds what a run achieved against its objective. What is not known is nil, never zero.
type Outcome struct {
	RTO          *float64 `json:"rto_seconds,omitempty"`           // from detection to verified service; for an immediate objective, to the end of containment
	RPO          *float64 `json:"rpo_seconds,omitempty"`           // how long before detection what is lost began
	Discarded    *float64 `json:"discarded_seconds,omitempty"`     // given up on purpose, by choosing an earlier point than the latest
	RTOObjective float64  `json:"rto_objective_seconds,omitempty"` // 0: none
	RPOObjective float64  `json:"rpo_objective_seconds,omitempty"`
	Missed       []string `json:"objectives_missed,omitempty"`
}

const (
	restoreSuffix = ".restore" // actions whose output is a relight.Restored
	windowSuffix  = ".window"  // actions whose output says up to when the repository covers the store
)

// Outcome measures the run, as far as it has come.
func (s *State) Outcome() Outcome {
	if s.Runbook == nil {
		return Outcome{}
	}
	objective := s.Runbook.Objective
	o := Outcome{RTOObjective: objective.RTO.Seconds(), RPOObjective: objective.RPO.Seconds()}
	failed, ok := s.Clocks[ClockDetected]
	if !ok {
		failed, ok = s.Clocks[ClockDeclared]
	}
	if !ok {
		return o
	}
	if back := s.back(); !back.IsZero() {
		o.RTO = seconds(back.Sub(failed))
	}
	o.measureLoss(failed, s.restores())
	o.Missed = missed(o, objective)
	return o
}

func missed(o Outcome, objective relight.Objective) []string {
	var list []string
	for _, m := range []struct {
		name     string
		got      *float64
		promised time.Duration
	}{{"RTO", o.RTO, objective.RTO}, {"RPO", o.RPO, objective.RPO}} {
		if m.got != nil && m.promised > 0 && *m.got > m.promised.Seconds() {
			list = append(list, fmt.Sprintf("%s: %s of %s", m.name, asDuration(*m.got), m.promised))
		}
	}
	return list
}

func seconds(d time.Duration) *float64 {
	v := max(0, d).Seconds()
	return &v
}

func asDuration(s float64) time.Duration {
	return time.Duration(s * float64(time.Second)).Round(100 * time.Millisecond)
}

// back is when what the objective promises was reached; zero while it was not.
func (s *State) back() time.Time {
	if !s.Runbook.Objective.Immediate {
		return s.Clocks[ClockVerified]
	}
	for _, p := range s.Runbook.Phases {
		if p.ID == "contain" {
			_, end := s.span(p)
			return end
		}
	}
	return time.Time{}
}

// brought is what one store was brought back to.
type brought struct {
	finished time.Time
	covered  time.Time // latest server clock at which the server's log ended at or before what was recovered
	latest   bool      // nothing that could be had was left out
	window   time.Time // up to when the repository covered the store; zero when no step asked
}

// restores finds the last restore of each store that succeeded.
func (s *State) restores() map[string]brought {
	out := map[string]brought{}
	windows := map[string]time.Time{}
	for _, u := range s.units() {
		if u.Status != StepSucceeded || u.step == nil || u.step.Do == nil {
			continue
		}
		switch name := u.step.Do.Action; {
		case strings.HasSuffix(name, windowSuffix):
			windows[lookup(u.Inputs, "store")] = lookupTime(u.Output, "covered_at")
		case strings.HasSuffix(name, restoreSuffix):
			store := lookup(u.Output, "store")
			if old, ok := out[store]; ok && u.Finished.Before(old.finished) {
				continue
			}
			kind := lookup(u.Output, "target", "target", "kind")
			out[store] = brought{finished: u.Finished, covered: lookupTime(u.Output, "covered_at"), latest: kind == string(relight.TargetLatest)}
		}
	}
	for store, b := range out {
		var asked bool
		if b.window, asked = windows[store]; !asked {
			b.window = windows[""] // an estate's only store need not be named
		}
		out[store] = b
	}
	return out
}

// measureLoss takes the store that lost most. One of which it is not known leaves the whole unknown.
func (o *Outcome) measureLoss(failed time.Time, all map[string]brought) {
	var lost, discarded *float64
	for _, b := range all {
		end := b.covered
		if !b.latest {
			end = b.window // what lies between the two was given up on purpose
		}
		if end.IsZero() || b.covered.IsZero() {
			return
		}
		lost = most(lost, failed.Sub(end))
		if !b.latest {
			discarded = most(discarded, end.Sub(b.covered))
		}
	}
	o.RPO, o.Discarded = lost, discarded
}

func most(so *float64, d time.Duration) *float64 {
	v := seconds(d)
	if so != nil && *so > *v {
		return so
	}
	return v
}

// lookup looks a text up in nested output; "" when there is none.
func lookup(m map[string]any, path ...string) string {
	for _, key := range path[:len(path)-1] {
		m, _ = m[key].(map[string]any)
	}
	s, _ := m[path[len(path)-1]].(string)
	return s
}

func lookupTime(m map[string]any, path ...string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, lookup(m, path...))
	if err != nil {
		return time.Time{} // not known
	}
	return t
}
