package runbook

import (
	"slices"
	"testing"
	"time"

	"github.com/toolboxai/relight"
)

var failedAt = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func at(d time.Duration) string { return failedAt.Add(d).Format(time.RFC3339Nano) }

func doStep(act string, ended time.Duration, inputs, output map[string]any) *StepState {
	return &StepState{ID: act, Status: StepSucceeded, Finished: failedAt.Add(ended), Inputs: inputs, Output: output,
		step: &Step{Do: &Call{Action: act}}}
}

func restoreStep(ended time.Duration, store, kind string, covered time.Duration) *StepState {
	return doStep("postgres.restore", ended, nil, map[string]any{"store": store, "covered_at": at(covered),
		"target": map[string]any{"store": store, "target": map[string]any{"kind": kind}}})
}

func windowStep(store string, covered time.Duration) *StepState {
	return doStep("postgres.window", 0, map[string]any{"store": store}, map[string]any{"covered_at": at(covered)})
}

func runOf(o relight.Objective, verified time.Duration, steps ...*StepState) *State {
	s := NewState()
	s.Runbook, s.Steps = &Runbook{Objective: o}, steps
	s.Clocks[ClockDetected], s.Clocks[ClockDeclared] = failedAt, failedAt.Add(time.Minute)
	if verified > 0 {
		s.Clocks[ClockVerified] = failedAt.Add(verified)
	}
	return s
}

func is(got *float64, want float64) bool {
	if want < 0 {
		return got == nil
	}
	return got != nil && *got == want
}

func TestOutcome(t *testing.T) {
	t.Parallel()
	objective := relight.Objective{RTO: 2 * time.Hour, RPO: 15 * time.Minute}
	const unknown = -1
	for _, c := range []struct {
		name                string
		run                 *State
		rto, rpo, discarded float64
		missed              []string
	}{
		{"nothing is measured yet", runOf(objective, 0), unknown, unknown, unknown, nil},
		{"the log ended before the disaster", runOf(objective, time.Hour, restoreStep(1, "main", "latest", -2*time.Second)), 3600, 2, unknown, nil},
		{"salvage covered the moment after it", runOf(objective, time.Hour, restoreStep(1, "main", "latest", time.Minute)), 3600, 0, unknown, nil},
		{"both are missed", runOf(objective, 3*time.Hour, restoreStep(1, "main", "latest", -16*time.Minute)), 10800, 960, unknown, []string{"RTO: 3h0m0s of 2h0m0s", "RPO: 16m0s of 15m0s"}},
		{"exactly kept is kept", runOf(objective, 2*time.Hour, restoreStep(1, "main", "latest", -15*time.Minute)), 7200, 900, unknown, nil},
		{"no objective, nothing missed", runOf(relight.Objective{}, 9*time.Hour, restoreStep(1, "main", "latest", -time.Hour)), 32400, 3600, unknown, nil},
		{"an earlier point is a choice", runOf(objective, time.Hour, windowStep("main", -3*time.Second), restoreStep(1, "main", "time", -time.Hour)), 3600, 3, 3597, nil},
		{"the only store's window need not name it", runOf(objective, 0, windowStep("", -3*time.Second), restoreStep(1, "main", "lsn", -time.Hour)), unknown, 3, 3597, nil},
		{"a choice whose alternative nobody asked for", runOf(objective, time.Hour, restoreStep(1, "main", "time", -time.Hour)), 3600, unknown, unknown, nil},
		{"the last restore of a store counts", runOf(objective, 0, restoreStep(1, "main", "latest", -time.Hour), restoreStep(2, "main", "latest", -time.Second)), unknown, 1, unknown, nil},
		{"in whatever order the steps stand", runOf(objective, 0, restoreStep(2, "main", "latest", -time.Second), restoreStep(1, "main", "latest", -time.Hour)), unknown, 1, unknown, nil},
		{"the worst store counts", runOf(objective, 0, restoreStep(1, "a", "latest", -time.Second), restoreStep(2, "b", "latest", -time.Minute)), unknown, 60, unknown, nil},
		{"one unknown store leaves all unknown", runOf(objective, 0, restoreStep(1, "a", "latest", -time.Second), doStep("postgres.restore", 2, nil, map[string]any{"store": "b"})), unknown, unknown, unknown, nil},
		{"another step's coverage is not the restore's", runOf(objective, 0, doStep("protect.wait", 1, nil, map[string]any{"store": "main", "covered_at": at(-time.Hour)})), unknown, unknown, unknown, nil},
	} {
		o := c.run.Outcome()
		if !is(o.RTO, c.rto) || !is(o.RPO, c.rpo) || !is(o.Discarded, c.discarded) || !slices.Equal(o.Missed, c.missed) {
			t.Errorf("%s: RTO %v, RPO %v, discarded %v, missed %q", c.name, deref(o.RTO), deref(o.RPO), deref(o.Discarded), o.Missed)
		}
	}
}

func deref(v *float64) any {
	if v == nil {
		return "unknown"
	}
	return *v
}

func TestOutcomeOfFailedRestoreIsUnknown(t *testing.T) {
	t.Parallel()
	u := restoreStep(1, "main", "latest", -time.Second)
	u.Status = StepFailed
	if o := runOf(relight.Objective{RPO: time.Minute}, 0, u).Outcome(); o.RPO != nil {
		t.Fatal(*o.RPO)
	}
}

// "Immediate" promises the end of containment, not the end of the run.
func TestOutcomeOfAnImmediateObjective(t *testing.T) {
	t.Parallel()
	s := runOf(relight.Objective{RTO: immediateRTO, Immediate: true}, 4*time.Hour)
	step := &Step{ID: "isolate"}
	u := &StepState{ID: "isolate", Status: StepRunning, Started: failedAt, step: step}
	s.Runbook.Phases, s.index["isolate"] = []Phase{{ID: "contain", Steps: []*Step{step}}}, u
	if o := s.Outcome(); o.RTO != nil {
		t.Fatalf("containment is not over, and RTO is %v", *o.RTO)
	}
	u.Status, u.Finished = StepSucceeded, failedAt.Add(4*time.Minute)
	if o := s.Outcome(); !is(o.RTO, 240) || o.Missed != nil {
		t.Fatalf("%+v", o)
	}
	u.Finished = failedAt.Add(6 * time.Minute)
	if o := s.Outcome(); len(o.Missed) != 1 {
		t.Fatalf("%+v", o)
	}
}

func TestOutcomeWithoutDetection(t *testing.T) {
	t.Parallel()
	s := runOf(relight.Objective{}, time.Hour)
	delete(s.Clocks, ClockDetected)
	if o := s.Outcome(); !is(o.RTO, 3540) {
		t.Fatal("it counts from the declaration when nobody says when it was detected")
	}
	delete(s.Clocks, ClockDeclared)
	if o := s.Outcome(); o.RTO != nil {
		t.Fatal("no beginning, no RTO")
	}
	if o := NewState().Outcome(); o.RTO != nil || o.RPO != nil {
		t.Fatalf("%+v", o)
	}
}
