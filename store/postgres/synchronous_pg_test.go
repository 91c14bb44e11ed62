//go:build pg

package postgres

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob"
	"github.com/toolboxai/relight/blob/file"
	"github.com/toolboxai/relight/internal/pgtest"
	"github.com/toolboxai/relight/repo"
	"github.com/toolboxai/relight/store"
)

const syncChild = "RELIGHT_TEST_SYNCHRONOUS"

// synchronousChild sets a receiver in a process of its own to synchronous mode, when its environment says so.
func synchronousChild(t testing.TB, o *ReceiverOptions) {
	t.Helper()
	switch os.Getenv(syncChild) {
	case "":
		return
	case "repository":
		o.Synchronous = &Synchronous{Repository: true}
	case "spool":
		o.Synchronous = &Synchronous{SpoolOutside: "a test"}
	case "degrade":
		o.Synchronous = &Synchronous{SpoolOutside: "a test", Degrade: true, DegradeAfter: time.Second}
	}
}

// wholeOnly is a storage that gets whole segments and never what is unfinished.
type wholeOnly struct{ blob.Storage }

func (s wholeOnly) Put(ctx context.Context, name string, body io.ReadSeeker, o blob.PutOptions) error {
	if strings.Contains(name, "/live/") {
		<-ctx.Done()
		return ctx.Err()
	}
	return s.Storage.Put(ctx, name, body, o)
}

// childStorage is what the child follows into: where the spool acknowledges, the repository must not hold what was committed last.
func childStorage(s blob.Storage) blob.Storage {
	if os.Getenv(syncChild) == "spool" {
		return wholeOnly{s}
	}
	return s
}

// syncReceiver is a receiver to be killed.
type syncReceiver struct {
	cmd *exec.Cmd
	out bytes.Buffer
}

func startSyncReceiver(t *testing.T, srv *pgtest.Server, dir, mode string) *syncReceiver {
	t.Helper()
	p := &syncReceiver{cmd: exec.Command(os.Args[0], "-test.run=^TestHelperReceiver$")}
	p.cmd.Env = append(os.Environ(), receiverChild+"="+dir, "RELIGHT_TEST_DSN="+srv.DSN("postgres"), "RELIGHT_TEST_KILL_AT=1000000000", syncChild+"="+mode)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	check(t, p.cmd.Start())
	t.Cleanup(func() { p.kill() })
	return p
}

func (p *syncReceiver) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

func awaitArmed(t *testing.T, srv *pgtest.Server) {
	t.Helper()
	eventually(t, "the server waits for relight", func() bool {
		return srv.Query("select count(*) from pg_stat_replication where application_name = 'relight_main' and sync_state = 'sync'") == "1"
	})
}

// commits runs one insert and tells when it is acknowledged.
func commits(srv *pgtest.Server) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		srv.Exec("insert into t values (1)")
	}()
	return done
}

func awaitWaiting(t *testing.T, srv *pgtest.Server) {
	t.Helper()
	eventually(t, "a commit waits", func() bool {
		return srv.Query("select count(*) > 0 from pg_stat_activity where wait_event = 'SyncRep'") == "true"
	})
}

func still(t *testing.T, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
		t.Fatal("the commit was acknowledged although nobody holds it")
	default:
	}
}

// The server and the receiver die at once, in the middle of commits; the data directory is lost. Whatever was acknowledged is there.
func TestSynchronousLosesNoAcknowledgedCommit(t *testing.T) {
	onEachMajor(t, func(t *testing.T, major int) {
		for _, mode := range []string{"repository", "spool"} {
			t.Run(mode, func(t *testing.T) {
				srv := pgtest.NewMajor(t, major, "--wal-segsize=1")
				srv.Start("fsync=on", "checkpoint_timeout=1h", "max_wal_size=1GB")
				dir := pgtest.Root(t)
				_, id := fileRepository(t, dir)
				child := startSyncReceiver(t, srv, dir, mode)
				bank := &pgtest.Bank{Accounts: 50, Balance: 1000}
				bank.Create(t, srv)
				srv.Exec("create table t (id int)")
				awaitArmed(t, srv)
				st := standOverFiles(t, srv, dir)
				if mode == "repository" {
					st.backup()
				} else {
					srv.Exec("select pg_switch_wal()") // whole segments are shipped
					st.backupWhile(func() { srv.Exec("insert into t values (0)", "select pg_switch_wal()") })
				}
				run(t, bank, srv, 100)
				child.kill()
				waiting := commits(srv)
				awaitWaiting(t, srv)
				still(t, waiting)
				child = startSyncReceiver(t, srv, dir, mode)
				<-waiting
				ctx, cancel := context.WithCancel(t.Context())
				var load sync.WaitGroup
				load.Go(func() { bank.Run(ctx, srv.DSN("postgres"), 4) })
				want := bank.Count() + 150
				eventually(t, "more transfers", func() bool { return bank.Count() >= want })
				srv.Kill()
				child.kill()
				cancel()
				load.Wait()
				check(t, os.RemoveAll(srv.Dir))
				if mode == "repository" {
					check(t, os.RemoveAll(filepath.Join(dir, "spool")))
				} else {
					shipSpool(t, srv, dir)
				}
				keys, err := repo.Unlock(t.Context(), st.meta.Storage(), id)
				check(t, err)
				m, err := repo.Open(t.Context(), st.meta.Storage(), keys, repo.Options{Name: "vault"})
				check(t, err)
				r, err := m.Reader()
				check(t, err)
				into := filepath.Join(srv.Root, "again")
				_, err = st.store.Restore(t.Context(), r, point(relight.RecoveryTarget{Kind: relight.TargetLatest}), store.Target{Directory: into}, store.RestoreOptions{})
				check(t, err)
				again := pgtest.At(t, pgtest.Root(t), into)
				again.Start()
				if lost := bank.Missing(t, again.DSN("postgres")); len(lost) > 0 {
					t.Errorf("lost %d of %d acknowledged transfers", len(lost), bank.Count())
				}
				t.Logf("%d transfers acknowledged, all there", bank.Count())
			})
		}
	})
}

