package runbook

import (
	"context"
	"time"

	"github.com/toolboxai/relight"
)

// listen looks for what others write about the run while steps work or a person thinks: an abort must stop a long
// restore, and an answer given elsewhere must end the question here. It returns a function that stops it and waits.
func (r *run) listen(ctx context.Context) (stop func()) {
	if r.e.c.Poll < 0 {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(r.e.c.Poll)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				r.look(ctx)
			}
		}
	}()
	return func() { cancel(); <-done }
}

// look takes in news, if there are any.
func (r *run) look(ctx context.Context) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dead != nil || r.after == 0 {
		return
	}
	var last int64
	err := r.log.Read(ctx, r.id, func(ev relight.Event) error {
		last = ev.Seq
		return nil
	})
	if err != nil || last <= r.after {
		return // the next append meets the same error, and says it
	}
	if err := r.merge(ctx); err != nil {
		r.die(err)
	}
}

// asking gives a question its own context, which ends when somebody has decided elsewhere.
func (r *run) asking(ctx context.Context, id string) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.questions[id] = cancel
	return ctx, func() {
		cancel()
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.questions, id)
	}
}

// closeAsked ends the questions that are no longer open. The caller holds mu.
func (r *run) closeAsked() {
	for id, cancel := range r.questions {
		if u := r.st.index[id]; u.Question == nil || u.settled() {
			cancel()
		}
	}
}

// decided says whether a question that had been asked is no longer open.
func (r *run) decided(id string) bool { return r.view(id).Question == nil }
