package runbook

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/toolboxai/relight"
)

// outcome is what became of a unit: events that end it, or why it has to wait.
type outcome struct {
	id      string
	events  []staged
	blocked error // nobody could answer
}

type staged struct {
	kind string
	data any
}

// drive runs what can run until nothing can. The end of one step and the start of the next are one append.
func (r *run) drive(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r.mu.Lock()
	r.cancel = cancel
	r.mu.Unlock()
	defer r.listen(ctx)()
	results, running := make(chan outcome), 0
	for {
		for _, id := range r.advance(ctx, r.e.c.Parallel-running) {
			running++
			go func() { results <- r.execute(ctx, id) }()
		}
		if running == 0 {
			return r.conclude(ctx)
		}
		r.absorb(<-results)
		running--
	}
}

// advance settles what needs no work, and starts up to n units.
func (r *run) advance(ctx context.Context, n int) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var ids []string
	if r.settle() == nil && !r.halted(ctx) {
		ids = r.pick(n)
	}
	if r.flush(ctx) != nil {
		return nil
	}
	return slices.DeleteFunc(ids, func(id string) bool {
		u := r.st.index[id] // others may have skipped it meanwhile
		if gone := u.settled() || r.st.Over(); gone {
			delete(r.active, id)
			return true
		}
		return false
	})
}

// halted: after a failure that nothing takes up, nothing new begins.
func (r *run) halted(ctx context.Context) bool {
	return r.dead != nil || ctx.Err() != nil || r.st.Over() || len(r.st.failed()) > 0
}

func (r *run) pick(n int) []string {
	var ids []string
	for _, u := range r.st.startable() {
		if len(ids) >= n || r.active[u.ID] || r.blocked[u.ID] != nil {
			continue
		}
		if err := r.prestart(u); err != nil {
			r.die(err)
			return nil
		}
		r.active[u.ID] = true
		ids = append(ids, u.ID)
	}
	return ids
}

// prestart stages the start of a step that nobody has to confirm, so that it shares an append with what came before.
func (r *run) prestart(u *StepState) error {
	fresh := u.Status == StepPending || u.Status == StepUndone
	if r.st.Mode == Dry || !fresh || u.Effected || len(u.Handles) > 0 {
		return nil
	}
	j, err := r.job(*u)
	if err != nil || j.asks() {
		return nil // execute finds the same, and says it
	}
	return r.stage(u.ID, EventStepStarted, StepStart{Attempt: u.Attempts + 1, Inputs: j.inputs})
}

// settle decides everything that needs no work: closed gates, false conditions, elements, finished lists.
func (r *run) settle() error {
	for changed := true; changed && r.dead == nil && !r.st.Over(); {
		changed = false
		for _, u := range slices.Clone(r.st.Steps) {
			if u.settled() || r.active[u.ID] || u.Status != StepPending && u.Status != StepUndone {
				continue
			}
			ev, err := r.decide(u)
			if err != nil {
				ev = r.failure(u.ID, err)
			}
			for _, s := range ev {
				changed = true
				if err := r.stage(u.ID, s.kind, s.data); err != nil {
					r.die(err)
					return err
				}
			}
		}
	}
	return r.dead
}

func (r *run) decide(u *StepState) ([]staged, error) {
	if u.Expanded {
		return r.gather(u), nil
	}
	switch g, why := r.st.gateOf(u.step); {
	case g == shut:
		return []staged{{EventStepSkipped, StepEnd{Reason: why}}}, nil
	case g == undecided || !r.st.needsMet(u.step):
		return nil, nil
	}
	if u.step.When != nil {
		yes, known, err := r.st.condition(u.step.When, nil)
		if err != nil || !known && r.st.Mode != Dry {
			return nil, unclear("decide whether to run", u.ID, u.step.When.Text, err)
		}
		if known && !yes {
			return []staged{{EventStepSkipped, StepEnd{Reason: "not needed: " + u.step.When.Text + " is false"}}}, nil
		}
	}
	if u.step.Each == nil {
		return nil, nil
	}
	return r.unfold(u)
}

// unfold pins the elements of `each`.
func (r *run) unfold(u *StepState) ([]staged, error) {
	items, known, err := r.st.elements(u.step.Each)
	if err == nil && !known && r.st.Mode == Dry {
		return nil, nil
	}
	if err != nil || !known {
		return nil, unclear("list the elements of", u.ID, u.step.Each.Text, err)
	}
	if len(items) == 0 {
		return []staged{{EventStepSkipped, StepEnd{Reason: "not needed: " + u.step.Each.Text + " is empty"}}}, nil
	}
	return []staged{{EventStepExpanded, Expanded{Items: items}}}, nil
}

// gather ends a step whose elements have ended.
func (r *run) gather(u *StepState) []staged {
	var outputs []any
	for _, i := range u.Items {
		switch {
		case i.Status == StepFailed:
			return r.failure(u.ID, &relight.Error{Op: "run", Subject: i.ID, Code: i.Code, Err: errors.New(i.Error), Hint: i.Hint})
		case !i.settled():
			return nil
		}
		outputs = append(outputs, i.Output)
	}
	if r.st.Mode == Dry {
		return []staged{{EventStepExamined, worst(u.Items)}}
	}
	raw, err := mustJSON(map[string]any{"count": len(outputs), "items": outputs})
	if err != nil {
		return r.failure(u.ID, err)
	}
	return r.success(u.ID, StepEnd{Output: raw, By: "effect"})
}

