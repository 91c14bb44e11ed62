package runbook_test

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/runbook"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var ctx = context.Background()

func opts() runbook.StartOptions { return runbook.StartOptions{ID: "r1", Actor: "alice"} }

func open() runbook.OpenOptions { return runbook.OpenOptions{Actor: "alice", Reason: "test"} }

const wipe = `{id: a, do: fake.wipe, with: {key: a}, danger: data, undo: none}`

func source(steps ...string) string {
	return head + "## Recover (10 minutes)\n" + strings.Join(steps, "")
}

func wantCode(t *testing.T, err error, code relight.Code) {
	t.Helper()
	if relight.CodeOf(err) != code {
		t.Fatalf("error is %v (code %q), not %q", err, relight.CodeOf(err), code)
	}
	if code != "" && relight.HintOf(err) == "" && code != relight.CodeAborted {
		t.Errorf("no hint with: %v", err)
	}
}

func wantStatus(t *testing.T, st *runbook.State, want relight.RunState) {
	t.Helper()
	if st == nil || st.Status != want {
		t.Fatalf("run is %+v, not %s", st, want)
	}
}

func TestNothingIsDestroyedUnconfirmed(t *testing.T) {
	t.Parallel()
	w, log := newWorld(), &mortal{store: &store{}}
	rb := compile(t, w, source(step("A", wipe)))
	st, err := engine(t, w, log, runbook.Nobody{}).Start(ctx, rb, opts())
	wantCode(t, err, relight.CodeWaiting)
	wantStatus(t, st, relight.RunWaiting)
	q := st.Waiting()
	if len(q) != 1 || q[0].Blast.Target != "target-a" || !slices.Equal(q[0].Blast.Lines, []string{"removes 1 GB"}) {
		t.Fatalf("waits for %+v", q)
	}
	if len(w.effects) > 0 || slices.Contains(log.kinds("a"), runbook.EventStepStarted) {
		t.Fatalf("effects %v, events %v", w.effects, log.kinds("a"))
	}

	e := engine(t, w, log, runbook.Nobody{})
	if _, err := e.Confirm(ctx, "r1", "a", "target-b", "alice"); relight.CodeOf(err) != relight.CodeWaiting {
		t.Fatalf("a wrong name gives %v", err)
	}
	if _, err := e.Confirm(ctx, "r1", "a", "target-a", "alice"); err != nil {
		t.Fatal(err)
	}
	st, err = e.Resume(ctx, "r1", open())
	wantCode(t, err, "")
	wantStatus(t, st, relight.RunCompleted)
	if w.effects["a"] != 1 || st.Step("a").Confirmed.Typed != "target-a" {
		t.Errorf("effects %v, confirmed %+v", w.effects, st.Step("a").Confirmed)
	}
}

// sloppy types something else.
type sloppy struct{ honest }

func (sloppy) Confirm(context.Context, runbook.Question) (string, error) { return "yes", nil }

func TestAnotherNameDoesNotConfirm(t *testing.T) {
	t.Parallel()
	w, log := newWorld(), &mortal{store: &store{}}
	st, err := engine(t, w, log, sloppy{honest{w: w}}).Start(ctx, compile(t, w, source(step("A", wipe))), opts())
	wantCode(t, err, relight.CodeWaiting)
	wantStatus(t, st, relight.RunWaiting)
	if len(w.effects) > 0 || slices.Contains(log.kinds("a"), runbook.EventConfirmed) {
		t.Errorf("effects %v, events %v", w.effects, log.kinds("a"))
	}
}

