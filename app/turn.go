package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob/retry"
	"github.com/toolboxai/relight/coordinator"
	"github.com/toolboxai/relight/repo"
	"github.com/toolboxai/relight/store"
)

// followTTL is how long the host that follows a store must be silent before another one takes over.
const followTTL = 20 * time.Second

// followPatience is longer than a silent host is waited for, and a storage that is away is tried again.
const followPatience = 2 * followTTL

// askAgain is how often a host that stands by looks whether it is its turn, and one that could not ask a repository asks again.
const askAgain = 5 * time.Second

// The journal's events of hosts that take turns.
const (
	eventStandsBy  = "protection.stands_by"
	eventTakesOver = "protection.takes_over"
)

// turn is a store's follower where several hosts protect the store: only one of them follows at a time, the one that holds the lease follow/<store> in every
// repository that answers. One that does not delays nobody for long: what must not be lost goes on into the spool, and comes to no harm in the repository if two
// hosts send it (decision 0026).
type turn struct {
	store  string
	metas  []*repo.Meta // in one order on every host
	inner  store.Follower
	record coordinator.Recorder
	log    *slog.Logger
	now    func() time.Time
	// patience is how long a repository may take to say whose turn it is.
	patience time.Duration
	// recovering tells whether a run on this host puts the store in another's place. Then it is this host's turn whoever had it: what he follows is what was lost.
	recovering func() bool
	mine       atomic.Bool
	taken      chan struct{} // closed when it was mine for the first time
	take       sync.Once
}

// await says whether it is this host's turn; at the beginning it waits a while for the answer.
func (t *turn) await(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, askAgain)
	defer cancel()
	select {
	case <-t.taken:
	case <-ctx.Done():
	}
	return t.mine.Load()
}

// Follow implements store.Follower.
func (t *turn) Follow(ctx context.Context, sinks []repo.Sink, report func(store.Position)) error {
	report(store.Position{Alarm: "the repositories are asked whether another host follows the store"})
	before := ""
	w := witness{t: t, seen: map[string]sight{}}
	for {
		err := t.once(ctx, sinks, report, before)
		holder := repo.Holder(err)
		if holder == "" || ctx.Err() != nil {
			return err
		}
		report(w.look(ctx, holder))
		if holder != before {
			t.log.Info("another host protects the store, this one stands by", "store", t.store, "host", holder)
			t.note(ctx, eventStandsBy, holder)
		}
		before = holder
		if retry.Sleep(ctx, askAgain) != nil {
			return nil
		}
	}
}

// once follows while it is this host's turn; the error names whose turn it is otherwise. before is the host that had it before this one, if any.
func (t *turn) once(ctx context.Context, sinks []repo.Sink, report func(store.Position), before string) error {
	work, stop := context.WithCancelCause(ctx)
	h := &holding{t: t, stop: stop}
	defer h.group.Wait()
	defer stop(nil)
	for _, m := range t.metas {
		asked := make(chan struct{})
		h.group.Go(func() { h.hold(work, m, sync.OnceFunc(func() { close(asked) })) })
		answer, cancel := context.WithTimeout(work, t.patience)
		select {
		case <-asked:
		case <-answer.Done():
		}
		cancel()
	}
	if ctx.Err() != nil {
		return nil
	}
	if work.Err() != nil {
		return context.Cause(work)
	}
	if before != "" {
		t.log.Info("this host protects the store from now on", "store", t.store, "before", before)
		t.note(ctx, eventTakesOver, before)
	}
	t.mine.Store(true)
	t.take.Do(func() { close(t.taken) })
	defer t.mine.Store(false)
	return t.inner.Follow(work, sinks, report)
}

func (t *turn) note(ctx context.Context, kind, host string) {
	if err := t.record(ctx, kind, map[string]any{"store": t.store, "host": host}); err != nil {
		t.log.Error("not on record", "event", kind, "store", t.store, "error", err)
	}
}

// holding is the leases of one turn.
type holding struct {
	t       *turn
	stop    context.CancelCauseFunc
	group   sync.WaitGroup
	refused atomic.Int32 // repositories that take nothing from this host any more
}