// success ends a step well and marks its clock.
func (r *run) success(id string, d StepEnd) []staged {
	return append([]staged{{EventStepSucceeded, d}}, r.clockOf(id)...)
}

func (r *run) clockOf(id string) []staged {
	step := r.st.steps[id] // elements have none: their step marks the clock
	if step == nil || step.Clock == "" {
		return nil
	}
	return []staged{{clockPrefix + step.Clock, Mark{At: r.e.c.Now().UTC()}}}
}

// failure ends a step badly. A whole step may go on elsewhere; an element's failure is its step's.
func (r *run) failure(id string, err error) []staged {
	d := StepEnd{Error: err.Error(), Code: relight.CodeOf(err), Hint: relight.HintOf(err)}
	if step := r.st.steps[id]; step != nil {
		d.Divert = r.st.divertOf(step)
	}
	return []staged{{EventStepFailed, d}}
}

func (r *run) absorb(out outcome) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.active, out.id)
	if out.blocked != nil {
		r.blocked[out.id] = out.blocked
	}
	if r.st.index[out.id].settled() {
		return // a person has decided meanwhile
	}
	for _, s := range out.events {
		if r.dead != nil {
			return
		}
		if err := r.stage(out.id, s.kind, s.data); err != nil {
			r.die(err)
			return
		}
	}
}

// conclude writes why nothing more can run.
func (r *run) conclude(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dead != nil {
		return r.dead
	}
	kind, d, err := r.ending(ctx)
	if kind != "" {
		if serr := r.stage("", kind, d); serr != nil {
			return serr
		}
	}
	if ferr := r.flush(ctx); ferr != nil {
		return ferr
	}
	return err
}

func (r *run) ending(ctx context.Context) (string, Ended, error) {
	failed := r.st.failed()
	switch {
	case r.st.Status == relight.RunAborted:
		return EventAborted, Ended{Reason: r.st.Reason}, r.stopped(relight.CodeAborted, errors.New("a person has aborted it: "+r.st.Reason), "")
	case ctx.Err() != nil:
		err := context.Cause(ctx)
		return EventPaused, Ended{Reason: "interrupted: " + err.Error()}, r.stopped("", err, "go on with: relight run resume "+string(r.id))
	case len(failed) > 0:
		return r.failedEnding(failed)
	case len(r.blocked) > 0:
		return EventWaiting, Ended{Reason: "waiting for a person"}, r.waitingError()
	}
	for _, u := range r.st.Steps {
		if !u.settled() {
			return EventPaused, Ended{Step: u.ID, Reason: "no step can start"}, r.stopped(relight.CodeUsage,
				fmt.Errorf("step %s waits for a step that can never end", u.ID), "relight runbook lint shows the order of the steps")
		}
	}
	if r.st.Mode == Dry {
		return "", Ended{}, nil
	}
	if len(r.st.Exceptions) > 0 {
		return EventExcepted, Ended{Exceptions: r.st.Exceptions}, nil
	}
	return EventCompleted, Ended{}, nil
}

func (r *run) failedEnding(failed []*StepState) (string, Ended, error) {
	u := failed[0]
	err := r.stopped(u.Code, fmt.Errorf("step %s: %s", u.ID, u.Error), u.Hint)
	if u.Hint == "" {
		err = r.stopped(u.Code, fmt.Errorf("step %s: %s", u.ID, u.Error),
			fmt.Sprintf("relight run retry %s %s, or skip, force-done, roll-back, abort", r.id, u.ID))
	}
	d := Ended{Step: u.ID, Reason: u.Error, Code: u.Code}
	if r.st.Mode == Drill {
		return EventFailed, d, err // nobody is called for a drill
	}
	return EventPaused, d, err
}

func (r *run) waitingError() error {
	var steps []string
	code, hint := relight.CodeWaiting, "answer, then: relight run resume "+string(r.id)
	for id, err := range r.blocked {
		steps = append(steps, id)
		if c := relight.CodeOf(err); c == relight.CodePlanChanged || c == relight.CodeLeaseHeld {
			code = c
		}
	}
	slices.Sort(steps)
	if h := relight.HintOf(r.blocked[steps[0]]); h != "" {
		hint = h
	}
	return r.stopped(code, fmt.Errorf("waiting for a person at %s: %w", strings.Join(steps, ", "), r.blocked[steps[0]]), hint)
}

func (r *run) stopped(code relight.Code, err error, hint string) error {
	return &relight.Error{Op: "run " + r.st.Name, Subject: string(r.id), Code: code, Err: err, Hint: hint}
}

// unclear is the error of an expression that gave no answer.
func unclear(what, step, text string, err error) error {
	if err == nil {
		err = fmt.Errorf("%q is not known", text)
	}
	return usage(what, "step "+step, err, "the steps it looks at must run before it")
}