// TestAFailureHaltsOtherBranches: what does not depend on the failed step does not begin either.
func TestAFailureHaltsOtherBranches(t *testing.T) {
	t.Parallel()
	w, log := newWorld(), &mortal{store: &store{}}
	w.broken["a"] = 1
	rb := compile(t, w, source(step("A", `{id: a, do: fake.plain, with: {key: a}}`), step("B", `{id: b, do: fake.plain, with: {key: b}, needs: []}`)))
	st, err := engine(t, w, log, runbook.Nobody{}, func(c *runbook.Config) { c.Parallel = 1 }).Start(ctx, rb, opts())
	wantCode(t, err, relight.CodeFailed)
	if st.Step("b").Status != runbook.StepPending || len(w.effects) > 0 {
		t.Errorf("b is %s, effects %v", st.Step("b").Status, w.effects)
	}
}

func TestConfirmationHoldsForItsPlanOnly(t *testing.T) {
	t.Parallel()
	w, log := newWorld(), &mortal{store: &store{}}
	rb := compile(t, w, source(step("A", wipe)))
	e := engine(t, w, log, runbook.Nobody{})
	if _, err := e.Start(ctx, rb, opts()); relight.CodeOf(err) != relight.CodeWaiting {
		t.Fatal(err)
	}
	if _, err := e.Confirm(ctx, "r1", "a", "target-a", "alice"); err != nil {
		t.Fatal(err)
	}
	w.size = "9 TB"
	st, err := e.Resume(ctx, "r1", open())
	wantCode(t, err, relight.CodePlanChanged)
	if len(w.effects) > 0 || !st.Waiting()[0].Changed || st.Waiting()[0].Blast.Lines[0] != "removes 9 TB" {
		t.Fatalf("effects %v, waiting %+v", w.effects, st.Waiting())
	}
	st, err = engine(t, w, log, honest{w: w}).Resume(ctx, "r1", open())
	wantCode(t, err, "")
	wantStatus(t, st, relight.RunCompleted)
}

func TestFailureStopsTheRun(t *testing.T) {
	t.Parallel()
	w, log := newWorld(), &mortal{store: &store{}}
	w.broken["a"] = 1
	rb := compile(t, w, source(step("A", `{id: a, do: fake.plain, with: {key: a}}`), step("B", `{id: b, do: fake.plain, with: {key: b}}`)))
	e := engine(t, w, log, runbook.Nobody{})
	st, err := e.Start(ctx, rb, opts())
	wantCode(t, err, relight.CodeFailed)
	wantStatus(t, st, relight.RunPaused)
	if len(w.effects) > 0 || st.Step("a").Error != "a is broken" {
		t.Fatalf("effects %v, a %+v", w.effects, st.Step("a"))
	}
	// a resume alone repeats nothing
	if _, err = e.Resume(ctx, "r1", open()); relight.CodeOf(err) != relight.CodeFailed || len(w.effects) > 0 {
		t.Fatalf("resume gives %v, effects %v", err, w.effects)
	}
	if _, err := e.Override(ctx, "r1", runbook.Override{Kind: runbook.EventRetry, Step: "a", Actor: "bob"}); relight.CodeOf(err) != relight.CodeUsage {
		t.Fatalf("an override without a reason gives %v", err)
	}
	if _, err := e.Override(ctx, "r1", runbook.Override{Kind: runbook.EventRetry, Step: "a", Actor: "bob", Reason: "disk replaced"}); err != nil {
		t.Fatal(err)
	}
	st, err = e.Resume(ctx, "r1", open())
	wantCode(t, err, "")
	wantStatus(t, st, relight.RunCompleted)
	if len(st.Overrides) != 1 || st.Overrides[0].Actor != "bob" || st.Overrides[0].Reason != "disk replaced" {
		t.Errorf("overrides %+v", st.Overrides)
	}
}

