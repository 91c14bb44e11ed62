//go:build pg

package postgres

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/internal/pgtest"
	"github.com/toolboxai/relight/repo"
	"github.com/toolboxai/relight/store"
	"github.com/toolboxai/relight/store/postgres/walfile"
)

// follow runs a receiver and gives a function that stops it and returns what it reported.
type following struct {
	*Receiver
	t      *testing.T
	cancel context.CancelFunc
	done   chan error

	mu      sync.Mutex
	last    store.Position
	notices []Notice
}

func follow(t *testing.T, o ReceiverOptions, sinks ...repo.Sink) *following {
	t.Helper()
	f := &following{t: t, done: make(chan error, 1)}
	if o.Store == "" {
		o.Store = "main"
	}
	if o.LiveInterval == 0 {
		o.LiveInterval = 100 * time.Millisecond
	}
	if o.SyncInterval == 0 {
		o.SyncInterval = 10 * time.Millisecond
	}
	o.Notify = func(n Notice) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.notices = append(f.notices, n)
	}
	r, err := NewReceiver(o)
	if err != nil {
		t.Fatal(err)
	}
	f.Receiver = r
	ctx, cancel := context.WithCancel(t.Context())
	f.cancel = cancel
	go func() {
		f.done <- r.Follow(ctx, sinks, func(p store.Position) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.last = p
		})
	}()
	t.Cleanup(func() { _ = f.stop() }) // a test that expects an error has looked at it
	return f
}

func (f *following) stop() error {
	f.cancel()
	err := <-f.done
	f.done <- err
	return err
}

func (f *following) position() store.Position {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last
}

func (f *following) noticed(kind NoticeKind) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, n := range f.notices {
		if n.Kind == kind {
			return true
		}
	}
	return false
}

// flush waits until the WAL up to the server's present end is durable in every repository.
func (f *following) flush(s *pgtest.Server) relight.LSN {
	f.t.Helper()
	lsn := currentLSN(f.t, s)
	tl, err := strconv.ParseUint(s.Query("select substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)"), 16, 32)
	if err != nil {
		f.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(f.t.Context(), time.Minute)
	defer cancel()
	if err := f.Flush(ctx, relight.TimelineID(tl), lsn); err != nil {
		f.t.Fatalf("flush to %s: %v; position %+v", lsn, err, f.position())
	}
	return lsn
}

func currentLSN(t testing.TB, s *pgtest.Server) relight.LSN {
	t.Helper()
	lsn, err := relight.ParseLSN(s.Query("select pg_current_wal_flush_lsn()::text"))
	if err != nil {
		t.Fatal(err)
	}
	return lsn
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("waited in vain: %s", what)
}

// sameAsServer compares a sink's WAL with the server's own pg_wal, byte for byte. What the sink was told to be lost, the server may have a little of yet.
func sameAsServer(t testing.TB, s *pgtest.Server, m *memSink, tl relight.TimelineID, size int64, to relight.LSN) {
	t.Helper()
	for _, v := range m.violations {
		t.Error(v)
	}
	files, err := filepath.Glob(filepath.Join(s.Dir, "pg_wal", strings.ToUpper(walfile.SegmentName(tl, 0, size)[:8])+"*"))
	if err != nil {
		t.Fatal(err)
	}
	compared := 0
	for _, path := range files {
		_, start, err := walfile.ParseSegmentName(filepath.Base(path), size)
		m.mu.Lock()
		ranges := m.ranges(tl)
		m.mu.Unlock()
		if err != nil || start >= to || len(ranges) == 0 || start < ranges[0].sc.Start || m.lacks(start) {
			continue
		}
		end := min(to, start+relight.LSN(size))
		got, err := m.bytes(tl, start, end)
		if err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want[:end-start]) {
			t.Errorf("%s differs from the server's", filepath.Base(path))
		}
		compared++
	}
	if compared == 0 {
		t.Error("nothing to compare")
	}
}

func spoolDir(t *testing.T) string { return filepath.Join(pgtest.Root(t), "spool") }

