package runbook

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/action"
	"github.com/toolboxai/relight/host"
)

// OpenOptions says who takes a run up, and why.
type OpenOptions struct {
	Actor  string
	Reason string
}

// Resume goes on with a run whose process has died or stopped. Every step that was in flight is unknown: what it left
// running is ended, then its probe decides; without a clear probe a person is asked. It is never simply done again.
func (e *Engine) Resume(ctx context.Context, id relight.RunID, o OpenOptions) (*State, error) {
	return e.reopen(ctx, id, o, EventResumed, (*run).goOn)
}

// Takeover is Resume against a holder that still seems to live. The holder can record nothing from then on; o.Reason is
// required.
func (e *Engine) Takeover(ctx context.Context, id relight.RunID, o OpenOptions) (*State, error) {
	if o.Reason == "" {
		return nil, usage("take over run", string(id), errors.New("a takeover needs a reason"), "pass --reason")
	}
	return e.reopen(ctx, id, o, EventTakeover, (*run).goOn)
}

func (e *Engine) reopen(ctx context.Context, id relight.RunID, o OpenOptions, kind string, do func(*run, context.Context) error) (*State, error) {
	st, err := Fold(ctx, e.c.Log, id)
	if err != nil {
		return nil, err
	}
	if st.Over() {
		return st, usage("resume run", string(id), fmt.Errorf("it is %s", st.Status), "start a new one: relight run start "+st.Name)
	}
	r := e.newRun(id, o.Actor)
	return r.held(ctx, kind == EventTakeover, func(ctx context.Context) error {
		if err := r.takeUp(ctx, kind, o.Reason); err != nil {
			return err
		}
		if err := r.clear(ctx); err != nil {
			return err
		}
		if err := r.guardAgain(ctx); err != nil {
			return err
		}
		return do(r, ctx)
	})
}

// goOn continues what was under way.
func (r *run) goOn(ctx context.Context) error {
	if r.st.RollingTo != nil {
		return r.rollBack(ctx)
	}
	return r.drive(ctx)
}

// takeUp makes this process the run's holder: the event carries a new epoch, after which an older holder is refused.
// Overrides that come in between are read again.
func (r *run) takeUp(ctx context.Context, kind, reason string) error {
	for first := int64(0); ; {
		st, err := Fold(ctx, r.log, r.id)
		if err != nil {
			return err
		}
		if first == 0 {
			first = st.Epoch
		}
		if st.Epoch != first {
			return &relight.Error{
				Op: "resume run", Subject: string(r.id), Code: relight.CodeLeaseHeld,
				Err: fmt.Errorf("%s on %s has just taken it up", st.Holder, st.Host), Hint: "follow it with: relight run watch " + string(r.id),
			}
		}
		err = r.openAt(ctx, st, kind, reason)
		if !errors.Is(err, ErrStale) {
			return err
		}
	}
}

func (r *run) openAt(ctx context.Context, st *State, kind, reason string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.st, r.after, r.epoch, r.queue = st, st.Seq, st.Epoch+1, nil
	if err := r.stage("", kind, Opened{Epoch: r.epoch, Reason: reason}); err != nil {
		return err
	}
	for _, u := range st.units() {
		if u.Status != StepRunning {
			continue
		}
		if err := r.stage(u.ID, EventStepUnknown, nil); err != nil {
			return err
		}
	}
	written, err := r.log.Append(context.WithoutCancel(ctx), r.id, r.after, r.queue)
	if err != nil {
		return fmt.Errorf("record run %s: %w", r.id, err)
	}
	r.wrote(written)
	return nil
}

// clear ends everything that the dead process left, before anything goes on. A service that a step in doubt has started may be that step's effect: it is
// left to the probe, so that a server which is up is not stopped to be started again; where the probe denies it, the next attempt ends it first.
func (r *run) clear(ctx context.Context) error {
	r.mu.Lock()
	var ids []string
	for _, u := range r.st.units() {
		if len(u.Handles) > 0 && !u.Effected {
			ids = append(ids, u.ID)
		}
	}
	r.mu.Unlock()
	for _, id := range ids {
		if err := r.endHandles(ctx, id, r.mayBeEffect(id)); err != nil {
			if rerr := r.record(ctx, "", EventPaused, Ended{Step: id, Reason: err.Error()}); rerr != nil {
				return rerr
			}
			return fmt.Errorf("resume run %s: %w", r.id, err)
		}
	}
	return nil
}

// mayBeEffect tells which handles of a unit its probe has to look at first.
func (r *run) mayBeEffect(id string) func(relight.Handle) bool {
	u := r.view(id)
	return func(h relight.Handle) bool { return h.Detached && u.inDoubt() }
}

// reconcile finds out what became of a unit that was in flight. done is false when it can go on: its effect is not there,
// or is there and only has to be verified, or it never has one.
func (r *run) reconcile(ctx context.Context, id string) (out outcome, done bool) {
	u := r.view(id)
	if u.Effected || u.step.Kind != KindDo && u.step.Kind != KindRun {
		return outcome{}, false
	}
	p := r.probe(ctx, id)
	if r.lost(ctx) || r.record(ctx, id, EventStepProbed, p) != nil {
		return outcome{id: id}, true
	}
	switch p.State {
	case action.Done:
		return r.foundDone(ctx, id, p)
	case action.NotDone:
		return outcome{}, false
	default:
		return r.askUnknown(ctx, id, p.Detail)
	}
}

func (r *run) foundDone(ctx context.Context, id string, p StepProbe) (outcome, bool) {
	u := r.view(id)
	if u.step.Verify == nil {
		return r.succeeds(id, p.Output, "probe"), true
	}
	if r.record(ctx, id, EventStepEffected, StepEnd{Output: p.Output, By: "probe"}) != nil {
		return outcome{id: id}, true
	}
	return outcome{}, false
}