func TestOverrides(t *testing.T) {
	t.Parallel()
	three := source(step("A", `{id: a, do: fake.plain, with: {key: a}}`), step("B", `{id: b, do: fake.plain, with: {key: "{{ steps.a.key }}b"}}`))
	for _, c := range []struct {
		name    string
		o       runbook.Override
		effects map[string]int
		state   relight.RunState
		code    relight.Code
	}{
		{"skip leaves its output absent", runbook.Override{Kind: runbook.EventSkip, Step: "a"}, map[string]int{"b": 1}, relight.RunWithExceptions, ""},
		{"force done gives its output", runbook.Override{Kind: runbook.EventForceDone, Step: "a", Output: map[string]any{"key": "by-hand-"}}, map[string]int{"by-hand-b": 1}, relight.RunWithExceptions, ""},
		{"abort ends the run", runbook.Override{Kind: runbook.EventAbort}, map[string]int{}, relight.RunAborted, relight.CodeUsage},
		{"edited inputs alone do not retry", runbook.Override{Kind: runbook.EventEdit, Step: "a", Inputs: map[string]any{"key": "c"}}, map[string]int{}, relight.RunPaused, relight.CodeFailed},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w, log := newWorld(), &mortal{store: &store{}}
			w.broken["a"] = 1000
			e := engine(t, w, log, runbook.Nobody{})
			if _, err := e.Start(ctx, compile(t, w, three), opts()); relight.CodeOf(err) != relight.CodeFailed {
				t.Fatal(err)
			}
			c.o.Actor, c.o.Reason = "bob", "the night is short"
			if _, err := e.Override(ctx, "r1", c.o); err != nil {
				t.Fatal(err)
			}
			st, err := e.Resume(ctx, "r1", open())
			if relight.CodeOf(err) != c.code {
				t.Fatalf("resume gives %v", err)
			}
			wantStatus(t, st, c.state)
			if !reflect.DeepEqual(w.effects, c.effects) {
				t.Errorf("effects %v, not %v", w.effects, c.effects)
			}
			if c.state == relight.RunWithExceptions && (len(st.Exceptions) != 1 || st.Exceptions[0].Reason != c.o.Reason) {
				t.Errorf("exceptions %+v", st.Exceptions)
			}
		})
	}
}

func TestEditedInputsChangeThePlan(t *testing.T) {
	t.Parallel()
	w, log := newWorld(), &mortal{store: &store{}}
	w.broken["a"] = 1000
	e := engine(t, w, log, runbook.Nobody{})
	before, _ := e.Start(ctx, compile(t, w, source(step("A", `{id: a, do: fake.plain, with: {key: a}}`))), opts())
	for _, o := range []runbook.Override{
		{Kind: runbook.EventEdit, Step: "a", Inputs: map[string]any{"key": "c"}}, {Kind: runbook.EventRetry, Step: "a"},
	} {
		o.Actor, o.Reason = "bob", "wrong key"
		if _, err := e.Override(ctx, "r1", o); err != nil {
			t.Fatal(err)
		}
	}
	st, err := e.Resume(ctx, "r1", open())
	wantCode(t, err, "")
	if w.effects["c"] != 1 || st.PlanHash == before.PlanHash {
		t.Errorf("effects %v, plan hash %s before and %s after", w.effects, before.PlanHash, st.PlanHash)
	}
}

func TestVerificationFailureIsItsOwnCode(t *testing.T) {
	t.Parallel()
	w, log := newWorld(), &mortal{store: &store{}}
	rb := compile(t, w, source(step("A", `{id: a, do: fake.plain, with: {key: a}, verify: {do: fake.check, with: {key: other}}}`)))
	st, err := engine(t, w, log, runbook.Nobody{}).Start(ctx, rb, opts())
	wantCode(t, err, relight.CodeVerification)
	wantStatus(t, st, relight.RunPaused)
	if st.Step("a").Output == nil {
		t.Error("the effect's output is lost")
	}
}

