package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/coordinator"
	"github.com/toolboxai/relight/estate"
	"github.com/toolboxai/relight/host"
	"github.com/toolboxai/relight/journal"
	"github.com/toolboxai/relight/repo"
	"github.com/toolboxai/relight/store/postgres"
)

// Serve protects the estate until ctx ends. One process of an estate serves.
func (a *App) Serve(ctx context.Context) error {
	e, err := a.Estate()
	if err != nil {
		return err
	}
	j, err := a.Journal(ctx) // also makes the state directory
	if err != nil {
		return err
	}
	lock, err := host.Lock(stateFile(e, "serve.lock"), "relight serve", a.o.Now)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Unlock() }()
	if err := a.announce(e); err != nil {
		return err
	}
	record := func(ctx context.Context, kind string, data any) error {
		b, err := json.Marshal(data)
		if err != nil {
			return fmt.Errorf("record %s: %w", kind, err)
		}
		_, err = j.Append(ctx, relight.Event{Kind: kind, Actor: "relight serve", Data: b}, journal.Expect{})
		return err
	}
	started := sync.OnceValue(func() error { return record(ctx, "protection.started", map[string]any{"pid": os.Getpid()}) })
	for again := true; again; {
		if again, err = a.protect(ctx, e, record, started); err != nil {
			return err
		}
	}
	return record(context.WithoutCancel(ctx), "protection.stopped", map[string]any{"pid": os.Getpid()})
}

// protect protects until ctx ends, or until it is to begin again with the keys that lie there now.
func (a *App) protect(ctx context.Context, e *estate.Estate, record coordinator.Recorder, started func() error) (again bool, err error) {
	ctx, renew := context.WithCancelCause(ctx)
	defer renew(nil)
	p, err := a.protected(ctx, e, record)
	if err != nil {
		return false, err
	}
	if err := started(); err != nil {
		return false, err
	}
	keys, err := a.keyTasks(ctx, e, record, renew)
	if err != nil {
		return false, err
	}
	tasks, err := a.tasks(ctx, e, p)
	if err != nil {
		return false, err
	}
	coordinator.New(coordinator.Options{Stores: p.stores, Tasks: append(tasks, keys...), Record: record, Log: a.o.Log, Now: a.o.Now,
		Publish: func(s coordinator.Status) error { return publish(e, s) }}).Run(ctx)
	var r renewed
	if !errors.As(context.Cause(ctx), &r) {
		return false, nil
	}
	return true, a.closeRepository(r.repository)
}

// announce writes down which process serves, also when it was started by hand or by systemd.
func (a *App) announce(e *estate.Estate) error {
	if err := os.MkdirAll(stateFile(e, "services"), 0o755); err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	if err := forget(e); err != nil {
		return err
	}
	self, err := host.Self(serveName)
	if err != nil {
		return err
	}
	if known, err := host.ReadHandle(serveHandle(e)); err == nil && known.PID == self.PID && known.Started == self.Started {
		return nil // started by `relight protect start`, whose handle knows more
	}
	b, err := json.Marshal(self)
	if err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	return host.WriteFileDurable(serveHandle(e), append(b, '\n'), 0o640)
}

// forget removes the status of a process that served before: it must not pass for that of one which has not published yet.
func forget(e *estate.Estate) error {
	if err := os.Remove(statusFile(e)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget the former status: %w", err)
	}
	return nil
}

// publish replaces the status file. It need not be durable: after a crash it is stale, and says so by its time.
func publish(e *estate.Estate, s coordinator.Status) error {
	b, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("publish status: %w", err)
	}
	next := statusFile(e) + ".next"
	if err := os.WriteFile(next, b, 0o644); err != nil {
		return fmt.Errorf("publish status: %w", err)
	}
	return os.Rename(next, statusFile(e))
}

// protecting is the stores of an estate with what protects them.
type protecting struct {
	stores []coordinator.Store
	turns  map[string]*turn // by store
}

// keeps says whether this host keeps the estate: of several that protect it, the one that follows the first of its stores does.
func (p protecting) keeps(ctx context.Context) bool {
	for _, name := range slices.Sorted(maps.Keys(p.turns)) {
		return p.turns[name].await(ctx)
	}
	return false
}