// standOverFiles is a store with a repository of files that a child follows into.
func standOverFiles(t *testing.T, srv *pgtest.Server, dir string) *pgStand {
	t.Helper()
	st := standOver(t, srv)
	st.meta = openForWriting(t, openFiles(t, dir), dir)
	return st
}

func openFiles(t *testing.T, dir string) blob.Storage {
	t.Helper()
	s, err := file.Open("file://" + filepath.Join(dir, "repo"))
	check(t, err)
	return s
}

// backupWhile takes a backup whose WAL becomes durable because of what f does, again and again.
func (st *pgStand) backupWhile(f func()) {
	st.t.Helper()
	done := make(chan struct{})
	var pushed sync.WaitGroup
	pushed.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(100 * time.Millisecond):
				f()
			}
		}
	})
	defer pushed.Wait()
	defer close(done)
	st.backup()
}

func run(t *testing.T, bank *pgtest.Bank, srv *pgtest.Server, n int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var load sync.WaitGroup
	load.Go(func() { bank.Run(ctx, srv.DSN("postgres"), 3) })
	want := bank.Count() + n
	eventually(t, "transfers", func() bool { return bank.Count() >= want })
	cancel()
	load.Wait()
}

// shipSpool brings what the spool holds into the repository; the server is gone.
func shipSpool(t *testing.T, srv *pgtest.Server, dir string) {
	t.Helper()
	m := openForWriting(t, openFiles(t, dir), dir)
	f := follow(t, ReceiverOptions{Conn: srv.DSN("postgres"), Spool: filepath.Join(dir, "spool")}, m.Sink("main"))
	eventually(t, "the spool is in the repository", func() bool {
		p := f.position()
		return p.Spooled > 0 && p.Durable["vault"] >= p.Spooled
	})
	check(t, f.stop())
}

