package runbook_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/action"
	"github.com/toolboxai/relight/runbook"
)

// slow is a Person who thinks until the question is withdrawn; asked tells that a question has reached them.
type slow struct{ asked chan runbook.Question }

func (p slow) wait(ctx context.Context, q runbook.Question) error {
	p.asked <- q
	<-ctx.Done()
	return ctx.Err()
}

func (p slow) Confirm(ctx context.Context, q runbook.Question) (string, error) {
	return "", p.wait(ctx, q)
}

func (p slow) Ask(ctx context.Context, q runbook.Question) (runbook.Answer, error) {
	return runbook.Answer{}, p.wait(ctx, q)
}

func (p slow) Choose(ctx context.Context, q runbook.Question) (string, error) {
	return "", p.wait(ctx, q)
}

// TestAnswersFromElsewhereEndTheQuestion: while one terminal asks, another process answers, chooses and confirms.
func TestAnswersFromElsewhereEndTheQuestion(t *testing.T) {
	t.Parallel()
	w, s := newWorld(), &store{}
	rb := compile(t, w, source(
		step("Ask", `{id: ask, ask: Look}`),
		step("Which", `{id: which, choose: {text: Which, options: [{id: one, title: One, steps: [a]}, {id: two, title: Two, steps: []}]}}`),
		step("A", wipe),
	))
	p := slow{make(chan runbook.Question)}
	other := engine(t, w, &mortal{store: s}, runbook.Nobody{})
	done := make(chan error)
	go func() {
		defer close(done)
		for range 3 {
			var err error
			switch q := <-p.asked; q.Kind {
			case runbook.AskWork:
				_, err = other.Answer(ctx, "r1", q.Step, runbook.Answer{Actor: "bob", Value: "fine"})
			case runbook.AskChoose:
				_, err = other.Choose(ctx, "r1", q.Step, "one", "bob")
			case runbook.AskConfirm:
				_, err = other.Confirm(ctx, "r1", q.Step, "target-a", "bob")
			}
			if err != nil {
				done <- err
				return
			}
		}
	}()
	st, err := engine(t, w, &mortal{store: s}, p).Start(ctx, rb, opts())
	if oerr := <-done; oerr != nil {
		t.Fatal(oerr)
	}
	wantCode(t, err, "")
	wantStatus(t, st, relight.RunCompleted)
	if w.effects["a"] != 1 || st.Step("ask").Output["answer"] != "fine" || st.Step("ask").Output["actor"] != "bob" {
		t.Errorf("effects %v, output %v", w.effects, st.Step("ask").Output)
	}
}

func TestAbortStopsALongStep(t *testing.T) {
	t.Parallel()
	w, s := newWorld(), &store{}
	stuck := action.Define(action.Spec[keyIn, keyOut]{Name: "fake.stuck", Title: "hang",
		Run: func(ctx context.Context, _ action.Env, _ keyIn) (keyOut, error) {
			o := runbook.Override{Kind: runbook.EventAbort, Actor: "bob", Reason: "false alarm"}
			if _, err := engine(t, w, &mortal{store: s}, runbook.Nobody{}).Override(context.Background(), "r1", o); err != nil {
				t.Error(err)
			}
			<-ctx.Done()
			return keyOut{}, ctx.Err()
		}})
	reg, err := action.NewRegistry(stuck)
	if err != nil {
		t.Fatal(err)
	}
	rb, err := runbook.Compile([]byte(source(step("A", `{id: a, do: fake.stuck, with: {key: a}}`))), "test.md", reg)
	if err != nil {
		t.Fatal(err)
	}
	st, err := engine(t, w, &mortal{store: s}, runbook.Nobody{}, func(c *runbook.Config) { c.Actions = reg }).Start(ctx, rb, opts())
	wantCode(t, err, relight.CodeAborted)
	wantStatus(t, st, relight.RunAborted)
}

