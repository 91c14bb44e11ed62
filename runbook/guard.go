package runbook

import (
	"context"
	"errors"
	"fmt"

	"github.com/toolboxai/relight"
)

// keptOut says that a destructive step may not begin because of what others do, or because that cannot be known. Nothing was changed, so the run waits.
type keptOut struct{ error }

func (k keptOut) Unwrap() error { return k.error }

// guard keeps the destructive runs of other hosts away from target, from the first step that destroys something of it until this process leaves the run.
func (r *run) guard(ctx context.Context, target string) error {
	if r.e.c.Guard == nil {
		return nil
	}
	r.guarding.Lock()
	defer r.guarding.Unlock()
	if _, held := r.guards[target]; held {
		return nil
	}
	l, err := r.e.c.Guard(ctx, r.id, target)
	if err != nil {
		return keptOut{err}
	}
	r.guards[target] = l
	if l == nil { // it is nothing that hosts have in common
		return nil
	}
	r.watching.Go(func() {
		select {
		case <-l.Lost():
			r.mu.Lock()
			defer r.mu.Unlock()
			r.die(&relight.Error{Op: "keep other hosts away from", Subject: target, Code: relight.CodeLeaseHeld, Err: errors.New("the lease was lost in the middle of the run"),
				Hint: "see what the other host does with it before anything else; then: relight run resume " + string(r.id)})
		case <-r.left:
		}
	})
	return nil
}

// guardAgain takes what an earlier process of the run held: what was confirmed may have been begun.
func (r *run) guardAgain(ctx context.Context) error {
	for _, u := range r.st.units() {
		if u.Confirmed == nil {
			continue
		}
		err := r.guard(ctx, u.Confirmed.Blast.Target)
		if err == nil {
			continue
		}
		err = fmt.Errorf("go on with run %s: %w", r.id, err)
		return errors.Join(err, r.record(ctx, "", EventPaused, Ended{Step: u.ID, Reason: err.Error(), Code: relight.CodeOf(err)}))
	}
	return nil
}

// leave gives every guard back.
func (r *run) leave(ctx context.Context) {
	close(r.left)
	r.watching.Wait()
	for target, l := range r.guards {
		if l == nil {
			continue
		}
		if err := l.Release(context.WithoutCancel(ctx)); err != nil {
			r.e.c.Logger.Warn("a lease was not released, and ends by itself", "target", target, "run", r.id, "err", err)
		}
	}
}