func TestHandlesOfTheDeadAreEndedFirst(t *testing.T) {
	t.Parallel()
	w, s := newWorld(), &store{}
	rb := compile(t, w, source(step("A", `{id: a, do: fake.plain, with: {key: a}}`), step("B", `{id: b, do: fake.plain, with: {key: b}}`)))
	dying := &mortal{store: s}
	w.hold = func(string) { dying.mu.Lock(); dying.dead = true; dying.mu.Unlock() }
	if _, err := engine(t, w, dying, runbook.Nobody{}).Start(ctx, rb, opts()); !errors.Is(err, errCrash) {
		t.Fatal(err)
	}
	w.hold = func(key string) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if len(w.ended) != 1 || w.ended[0].What != "a" {
			t.Errorf("effect of %s although %v was ended", key, w.ended)
		}
	}
	st, err := engine(t, w, &mortal{store: s}, runbook.Nobody{}).Resume(ctx, "r1", open())
	wantCode(t, err, "")
	if w.effects["a"] != 1 || w.effects["b"] != 1 || st.Step("a").By != "probe" {
		t.Errorf("effects %v, a by %q", w.effects, st.Step("a").By)
	}
}

// A service that a step has started is that step's effect: it is not ended when the probe finds it well, and is when the probe does not.
func TestServicesOfTheDeadAreProbedFirst(t *testing.T) {
	t.Parallel()
	for there, ended := range map[bool]int{true: 0, false: 1} {
		w, s := newWorld(), &store{}
		w.detached = true
		rb := compile(t, w, source(step("A", `{id: a, do: fake.plain, with: {key: a}}`)))
		dying := &mortal{store: s}
		w.hold = func(string) { dying.mu.Lock(); dying.dead = true; dying.mu.Unlock() }
		if _, err := engine(t, w, dying, runbook.Nobody{}).Start(ctx, rb, opts()); !errors.Is(err, errCrash) {
			t.Fatal(err)
		}
		w.hold, w.there = nil, map[string]bool{"a": there}
		_, err := engine(t, w, &mortal{store: s}, runbook.Nobody{}).Resume(ctx, "r1", open())
		wantCode(t, err, "")
		if len(w.ended) != ended || w.effects["a"] != 1+ended {
			t.Errorf("service there: %v; ended %d times, want %d; effects %v", there, len(w.ended), ended, w.effects)
		}
	}
}

type unkillable struct{}

func (unkillable) End(context.Context, relight.Handle) error { return errors.New("it does not die") }

func TestNothingGoesOnBesideALivingChild(t *testing.T) {
	t.Parallel()
	w, s := newWorld(), &store{}
	rb := compile(t, w, source(step("A", `{id: a, do: fake.plain, with: {key: a}}`), step("B", `{id: b, do: fake.plain, with: {key: b}, needs: []}`)))
	dying := &mortal{store: s}
	w.hold = func(string) { dying.mu.Lock(); dying.dead = true; dying.mu.Unlock() }
	if _, err := engine(t, w, dying, runbook.Nobody{}, func(c *runbook.Config) { c.Parallel = 1 }).Start(ctx, rb, opts()); !errors.Is(err, errCrash) {
		t.Fatal(err)
	}
	w.hold, w.there = nil, map[string]bool{}
	before := len(w.effects)
	st, err := engine(t, w, &mortal{store: s}, runbook.Nobody{}, func(c *runbook.Config) { c.Processes = unkillable{} }).Resume(ctx, "r1", open())
	wantCode(t, err, relight.CodeFailed)
	wantStatus(t, st, relight.RunPaused)
	if len(w.effects) != before {
		t.Errorf("effects %v while a child lives", w.effects)
	}
}

func TestAStaleHolderIsFenced(t *testing.T) {
	t.Parallel()
	w, s := newWorld(), &store{}
	rb := compile(t, w, source(step("A", `{id: a, do: fake.plain, with: {key: a}}`), step("B", `{id: b, do: fake.plain, with: {key: b}}`)))
	taken := false
	w.hold = func(key string) {
		if taken {
			return
		}
		taken = true
		st, err := engine(t, w, &mortal{store: s}, honest{w: w}).Takeover(ctx, "r1", open())
		if err != nil || st.Status != relight.RunCompleted {
			t.Errorf("takeover: %v", err)
		}
	}
	_, err := engine(t, w, &mortal{store: s}, runbook.Nobody{}).Start(ctx, rb, opts())
	wantCode(t, err, relight.CodeLeaseHeld)
	if w.effects["b"] != 1 {
		t.Errorf("effects %v: the stale holder went on", w.effects)
	}
	if st, err := runbook.Fold(ctx, s, "r1"); err != nil || st.Epoch != 2 || st.Status != relight.RunCompleted {
		t.Errorf("state %+v, %v", st, err)
	}
}

