package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/journal"
	"github.com/toolboxai/relight/runbook"
)

// view shows a run while it happens: events as lines on stderr, or as records on stdout with --json.
type view struct {
	s *session
	m *meter

	mu    sync.Mutex
	begun map[string]time.Time
}

func (s *session) view() *view {
	return &view{s: s, m: s.meter(), begun: map[string]time.Time{}}
}

func (v *view) close() { v.m.close() }

func (v *view) progress(_ relight.RunID, step string, p relight.Progress) {
	p.Phase = step + ": " + p.Phase
	v.m.show(p)
}

func (v *view) event(e relight.Event) {
	if v.s.json {
		_ = v.s.print(map[string]any{"type": "event", "event": e}) // a broken pipe must not stop a recovery
		return
	}
	v.m.close()
	v.mu.Lock()
	defer v.mu.Unlock()
	if line := v.line(e); line != "" {
		fmt.Fprintf(v.s.Err, "%s  %s\n", e.At.UTC().Format("15:04:05"), line)
	}
}

func (v *view) line(e relight.Event) string {
	data := decodeData(e.Data)
	text := func(key string) string { return strings.TrimSpace(fmt.Sprint(orBlank(data[key]))) }
	switch e.Kind {
	case runbook.EventStarted:
		return fmt.Sprintf("run %s begins", e.Run)
	case runbook.EventResumed, runbook.EventTakeover:
		return fmt.Sprintf("run %s goes on", e.Run)
	case runbook.EventStepStarted:
		v.begun[e.Step] = e.At
		return "  … " + e.Step
	case runbook.EventStepSucceeded:
		return fmt.Sprintf("  ✓ %s%s", e.Step, v.took(e))
	case runbook.EventStepFailed:
		return fmt.Sprintf("  ✗ %s%s: %s", e.Step, v.took(e), text("error"))
	case runbook.EventStepSkipped:
		return fmt.Sprintf("  - %s skipped: %s", e.Step, text("reason"))
	case runbook.EventChosen:
		return fmt.Sprintf("  → %s: %s", e.Step, text("option"))
	case runbook.EventWaiting, runbook.EventPaused, runbook.EventFailed, runbook.EventAborted, runbook.EventCompleted, runbook.EventExcepted:
		return strings.TrimSpace(strings.TrimPrefix(e.Kind, "run.") + " " + text("reason"))
	case runbook.EventStepUndone, runbook.EventStepUndoFailed, runbook.EventStepUnknown:
		return fmt.Sprintf("  %s %s", e.Step, strings.TrimPrefix(e.Kind, "step."))
	default:
		if name, ok := strings.CutPrefix(e.Kind, "clock."); ok {
			return "  ⏱ " + name
		}
		return ""
	}
}

func orBlank(v any) any {
	if v == nil {
		return ""
	}
	return v
}

func (v *view) took(e relight.Event) string {
	begun, ok := v.begun[e.Step]
	if !ok {
		return ""
	}
	return fmt.Sprintf(" (%.1fs)", e.At.Sub(begun).Seconds())
}

// showState prints where a run stands, and how to go on.
func (s *session) showState(st *runbook.State) error {
	if s.json {
		return s.print(resultOf(st))
	}
	s.say("run %s of %s: %s %s", st.Run, st.Name, st.Status, st.Reason)
	phase := ""
	for _, step := range st.Steps {
		if step.Phase != phase {
			phase = step.Phase
			s.say("\n%s", phase)
		}
		s.say("  %-10s %-24s %s", step.Status, step.ID, stepDetail(step))
	}
	s.clocks(st)
	s.outcome(st)
	for _, e := range st.Exceptions {
		s.say("exception: %s %s %s", e.Step, e.What, e.Reason)
	}
	s.goOn(st)
	return nil
}

func stepDetail(step *runbook.StepState) string {
	var parts []string
	if !step.Started.IsZero() && !step.Finished.IsZero() {
		parts = append(parts, fmt.Sprintf("%.1fs", step.Finished.Sub(step.Started).Seconds()))
	}
	if step.Chosen != "" {
		parts = append(parts, "→ "+step.Chosen)
	}
	for _, text := range []string{step.Reason, step.Error} {
		if text != "" {
			parts = append(parts, text)
		}
	}
	return strings.Join(parts, "  ")
}

// clocks prints the run's clocks in the order in which they were struck.
func (s *session) clocks(st *runbook.State) {
	s.say("")
	for _, name := range []string{runbook.ClockDetected, runbook.ClockDeclared, runbook.ClockStarted, runbook.ClockRecovered, runbook.ClockVerified, runbook.ClockReprotected} {
		t, ok := st.Clocks[name]
		if !ok {
			continue
		}
		since := ""
		if declared, ok := st.Clocks[runbook.ClockDeclared]; ok && t.After(declared) {
			since = fmt.Sprintf("  +%s after it was declared", t.Sub(declared).Round(100*time.Millisecond))
		}
		s.say("%-13s %s%s", name, timeText(t), since)
	}
	for _, b := range st.Budgets(time.Now()) {
		if b.Budget > 0 && b.Left < 0 {
			s.say("phase %s took %s of %s", b.Title, b.Spent.Round(time.Second), b.Budget)
		}
	}
}

// goOn says what a person does next with a run that is not over.
func (s *session) goOn(st *runbook.State) {
	if st.Over() {
		return
	}
	for _, q := range st.Waiting() {
		s.say("waiting: %s: %s", q.Step, q.Title)
	}
	for _, u := range st.Steps {
		if u.Status == runbook.StepFailed && u.Divert == "" { // resume alone leaves it as it is
			s.say("mend the cause, then: relight run retry %s %s --reason WHY", st.Run, u.ID)
		}
	}
	s.say("go on with: relight run resume %s", st.Run)
	s.contacts()
}

// contacts says whom to call, as far as the estate knows.
func (s *session) contacts() {
	e, err := s.a.Estate()
	if err != nil {
		return
	}
	for _, c := range []struct{ name, value string }{{"hotline", e.Contacts.Hotline}, {"bridge", e.Contacts.Bridge}, {"on call", e.Contacts.OnCall}} {
		if c.value != "" {
			s.say("%s: %s", c.name, c.value)
		}
	}
}

func (s *session) showDry(r *runbook.DryReport) error {
	if s.json {
		return s.print(r)
	}
	s.say("dry run of %s: nothing was changed", r.Runbook)
	for _, step := range r.Steps {
		s.say("  %-14s %-24s %s", step.Verdict, step.ID, step.Detail)
	}
	return nil
}

// watch shows a run's events as they come, until the run is over.
func (s *session) watch(ctx context.Context, run relight.RunID) error {
	j, err := s.a.Journal(ctx)
	if err != nil {
		return err
	}
	v := s.view()
	defer v.close()
	engine, err := s.engine(ctx, v, false)
	if err != nil {
		return err
	}
	if _, err := engine.State(ctx, run); err != nil { // one that is not there would be waited for without end
		return err
	}
	if err := s.header("run"); err != nil {
		return err
	}
	st := runbook.NewState()
	over := errors.New("over")
	err = j.Watch(ctx, journal.Filter{Run: run}, func(e relight.Event) error {
		v.event(e)
		if err := st.Apply(e); err != nil {
			return err
		}
		if st.Over() {
			return over
		}
		return nil
	})
	if errors.Is(err, over) {
		return s.showState(st)
	}
	return err
}