// probe asks whether the effect is there. It never fails: what it cannot tell is unclear, and goes to a person.
func (r *run) probe(ctx context.Context, id string) StepProbe {
	u := r.view(id)
	p, err := r.probed(ctx, u)
	out := StepProbe{State: p.State, Detail: p.Detail}
	if err != nil {
		out.State, out.Detail = action.Unclear, err.Error()
	}
	if out.State != action.Done && out.State != action.NotDone {
		out.State = action.Unclear
	}
	if out.State == action.Done {
		raw, err := outputOf(p.Out)
		if err != nil {
			return StepProbe{State: action.Unclear, Detail: "the probe's output: " + err.Error()}
		}
		out.Output = raw
	}
	return out
}

// probed uses the step's own probe, else its action's.
func (r *run) probed(ctx context.Context, u StepState) (action.Probed, error) {
	if u.step.Probe != nil {
		return r.probeCall(ctx, u)
	}
	if u.step.Kind != KindDo {
		return action.Probed{State: action.Unclear, Detail: "the step has no probe"}, nil
	}
	r.mu.Lock()
	j, err := r.job(u)
	r.mu.Unlock()
	if err != nil {
		return action.Probed{}, err
	}
	if !j.act.HasProbe() {
		return action.Probed{State: action.Unclear, Detail: j.name() + " has no probe"}, nil
	}
	return j.act.Probe(ctx, r.env(u.ID), j.in)
}

// probeCall runs the probe that the runbook names. Success says done. Not done is said by an action with "not found" or a
// failed verification, and by a command with exit 1. Any other error says nothing.
func (r *run) probeCall(ctx context.Context, u StepState) (action.Probed, error) {
	call, err := r.call(u.step.Probe, u)
	if err != nil {
		return action.Probed{}, err
	}
	if call.danger().Rank() > action.None.Rank() {
		return action.Probed{}, fmt.Errorf("%s has effects, it cannot probe", call.name())
	}
	out, err := r.invoke(ctx, u.ID, call)
	switch {
	case err == nil:
		return action.Probed{State: action.Done, Detail: call.name() + " succeeds", Out: out}, nil
	case saysNo(call, err):
		return action.Probed{State: action.NotDone, Detail: err.Error()}, nil
	default:
		return action.Probed{}, err
	}
}

func saysNo(call invocation, err error) bool {
	if call.act == nil {
		var exit *host.ExitError
		return errors.As(err, &exit) && exit.Code == 1 && exit.Signal == 0
	}
	c := relight.CodeOf(err)
	return c == relight.CodeVerification || c == relight.CodeNotFound
}

// askUnknown has a person say what became of a step.
func (r *run) askUnknown(ctx context.Context, id, detail string) (outcome, bool) {
	u := r.view(id)
	q := Question{
		Run: r.id, Step: id, Title: u.Title, Kind: AskUnknown, Options: unknownOptions(),
		Text: "relight stopped while this step was in flight, and cannot tell whether its effect is there: " + detail,
	}
	if err := r.request(ctx, EventAskRequested, q); err != nil {
		return outcome{id: id}, true
	}
	said, err := persons(ctx, r, id, func(ctx context.Context, p Person) (string, error) { return p.Choose(ctx, q) })
	if err != nil && r.decided(id) {
		return outcome{id: id}, true
	}
	if errors.Is(err, ErrNobody) {
		return outcome{id: id, blocked: &relight.Error{
			Op: "resume", Subject: "step " + id, Code: relight.CodeWaiting, Err: errors.New(q.Text),
			Hint: fmt.Sprintf("look, then: relight run force-done %s %s, or retry, or skip", r.id, id),
		}}, true
	}
	if err != nil {
		return r.unanswered(ctx, q, err), true
	}
	return r.said(ctx, id, said)
}

func unknownOptions() []OptionView {
	return []OptionView{
		{ID: SayDone, Title: "its effect is there", Available: true},
		{ID: SayRetry, Title: "its effect is not there: run it again", Available: true},
		{ID: SaySkip, Title: "go on without it", Available: true},
		{ID: SayAbort, Title: "stop the run", Available: true},
	}
}

func (r *run) said(ctx context.Context, id, said string) (outcome, bool) {
	kinds := map[string]string{SayDone: EventForceDone, SayRetry: EventRetry, SaySkip: EventSkip, SayAbort: EventAbort}
	kind, ok := kinds[said]
	if !ok {
		return outcome{id: id, blocked: &relight.Error{
			Op: "resume", Subject: "step " + id, Code: relight.CodeWaiting, Err: fmt.Errorf("%q is no answer", said),
			Hint: "answer done, retry, skip or abort",
		}}, true
	}
	step := id
	if kind == EventAbort {
		step = ""
	}
	err := r.record(ctx, step, kind, Change{Reason: "in flight when relight died; a person was asked"})
	return outcome{id: id}, err != nil || kind != EventRetry
}

func (e *Engine) newRun(id relight.RunID, actor string) *run {
	return &run{
		e: e, log: e.c.Log, watch: e.c.Watch, id: id, actor: actor, st: NewState(),
		active: map[string]bool{}, blocked: map[string]error{}, questions: map[string]context.CancelFunc{},
		guards: map[string]Lease{}, left: make(chan struct{}),
	}
}

// inDoubt lists the units whose end is not known.
func (s *State) inDoubt() []*StepState {
	return slices.DeleteFunc(s.units(), func(u *StepState) bool { return !u.inDoubt() })
}