func (a *App) protected(ctx context.Context, e *estate.Estate, record coordinator.Recorder) (protecting, error) {
	out := protecting{turns: map[string]*turn{}}
	for _, s := range e.Stores {
		t := &turn{taken: make(chan struct{}), store: s.Name, record: record, log: a.o.Log, now: a.o.Now, patience: followPatience, recovering: func() bool { return a.recovering(e, s.Name) }}
		p := coordinator.Store{Name: s.Name, Schedule: schedule(s.Policy), PointEvery: s.MarkEvery}
		pg, err := a.postgresStore(ctx, s)
		if err != nil {
			return out, err
		}
		p.Points = pointKeeper{a: a, store: pg, repositories: s.Repositories}
		live := time.Second
		for _, name := range slices.Sorted(slices.Values(s.Repositories)) { // in one order, so that two hosts do not hold half each
			m, err := a.Repository(ctx, name)
			if err != nil {
				return out, err
			}
			t.metas = append(t.metas, m)
			live = min(live, m.Descriptor().LiveEvery())
			p.Repositories = append(p.Repositories, coordinator.Repository{Name: name, Sink: m.Sink(s.Name), Base: base{store: pg, meta: m, name: s.Name, lock: a.lock, full: s.FullBackup, now: a.o.Now, log: a.o.Log}})
		}
		receiver, err := a.receiver(ctx, e, s, live, record)
		if err != nil {
			return out, err
		}
		t.inner = receiver
		p.Follower, p.BaseTaken = t, receiver.BaseTaken
		out.stores, out.turns[s.Name] = append(out.stores, p), t
	}
	if len(out.stores) == 0 {
		return out, &relight.Error{Op: "serve", Code: relight.CodeUsage, Err: errors.New("the estate has no stores"), Hint: "describe one under `stores:` in relight.yaml"}
	}
	return out, nil
}

func schedule(p estate.Policy) coordinator.Schedule {
	return coordinator.Schedule{Every: p.BaseBackup, LongestReplay: p.LongestReplay,
		Budget: coordinator.Budget{Rate: p.Budget.Rate(), Share: p.Budget.Share, Text: p.Budget.String()}}
}

func (a *App) receiver(ctx context.Context, e *estate.Estate, s estate.Store, live time.Duration, record coordinator.Recorder) (*postgres.Receiver, error) {
	conns, err := a.connections(ctx, s)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(s.Spool, 0o700); err != nil {
		return nil, fmt.Errorf("make the spool: %w", err)
	}
	o := postgres.ReceiverOptions{Store: s.Name, Conn: conns[0], Peers: conns[1:], Spool: s.Spool, SpoolLimit: s.SpoolLimit, Bound: slotBound(s), LiveInterval: live, Log: a.o.Log, Now: a.o.Now,
		Notify: a.note(ctx, s.Name, record)}
	if o.Synchronous = synchronous(s); o.Synchronous != nil {
		if err := a.declareSynchronous(ctx, s, *o.Synchronous, record); err != nil {
			return nil, err
		}
		o.Guarded = func() bool { return !o.Synchronous.Degrade || guarded(e, s.Name) }
	}
	return postgres.NewReceiver(o)
}

// tasks are what is done beside the stores: the estate and the journal with its anchors, sweeping.
func (a *App) tasks(ctx context.Context, e *estate.Estate, p protecting) ([]coordinator.Task, error) {
	var out []coordinator.Task
	for name := range e.Repositories {
		m, err := a.Repository(ctx, name)
		if err != nil {
			return nil, err
		}
		sweeps := &sweeper{m: m, stores: slices.Sorted(maps.Keys(e.Stores)), now: a.o.Now}
		out = append(out,
			coordinator.Task{Name: "keep the estate in " + name, Every: 5 * time.Second, Do: func(ctx context.Context) error {
				if !p.keeps(ctx) {
					return nil
				}
				return a.keepEstate(ctx, m)
			}},
			coordinator.Task{Name: "keep the journal in " + name, Every: time.Minute, Last: true, Do: func(ctx context.Context) error { return a.keepJournalIn(ctx, m) }},
			coordinator.Task{Name: "sweep superseded WAL in " + name, Every: 30 * time.Second, Do: sweeps.sweep})
		out = append(out, a.pruneTask(e, m)...)
	}
	return append(out, a.guardTasks(e)...), nil
}

// sweeper removes live ranges whose whole segment is durable. It lists a whole store rarely: the list grows with the log, and a new timeline can wait.
type sweeper struct {
	m      *repo.Meta
	stores []string
	now    func() time.Time
	listed time.Time
	keys   []repo.WALKey
}

const listEvery = 10 * time.Minute

func (s *sweeper) sweep(ctx context.Context) error {
	if len(s.keys) == 0 || s.now().Sub(s.listed) >= listEvery {
		if err := s.list(ctx); err != nil {
			return err
		}
	}
	var errs []error
	for _, k := range s.keys {
		errs = append(errs, s.m.Sink(k.Store).SweepLive(ctx, k))
	}
	return errors.Join(errs...)
}

func (s *sweeper) list(ctx context.Context) error {
	var keys []repo.WALKey
	for _, name := range s.stores {
		found, err := s.m.LiveKeys(ctx, name)
		if err != nil {
			return err
		}
		keys = append(keys, found...)
	}
	s.keys, s.listed = keys, s.now()
	return nil
}
