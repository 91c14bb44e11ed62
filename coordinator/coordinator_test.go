package coordinator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/repo"
	"github.com/toolboxai/relight/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// follower reports what a test puts into it, until its context ends or it is told to fail.
type follower struct {
	mu     sync.Mutex
	report func(store.Position)
	begun  int
	fail   chan error
	sinks  int
}

func newFollower() *follower { return &follower{fail: make(chan error)} }

func (f *follower) Follow(ctx context.Context, sinks []repo.Sink, report func(store.Position)) error {
	f.mu.Lock()
	f.report, f.sinks = report, len(sinks)
	f.begun++
	f.mu.Unlock()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case err := <-f.fail:
		return err
	}
}

func (f *follower) at(p store.Position) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.report(p)
}

func (f *follower) given() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.sinks
}

func (f *follower) starts() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.begun
}

// bases is one repository's base backups.
type bases struct {
	mu       sync.Mutex
	line     relight.TimelineID // that the next backup is on
	taken    []relight.Snapshot
	lines    map[relight.SnapshotID]relight.TimelineID
	gap      string
	broken   error
	attempts int
	moved    int64         // bytes that the next backup reads
	takes    time.Duration // how long it does
	ahead    time.Duration // how far the clock that dates it is
	rate     float64       // of replay
}

func newBases() *bases { return &bases{line: 1, lines: map[relight.SnapshotID]relight.TimelineID{}} }

func (b *bases) Newest(context.Context) (relight.Snapshot, bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range slices.Backward(b.taken) {
		if !Ahead(s, time.Now()) {
			return s, true, nil
		}
	}
	return relight.Snapshot{}, false, nil
}

func (b *bases) Start(s relight.Snapshot) (relight.TimelineID, relight.LSN) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.lines[s.ID], 50
}

func (b *bases) Costs(context.Context) ([]Cost, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []Cost
	for _, s := range b.taken {
		out = append(out, CostOf(s))
	}
	return out, nil
}

func (b *bases) ReplayRate(context.Context) (float64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.rate, nil
}

func (b *bases) Gap(context.Context, relight.Snapshot) (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.gap, nil
}

func (b *bases) Backup(ctx context.Context) (relight.Snapshot, error) {
	begun := time.Now()
	b.mu.Lock()
	takes := b.takes
	b.mu.Unlock()
	if err := pause(ctx, takes); err != nil {
		return relight.Snapshot{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.attempts++
	s := relight.Snapshot{Started: begun.Add(b.ahead), Finished: time.Now().Add(b.ahead), Read: b.moved}
	if b.broken != nil {
		return s, b.broken
	}
	s.ID = relight.SnapshotID(fmt.Sprintf("s%d", len(b.taken)+1))
	b.taken, b.lines[s.ID] = append(b.taken, s), b.line
	return s, nil
}

func (b *bases) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.taken)
}

func (b *bases) tries() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.attempts
}

func (b *bases) set(change func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change()
}

// stand runs a coordinator in a bubble of its own time.
type stand struct {
	follower   *follower
	vault      *bases
	attic      *bases
	events     []backupEvent
	behind     int // calls of BaseTaken
	last       Status
	board      *board
	schedule   Schedule
	points     Points
	pointEvery time.Duration
	tick       time.Duration
	mu         sync.Mutex // guards events, behind and last
	stop       func()
}

func (st *stand) options(tasks ...Task) Options {
	return Options{
		Stores: []Store{{Name: "main", Follower: st.follower, Schedule: st.schedule, Points: st.points, PointEvery: st.pointEvery, BaseTaken: func() {
			st.mu.Lock()
			defer st.mu.Unlock()
			st.behind++
		},
			Repositories: []Repository{{Name: "vault", Base: st.vault}, {Name: "attic", Base: st.attic}}}},
		Tasks: tasks, Log: slog.New(slog.DiscardHandler), Now: time.Now, Tick: st.tick,
		Publish: func(s Status) error {
			st.mu.Lock()
			defer st.mu.Unlock()
			st.last = s
			return nil
		},
		Record: func(_ context.Context, kind string, data any) error {
			st.mu.Lock()
			defer st.mu.Unlock()
			e, ok := data.(backupEvent)
			if kind != "backup.completed" || !ok {
				return fmt.Errorf("event %s", kind)
			}
			st.events = append(st.events, e)
			return nil
		},
	}
}

func start(t *testing.T, tasks ...Task) *stand {
	st := newStand()
	st.start(t, tasks...)
	return st
}

func newStand() *stand {
	return &stand{follower: newFollower(), vault: newBases(), attic: newBases(), schedule: Schedule{Every: 24 * time.Hour}}
}

func (st *stand) start(t *testing.T, tasks ...Task) {
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	c := New(st.options(tasks...))
	st.board = c.status
	wg.Go(func() { c.Run(ctx) })
	st.stop = func() { cancel(); wg.Wait() }
	synctest.Wait()
}

