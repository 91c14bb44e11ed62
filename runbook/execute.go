package runbook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/action"
)

// invocation is a call or a command with everything filled in.
type invocation struct {
	inputs map[string]any // as they are journaled
	act    *action.Action // nil for a command
	in     any            // the action's decoded input
	argv   []string
	env    []string
}

// job is a step that is ready to have its effect.
type job struct {
	step *Step
	invocation
}

// asks says whether a person may have to be asked, or at least the plan be looked at, before the effect.
func (j *job) asks() bool {
	switch j.step.Kind {
	case KindDo:
		return j.step.Danger.Destructive() || j.act.Danger().Rank() >= action.Harm.Rank() || j.act.HasPlan()
	case KindRun:
		return j.step.Danger.Destructive()
	default:
		return j.step.Kind != KindWait
	}
}

// job resolves a unit. The caller holds mu.
func (r *run) job(u StepState) (*job, error) {
	j := &job{step: u.step}
	var err error
	switch u.step.Kind {
	case KindDo:
		j.invocation, err = r.resolve(u.step.Do, u, u.Edits)
	case KindRun:
		j.invocation, err = r.resolveCommand(u.step.Run, u, u.Edits)
	}
	if err != nil {
		return nil, fmt.Errorf("prepare step %s: %w", u.ID, err)
	}
	return j, nil
}

// call resolves a call that stands beside a step's effect: its probe, verification or undo, or what it polls.
func (r *run) call(c *Call, u StepState) (invocation, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.resolve(c, u, nil)
}

// resolve fills a call in as unit u sees it. The caller holds mu.
func (r *run) resolve(c *Call, u StepState, edits map[string]any) (invocation, error) {
	if c.Run != nil {
		return r.resolveCommand(c.Run, u, edits)
	}
	act, err := r.e.c.Actions.Lookup(c.Action)
	if err != nil {
		return invocation{}, err
	}
	with, _, err := EvalAll(c.With, r.st.scope(&u))
	if err != nil {
		return invocation{}, err
	}
	with = merge(with, edits)
	for name, v := range with {
		if v == Unknown {
			return invocation{}, fmt.Errorf("input %s: %w", name, errUnknown)
		}
	}
	in, err := act.Decode(with)
	return invocation{inputs: with, act: &act, in: in}, err
}

func (v invocation) danger() action.Danger {
	if v.act == nil {
		return action.None
	}
	return v.act.Danger()
}

func (v invocation) name() string {
	if v.act == nil {
		return "the command"
	}
	return v.act.Name()
}

// invoke runs a call as part of unit id.
func (r *run) invoke(ctx context.Context, id string, v invocation) (any, error) {
	if v.act == nil {
		return r.command(ctx, id, v)
	}
	return v.act.Run(ctx, r.env(id), v.in)
}

var errUnknown = &relight.Error{
	Code: relight.CodeUsage, Err: errors.New("its value is not known"), Hint: "the steps it looks at must run before it",
}

// execute runs one unit to an outcome. A panic of an action is a failure of its step, not of the recovery.
func (r *run) execute(ctx context.Context, id string) (out outcome) {
	defer func() {
		if p := recover(); p != nil {
			r.e.c.Logger.Error("a step panicked", "run", r.id, "step", id, "panic", p, "stack", string(debug.Stack()))
			out = r.fails(id, fmt.Errorf("the action panicked: %v", p))
		}
	}()
	if r.dry() {
		return r.examine(ctx, id)
	}
	if u := r.view(id); u.inDoubt() {
		if out, done := r.reconcile(ctx, id); done {
			return out
		}
	}
	switch u := r.view(id); u.step.Kind {
	case KindAsk:
		return r.ask(ctx, id)
	case KindChoose:
		return r.choose(ctx, id)
	default:
		return r.try(ctx, id)
	}
}

func (r *run) dry() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.st.Mode == Dry
}

// try attempts an effect until it is there and verified, or has failed as often as it may.
func (r *run) try(ctx context.Context, id string) outcome {
	for {
		out, err := r.attempt(ctx, id)
		u := r.view(id)
		switch {
		case err == nil:
			return r.succeeds(id, out, "effect")
		case r.lost(ctx), u.settled():
			return outcome{id: id} // in flight: a resume finds out what became of it
		case isWaiting(err):
			return r.waits(id, u, err)
		case u.Failures >= u.step.Retry:
			return r.fails(id, err)
		}
		if r.record(ctx, id, EventStepFailed, StepEnd{Error: err.Error(), Code: relight.CodeOf(err), Again: true}) != nil {
			return outcome{id: id}
		}
		if r.e.c.Sleep(ctx, backoff(u.Failures)) != nil {
			return outcome{id: id}
		}
	}
}

// backoff doubles from one second to a minute.
func backoff(failures int) time.Duration {
	return min(time.Second<<min(failures, 6), time.Minute)
}

// lost says that nothing can be recorded, or that the run is being stopped.
func (r *run) lost(ctx context.Context) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.dead != nil || ctx.Err() != nil || r.st.Over()
}

func isWaiting(err error) bool {
	var k keptOut
	c := relight.CodeOf(err)
	return c == relight.CodeWaiting || c == relight.CodePlanChanged || errors.As(err, &k)
}

func (r *run) waits(id string, u StepState, err error) outcome {
	out := outcome{id: id, blocked: err}
	if u.Status == StepRunning {
		out.events = []staged{{EventStepDeferred, StepEnd{Reason: err.Error()}}}
	}
	return out
}

func (r *run) fails(id string, err error) outcome {
	r.mu.Lock()
	defer r.mu.Unlock()
	return outcome{id: id, events: r.failure(id, err)}
}

