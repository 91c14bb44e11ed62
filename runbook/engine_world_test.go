package runbook_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/action"
	"github.com/toolboxai/relight/runbook"
)

// world is what effects change. It outlives the engine, as a database outlives relight.
type world struct {
	detached bool // what effects start is meant to outlive relight
	mu       sync.Mutex
	effects  map[string]int  // how often each effect was had
	there    map[string]bool // which effects are there
	broken   map[string]int  // how many attempts fail, by key
	size     string          // part of every plan
	undone   []string
	ended    []relight.Handle
	asked    []runbook.Question
	// while an effect is under way, hold is called
	hold func(key string)
}

func newWorld() *world {
	return &world{effects: map[string]int{}, there: map[string]bool{}, broken: map[string]int{}, size: "1 GB"}
}

func (w *world) do(key string) error {
	if w.hold != nil {
		w.hold(key)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.broken[key] > 0 {
		w.broken[key]--
		return fmt.Errorf("%s is broken", key)
	}
	w.effects[key]++
	w.there[key] = true
	return nil
}

func (w *world) is(key string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.there[key]
}

type keyIn struct {
	Key string `flag:"key" required:"true" help:"what to do"`
}

type keyOut struct {
	Key  string   `json:"key"`
	List []string `json:"list,omitempty"`
}

func (w *world) run(ctx context.Context, env action.Env, in keyIn) (keyOut, error) {
	if err := env.Started(ctx, relight.Handle{Kind: "process", PID: 4711, What: in.Key, Detached: w.detached}); err != nil {
		return keyOut{}, err
	}
	if err := w.do(in.Key); err != nil {
		return keyOut{}, err
	}
	return keyOut{Key: in.Key}, nil
}

func (w *world) probe(_ context.Context, _ action.Env, in keyIn) (action.Probed, error) {
	if w.is(in.Key) {
		return action.Probed{State: action.Done, Detail: "it is there", Out: keyOut{Key: in.Key}}, nil
	}
	return action.Probed{State: action.NotDone}, nil
}

func (w *world) plan(_ context.Context, _ action.Env, in keyIn) (action.Blast, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return action.Blast{Target: "target-" + in.Key, Lines: []string{"removes " + w.size}}, nil
}

func (w *world) undo(_ context.Context, _ action.Env, in keyIn, out keyOut) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if out.Key != in.Key {
		return fmt.Errorf("output of %s is %q", in.Key, out.Key)
	}
	delete(w.there, in.Key)
	w.undone = append(w.undone, in.Key)
	return nil
}

func (w *world) check(_ context.Context, _ action.Env, in keyIn) (keyOut, error) {
	if w.is(in.Key) {
		return keyOut{Key: in.Key}, nil
	}
	return keyOut{}, &relight.Error{Op: "check", Subject: in.Key, Code: relight.CodeVerification, Err: errors.New("it is not there")}
}

func quick(_ context.Context, _ action.Env, in keyIn) (keyOut, error) {
	return keyOut{Key: in.Key}, nil
}

// leak puts its key wherever an action can put anything.
func leak(ctx context.Context, env action.Env, in keyIn) (keyOut, error) {
	err := env.Checkpoint(ctx, "progress", map[string]any{"at": in.Key, "n": 1})
	return keyOut{}, errors.Join(fmt.Errorf("the password %s is wrong", in.Key), err)
}

func (w *world) list(context.Context, action.Env, struct{}) (keyOut, error) {
	return keyOut{List: []string{"x", "y", "z"}}, nil
}

func (w *world) registry(t testing.TB) *action.Registry {
	t.Helper()
	type spec = action.Spec[keyIn, keyOut]
	reg, err := action.NewRegistry(
		action.Define(spec{Name: "fake.probed", Title: "do", Danger: action.Harm, Run: w.run, Probe: w.probe, Undo: w.undo}),
		action.Define(spec{Name: "fake.plain", Title: "do", Run: w.run, Probe: w.probe, Undo: w.undo}),
		action.Define(spec{Name: "fake.blind", Title: "do", Run: w.run}),
		action.Define(spec{Name: "fake.wipe", Title: "wipe", Danger: action.Data, Run: w.run, Probe: w.probe, Plan: w.plan}),
		action.Define(spec{Name: "fake.quick", Title: "nothing", Run: quick}),
		action.Define(spec{Name: "fake.leak", Title: "leak", Run: leak}),
		action.Define(spec{Name: "fake.check", Title: "check", Run: w.check, Probe: w.probe}),
		action.Define(action.Spec[struct{}, keyOut]{Name: "fake.list", Title: "list", Run: w.list,
			Probe: func(context.Context, action.Env, struct{}) (action.Probed, error) {
				return action.Probed{State: action.NotDone}, nil
			}}),
	)
	if err != nil {
		t.Fatal(err)
	}
	return reg
}

