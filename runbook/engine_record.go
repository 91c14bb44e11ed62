package runbook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/toolboxai/relight"
)

// run is one run while this process drives it. Everything it knows is st, and st changes only by staged events.
type run struct {
	e     *Engine
	log   Log
	watch func(relight.Event)
	id    relight.RunID
	actor string
	epoch int64

	mu        sync.Mutex
	st        *State
	queue     []relight.Event // folded into st, not yet durable
	after     int64           // position of the run's last durable event
	restamped bool            // st differs from the fold of what is durable in times and names
	dead      error           // nothing more can be recorded, so nothing more may be done
	active    map[string]bool
	blocked   map[string]error // units that wait for a person whom this process cannot reach
	cancel    context.CancelCauseFunc
	// questions that a person is being asked here, with what ends the asking
	questions map[string]context.CancelFunc

	guarding sync.Mutex
	guards   map[string]Lease // by target; nil where none is needed
	watching sync.WaitGroup
	left     chan struct{} // closed when this process leaves the run
}

// stage folds an event in and queues it. The caller holds mu. No effect may rest on it before flush.
func (r *run) stage(step, kind string, data any) error {
	if r.dead != nil {
		return r.dead
	}
	raw, err := r.encode(kind, data)
	if err != nil {
		return fmt.Errorf("write event %s of run %s: %w", kind, r.id, err)
	}
	ev := relight.Event{
		At: r.e.c.Now().UTC(), Host: r.e.c.Host, Actor: r.actor, Run: r.id, Step: step, Kind: kind, Data: raw,
	}
	if err := r.st.Apply(ev); err != nil {
		return err
	}
	r.queue = append(r.queue, ev)
	return nil
}

// flush makes the queue durable. The caller holds mu. An append is not given up when ctx ends: what has happened is told.
func (r *run) flush(ctx context.Context) error {
	for r.dead == nil && len(r.queue) > 0 {
		written, err := r.log.Append(context.WithoutCancel(ctx), r.id, r.after, r.queue)
		if errors.Is(err, ErrStale) && r.after > 0 {
			err = r.merge(ctx)
			if err == nil {
				continue
			}
		}
		if err != nil {
			r.die(fmt.Errorf("record run %s: %w", r.id, err))
			break
		}
		r.wrote(written)
	}
	return r.dead
}

// wrote notes when the log stamped events otherwise than they were folded: a journal has its own clock.
func (r *run) wrote(written []relight.Event) {
	for i, ev := range written {
		was := r.queue[i]
		r.restamped = r.restamped || !ev.At.Equal(was.At) || ev.Host != was.Host || ev.Actor != was.Actor
	}
	r.queue = nil
	r.seen(written)
}

func (r *run) seen(written []relight.Event) {
	for _, ev := range written {
		r.after, r.st.Seq = ev.Seq, ev.Seq
		r.watch(ev)
	}
}

// die stops everything: an effect that cannot be recorded must not happen.
func (r *run) die(err error) {
	r.dead = err
	if r.cancel != nil {
		r.cancel(err)
	}
}

// merge takes in what others wrote: overrides and answers are welcome, a newer holder ends this one. What was queued is
// folded again on top; an event that the news made impossible is dropped, and whoever staged it finds its step changed.
func (r *run) merge(ctx context.Context) error {
	st := NewState()
	var news []relight.Event
	err := r.log.Read(context.WithoutCancel(ctx), r.id, func(ev relight.Event) error {
		if ev.Seq > r.after {
			news = append(news, ev)
		}
		return st.Apply(ev)
	})
	if err != nil {
		return fmt.Errorf("read what others wrote: %w", err)
	}
	if st.Epoch != r.epoch {
		return &relight.Error{
			Op: "drive run", Subject: string(r.id), Code: relight.CodeLeaseHeld,
			Err: fmt.Errorf("%s on %s has taken it over", st.Holder, st.Host), Hint: "follow it with: relight run watch " + string(r.id),
		}
	}
	if len(news) == 0 {
		return errors.New("the journal refuses the position that it gave itself")
	}
	kept := r.queue[:0:0]
	for _, ev := range r.queue {
		if st.Apply(ev) == nil {
			kept = append(kept, ev)
		}
	}
	r.st, r.queue = st, kept
	r.seen(news)
	r.closeAsked()
	if st.Over() && r.cancel != nil {
		r.cancel(errors.New("the run was aborted"))
	}
	return nil
}

// record stages one event and makes it durable with everything queued before it.
func (r *run) record(ctx context.Context, step, kind string, data any) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.stage(step, kind, data); err != nil {
		return err
	}
	return r.flush(ctx)
}

// view copies a unit's state; what it points to is not changed by later events.
func (r *run) view(id string) StepState {
	r.mu.Lock()
	defer r.mu.Unlock()
	return *r.st.index[id]
}

func (r *run) encode(kind string, data any) (json.RawMessage, error) {
	raw, err := mustJSON(data)
	if err != nil || raw == nil || kind == EventStarted {
		return raw, err // what run.started pins has a hash; its inputs name secrets by reference
	}
	return redact(raw, r.e.c.Redact)
}

// redact applies clean to every text in a JSON value; keys and numbers stay.
func redact(raw json.RawMessage, clean func(string) string) (json.RawMessage, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	return json.Marshal(cleanValue(v, clean))
}

func cleanValue(v any, clean func(string) string) any {
	switch x := v.(type) {
	case string:
		return clean(x)
	case []any:
		for i := range x {
			x[i] = cleanValue(x[i], clean)
		}
	case map[string]any:
		for k := range x {
			x[k] = cleanValue(x[k], clean)
		}
	}
	return v
}

// begin writes the first events of a run.
func (r *run) begin(d Started, o StartOptions) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.stage("", EventStarted, d); err != nil {
		return err
	}
	clocks := []struct {
		name string
		at   time.Time
	}{{ClockDetected, o.Detected}, {ClockDeclared, o.Declared}, {ClockStarted, r.st.Started}}
	for _, c := range clocks {
		if c.at.IsZero() {
			continue
		}
		if err := r.stage("", clockPrefix+c.name, Mark{At: c.at.UTC()}); err != nil {
			return err
		}
	}
	return nil
}