func TestReceiverShipsWhatTheServerWrote(t *testing.T) {
	s := pgtest.New(t, "--wal-segsize=1")
	s.Start("wal_keep_size=1GB")
	before := goleak.IgnoreCurrent()
	a, b := newMemSink("a"), newMemSink("b")
	f := follow(t, ReceiverOptions{Conn: s.DSN("postgres"), Spool: spoolDir(t)}, a, b)
	s.Exec("create table t (id int, v text)",
		"insert into t select g, repeat('x', 200) from generate_series(1, 20000) g",
		"select pg_create_restore_point('half way')",
		"select pg_switch_wal()",
		"drop table t")
	for range 20 {
		s.Exec("select txid_current()")
	}
	to := f.flush(s)
	for _, m := range []*memSink{a, b} {
		sameAsServer(t, s, m, 1, 1<<20, to)
		_, marks, last := m.facts(1)
		if len(marks) != 1 || marks[0] != "half way" {
			t.Errorf("restore points %v", marks)
		}
		if time.Since(last) > time.Minute {
			t.Errorf("last commit %s is not of this test", last)
		}
	}
	eventually(t, "the spool lets go of shipped segments", func() bool {
		names, _ := filepath.Glob(filepath.Join(f.o.Spool, "wal", "*"))
		return len(names) == 1
	})
	eventually(t, "the report, which comes a few times a second, tells what is durable", func() bool {
		p := f.position()
		return p.Written >= p.Spooled && p.Spooled >= p.Durable["a"] && p.Durable["a"] >= to
	})
	if err := f.stop(); err != nil {
		t.Error(err)
	}
	goleak.VerifyNone(t, before)
}

func TestAnIdleServerIsCoveredUpToNow(t *testing.T) {
	s := pgtest.New(t, "--wal-segsize=1")
	s.Start()
	a := newMemSink("a")
	f := follow(t, ReceiverOptions{Conn: s.DSN("postgres"), Spool: spoolDir(t)}, a)
	s.Exec("create table t (id int)")
	f.flush(s)
	later := time.Now()
	eventually(t, "coverage moves on although nothing is written", func() bool { return f.position().Covered["a"].Time.After(later) })
	s.Exec("select pg_switch_wal()")
	f.flush(s)
	later = time.Now()
	eventually(t, "coverage moves on behind an empty segment's header", func() bool { return f.position().Covered["a"].Time.After(later) })
}

func TestTrap15SlotRetainsUntilEveryRepositoryHolds(t *testing.T) {
	s := pgtest.New(t, "--wal-segsize=1")
	s.Start("max_wal_size=4MB", "min_wal_size=2MB", "wal_keep_size=0")
	a, b := newMemSink("a"), newMemSink("b")
	f := follow(t, ReceiverOptions{Conn: s.DSN("postgres"), Spool: spoolDir(t)}, a, b)
	s.Exec("create table t (id int, v text)")
	to := f.flush(s)
	eventually(t, "slot at the durable position", func() bool { return restartLSN(t, s) >= to && f.position().Durable["b"] >= to })
	b.setFail(errors.New("the bucket is away"))
	held, err := b.Tip(t.Context(), repo.WALKey{Timeline: 1})
	if err != nil {
		t.Fatal(err)
	}
	s.Exec("insert into t select g, repeat('x', 500) from generate_series(1, 20000) g", "checkpoint")
	to = currentLSN(t, s)
	eventually(t, "the other repository gets everything", func() bool { return f.position().Durable["a"] >= to })
	if got := restartLSN(t, s); got > held {
		t.Errorf("slot at %s although repository b holds WAL only up to %s", got, held)
	}
	if p := f.position(); p.Spooled < to {
		t.Errorf("spooled only to %s", p.Spooled)
	}
	b.setFail(nil)
	to = f.flush(s)
	sameAsServer(t, s, b, 1, 1<<20, to)
	eventually(t, "the slot moves on", func() bool { return restartLSN(t, s) >= to })
}

func restartLSN(t testing.TB, s *pgtest.Server) relight.LSN {
	t.Helper()
	lsn, err := relight.ParseLSN(s.Query("select coalesce(restart_lsn, '0/0')::text from pg_replication_slots where slot_name = 'relight_main'"))
	if err != nil {
		t.Fatal(err)
	}
	return lsn
}

