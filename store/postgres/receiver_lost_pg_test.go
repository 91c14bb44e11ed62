//go:build pg

package postgres

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/internal/pgtest"
	"github.com/toolboxai/relight/store/postgres/walfile"
)

func TestTrap15LostSlotIsAGapAnAlarmAndANewBase(t *testing.T) {
	onEachMajor(t, func(t *testing.T, major int) {
		s := pgtest.NewMajor(t, major, "--wal-segsize=1")
		s.Start("max_slot_wal_keep_size=2MB", "max_wal_size=2MB", "min_wal_size=2MB", "wal_keep_size=0")
		a := newMemSink("a")
		spool := spoolDir(t)
		f := follow(t, ReceiverOptions{Conn: s.DSN("postgres"), Spool: spool}, a)
		s.Exec("create table t (id int, v text)")
		f.flush(s)
		if err := f.stop(); err != nil {
			t.Fatal(err)
		}
		s.Exec("insert into t select g, repeat('x', 500) from generate_series(1, 20000) g", "checkpoint", "select pg_switch_wal()", "checkpoint")
		if status := s.Query("select wal_status from pg_replication_slots"); status != "lost" {
			t.Fatalf("the slot is %s, not lost: the test proves nothing", status)
		}
		f = follow(t, ReceiverOptions{Conn: s.DSN("postgres"), Spool: spool}, a)
		eventually(t, "a new base backup is demanded", func() bool {
			return f.noticed(NoticeNeedBase) && strings.Contains(f.position().Alarm, "new base backup")
		})
		s.Exec("insert into t values (1, 'after the gap')")
		to := f.flush(s)
		if len(a.gaps) != 1 || a.gaps[0].Timeline != 1 || a.gaps[0].From >= a.gaps[0].To {
			t.Fatalf("gaps %+v", a.gaps)
		}
		begin := walfile.SegmentStart(a.gaps[0].To, 1<<20)
		if _, err := a.bytes(1, begin, to); err != nil {
			t.Errorf("after the gap: %v", err)
		}
		sameAsServer(t, s, a, 1, 1<<20, to)
		f.BaseTaken()
		eventually(t, "the alarm ends with the base", func() bool { return f.position().Alarm == "" })
	})
}

func TestTrap15SpoolLostTooIsAnnouncedFromTheRepositorysEnd(t *testing.T) {
	s := pgtest.New(t, "--wal-segsize=1")
	s.Start("max_wal_size=2MB", "min_wal_size=2MB", "wal_keep_size=0")
	a := newMemSink("a")
	f := follow(t, ReceiverOptions{Conn: s.DSN("postgres"), Spool: spoolDir(t)}, a)
	s.Exec("create table t (id int, v text)")
	end := f.flush(s)
	if err := f.stop(); err != nil {
		t.Fatal(err)
	}
	s.Exec("select pg_drop_replication_slot('relight_main')", "insert into t select g, repeat('x', 500) from generate_series(1, 20000) g",
		"checkpoint", "select pg_switch_wal()", "checkpoint")
	f = follow(t, ReceiverOptions{Conn: s.DSN("postgres"), Spool: spoolDir(t)}, a)
	eventually(t, "a new base backup is demanded", func() bool { return f.noticed(NoticeNeedBase) })
	to := f.flush(s)
	if len(a.gaps) != 1 || a.gaps[0].From < end || a.gaps[0].From > a.gaps[0].To {
		t.Fatalf("gaps %+v after %s", a.gaps, end)
	}
	sameAsServer(t, s, a, 1, 1<<20, to)
}

// A spool that is older than the repository, as after a receiver that was killed while it was given WAL once more: what the server has removed since is no
// gap, because the repository holds it.
func TestSpoolBehindTheRepositoryIsNoGap(t *testing.T) {
	s := pgtest.New(t, "--wal-segsize=1")
	s.Start("max_wal_size=2MB", "min_wal_size=2MB", "wal_keep_size=0")
	a := newMemSink("a")
	spool := spoolDir(t)
	older := spool + ".older"
	o := ReceiverOptions{Conn: s.DSN("postgres"), Spool: spool}
	f := follow(t, o, a)
	s.Exec("create table t (id int, v text)")
	first := f.flush(s)
	check(t, f.stop())
	check(t, os.CopyFS(older, os.DirFS(spool)))
	f = follow(t, o, a)
	s.Exec("insert into t select g, repeat('x', 500) from generate_series(1, 20000) g")
	to := f.flush(s)
	eventually(t, "the slot moves", func() bool { return restartLSN(t, s) >= to })
	check(t, f.stop())
	check(t, errors.Join(os.RemoveAll(spool), os.Rename(older, spool)))
	s.Exec("checkpoint", "select pg_switch_wal()", "checkpoint")
	if n := s.Query("select count(*) from pg_ls_waldir() where name = $1", walfile.SegmentName(1, walfile.SegmentStart(first, 1<<20), 1<<20)); n != "0" {
		t.Fatal("the server still has the WAL that the spool lacks: this shows nothing")
	}
	f = follow(t, o, a)
	s.Exec("insert into t values (1, 'afterwards')")
	end := f.flush(s)
	if len(a.gaps) > 0 || f.noticed(NoticeNeedBase) {
		t.Errorf("gaps %+v", a.gaps)
	}
	if _, err := a.bytes(1, walfile.SegmentStart(first, 1<<20), end); err != nil {
		t.Error(err)
	}
}