// store is the store's status as it would be published now.
func (st *stand) store() *StoreStatus {
	st.board.mu.Lock()
	defer st.board.mu.Unlock()
	return st.board.status.clone().Stores["main"]
}

func (st *stand) published() Status {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.last
}

func (st *stand) calls() int {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.behind
}

func (st *stand) why() []string {
	st.mu.Lock()
	defer st.mu.Unlock()
	var out []string
	for _, e := range st.events {
		out = append(out, e.Repository+": "+e.Why)
	}
	slices.Sort(out)
	return out
}

func position(line relight.TimelineID) store.Position {
	return store.Position{Timeline: line, Written: 300, Spooled: 200, Durable: map[string]relight.LSN{"vault": 100, "attic": 90},
		Covered: map[string]relight.Point{"vault": {LSN: 100, Time: time.Now()}}}
}

// pass lets time go by, to just behind a tick.
func pass(d time.Duration) { time.Sleep(d + time.Millisecond); synctest.Wait() }

func TestBaseIsTakenOnceItStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := start(t)
		defer st.stop()
		pass(10 * time.Second)
		if st.vault.count() != 0 {
			t.Fatal("a base backup was taken before its log is followed")
		}
		if n := st.follower.given(); n != 2 {
			t.Fatalf("%d sinks", n)
		}
		st.follower.at(position(1))
		pass(2 * time.Second)
		if got := st.why(); !slices.Equal(got, []string{"attic: none is there", "vault: none is there"}) {
			t.Fatal(got)
		}
		s := st.store()
		if ok, why := s.Protected(); !ok {
			t.Fatal(why)
		}
		if v := s.Repositories["vault"]; v.Durable != 100 || v.Snapshot != "s1" || v.Timeline != 1 || v.CoveredAt.IsZero() {
			t.Fatalf("%+v", v)
		}
		pass(23 * time.Hour)
		if st.vault.count() != 1 {
			t.Fatal("a second base backup before it was due")
		}
		pass(time.Hour)
		if st.vault.count() != 2 || st.attic.count() != 2 {
			t.Fatalf("%d and %d base backups after a day", st.vault.count(), st.attic.count())
		}
	})
}

// Whoever waits for protection is not kept waiting for the next tick.
func TestProtectionIsToldAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := start(t)
		defer st.stop()
		pass(2500 * time.Millisecond)
		st.follower.at(position(1))
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		if ok, why := st.published().Stores["main"].Protected(); !ok {
			t.Fatal(why)
		}
	})
}

func TestBaseThatIsThereIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := start(t)
		defer st.stop()
		for _, b := range []*bases{st.vault, st.attic} {
			if _, err := b.Backup(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		st.attic.set(func() { st.attic.gap = "write-ahead log is lost behind it" })
		st.follower.at(position(1))
		pass(5 * time.Second)
		if got := st.why(); !slices.Equal(got, []string{"attic: write-ahead log is lost behind it"}) {
			t.Fatal(got)
		}
	})
}

func TestNewTimelineNeedsItsOwnBase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := start(t)
		defer st.stop()
		st.follower.at(position(1))
		pass(2 * time.Second)
		st.vault.set(func() { st.vault.line = 2 })
		st.attic.set(func() { st.attic.line, st.attic.broken = 2, errors.New("the disk is full") })
		st.follower.at(position(2))
		pass(0)
		s := StoreStatus{Timeline: 2, Repositories: st.store().Repositories}
		if ok, why := s.Protected(); ok || why != "attic: no base backup on the current timeline" {
			t.Fatal(ok, why)
		}
		st.attic.set(func() { st.attic.broken = nil })
		pass(6 * time.Second)
		if ok, why := st.store().Protected(); !ok {
			t.Fatal(why)
		}
		if got := st.why(); !slices.Equal(got, []string{"attic: none is there", "attic: timeline 2 has none", "vault: none is there", "vault: timeline 2 has none"}) {
			t.Fatal(got)
		}
	})
}

func TestLostLogNeedsANewBase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := start(t)
		defer st.stop()
		st.follower.at(position(1))
		pass(2 * time.Second)
		behind := st.calls()
		p := position(1)
		p.NeedBase, p.Alarm = time.Now(), "log was lost"
		st.attic.set(func() { st.attic.broken = errors.New("no space left") })
		st.follower.at(p)
		pass(3 * time.Second)
		if st.vault.count() != 2 || st.attic.count() != 1 {
			t.Fatalf("%d and %d", st.vault.count(), st.attic.count())
		}
		if st.calls() != behind {
			t.Fatal("the gap was forgotten although one repository has no base backup behind it")
		}
		if ok, why := st.store().Protected(); ok || why != "log was lost" {
			t.Fatal(ok, why)
		}
		st.follower.at(position(1)) // a follower that restarts has forgotten; the coordinator has not
		st.attic.set(func() { st.attic.broken = nil })
		pass(6 * time.Second)
		if st.attic.count() != 2 || st.calls() != behind+1 {
			t.Fatalf("%d base backups, %d calls", st.attic.count(), st.calls()-behind)
		}
	})
}

func TestOneFailingRepositoryDoesNotStopTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := start(t)
		defer st.stop()
		st.attic.set(func() { st.attic.broken = errors.New("the bucket is gone") })
		st.follower.at(position(1))
		pass(30 * time.Second)
		if st.vault.count() != 1 {
			t.Fatal("the healthy repository has no base backup")
		}
		if n := st.attic.tries(); n < 3 || n > 10 {
			t.Fatalf("tried %d times in half a minute", n)
		}
		if r := st.store().Repositories["attic"]; r.Error == "" || st.store().Repositories["vault"].Error != "" {
			t.Fatalf("%+v", r)
		}
		if ok, why := st.store().Protected(); ok || why != "attic: no base backup on the current timeline" {
			t.Fatal(ok, why)
		}
		st.attic.set(func() { st.attic.broken = nil })
		pass(6 * time.Second)
		if ok, why := st.store().Protected(); !ok || st.store().Repositories["attic"].Error != "" {
			t.Fatal(why)
		}
	})
}

func TestFollowerIsStartedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := start(t)
		defer st.stop()
		st.follower.at(position(1))
		pass(2 * time.Second)
		st.follower.fail <- errors.New("the connection was lost")
		synctest.Wait()
		if ok, why := st.store().Protected(); ok || why != "no write-ahead log is streaming: the connection was lost" {
			t.Fatal(ok, why)
		}
		for want, wait := 2, time.Second; want < 6; want, wait = want+1, 2*wait {
			if got := st.follower.starts(); got != want-1 {
				t.Fatalf("started %d times before the pause, not %d", got, want-1)
			}
			pass(wait)
			if got := st.follower.starts(); got != want {
				t.Fatalf("started %d times, not %d", got, want)
			}
			st.follower.fail <- errors.New("still lost")
			synctest.Wait()
		}
	})
}

func TestTasks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var well, bad, once atomic.Int64
		var lastOf atomic.Bool
		st := start(t,
			Task{Name: "well", Every: time.Minute, Last: true, Do: func(ctx context.Context) error { well.Add(1); lastOf.Store(ctx.Err() == nil); return nil }},
			Task{Name: "bad", Every: time.Second, Do: func(context.Context) error { bad.Add(1); return errors.New("it hurts") }},
			Task{Name: "once", Every: time.Hour, Do: func(context.Context) error { once.Add(1); return nil }})
		pass(10 * time.Minute)
		if well.Load() != 11 || bad.Load() < 600 || once.Load() != 1 {
			t.Errorf("%d, %d and %d times", well.Load(), bad.Load(), once.Load())
		}
		if got := st.published().Tasks; got["bad"] != "it hurts" || got["well"] != "" {
			t.Errorf("%v", got)
		}
		st.stop()
		if well.Load() != 12 || !lastOf.Load() || once.Load() != 1 {
			t.Errorf("at the end %d and %d times, with a context that lives: %v", well.Load(), once.Load(), lastOf.Load())
		}
	})
}

func TestStatusThatCannotBeWrittenIsTold(t *testing.T) {
	t.Parallel()
	full := errors.New("no space left")
	b := newBoard(func(Status) error { return full }, time.Now)
	b.publish()
	if b.status.Tasks["status"] != full.Error() {
		t.Fatal(b.status.Tasks)
	}
}

func TestProtected(t *testing.T) {
	t.Parallel()
	good := func() *StoreStatus {
		return &StoreStatus{Timeline: 2, Repositories: map[string]*RepositoryStatus{"a": {Durable: 1, Timeline: 2}, "b": {Durable: 1, Timeline: 2}}}
	}
	for want, spoil := range map[string]func(*StoreStatus){
		"":                                func(*StoreStatus) {},
		"no write-ahead log is streaming": func(s *StoreStatus) { s.Timeline = 0 },
		"the slot is lost":                func(s *StoreStatus) { s.Alarm = "the slot is lost" },
		"b: no base backup on the current timeline": func(s *StoreStatus) { s.Repositories["b"].Timeline = 1 },
		"a: no write-ahead log is durable yet":      func(s *StoreStatus) { s.Repositories["a"].Durable = 0 },
	} {
		s := good()
		spoil(s)
		if ok, why := s.Protected(); ok != (want == "") || why != want {
			t.Errorf("%v %q, want %q", ok, why, want)
		}
	}
}
