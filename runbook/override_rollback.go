package runbook

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/action"
)

// RollBack undoes what has been done, newest first, down to and including the step to; "" undoes everything and ends the
// run as aborted. It stops at the point of no return. After a roll-back to a step the run is paused, and Resume does
// the undone steps again.
func (e *Engine) RollBack(ctx context.Context, id relight.RunID, to string, o OpenOptions) (*State, error) {
	if o.Reason == "" || o.Actor == "" {
		return nil, usage("roll back run", string(id), errors.New("a roll-back needs an actor and a reason"), "pass --reason")
	}
	st, err := Fold(ctx, e.c.Log, id)
	if err != nil {
		return nil, err
	}
	if to != "" && (st.Step(to) == nil || st.Step(to).isItem()) {
		return st, usage("roll back run", string(id), fmt.Errorf("there is no step %q", to), "relight run show "+string(id))
	}
	return e.reopen(ctx, id, o, EventResumed, func(r *run, ctx context.Context) error {
		if err := r.record(ctx, "", EventRollBack, Change{Reason: o.Reason, To: to}); err != nil {
			return err
		}
		return r.rollBack(ctx)
	})
}

var errNoReturn = errors.New("this is the point of no return")

// rollBack undoes step by step. It also goes on with a roll-back that died.
func (r *run) rollBack(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r.mu.Lock()
	r.cancel = cancel
	to := *r.st.RollingTo
	doubtful := r.st.inDoubt()
	r.mu.Unlock()
	for _, u := range doubtful { // what is not known to be done cannot be undone
		if out, done := r.reconcile(ctx, u.ID); done {
			r.absorb(out)
		}
		if len(r.blocked) > 0 || r.lost(ctx) {
			return r.conclude(ctx)
		}
	}
	for _, id := range r.undoOrder(to) {
		if err := r.undo(ctx, id); err != nil {
			return r.rollBackFails(ctx, id, err)
		}
	}
	if to == "" {
		err := r.record(ctx, "", EventAborted, Ended{Reason: "rolled back"})
		return errors.Join(err, r.stopped(relight.CodeAborted, errors.New("rolled back to the beginning"), ""))
	}
	return r.record(ctx, "", EventPaused, Ended{Step: to, Reason: "rolled back to " + to, Rolled: true})
}

func (r *run) rollBackFails(ctx context.Context, id string, err error) error {
	if r.lost(ctx) {
		return r.conclude(ctx)
	}
	if isWaiting(err) {
		return errors.Join(r.record(ctx, "", EventWaiting, Ended{Step: id, Reason: err.Error()}), err)
	}
	reason := fmt.Sprintf("roll-back stopped at step %s: %s", id, err)
	if rerr := r.record(ctx, "", EventPaused, Ended{Step: id, Reason: reason, Rolled: true}); rerr != nil {
		return rerr
	}
	return r.stopped(relight.CodeOf(err), errors.New(reason), "what was undone is listed by: relight run show "+string(r.id))
}

// undoOrder lists what is to be undone: what ended last comes first, and what was being undone before everything.
func (r *run) undoOrder(to string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []*StepState
	for _, u := range r.st.units() {
		if u.Status == StepSucceeded || u.Status == StepSkipped || u.Status == StepUndoing || u.Effected || to != "" && u.Status == StepFailed {
			list = append(list, u)
		}
	}
	slices.Reverse(list)
	slices.SortStableFunc(list, func(a, b *StepState) int {
		if a.Status == StepUndoing || b.Status == StepUndoing {
			return rank(a) - rank(b)
		}
		return b.Finished.Compare(a.Finished)
	})
	var ids []string
	last := -1
	for i, u := range list {
		ids = append(ids, u.ID)
		if u.step.ID == to {
			last = i
		}
	}
	if to != "" {
		ids = ids[:last+1]
	}
	return ids
}

func rank(u *StepState) int {
	if u.Status == StepUndoing {
		return 0
	}
	return 1
}

