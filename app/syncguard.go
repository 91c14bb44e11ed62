package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/coordinator"
	"github.com/toolboxai/relight/estate"
	"github.com/toolboxai/relight/host"
	"github.com/toolboxai/relight/journal"
	"github.com/toolboxai/relight/store/postgres"
)

// The journal's events of synchronous mode.
const (
	eventSyncDeclared = "synchronous.declared" // what commits wait for from now on, and what the operator stated
	eventSyncArmed    = "synchronous.armed"
	eventSyncReleased = "synchronous.released" // at an orderly stop, or by a person
	eventSyncDegraded = "synchronous.degraded" // by the guard: the receiver did not answer
)

// declareSynchronous refuses a spool that would be lost with the data, and keeps on record what the operator chose and stated.
func (a *App) declareSynchronous(ctx context.Context, s estate.Store, sync postgres.Synchronous, record coordinator.Recorder) error {
	if err := sync.CheckSpool(s.Name, s.Data, s.Spool); err != nil {
		return err
	}
	return record(ctx, eventSyncDeclared, map[string]any{"store": s.Name, "synchronous": sync.String(), "spool_survives_because": sync.SpoolOutside})
}

// The journal's events of log that is lost.
const (
	eventSlotReleased = "slot.released" // the server retains no longer what nobody else has
	eventLogLost      = "log.lost"      // a gap, and a new base backup is needed
)

// note keeps on record when commits began to wait, when an orderly stop ended that, and what log was given up.
func (a *App) note(ctx context.Context, name string, record coordinator.Recorder) func(postgres.Notice) {
	ctx = context.WithoutCancel(ctx)
	kinds := map[postgres.NoticeKind]string{postgres.NoticeArmed: eventSyncArmed, postgres.NoticeReleased: eventSyncReleased,
		postgres.NoticeSlotReleased: eventSlotReleased, postgres.NoticeNeedBase: eventLogLost}
	return func(n postgres.Notice) {
		kind, ok := kinds[n.Kind]
		if !ok {
			return
		}
		if err := record(ctx, kind, map[string]any{"store": name, "message": n.Message}); err != nil {
			a.o.Log.Error("not on record", "event", kind, "store", name, "error", err)
		}
	}
}

// recordReleased keeps on record that a person let waiting commits go.
func (a *App) recordReleased(ctx context.Context, r postgres.Released) error {
	j, err := a.Journal(ctx)
	if err != nil {
		return err
	}
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("record %s: %w", eventSyncReleased, err)
	}
	_, err = j.Append(ctx, relight.Event{Kind: eventSyncReleased, Actor: r.Actor, Data: b}, journal.Expect{})
	return err
}

func guardName(name string) string { return "relight-guard-" + name }

func guardHandle(e *estate.Estate, name string) string {
	return stateFile(e, "services", guardName(name)+".handle")
}

// guarded tells whether the guard of a store lives.
func guarded(e *estate.Estate, name string) bool {
	h, err := host.ReadHandle(guardHandle(e, name))
	if err != nil {
		return false
	}
	alive, err := host.Alive(h)
	return err == nil && alive
}

// guardTasks keep a guard alive for each store whose commits are released when its receiver dies. It is a process of its own, so that it outlives
// `relight serve` however that ends.
func (a *App) guardTasks(e *estate.Estate) []coordinator.Task {
	var out []coordinator.Task
	for name, s := range e.Stores {
		if s.Synchronous == nil || !s.Synchronous.Degrade {
			continue
		}
		out = append(out, coordinator.Task{Name: "guard the commits of " + name, Every: time.Second, Do: func(ctx context.Context) error {
			if guarded(e, name) {
				return nil
			}
			c := host.Command{Argv: []string{a.o.Executable, "--config", e.File, "--verbose", "guard", "--store", name}, Dir: "/", What: guardName(name)}
			_, err := a.Host().StartDetached(ctx, c, host.Detached{Log: stateFile(e, "services", guardName(name)+".log"), Handle: guardHandle(e, name)})
			return err
		}})
	}
	return out
}

// Guard releases the commits of a store when its receiver does not answer, until no `relight serve` runs and nobody waits for one.
func (a *App) Guard(ctx context.Context, name string) error {
	e, s, err := a.findStore(name)
	if err != nil {
		return err
	}
	if s.Synchronous == nil || !s.Synchronous.Degrade {
		return &relight.Error{Op: "guard", Subject: "store " + s.Name, Code: relight.CodeUsage, Err: errors.New("its commits are not to be released"),
			Hint: "`relight serve` starts this command where relight.yaml says when_receiver_dies: degrade"}
	}
	lock, err := a.lock("guard-"+s.Name, "the guard of "+s.Name)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Unlock() }()
	conns, err := a.connections(ctx, s)
	if err != nil {
		return err
	}
	record := func(ctx context.Context, d postgres.Degraded) error {
		j, err := a.Journal(ctx)
		if err != nil {
			return err
		}
		b, err := json.Marshal(d)
		if err != nil {
			return fmt.Errorf("record %s: %w", eventSyncDegraded, err)
		}
		_, err = j.Append(ctx, relight.Event{Kind: eventSyncDegraded, Actor: "relight guard", Data: b}, journal.Expect{})
		return err
	}
	orphaned := func() bool {
		h, err := host.ReadHandle(serveHandle(e))
		if err != nil {
			return errors.Is(err, fs.ErrNotExist)
		}
		alive, err := host.Alive(h)
		return err == nil && !alive
	}
	g := postgres.NewGuard(postgres.GuardOptions{Store: s.Name, Conns: conns, After: s.Synchronous.DegradeAfter, Orphaned: orphaned, Record: record, Log: a.o.Log, Now: a.o.Now})
	return g.Run(ctx)
}
