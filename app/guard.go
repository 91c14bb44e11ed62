package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/action"
	"github.com/toolboxai/relight/estate"
	"github.com/toolboxai/relight/host"
	"github.com/toolboxai/relight/journal"
	"github.com/toolboxai/relight/repo"
	"github.com/toolboxai/relight/runbook"
)

// runTTL is how long the host of a destructive run must be silent before another one may begin: longer than a bucket is away for a moment.
const runTTL = time.Minute

// eventUnguarded records that a destructive run went on although a repository could not keep other hosts out.
const eventUnguarded = "lease.overridden"

// guard is the right to destroy a store: the lease run/<store> in each of its repositories, and a kernel lock for the processes of this host.
type guard struct {
	lock    *host.FileLock
	end     context.CancelFunc
	leases  sync.WaitGroup
	once    sync.Once
	lost    chan struct{}
	closers []func() error
}

// Guard takes the right to destroy target, which is nil where target is no store. Whoever else has it is named, with code lease_held; a repository in which it
// cannot be taken refuses the run, unless the store's name was typed after --without-lease, which goes on record.
func (a *App) guard(ctx context.Context, run relight.RunID, target string) (*guard, error) {
	e, err := a.Estate()
	if err != nil {
		return nil, err
	}
	s, ok := e.Stores[target]
	if !ok {
		return nil, nil
	}
	lock, err := a.lock(runLock(target), "destructive work on "+target)
	if err != nil {
		return nil, err
	}
	holding, end := context.WithCancel(context.WithoutCancel(ctx))
	g := &guard{lock: lock, end: end, lost: make(chan struct{})}
	for _, name := range slices.Sorted(slices.Values(s.Repositories)) { // in one order, so that two hosts do not hold half each
		err := a.guardIn(ctx, holding, g, name, target)
		if err != nil {
			err = a.unguarded(ctx, run, target, name, err)
		}
		if err != nil {
			return nil, errors.Join(err, g.Release(ctx))
		}
	}
	return g, nil
}

func runLock(target string) string { return "run-" + target }

// recovering tells whether a process of this host has the right to destroy a store, as it does while a run recovers it.
func (*App) recovering(e *estate.Estate, target string) bool {
	return host.Locked(lockFile(e, runLock(target)))
}

// guardIn takes the lease in one repository, and holds it until holding ends.
func (a *App) guardIn(ctx, holding context.Context, g *guard, repository, target string) error {
	m, err := a.Repository(ctx, repository)
	if err != nil && len(a.o.Identities) > 0 { // a host that was never enrolled recovers with the key in hand
		var rerr error
		if m, rerr = a.openPlace(ctx, repository, ""); rerr == nil {
			g.closers, err = append(g.closers, m.Close), nil
		}
	}
	if err != nil {
		return err
	}
	got := make(chan error, 2)
	g.leases.Go(func() {
		held := false
		err := m.Hold(holding, "run/"+target, runTTL, repo.ForOtherHosts, func(work context.Context, _ *repo.Lease) error {
			held = true
			got <- nil
			<-work.Done()
			return context.Cause(work)
		})
		got <- err
		if held && errors.Is(err, repo.ErrLeaseHeld) {
			g.once.Do(func() { close(g.lost) })
		}
	})
	select {
	case err := <-got:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// unguarded decides whether work goes on without one repository's lease.
func (a *App) unguarded(ctx context.Context, run relight.RunID, target, repository string, err error) error {
	if relight.CodeOf(err) == relight.CodeLeaseHeld || ctx.Err() != nil {
		return err
	}
	if a.o.WithoutLease != target {
		return &relight.Error{Op: "keep other hosts away from", Subject: "store " + target, Code: relight.CodeWaiting,
			Err:  fmt.Errorf("repository %s cannot be asked whether another host is at work: %w", repository, err),
			Hint: fmt.Sprintf("bring the repository back; or make sure yourself that nobody else recovers %s, then repeat it with --without-lease %s, which goes on record", target, target)}
	}
	a.o.Log.Warn("nothing keeps other hosts away: the repository could not be asked, and --without-lease was given", "store", target, "repository", repository, "error", err)
	j, jerr := a.Journal(ctx)
	if jerr != nil {
		return jerr
	}
	data, jerr := json.Marshal(map[string]string{"store": target, "repository": repository, "error": err.Error()})
	if jerr != nil {
		return fmt.Errorf("record the missing lease: %w", jerr)
	}
	_, jerr = j.Append(ctx, relight.Event{Run: run, Kind: eventUnguarded, Actor: a.o.Actor, Data: data}, journal.Expect{})
	return jerr
}

// Lost implements runbook.Lease.
func (g *guard) Lost() <-chan struct{} { return g.lost }

// Release implements runbook.Lease.
func (g *guard) Release(context.Context) error {
	g.end()
	g.leases.Wait()
	var errs []error
	for _, c := range g.closers {
		errs = append(errs, c())
	}
	return errors.Join(append(errs, g.lock.Unlock())...)
}

// guardRun is guard as the runbook engine asks for it.
func (a *App) guardRun(ctx context.Context, run relight.RunID, target string) (runbook.Lease, error) {
	g, err := a.guard(ctx, run, target)
	if g == nil || err != nil {
		return nil, err
	}
	return g, nil
}

// GuardAction is guard for an action outside a run: the context it gives ends when the right is lost.
func (a *App) GuardAction(ctx context.Context, b action.Blast) (context.Context, func(), error) {
	g, err := a.guard(ctx, "", b.Target)
	if g == nil || err != nil {
		return ctx, func() {}, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-g.lost:
			cancel(&relight.Error{Op: b.Action, Code: relight.CodeLeaseHeld, Err: repo.ErrLeaseHeld, Hint: "see what the other host does before anything else"})
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		cancel(nil)
		<-watched
		if err := g.Release(ctx); err != nil {
			a.o.Log.Warn("the right to destroy a store was not given back, and ends by itself", "store", b.Target, "error", err)
		}
	}, nil
}
