package app

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob"
	"github.com/toolboxai/relight/blob/fault"
	"github.com/toolboxai/relight/repo"
	"github.com/toolboxai/relight/store"
)

// waiter follows nothing until its context ends.
type waiter struct{ following chan struct{} }

func (w waiter) Follow(ctx context.Context, _ []repo.Sink, _ func(store.Position)) error {
	w.following <- struct{}{}
	<-ctx.Done()
	return context.Cause(ctx)
}

// hostOf is another host's view of the stand's repository, through what wrap makes of its storage.
func (st *stand) hostOf(name string, wrap ...func(blob.Storage) blob.Storage) *repo.Meta {
	st.t.Helper()
	a := st.app(st.recovering)
	s, err := a.OpenStorage("file://" + st.vault)
	ok(st.t, err)
	for _, w := range wrap {
		s = w(s)
	}
	side, err := a.RecoverySide(st.t.Context(), s)
	ok(st.t, err)
	c, err := repo.EnrolHost(st.t.Context(), side, name, repo.RoleWriter)
	ok(st.t, err)
	ok(st.t, side.Close())
	k, err := c.Keyring()
	ok(st.t, err)
	m, err := repo.Open(st.t.Context(), s, k, repo.Options{Name: "vault", Now: time.Now})
	ok(st.t, err)
	st.t.Cleanup(func() { ok(st.t, m.Close()) })
	return m
}

func newTurn(m *repo.Meta, recovering bool) (*turn, waiter) {
	w := waiter{following: make(chan struct{}, 8)}
	return &turn{taken: make(chan struct{}), store: "main", metas: []*repo.Meta{m}, inner: w, record: func(context.Context, string, any) error { return nil }, log: slog.New(slog.DiscardHandler),
		now: time.Now, patience: time.Minute, recovering: func() bool { return recovering }}, w
}

// A run that recovers the store on another host need not wait until the host that followed is silent; that one stands by as soon as it notices.
func TestARecoveryTakesTheTurn(t *testing.T) {
	t.Parallel()
	st := newStand(t)
	first, firstWaiter := newTurn(st.hostOf("db2"), false)
	second, secondWaiter := newTurn(st.hostOf("db3"), true)
	ctx, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	defer group.Wait()
	defer stop()
	standsBy := make(chan string, 8)
	group.Go(func() {
		_ = first.Follow(ctx, nil, func(p store.Position) {
			if p.StandsBy != "" {
				standsBy <- p.StandsBy
			}
		})
	})
	<-firstWaiter.following
	group.Go(func() { _ = second.Follow(ctx, nil, func(store.Position) {}) })
	<-secondWaiter.following
	if who := <-standsBy; who != "db3" || first.mine.Load() || !second.mine.Load() {
		t.Errorf("stands by for %q; mine: %v, %v", who, first.mine.Load(), second.mine.Load())
	}
}

// A run that was killed with the host's protection just begun is resumed: a dead host's silence is waited for no longer.
func TestARecoveryThatIsResumedEndsTheWait(t *testing.T) {
	t.Parallel()
	st := newStand(t)
	dead, err := st.hostOf("db2").Acquire(t.Context(), "follow/main", time.Hour)
	ok(t, err)
	defer func() { ok(t, dead.Release(context.WithoutCancel(t.Context()))) }()
	turn, waiter := newTurn(st.hostOf("db3"), false)
	var resumed atomic.Bool
	looked := make(chan struct{}, 1024)
	turn.recovering = func() bool { looked <- struct{}{}; return resumed.Load() }
	ctx, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	defer group.Wait()
	defer stop()
	group.Go(func() { _ = turn.Follow(ctx, nil, func(store.Position) {}) })
	<-looked
	resumed.Store(true)
	select {
	case <-waiter.following:
	case <-time.After(time.Minute):
		t.Error("the silence of the host that is gone is waited for")
	}
}

// A repository that hangs, and says neither yes nor no, keeps nobody from following for ever: what comes goes into the spool.
func TestARepositoryThatHangsDelaysNobodyForEver(t *testing.T) {
	t.Parallel()
	st := newStand(t)
	hang := func(s blob.Storage) blob.Storage {
		return fault.New(s, func(op fault.Op) fault.Fault {
			if strings.HasPrefix(op.Name, "lease/follow/") {
				return fault.Fault{Effect: fault.Block}
			}
			return fault.Fault{}
		})
	}
	turn, waiter := newTurn(st.hostOf("db2", hang), false)
	turn.patience = 50 * time.Millisecond
	ctx, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	defer group.Wait()
	defer stop()
	group.Go(func() { _ = turn.Follow(ctx, nil, func(store.Position) {}) })
	select {
	case <-waiter.following:
	case <-time.After(30 * time.Second):
		t.Error("nothing is followed")
	}
}

// A host that stands by says so when the repositories hear nothing new, or cannot be asked.
func TestWitnessOfAHostThatDoesNothing(t *testing.T) {
	t.Parallel()
	st := newStand(t)
	m := st.hostOf("db2")
	turn, _ := newTurn(m, false)
	at := time.Now()
	turn.now = func() time.Time { return at }
	w := witness{t: turn, seen: map[string]sight{}}
	key := repo.WALKey{Store: "main", System: 7, Timeline: 1}
	cover := func(lsn relight.LSN) {
		t.Helper()
		c, is := m.Sink("main").(interface {
			Cover(ctx context.Context, k repo.WALKey, p relight.Point) error
		})
		if !is {
			t.Fatal("the sink cannot cover")
		}
		ok(t, c.Cover(t.Context(), key, relight.Point{Timeline: 1, LSN: lsn, Time: at.UTC().Round(0)}))
	}
	cover(100)
	if p := w.look(t.Context(), "db1"); p.Alarm != "" || p.StandsBy != "db1" || p.Durable["vault"] != 100 {
		t.Errorf("%+v", p)
	}
	at = at.Add(stillAfter)
	if p := w.look(t.Context(), "db1"); !strings.Contains(p.Alarm, "repository vault has been told nothing new by it for 1m0s") {
		t.Errorf("%+v", p)
	}
	cover(100) // an idle server's clock
	if p := w.look(t.Context(), "db1"); p.Alarm != "" {
		t.Errorf("%+v", p)
	}
	away, cancel := context.WithCancel(t.Context())
	cancel()
	if p := w.look(away, "db1"); !strings.Contains(p.Alarm, "repository vault cannot be asked") {
		t.Errorf("%+v", p)
	}
}
