//go:build pg

package postgres

import (
	"strings"
	"sync/atomic"
	"testing"

	"github.com/toolboxai/relight/internal/pgtest"
)

// The server must see exactly what is true: written, synced to the spool, and nothing applied, ever.
func TestTrap12ApplyIsNeverReportedAndRemoteApplyIsAnAlarm(t *testing.T) {
	s := pgtest.New(t, "--wal-segsize=1")
	s.Start()
	a := newMemSink("a")
	f := follow(t, ReceiverOptions{Conn: s.DSN("postgres"), Spool: spoolDir(t)}, a)
	s.Exec("create table t (id int)")
	to := f.flush(s)
	eventually(t, "the server hears of the spool", func() bool {
		return s.Query("select coalesce((select flush_lsn >= $1::pg_lsn from pg_stat_replication where application_name = 'relight_main'), false)", to.String()) == "true"
	})
	if got := s.Query("select count(*) from pg_stat_replication where application_name = 'relight_main' and replay_lsn is not null"); got != "0" {
		t.Error("the server believes that WAL was applied")
	}
	s.Exec("alter system set synchronous_standby_names = 'relight_main'", "select pg_reload_conf()")
	eventually(t, "being waited for is an alarm", func() bool { return strings.Contains(f.position().Alarm, "commits wait for this host's spool") })
	s.Exec("insert into t values (1)") // acknowledged by the spool
	s.Exec("alter system set synchronous_commit = 'remote_apply'", "select pg_reload_conf()")
	eventually(t, "remote_apply is an alarm", func() bool { return strings.Contains(f.position().Alarm, "commits hang") })
	s.Exec("set synchronous_commit = 'local'", "alter system reset synchronous_standby_names", "select pg_reload_conf()")
}

// A receiver that drains the socket before it syncs and answers makes each synchronous commit wait for silence. How long one waits is counted in what another session writes
// meanwhile, a megabyte a statement: that one stops only when a commit has waited for so many that it will not come before silence does.
func TestTrap13FeedbackComesWhileTheStreamIsBusy(t *testing.T) {
	const atMost, inAll = 15, 20
	s := pgtest.New(t, "--wal-segsize=1")
	s.Start("synchronous_standby_names=relight_main", "synchronous_commit=local")
	a := newMemSink("a")
	f := follow(t, ReceiverOptions{Conn: s.DSN("postgres"), Spool: spoolDir(t)}, a)
	s.Exec("create table t (id int, v text)")
	f.flush(s)
	var wrote, since atomic.Int64 // statements in all, and before the commit that waits
	done := make(chan struct{})
	go func() { // asynchronous, and without a pause
		defer close(done)
		for wrote.Load() < inAll && wrote.Load()-since.Load() <= atMost {
			s.Exec("insert into t select g, repeat('x', 200) from generate_series(1, 5000) g")
			wrote.Add(1)
		}
	}()
	commits, worst := 0, int64(0)
	for wrote.Load() < inAll && worst <= atMost {
		since.Store(wrote.Load())
		s.Exec("set synchronous_commit = on; insert into t values (1)")
		worst = max(worst, wrote.Load()-since.Load())
		commits++
	}
	<-done
	t.Logf("%d commits beside %d statements; the slowest waited for %d", commits, wrote.Load(), worst)
	if worst > atMost || commits < 2 {
		t.Errorf("%d commits, of which one waited for %d statements of another session", commits, worst)
	}
	to := f.flush(s)
	sameAsServer(t, s, a, 1, 1<<20, to)
}

// An upload that hangs must stop neither the stream nor another repository.
func TestTrap14AHangingRepositoryStopsNothingElse(t *testing.T) {
	s := pgtest.New(t, "--wal-segsize=1")
	s.Start("wal_keep_size=1GB")
	a, b := newMemSink("a"), newMemSink("b")
	b.hang = make(chan struct{})
	f := follow(t, ReceiverOptions{Conn: s.DSN("postgres"), Spool: spoolDir(t)}, a, b)
	s.Exec("create table t (id int, v text)", "insert into t select g, repeat('x', 200) from generate_series(1, 20000) g")
	to := currentLSN(t, s)
	eventually(t, "repository a has everything", func() bool { return f.position().Durable["a"] >= to })
	if d, known := f.position().Durable["b"]; known && d > 0 {
		t.Errorf("repository b is said to hold WAL up to %s", d)
	}
	close(b.hang)
	to = f.flush(s)
	sameAsServer(t, s, b, 1, 1<<20, to)
}