// undo takes one step back. Steps that changed nothing are only marked.
func (r *run) undo(ctx context.Context, id string) error {
	u := r.view(id)
	if u.Status == StepUndoing {
		if done, err := r.undoneAlready(ctx, u); done || err != nil {
			return err
		}
	}
	how, err := r.undoer(ctx, u)
	if err != nil {
		return err
	}
	if how == nil {
		return r.record(ctx, id, EventStepUndone, StepEnd{Reason: "nothing to undo"})
	}
	if err := r.record(ctx, id, EventStepUndoing, nil); err != nil {
		return err
	}
	if err := how(ctx); err != nil {
		if r.lost(ctx) || isWaiting(err) {
			return err
		}
		return errors.Join(err, r.record(ctx, id, EventStepUndoFailed, StepEnd{Error: err.Error(), Code: relight.CodeOf(err)}))
	}
	return r.record(ctx, id, EventStepUndone, nil)
}

// undoneAlready: an undo that was in flight is finished when the step's probe no longer finds its effect.
func (r *run) undoneAlready(ctx context.Context, u StepState) (bool, error) {
	switch p := r.probe(ctx, u.ID); p.State {
	case action.NotDone:
		return true, r.record(ctx, u.ID, EventStepUndone, StepEnd{By: "probe"})
	case action.Done:
		return false, nil
	default:
		q := Question{
			Run: r.id, Step: u.ID, Title: u.Title, Kind: AskUnknown, Options: unknownOptions(),
			Text: "relight stopped while this step was being undone, and cannot tell whether it is undone: " + p.Detail,
		}
		said, err := persons(ctx, r, u.ID, func(ctx context.Context, p Person) (string, error) { return p.Choose(ctx, q) })
		switch {
		case errors.Is(err, ErrNobody):
			return false, &relight.Error{Op: "undo", Subject: "step " + u.ID, Code: relight.CodeWaiting, Err: errors.New(q.Text),
				Hint: "resume on a terminal and say what you see: relight run resume " + string(r.id)}
		case err != nil:
			return false, err
		case said == SayDone || said == SaySkip:
			return true, r.record(ctx, u.ID, EventStepUndone, StepEnd{By: "person"})
		case said == SayAbort:
			return false, &relight.Error{Op: "undo", Subject: "step " + u.ID, Code: relight.CodeAborted, Err: errors.New("a person has stopped it")}
		default:
			return false, nil
		}
	}
}

// undoer finds how to take a step back: nil when there is nothing to, errNoReturn when there is no way.
func (r *run) undoer(ctx context.Context, u StepState) (func(context.Context) error, error) {
	if u.Expanded || u.Status == StepSkipped || u.Status == StepFailed {
		return nil, nil
	}
	if u.step.UndoNone {
		return nil, fmt.Errorf("step %s: %w", u.ID, errNoReturn)
	}
	u.Effected = true // its own output is in scope
	if u.step.Undo != nil {
		return r.undoCall(ctx, u)
	}
	if u.step.Kind != KindDo {
		return nil, harmless(u, u.step.Danger)
	}
	r.mu.Lock()
	j, err := r.job(u)
	r.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if j.act.HasUndo() {
		return func(ctx context.Context) error { return j.act.Undo(ctx, r.env(u.ID), j.in, u.Output) }, nil
	}
	if act := j.act; act.Danger().Rank() > u.step.Danger.Rank() {
		return nil, harmless(u, act.Danger())
	}
	return nil, harmless(u, u.step.Danger)
}

// harmless: without an undo only a step that changes nothing can be passed.
func harmless(u StepState, d action.Danger) error {
	if d.Rank() > action.None.Rank() {
		return fmt.Errorf("step %s has no undo: %w", u.ID, errNoReturn)
	}
	return nil
}

func (r *run) undoCall(ctx context.Context, u StepState) (func(context.Context) error, error) {
	call, err := r.call(u.step.Undo, u)
	if err != nil {
		return nil, err
	}
	if call.act != nil {
		b, ask, err := action.Preview(ctx, *call.act, r.env(u.ID), call.in)
		if err == nil && ask {
			err = r.confirm(ctx, u.ID, b)
		}
		if err != nil {
			return nil, err
		}
	}
	return func(ctx context.Context) error {
		_, err := r.invoke(ctx, u.ID, call)
		return err
	}, nil
}
