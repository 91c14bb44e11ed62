package runbook

import (
	"context"
	"errors"
	"fmt"

	"github.com/toolboxai/relight"
)

// Override is a person's decision against the runbook. It is recorded with actor and reason, both required.
type Override struct {
	Kind   string // EventSkip, EventRetry, EventForceDone, EventEdit or EventAbort
	Step   string // "" for EventAbort, and for EventEdit of the run's own inputs
	Actor  string
	Reason string
	Inputs map[string]any // EventEdit
	Output any            // EventForceDone: what the step would have given
}

// Override records o. A live holder of the run sees it at its next event; otherwise Resume goes on with it.
func (e *Engine) Override(ctx context.Context, id relight.RunID, o Override) (*State, error) {
	if o.Reason == "" || o.Actor == "" {
		return nil, usage("override", string(id), errors.New("an override needs an actor and a reason"), "pass --reason")
	}
	st, err := e.amend(ctx, id, o.Actor, o.Step, func(st *State) ([]staged, error) {
		if err := o.check(st); err != nil {
			return nil, usage(o.Kind, string(id), err, "relight run show "+string(id))
		}
		out, err := mustJSON(o.Output)
		if err != nil {
			return nil, fmt.Errorf("write the output of %s: %w", o.Step, err)
		}
		return []staged{{o.Kind, Change{Reason: o.Reason, Inputs: o.Inputs, Output: out}}}, nil
	})
	if err != nil || o.Kind != EventAbort {
		return st, err
	}
	return st, e.sweep(ctx, st)
}

func (o Override) check(st *State) error {
	switch o.Kind {
	case EventAbort:
		return nil
	case EventEdit:
		return o.checkEdit(st)
	case EventSkip, EventRetry, EventForceDone:
	default:
		return fmt.Errorf("%q is no override", o.Kind)
	}
	u := st.Step(o.Step)
	switch {
	case u == nil:
		return fmt.Errorf("there is no step %q", o.Step)
	case u.Status == StepRunning || u.Status == StepUndoing:
		return fmt.Errorf("step %s is in flight: abort the run, or resume it so that what is running is ended first", o.Step)
	case u.Status == StepSucceeded, u.Status == StepSkipped:
		return fmt.Errorf("step %s is %s already", o.Step, u.Status)
	case o.Kind == EventRetry && u.Status == StepPending:
		return fmt.Errorf("step %s has not been tried", o.Step)
	}
	return nil
}

// checkEdit: what is in flight, or in doubt, was started with the inputs that stand; its probe needs them.
func (o Override) checkEdit(st *State) error {
	if len(o.Inputs) == 0 {
		return errors.New("no input is given")
	}
	for _, u := range st.units() {
		if (o.Step == "" || o.Step == u.ID) && (u.inDoubt() || u.Status == StepRunning) {
			return fmt.Errorf("step %s is in flight with the present inputs", u.ID)
		}
	}
	if o.Step == "" {
		_, err := st.Runbook.ResolveInputs(merge(st.Inputs, o.Inputs))
		return err
	}
	u := st.Step(o.Step)
	switch {
	case u == nil:
		return fmt.Errorf("there is no step %q", o.Step)
	case u.Status == StepSucceeded, u.Status == StepSkipped:
		return fmt.Errorf("step %s is %s already", o.Step, u.Status)
	case u.step.Kind != KindDo && u.step.Kind != KindRun:
		return fmt.Errorf("step %s has no inputs", o.Step)
	}
	return nil
}

// Answer records what a person says to an `ask` that waits, or that will be reached.
func (e *Engine) Answer(ctx context.Context, id relight.RunID, step string, a Answer) (*State, error) {
	return e.amend(ctx, id, a.Actor, step, func(st *State) ([]staged, error) {
		u := st.Step(step)
		if u == nil || u.step.Kind != KindAsk || u.settled() {
			return nil, usage("answer", "step "+step, errors.New("nothing is asked there"), "relight run show "+string(id))
		}
		q := Question{Run: id, Step: step, Kind: AskWork, Other: u.step.Ask.Other}
		if u.step.Ask.Approval {
			q.Kind, q.PlanHash = AskApprove, st.PlanHash
		}
		a, err := e.checkAnswer(q, st.Actor, a)
		a.At = e.c.Now().UTC()
		return []staged{{EventAnswered, a}}, err
	})
}