// hold keeps the lease in one repository until ctx ends. It stops everything when another host has it, or when no repository is left that believes this host.
// asked is called once that is known, or cannot be.
func (h *holding) hold(ctx context.Context, m *repo.Meta, asked func()) {
	wait, refused := repo.ForOtherHosts, false // by the lock on serve: what a dead process of this host held need not be waited for
	for {
		err := m.MaySign(ctx)
		if errors.Is(err, repo.ErrRefused) && !refused {
			refused = true
			if int(h.refused.Add(1)) == len(h.t.metas) {
				h.stop(err)
			}
		}
		if err == nil {
			err = h.lease(ctx, m, wait, asked)
			wait = repo.ForAnybody // once it was lost, another process of this name may have it: of a copy of this host, perhaps
		}
		if repo.Holder(err) != "" {
			h.stop(err)
		}
		asked()
		if ctx.Err() != nil || err != nil && retry.Sleep(ctx, askAgain) != nil {
			return
		}
	}
}

// errRecovers ends the wait for another host's silence.
var errRecovers = errors.New("a run recovers the store")

// lease is hold without its repetition. A run may begin, or be resumed, while another host's silence is waited for.
func (h *holding) lease(ctx context.Context, m *repo.Meta, wait repo.Waiting, asked func()) error {
	if h.t.recovering() {
		return h.take(ctx, m, repo.ForNobody, asked)
	}
	trying, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	waiting, held := context.WithCancel(trying)
	var watch sync.WaitGroup
	watch.Go(func() { h.t.awaitRecovery(waiting, giveUp) })
	err := h.take(trying, m, wait, func() { held(); asked() })
	held()
	watch.Wait()
	if errors.Is(context.Cause(trying), errRecovers) {
		return h.take(ctx, m, repo.ForNobody, asked)
	}
	return err
}

// take takes the lease, calls asked, and keeps it until ctx ends or it is lost.
func (h *holding) take(ctx context.Context, m *repo.Meta, wait repo.Waiting, asked func()) error {
	return m.Hold(ctx, "follow/"+h.t.store, followTTL, wait, func(ctx context.Context, _ *repo.Lease) error {
		asked()
		<-ctx.Done()
		return nil
	})
}

// awaitRecovery gives up waiting for the lease when a run recovers the store.
func (t *turn) awaitRecovery(ctx context.Context, giveUp context.CancelCauseFunc) {
	for retry.Sleep(ctx, time.Second) == nil {
		if t.recovering() {
			giveUp(errRecovers)
			return
		}
	}
}

// witness sees, by what the repositories are told, whether the host in whose favour this one stands by does well.
type witness struct {
	t    *turn
	seen map[string]sight
}

// sight is what one repository said last, and since when it has said that.
type sight struct {
	covered relight.Point
	since   time.Time
}

// stillAfter is how long a repository may be told nothing new before that is an alarm. An idle server's clock is news as well.
const stillAfter = time.Minute

func (w witness) look(ctx context.Context, holder string) store.Position {
	p := store.Position{StandsBy: holder, Durable: map[string]relight.LSN{}, Covered: map[string]relight.Point{}}
	var alarms []string
	for _, m := range w.t.metas {
		s, err := w.ask(ctx, m)
		still := w.t.now().Sub(s.since).Round(time.Second)
		switch {
		case err != nil:
			alarms = append(alarms, fmt.Sprintf("repository %s cannot be asked: %v", m.Name(), err))
		case still >= stillAfter:
			alarms = append(alarms, fmt.Sprintf("repository %s has been told nothing new by it for %s", m.Name(), still))
		}
		p.Durable[m.Name()], p.Covered[m.Name()] = s.covered.LSN, s.covered
	}
	p.Alarm = strings.Join(alarms, "; ")
	return p
}

func (w witness) ask(ctx context.Context, m *repo.Meta) (sight, error) {
	s := w.seen[m.Name()]
	system, err := m.Cluster(ctx, w.t.store)
	if err != nil {
		return s, err
	}
	covered, err := m.Coverage(ctx, w.t.store, system)
	if err == nil && (covered != s.covered || s.since.IsZero()) {
		s = sight{covered: covered, since: w.t.now()}
		w.seen[m.Name()] = s
	}
	return s, err
}