func TestReceiverResumesAfterServerAndReceiverRestart(t *testing.T) {
	s := pgtest.New(t, "--wal-segsize=1")
	s.Start("wal_keep_size=1GB")
	a := newMemSink("a")
	spool := spoolDir(t)
	f := follow(t, ReceiverOptions{Conn: s.DSN("postgres"), Spool: spool}, a)
	s.Exec("create table t (id int, v text)", "insert into t select g, repeat('x', 200) from generate_series(1, 3000) g")
	f.flush(s)
	s.Kill()
	s.Restart()
	s.Exec("insert into t select g, repeat('y', 200) from generate_series(1, 3000) g")
	f.flush(s)
	if err := f.stop(); err != nil {
		t.Fatal(err)
	}
	s.Exec("insert into t select g, repeat('z', 200) from generate_series(1, 3000) g")
	f = follow(t, ReceiverOptions{Conn: s.DSN("postgres"), Spool: spool}, a)
	to := f.flush(s)
	sameAsServer(t, s, a, 1, 1<<20, to)
	if err := f.stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(spool); err != nil { // the host is lost; the repository and the slot are what is left
		t.Fatal(err)
	}
	s.Exec("insert into t select g, repeat('w', 200) from generate_series(1, 3000) g")
	f = follow(t, ReceiverOptions{Conn: s.DSN("postgres"), Spool: spool}, a)
	to = f.flush(s)
	sameAsServer(t, s, a, 1, 1<<20, to)
	if len(a.gaps) > 0 {
		t.Errorf("gaps %v", a.gaps)
	}
}

func TestSpoolIsShippedAlthoughTheServerIsGone(t *testing.T) {
	s := pgtest.New(t, "--wal-segsize=1")
	s.Start("wal_keep_size=1GB")
	a := newMemSink("a")
	spool := spoolDir(t)
	f := follow(t, ReceiverOptions{Conn: s.DSN("postgres"), Spool: spool}, a)
	s.Exec("create table t (id int, v text)")
	f.flush(s)
	a.setFail(errors.New("the bucket is away"))
	s.Exec("insert into t select g, repeat('x', 200) from generate_series(1, 20000) g")
	to := currentLSN(t, s)
	eventually(t, "spooled", func() bool { return f.position().Spooled >= to })
	if err := f.stop(); err != nil {
		t.Fatal(err)
	}
	s.Kill()
	a.setFail(nil)
	f = follow(t, ReceiverOptions{Conn: s.DSN("postgres"), Spool: spool}, a)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := f.Flush(ctx, 0, to); err != nil {
		t.Fatal(err)
	}
	sameAsServer(t, s, a, 1, 1<<20, to)
}

func TestAnotherClusterIsAHardStop(t *testing.T) {
	s := pgtest.New(t, "--wal-segsize=1")
	s.Start()
	a := newMemSink("a")
	a.setFail(errors.New("the bucket is away"))
	spool := spoolDir(t)
	f := follow(t, ReceiverOptions{Conn: s.DSN("postgres"), Spool: spool}, a)
	s.Exec("create table t (id int)")
	to := currentLSN(t, s)
	eventually(t, "spooled", func() bool { return f.position().Spooled >= to })
	if err := f.stop(); err != nil {
		t.Fatal(err)
	}
	other := pgtest.New(t, "--wal-segsize=1")
	other.Start()
	f = follow(t, ReceiverOptions{Conn: other.DSN("postgres"), Spool: spool}, a)
	err := <-f.done
	f.done <- err
	if err == nil || !strings.Contains(err.Error(), "holds WAL of system") || relight.HintOf(err) == "" {
		t.Errorf("error %v, hint %q", err, relight.HintOf(err))
	}
	a.setFail(nil)
	f = follow(t, ReceiverOptions{Conn: s.DSN("postgres"), Spool: spool}, a)
	f.flush(s)
	check(t, f.stop())
	f = follow(t, ReceiverOptions{Conn: other.DSN("postgres"), Spool: spoolDir(t)}, a)
	err = <-f.done
	f.done <- err
	if !errors.Is(err, repo.ErrConflict) {
		t.Errorf("error %v, want a conflict", err)
	}
}