func TestTimeoutEndsAStep(t *testing.T) {
	t.Parallel()
	w, s := newWorld(), &store{}
	hang := action.Define(action.Spec[keyIn, keyOut]{Name: "fake.hang", Title: "hang",
		Run: func(ctx context.Context, _ action.Env, _ keyIn) (keyOut, error) {
			<-ctx.Done()
			return keyOut{}, ctx.Err()
		}})
	reg, err := action.NewRegistry(hang)
	if err != nil {
		t.Fatal(err)
	}
	rb, err := runbook.Compile([]byte(source(step("A", `{id: a, do: fake.hang, with: {key: a}, timeout: 5ms}`))), "test.md", reg)
	if err != nil {
		t.Fatal(err)
	}
	st, err := engine(t, w, &mortal{store: s}, runbook.Nobody{}, func(c *runbook.Config) { c.Actions = reg }).Start(ctx, rb, opts())
	wantCode(t, err, relight.CodeFailed)
	if st.Step("a").Status != runbook.StepFailed || !errors.Is(err, context.DeadlineExceeded) && st.Step("a").Error != "not done within 5ms: context deadline exceeded" {
		t.Errorf("step %+v, error %v", st.Step("a"), err)
	}
}

// lease is lost when its channel is closed.
type leases struct {
	lost     chan struct{}
	forced   []bool
	released int
	refuse   error
}

func (l *leases) Acquire(_ context.Context, _ relight.RunID, force bool) (runbook.Lease, error) {
	l.forced = append(l.forced, force)
	if l.refuse != nil && !force {
		return nil, l.refuse
	}
	return l, nil
}

func (l *leases) Lost() <-chan struct{} { return l.lost }

func (l *leases) Release(context.Context) error { l.released++; return nil }

func TestALostLeaseStopsTheRun(t *testing.T) {
	t.Parallel()
	w, s, l := newWorld(), &store{}, &leases{lost: make(chan struct{})}
	rb := compile(t, w, source(step("A", `{id: a, wait: 1h}`), step("B", `{id: b, do: fake.plain, with: {key: b}}`)))
	st, err := engine(t, w, &mortal{store: s}, runbook.Nobody{}, func(c *runbook.Config) {
		c.Leases = l
		c.Sleep = func(ctx context.Context, _ time.Duration) error {
			close(l.lost)
			<-ctx.Done()
			return ctx.Err()
		}
	}).Start(ctx, rb, opts())
	wantCode(t, err, relight.CodeLeaseHeld)
	wantStatus(t, st, relight.RunPaused)
	if len(w.effects) > 0 || l.released != 1 {
		t.Errorf("effects %v, released %d times", w.effects, l.released)
	}
}

func TestAHeldRunIsNotResumed(t *testing.T) {
	t.Parallel()
	w, s := newWorld(), &store{}
	held := &relight.Error{Op: "hold", Code: relight.CodeLeaseHeld, Err: errors.New("held"), Hint: "wait"}
	l := &leases{lost: make(chan struct{}), refuse: held}
	rb := compile(t, w, source(step("A", `{id: a, ask: look}`), step("B", `{id: b, do: fake.plain, with: {key: b}}`)))
	if _, err := engine(t, w, &mortal{store: s}, runbook.Nobody{}).Start(ctx, rb, opts()); relight.CodeOf(err) != relight.CodeWaiting {
		t.Fatal(err)
	}
	e := engine(t, w, &mortal{store: s}, honest{w: w}, func(c *runbook.Config) { c.Leases = l })
	before := len(s.events)
	_, err := e.Resume(ctx, "r1", open())
	wantCode(t, err, relight.CodeLeaseHeld)
	if len(s.events) != before {
		t.Error("a refused resume has left events")
	}
	if _, err := e.Takeover(ctx, "r1", runbook.OpenOptions{Actor: "bob"}); relight.CodeOf(err) != relight.CodeUsage {
		t.Errorf("a takeover without a reason gives %v", err)
	}
	st, err := e.Takeover(ctx, "r1", open())
	wantCode(t, err, "")
	if !l.forced[len(l.forced)-1] || st.Epoch != 2 {
		t.Errorf("forced %v, epoch %d", l.forced, st.Epoch)
	}
}