func TestOverridesReachALiveRun(t *testing.T) {
	t.Parallel()
	w, s := newWorld(), &store{}
	rb := compile(t, w, source(step("A", `{id: a, do: fake.plain, with: {key: a}}`), step("B", `{id: b, do: fake.blind, with: {key: b}}`)))
	w.hold = func(key string) {
		if key != "a" {
			return
		}
		o := runbook.Override{Kind: runbook.EventSkip, Step: "b", Actor: "bob", Reason: "not tonight"}
		if _, err := engine(t, w, &mortal{store: s}, runbook.Nobody{}).Override(ctx, "r1", o); err != nil {
			t.Error(err)
		}
	}
	st, err := engine(t, w, &mortal{store: s}, runbook.Nobody{}).Start(ctx, rb, opts())
	wantCode(t, err, "")
	wantStatus(t, st, relight.RunWithExceptions)
	if w.effects["b"] != 0 || w.effects["a"] != 1 {
		t.Errorf("effects %v", w.effects)
	}
	folded, err := runbook.Fold(ctx, s, "r1")
	if err != nil || !reflect.DeepEqual(folded, st) {
		t.Errorf("the live state is not the fold of the events (%v)", err)
	}
}

func TestAbortReachesALiveRun(t *testing.T) {
	t.Parallel()
	w, s := newWorld(), &store{}
	rb := compile(t, w, source(step("A", `{id: a, do: fake.plain, with: {key: a}}`), step("B", `{id: b, do: fake.plain, with: {key: b}}`)))
	w.hold = func(string) {
		o := runbook.Override{Kind: runbook.EventAbort, Actor: "bob", Reason: "false alarm"}
		if _, err := engine(t, w, &mortal{store: s}, runbook.Nobody{}).Override(ctx, "r1", o); err != nil {
			t.Error(err)
		}
	}
	st, err := engine(t, w, &mortal{store: s}, runbook.Nobody{}).Start(ctx, rb, opts())
	wantCode(t, err, relight.CodeAborted)
	wantStatus(t, st, relight.RunAborted)
	if w.effects["b"] != 0 {
		t.Errorf("effects %v after an abort", w.effects)
	}
}

func TestInterruptLeavesARunToResume(t *testing.T) {
	t.Parallel()
	w, s := newWorld(), &store{}
	rb := compile(t, w, source(step("A", `{id: a, wait: 5m}`), step("B", `{id: b, do: fake.plain, with: {key: b}}`)))
	stop, cancel := context.WithCancel(ctx)
	sleeps := func(c *runbook.Config) {
		c.Sleep = func(ctx context.Context, d time.Duration) error { cancel(); <-ctx.Done(); return ctx.Err() }
	}
	st, err := engine(t, w, &mortal{store: s}, runbook.Nobody{}, sleeps).Start(stop, rb, opts())
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	wantStatus(t, st, relight.RunPaused)
	st, err = engine(t, w, &mortal{store: s}, runbook.Nobody{}).Resume(ctx, "r1", open())
	wantCode(t, err, "")
	wantStatus(t, st, relight.RunCompleted)
}