// End makes a world the engine's Processes.
func (w *world) End(_ context.Context, h relight.Handle) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = append(w.ended, h)
	return nil
}

// honest is a Person who types what is asked for, chooses what is recommended, and looks before saying what became of a step.
type honest struct {
	w    *world
	keys map[string]string // step → key of its effect
}

func (p honest) note(q runbook.Question) {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	p.w.asked = append(p.w.asked, q)
}

func (p honest) Confirm(_ context.Context, q runbook.Question) (string, error) {
	p.note(q)
	return q.Blast.Target, nil
}

func (p honest) Ask(_ context.Context, q runbook.Question) (runbook.Answer, error) {
	p.note(q)
	return runbook.Answer{Actor: "bob", Value: "seen", Decision: runbook.Approve}, nil
}

func (p honest) Choose(_ context.Context, q runbook.Question) (string, error) {
	p.note(q)
	if q.Kind == runbook.AskChoose {
		return q.Recommend, nil
	}
	if p.w.is(p.keys[q.Step]) {
		return runbook.SayDone, nil
	}
	return runbook.SayRetry, nil
}

// store keeps events as a journal does; it survives every crash.
type store struct {
	mu     sync.Mutex
	events []relight.Event
}

var errCrash = errors.New("relight was killed")

// mortal is one process's access to a store. It dies at the crashAt-th append, before or after that is durable.
type mortal struct {
	*store
	crashAt int // 0: never
	durable bool
	appends int
	dead    bool
}

func (m *mortal) Append(_ context.Context, run relight.RunID, after int64, events []relight.Event) ([]relight.Event, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead {
		return nil, errCrash
	}
	m.appends++
	m.dead = m.appends == m.crashAt
	if m.dead && !m.durable {
		return nil, errCrash
	}
	var last int64
	for _, e := range m.events {
		if e.Run == run {
			last = e.Seq
		}
	}
	if last != after {
		return nil, fmt.Errorf("after %d, not %d: %w", last, after, runbook.ErrStale)
	}
	var out []relight.Event
	for _, e := range events {
		e.Seq = int64(len(m.events)) + 1
		m.events = append(m.events, e)
		out = append(out, e)
	}
	if m.dead {
		return nil, errCrash
	}
	return out, nil
}

func (s *store) Read(_ context.Context, run relight.RunID, fn func(relight.Event) error) error {
	s.mu.Lock()
	events := append([]relight.Event(nil), s.events...)
	s.mu.Unlock()
	for _, e := range events {
		if e.Run != run {
			continue
		}
		if err := fn(e); err != nil {
			return err
		}
	}
	return nil
}

func (s *store) kinds(step string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []string
	for _, e := range s.events {
		if e.Step == step {
			list = append(list, e.Kind)
		}
	}
	return list
}

// ticking is a clock that moves a millisecond with each look.
func ticking() func() time.Time {
	var mu sync.Mutex
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	return func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		now = now.Add(time.Millisecond)
		return now
	}
}

func engine(t testing.TB, w *world, log runbook.Log, p runbook.Person, change ...func(*runbook.Config)) *runbook.Engine {
	t.Helper()
	c := runbook.Config{
		Log: log, Actions: w.registry(t), Processes: w, Person: p, Host: "db1", Now: ticking(),
		Poll: time.Millisecond, Sleep: func(ctx context.Context, _ time.Duration) error { return ctx.Err() },
	}
	for _, f := range change {
		f(&c)
	}
	e, err := runbook.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func compile(t testing.TB, w *world, src string) *runbook.Runbook {
	t.Helper()
	rb, err := runbook.Compile([]byte(src), "test.md", w.registry(t))
	if err != nil {
		t.Fatal(err)
	}
	return rb
}

const head = `---
runbook: test
title: Test
objective: {rto: 30m, rpo: 15m}
---
`

// step writes a step fence.
func step(title, body string) string {
	return "### " + title + "\nText.\n```step\n" + body + "\n```\n"
}