// A receiver that is dead cannot degrade: the guard does, on record, and the next receiver arms again.
func TestSynchronousDegradesOnRecordAndArmsAgain(t *testing.T) {
	onEachMajor(t, func(t *testing.T, major int) {
		srv := pgtest.NewMajor(t, major, "--wal-segsize=1")
		srv.Start()
		dir := pgtest.Root(t)
		fileRepository(t, dir)
		srv.Exec("create table t (id int)")
		child := startSyncReceiver(t, srv, dir, "degrade")
		var mu sync.Mutex
		var record []Degraded
		broken := errors.New("the journal's disk is full")
		var orphaned atomic.Bool
		g := NewGuard(GuardOptions{Store: "main", Conns: []string{srv.DSN("postgres")}, After: time.Second, Now: time.Now, Orphaned: orphaned.Load, Record: func(_ context.Context, d Degraded) error {
			mu.Lock()
			defer mu.Unlock()
			if err := broken; err != nil { // the commits do not wait for the record, and the record is tried again
				broken = nil
				return err
			}
			record = append(record, d)
			return nil
		}})
		ended := make(chan error, 1)
		go func() { ended <- g.Run(t.Context()) }()
		awaitArmed(t, srv)
		<-commits(srv)
		child.kill()
		waiting := commits(srv)
		awaitWaiting(t, srv)
		<-waiting // released
		recorded := func() int {
			mu.Lock()
			defer mu.Unlock()
			return len(record)
		}
		eventually(t, "it is on record", func() bool { return recorded() == 1 })
		if d := record[0]; d.Store != "main" || d.Unheard == 0 || d.Sessions != 1 || !strings.Contains(d.Why, "no receiver") {
			t.Errorf("record %+v", d)
		}
		if names := srv.Query("show synchronous_standby_names"); names != "" {
			t.Errorf("the server still waits for %s", names)
		}
		degrade := &Synchronous{Repository: true, Degrade: true, DegradeAfter: time.Second}
		a := newMemSink("a")
		f := follow(t, ReceiverOptions{Conn: srv.DSN("postgres"), Spool: spoolDir(t), Synchronous: degrade}, a)
		awaitArmed(t, srv)
		eventually(t, "the receiver says so", func() bool { return f.position().Synchronous.State == store.SyncArmed && f.noticed(NoticeArmed) })
		a.setFail(errors.New("the bucket is away")) // the receiver lives, and cannot acknowledge
		waiting = commits(srv)
		awaitWaiting(t, srv)
		<-waiting
		eventually(t, "a stalled repository is on record too", func() bool { return recorded() == 2 })
		eventually(t, "and an alarm", func() bool {
			p := f.position()
			return p.Synchronous.State == store.SyncDegraded && strings.Contains(p.Alarm, "degraded")
		})
		a.setFail(nil)
		awaitArmed(t, srv)
		eventually(t, "the alarm is over", func() bool { p := f.position(); return p.Synchronous.State == store.SyncArmed && p.Alarm == "" })
		<-commits(srv)
		check(t, f.stop())
		if !f.noticed(NoticeReleased) || srv.Query("show synchronous_standby_names") != "" {
			t.Error("an orderly stop leaves the server waiting")
		}
		<-commits(srv)
		orphaned.Store(true)
		check(t, <-ended)
	})
}

// A primary that is lost takes no acknowledged commit along: the one that is promoted has waited for relight from its first commit on, and the guard goes with it.
func TestSynchronousSurvivesAFailover(t *testing.T) {
	onEachMajor(t, func(t *testing.T, major int) {
		primary := pgtest.NewMajor(t, major, "--wal-segsize=1")
		primary.Start("wal_keep_size=64MB")
		primary.Exec("create table t (id int)")
		a := newMemSink("a")
		o := ReceiverOptions{Conn: primary.DSN("postgres"), Spool: spoolDir(t), Synchronous: &Synchronous{Repository: true, Degrade: true, DegradeAfter: 5 * time.Second}}
		f := follow(t, o, a)
		awaitArmed(t, primary)
		check(t, f.stop()) // which releases: the standby is a copy of a server that waits
		primary.Exec("alter system set synchronous_standby_names = 'relight_main'", "select pg_reload_conf()")
		standby := newStandby(t, primary, "wal_keep_size=64MB")
		o.Peers = []string{standby.DSN("postgres")}
		f = follow(t, o, a)
		awaitArmed(t, primary)
		var mu sync.Mutex
		var record []Degraded
		recorded := func() int {
			mu.Lock()
			defer mu.Unlock()
			return len(record)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		g := NewGuard(GuardOptions{Store: "main", Conns: append([]string{o.Conn}, o.Peers...), After: o.Synchronous.DegradeAfter, Now: time.Now,
			Record: func(_ context.Context, d Degraded) error {
				mu.Lock()
				defer mu.Unlock()
				record = append(record, d)
				return nil
			}})
		go func() { ended <- g.Run(ctx) }()
		<-commits(primary)
		caughtUp(t, standby, currentLSN(t, primary))
		primary.Kill()
		standby.Exec("select pg_promote()")
		awaitArmed(t, standby)
		at, err := relight.ParseLSN(standby.Query("insert into t values (1) returning pg_current_wal_insert_lsn()::text")) // where its commit will be, or before
		check(t, err)
		if _, err := a.bytes(2, at, at+1); err != nil {
			t.Errorf("a commit of the new primary was acknowledged, and the repository does not hold it: %v", err)
		}
		before := recorded() // none, unless the machine is very slow
		a.setFail(errors.New("the bucket is away"))
		waiting := commits(standby)
		awaitWaiting(t, standby)
		<-waiting
		eventually(t, "the guard released the new primary's commits", func() bool { return recorded() > before })
		a.setFail(nil)
		awaitArmed(t, standby)
		if len(a.gaps) > 0 {
			t.Errorf("gaps %v", a.gaps)
		}
		check(t, f.stop())
		if names := standby.Query("show synchronous_standby_names"); names != "" {
			t.Errorf("after an orderly stop the server waits for %s", names)
		}
		cancel()
		check(t, <-ended)
	})
}