func TestClocksAndBudgets(t *testing.T) {
	t.Parallel()
	w, log := newWorld(), &mortal{store: &store{}}
	rb := compile(t, w, source(step("A", `{id: a, do: fake.plain, with: {key: a}, clock: recovered}`), step("B", `{id: b, do: fake.check, with: {key: a}, clock: verified}`)))
	o := opts()
	o.Detected = time.Date(2026, 3, 1, 11, 50, 0, 0, time.UTC)
	st, err := engine(t, w, log, runbook.Nobody{}).Start(ctx, rb, o)
	wantCode(t, err, "")
	for _, c := range []string{runbook.ClockDetected, runbook.ClockStarted, runbook.ClockRecovered, runbook.ClockVerified} {
		if st.Clocks[c].IsZero() {
			t.Errorf("clock %s is not marked: %v", c, st.Clocks)
		}
	}
	if d, ok := st.Elapsed(runbook.ClockDetected, runbook.ClockVerified); !ok || d < 10*time.Minute || d > 11*time.Minute {
		t.Errorf("detected to verified: %s", d)
	}
	b := st.Budgets(st.Started.Add(time.Hour))
	if len(b) != 1 || b[0].Budget != 10*time.Minute || b[0].Finished.IsZero() || b[0].Left <= 0 || b[0].Left >= b[0].Budget {
		t.Errorf("budgets %+v", b)
	}
}

func TestDrillFailsRatherThanCalls(t *testing.T) {
	t.Parallel()
	w, log := newWorld(), &mortal{store: &store{}}
	w.broken["a"] = 1
	o := opts()
	o.Mode, o.Sandbox = runbook.Drill, "d1"
	st, err := engine(t, w, log, runbook.Nobody{}).Start(ctx, compile(t, w, source(step("A", `{id: a, do: fake.plain, with: {key: a}}`))), o)
	wantCode(t, err, relight.CodeFailed)
	wantStatus(t, st, relight.RunFailed)
}

func TestOnlyApprovedRunbooksRunInEarnest(t *testing.T) {
	t.Parallel()
	w, log := newWorld(), &mortal{store: &store{}}
	rb := compile(t, w, source(step("A", `{id: a, do: fake.plain, with: {key: a}}`)))
	no := &relight.Error{Op: "run", Code: relight.CodePlanChanged, Err: errors.New("not approved"), Hint: "approve it"}
	refuse := func(c *runbook.Config) { c.Approved = func(context.Context, *runbook.Runbook) error { return no } }
	_, err := engine(t, w, log, runbook.Nobody{}, refuse).Start(ctx, rb, opts())
	wantCode(t, err, relight.CodePlanChanged)
	if len(log.events) > 0 {
		t.Errorf("%d events of a refused run", len(log.events))
	}
}

func TestSecretsAreRedacted(t *testing.T) {
	t.Parallel()
	w, log := newWorld(), &mortal{store: &store{}}
	clean := func(c *runbook.Config) {
		c.Redact = func(s string) string { return strings.ReplaceAll(s, "hunter2", "•••") }
	}
	rb := compile(t, w, strings.Replace(source(step("A", `{id: a, do: fake.plain, with: {key: "{{ inputs.pw }}"}}`)), "objective:", "inputs: {pw: x}\nobjective:", 1))
	o := opts()
	o.Inputs = map[string]any{"pw": "hunter2"}
	_, err := engine(t, w, log, runbook.Nobody{}, clean).Start(ctx, rb, o)
	wantCode(t, err, relight.CodeUsage)
	if len(log.events) > 0 || strings.Contains(err.Error(), "hunter2") {
		t.Fatalf("%d events, error %v", len(log.events), err)
	}

	rb = compile(t, w, source(step("A", `{id: a, do: fake.leak, with: {key: hunter2}}`)))
	_, err = engine(t, w, log, runbook.Nobody{}, clean).Start(ctx, rb, opts())
	wantCode(t, err, relight.CodeFailed)
	if !slices.Contains(log.kinds("a"), runbook.EventStepCheckpoint) {
		t.Error("the action's checkpoint is missing")
	}
	for _, e := range log.events[1:] {
		if strings.Contains(string(e.Data), "hunter2") {
			t.Errorf("event %s holds the secret: %s", e.Kind, e.Data)
		}
	}
}