// A receiver that is given WAL once more keeps the server from removing it, although every repository holds it already.
func TestSlotWaitsForWhatIsStreamedOnceMore(t *testing.T) {
	tape := newTape()
	tape.reset(2)
	if _, ok := tape.forgettable(); ok {
		t.Error("no repository has been asked")
	}
	st := newStretch(1, 0x4000000, nil)
	tape.add(st)
	tape.enter(0, st, 0x6000000)
	tape.enter(1, st, 0x5000000)
	for _, c := range []struct{ synced, want relight.LSN }{{0x4000000, 0x4000000}, {0x4900000, 0x4900000}, {0x5500000, 0x5000000}, {0x7000000, 0x5000000}} {
		tape.update(func() { st.synced = c.synced })
		if got, ok := tape.forgettable(); !ok || got != c.want {
			t.Errorf("streamed up to %s: %s may go, want %s", c.synced, got, c.want)
		}
	}
}

// promote recovers a copy of the server onto the next timeline and starts it in its place.
func promote(t *testing.T, s *pgtest.Server, f *following, settings ...string) *pgtest.Server {
	t.Helper()
	root := pgtest.Root(t)
	dir := filepath.Join(root, "data")
	standby := pgtest.At(t, root, dir)
	if standby.User != "" {
		if err := os.Chmod(root, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	cmd := s.Command(t.Context(), "pg_basebackup", "-d", s.DSN("postgres"), "-D", dir, "-R", "-c", "fast", "--no-sync")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("pg_basebackup: %v\n%s", err, out)
	}
	standby.Start(settings...)
	lsn := currentLSN(t, s)
	if f != nil {
		lsn = f.flush(s)
	}
	eventually(t, "the standby has everything", func() bool {
		return standby.Query("select pg_last_wal_replay_lsn() >= $1::pg_lsn", lsn.String()) == "true"
	})
	s.Stop()
	standby.Exec("select pg_promote()")
	return standby
}

func TestTrap17HistoryComesBeforeTheNewTimelinesWAL(t *testing.T) {
	s := pgtest.New(t, "--wal-segsize=1")
	s.Start("wal_keep_size=1GB")
	a := newMemSink("a")
	spool := spoolDir(t)
	f := follow(t, ReceiverOptions{Conn: s.DSN("postgres"), Spool: spool}, a)
	s.Exec("create table t (id int, v text)", "insert into t select g, repeat('x', 200) from generate_series(1, 9000) g")
	next := promote(t, s, f, "wal_keep_size=1GB")
	if err := f.stop(); err != nil {
		t.Fatal(err)
	}
	old := f.position().Durable["a"]
	next.Exec("insert into t select g, repeat('y', 200) from generate_series(1, 9000) g")
	f = follow(t, ReceiverOptions{Conn: next.DSN("postgres"), Spool: spool}, a)
	to := f.flush(next)
	sameAsServer(t, next, a, 2, 1<<20, to)
	path, err := walfile.ParseHistory(2, string(a.hist[2]))
	if err != nil || len(path) != 2 {
		t.Fatalf("history %q: %v", a.hist[2], err)
	}
	fork := path[0].End
	if _, err := a.bytes(1, walfile.SegmentStart(min(old, fork), 1<<20), fork); err != nil {
		t.Errorf("timeline 1 up to the fork at %s: %v", fork, err)
	}
	if len(a.gaps) > 0 {
		t.Errorf("gaps %v", a.gaps)
	}
	eventually(t, "somebody is told of the new timeline", func() bool { return f.noticed(NoticeTimeline) })
}

// A server that was recovered to an earlier moment left the old timeline before the spool's end.
func TestTrap17AServerThatWentBackIsFollowedFromItsFork(t *testing.T) {
	s := pgtest.New(t, "--wal-segsize=1")
	s.Start("wal_keep_size=1GB")
	a := newMemSink("a")
	spool := spoolDir(t)
	f := follow(t, ReceiverOptions{Conn: s.DSN("postgres"), Spool: spool}, a)
	s.Exec("create table t (id int, v text)", "insert into t values (1, 'kept')")
	f.flush(s)
	root := pgtest.Root(t)
	back := pgtest.At(t, root, filepath.Join(root, "data"))
	if err := os.Chmod(root, 0o777); err != nil {
		t.Fatal(err)
	}
	if out, err := s.Command(t.Context(), "pg_basebackup", "-d", s.DSN("postgres"), "-D", back.Dir, "-c", "fast", "--no-sync").CombinedOutput(); err != nil {
		t.Fatalf("pg_basebackup: %v\n%s", err, out)
	}
	s.Exec("insert into t select g, 'discarded on purpose' from generate_series(1, 9000) g")
	beyond := f.flush(s)
	s.Stop()
	if err := f.stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(back.Dir, "recovery.signal"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	back.Start("wal_keep_size=1GB", "restore_command=false", "recovery_target=immediate", "recovery_target_action=promote")
	eventually(t, "recovered", func() bool { return back.Query("select pg_is_in_recovery()") == "false" })
	back.Exec("insert into t values (2, 'after')")
	f = follow(t, ReceiverOptions{Conn: back.DSN("postgres"), Spool: spool}, a)
	to := f.flush(back)
	if to >= beyond {
		t.Fatalf("the new timeline at %s is beyond the old one's end %s: the test proves nothing", to, beyond)
	}
	sameAsServer(t, back, a, 2, 1<<20, to)
	eventually(t, "the position is on timeline 2", func() bool { return f.position().Timeline == 2 })
	eventually(t, "the slot is on the new timeline", func() bool { return restartLSN(t, back) >= to })
}

func TestTrap12FullSpoolStopsReadingAndTheSlotHolds(t *testing.T) {
	s := pgtest.New(t, "--wal-segsize=1")
	s.Start("wal_sender_timeout=2s", "max_wal_size=4MB", "min_wal_size=2MB")
	a := newMemSink("a")
	f := follow(t, ReceiverOptions{Conn: s.DSN("postgres"), Spool: spoolDir(t), SpoolLimit: 3 << 20}, a)
	s.Exec("create table t (id int, v text)")
	f.flush(s)
	a.setFail(errors.New("the bucket is away"))
	s.Exec("insert into t select g, repeat('x', 500) from generate_series(1, 30000) g", "checkpoint")
	eventually(t, "the spool is full", func() bool {
		return f.noticed(NoticeSpoolFull) && strings.Contains(f.position().Alarm, "reading has stopped")
	})
	var used int64
	for _, name := range glob(t, filepath.Join(f.o.Spool, "wal", "*")) {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		used += info.Size()
	}
	if used > 5<<20 {
		t.Errorf("the spool holds %d bytes, limit 3 MiB", used)
	}
	a.setFail(nil)
	to := f.flush(s)
	sameAsServer(t, s, a, 1, 1<<20, to)
	eventually(t, "the alarm ends", func() bool { return f.position().Alarm == "" })
	if len(a.gaps) > 0 {
		t.Errorf("gaps %v", a.gaps)
	}
}

func glob(t testing.TB, pattern string) []string {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestTrap19SegmentsOf64MiB(t *testing.T) {
	s := pgtest.New(t, "--wal-segsize=64")
	s.Start("wal_keep_size=1GB")
	a := newMemSink("a")
	f := follow(t, ReceiverOptions{Conn: s.DSN("postgres"), Spool: spoolDir(t)}, a)
	s.Exec("create table t (id int, v text)", "insert into t select g, repeat('x', 200) from generate_series(1, 1000) g", "select pg_switch_wal()", "insert into t values (1)")
	to := f.flush(s)
	sameAsServer(t, s, a, 1, 64<<20, to)
}

func TestFlushEndsWithItsContext(t *testing.T) {
	s := pgtest.New(t, "--wal-segsize=1")
	s.Start()
	a := newMemSink("a")
	f := follow(t, ReceiverOptions{Conn: s.DSN("postgres"), Spool: spoolDir(t)}, a)
	f.flush(s)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := f.Flush(ctx, 0, currentLSN(t, s)+relight.LSN(1<<30)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
}