// Choose records a choice that the run waits for.
func (e *Engine) Choose(ctx context.Context, id relight.RunID, step, option, actor string) (*State, error) {
	return e.amend(ctx, id, actor, step, func(st *State) ([]staged, error) {
		u := st.Step(step)
		if u == nil || u.Question == nil || u.Question.Kind != AskChoose {
			return nil, usage("choose", "step "+step, errors.New("no choice is open there"), "relight run show "+string(id))
		}
		if err := u.Question.allows(option); err != nil {
			return nil, err
		}
		return []staged{{EventChosen, Choice{Option: option, Recommend: u.Question.Recommend}}}, nil
	})
}

// Confirm records the typed name of a target whose blast radius the run has shown and waits to have confirmed.
func (e *Engine) Confirm(ctx context.Context, id relight.RunID, step, typed, actor string) (*State, error) {
	return e.amend(ctx, id, actor, step, func(st *State) ([]staged, error) {
		u := st.Step(step)
		if u == nil || u.Question == nil || u.Question.Blast == nil {
			return nil, usage("confirm", "step "+step, errors.New("nothing waits to be confirmed there"), "relight run show "+string(id))
		}
		if err := u.Question.Blast.Match(typed); err != nil {
			return nil, err
		}
		return []staged{{EventConfirmed, Confirmation{Typed: typed, Blast: *u.Question.Blast, BlastHash: u.Question.BlastHash}}}, nil
	})
}

// amend adds events to a run without driving it; it looks again when somebody else was faster.
func (e *Engine) amend(ctx context.Context, id relight.RunID, actor, step string, decide func(*State) ([]staged, error)) (*State, error) {
	for {
		st, err := Fold(ctx, e.c.Log, id)
		if err != nil {
			return nil, err
		}
		if st.Over() {
			return st, usage("change run", string(id), fmt.Errorf("it is %s", st.Status), "relight run show "+string(id)+" tells how it ended; start a new one: relight run start "+st.Name)
		}
		r := e.newRun(id, actor)
		r.st, r.after, r.epoch = st, st.Seq, st.Epoch
		list, err := decide(st)
		if err != nil {
			return st, err
		}
		err = r.amend(ctx, step, list)
		if !errors.Is(err, ErrStale) {
			return r.st, err
		}
	}
}

func (r *run) amend(ctx context.Context, step string, list []staged) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range list {
		if err := r.stage(step, s.kind, s.data); err != nil {
			return err
		}
	}
	written, err := r.log.Append(ctx, r.id, r.after, r.queue)
	if err != nil {
		return fmt.Errorf("record run %s: %w", r.id, err)
	}
	r.wrote(written)
	return nil
}

// sweep ends what an aborted run left behind, unless its holder lives and does so itself.
func (e *Engine) sweep(ctx context.Context, st *State) error {
	if e.c.Leases != nil {
		lease, err := e.c.Leases.Acquire(ctx, st.Run, false)
		if relight.CodeOf(err) == relight.CodeLeaseHeld {
			return nil
		}
		if err != nil {
			return fmt.Errorf("see whether run %s is held: %w", st.Run, err)
		}
		defer func() {
			if err := lease.Release(context.WithoutCancel(ctx)); err != nil {
				e.c.Logger.Warn("the run's lease was not released", "run", st.Run, "err", err)
			}
		}()
	}
	var errs []error
	for _, u := range st.units() {
		for _, h := range u.Handles {
			if u.settled() || u.Effected {
				continue
			}
			if err := e.c.Processes.End(ctx, h); err != nil {
				errs = append(errs, fmt.Errorf("end what step %s left running: %w", u.ID, err))
			}
		}
	}
	return errors.Join(errs...)
}