func (r *run) succeeds(id string, out json.RawMessage, by string) outcome {
	r.mu.Lock()
	defer r.mu.Unlock()
	return outcome{id: id, events: r.success(id, StepEnd{Output: out, By: by})}
}

// attempt has the effect once: what an earlier attempt left is ended, the plan confirmed, the start recorded, and only
// then anything changed. An effect that is there already is only verified.
func (r *run) attempt(ctx context.Context, id string) (json.RawMessage, error) {
	u := r.view(id)
	if u.Effected {
		return r.verified(ctx, id, u.Output)
	}
	if err := r.endHandles(ctx, id, nil); err != nil {
		return nil, err
	}
	r.mu.Lock()
	j, err := r.job(u)
	r.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if u.Status != StepRunning {
		if err := r.open(ctx, id, j); err != nil {
			return nil, err
		}
	}
	ctx, cancel := bounded(ctx, u.step.Timeout)
	defer cancel()
	out, err := r.effect(ctx, id, j)
	if err != nil {
		return nil, overtime(ctx, u.step.Timeout, err)
	}
	if u.step.Verify == nil {
		return outputOf(out)
	}
	return r.effected(ctx, id, u.step, out)
}

// open has the plan confirmed and the start recorded.
func (r *run) open(ctx context.Context, id string, j *job) error {
	b, ask, err := r.preview(ctx, id, j)
	if err != nil {
		return err
	}
	if ask {
		if err := r.confirm(ctx, id, b); err != nil {
			return err
		}
	}
	u := r.view(id)
	if u.settled() {
		return errOverridden
	}
	if err := r.record(ctx, id, EventStepStarted, StepStart{Attempt: u.Attempts + 1, Inputs: j.inputs}); err != nil {
		return err
	}
	if now := r.view(id); now.Status != StepRunning {
		return errOverridden
	}
	return nil
}

var errOverridden = errors.New("a person has decided about the step meanwhile")

func bounded(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if d <= 0 {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, d)
}

func overtime(ctx context.Context, d time.Duration, err error) error {
	if d > 0 && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("not done within %s: %w", d, err)
	}
	return err
}

func (r *run) effect(ctx context.Context, id string, j *job) (any, error) {
	switch j.step.Kind {
	case KindDo, KindRun:
		return r.invoke(ctx, id, j.invocation)
	case KindWait:
		return r.wait(ctx, id, j.step.Wait)
	default:
		return nil, fmt.Errorf("a step of kind %q has no effect", j.step.Kind)
	}
}

// effected records the effect before it is verified, so that a crash between the two repeats the verification only.
func (r *run) effected(ctx context.Context, id string, step *Step, out any) (json.RawMessage, error) {
	raw, err := outputOf(out)
	if err != nil {
		return nil, fmt.Errorf("write the output of step %s: %w", id, err)
	}
	if err := r.record(ctx, id, EventStepEffected, StepEnd{Output: raw}); err != nil {
		return nil, err
	}
	u := r.view(id)
	raw, err = r.verified(ctx, id, u.Output)
	return raw, overtime(ctx, step.Timeout, err)
}

// verified asks whether the effect holds.
func (r *run) verified(ctx context.Context, id string, out map[string]any) (json.RawMessage, error) {
	u := r.view(id)
	raw, err := outputOf(out)
	if err != nil || u.step.Verify == nil {
		return raw, err
	}
	call, err := r.call(u.step.Verify, u)
	if err == nil && call.danger().Destructive() {
		err = fmt.Errorf("%s changes data, it cannot verify", call.name())
	}
	if err == nil {
		_, err = r.invoke(ctx, id, call)
	}
	if err == nil {
		return raw, nil
	}
	if isWaiting(err) {
		return nil, err
	}
	return nil, &relight.Error{
		Op: "verify", Subject: "step " + id, Code: relight.CodeVerification, Err: err, Hint: relight.HintOf(err),
	}
}

// env is what an action gets. Its functions record under the unit, and fail once the run is lost: an action must stop then.
func (r *run) env(id string) action.Env {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := action.Env{
		Actor: r.actor, Run: r.id, Step: id, Epoch: r.epoch, Sandbox: r.st.Sandbox, Force: r.st.Force,
		Log: r.e.c.Logger.With("run", string(r.id), "step", id), Now: r.e.c.Now,
	}
	if u := r.st.Step(id); u != nil {
		e.Since = u.Started
	}
	e.Confirm = func(ctx context.Context, b action.Blast) error { return r.confirm(ctx, id, b) }
	e.Started = func(ctx context.Context, h relight.Handle) error { return r.record(ctx, id, EventStepHandle, h) }
	e.Checkpoint = func(ctx context.Context, key string, value any) error {
		raw, err := json.Marshal(value)
		if err != nil {
			return fmt.Errorf("write checkpoint %s: %w", key, err)
		}
		return r.record(ctx, id, EventStepCheckpoint, Checkpoint{Key: key, Value: raw})
	}
	if r.e.c.Progress != nil {
		e.Progress = func(p relight.Progress) { r.e.c.Progress(r.id, id, p) }
	}
	return e
}

// endHandles ends what earlier attempts may have left, except what is to be kept. Nothing goes on before it is gone.
func (r *run) endHandles(ctx context.Context, id string, keep func(relight.Handle) bool) error {
	for _, h := range r.view(id).Handles {
		if keep != nil && keep(h) {
			continue
		}
		if err := r.e.c.Processes.End(ctx, h); err != nil {
			return &relight.Error{
				Op: "end what step " + id + " left running", Subject: h.What, Err: err,
				Hint: "end it by hand, then retry the step",
			}
		}
		if err := r.record(ctx, id, EventStepHandleEnded, h); err != nil {
			return err
		}
	}
	return nil
}
