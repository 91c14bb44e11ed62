//go:build pg

package postgres

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/internal/pgtest"
	"github.com/toolboxai/relight/repo"
	"github.com/toolboxai/relight/store"
)

// newStandby clones a running server and follows it.
func newStandby(t *testing.T, primary *pgtest.Server, settings ...string) *pgtest.Server {
	t.Helper()
	root := pgtest.Root(t)
	standby := pgtest.At(t, root, filepath.Join(root, "data"))
	standby.BinDir = primary.BinDir
	check(t, os.Chmod(root, 0o777))
	if out, err := standby.Command(t.Context(), "pg_basebackup", "-D", standby.Dir, "-R", "-c", "fast", "--no-sync", "-d", primary.DSN("postgres")).CombinedOutput(); err != nil {
		t.Fatalf("pg_basebackup: %v\n%s", err, out)
	}
	standby.Start(settings...)
	return standby
}

func caughtUp(t *testing.T, standby *pgtest.Server, lsn relight.LSN) {
	t.Helper()
	eventually(t, "the standby has replayed", func() bool {
		return standby.Query("select pg_last_wal_replay_lsn() >= $1::pg_lsn", lsn.String()) == "true"
	})
}

// A base backup of the standby restores to every acknowledged commit, whether WAL comes from the primary or from the standby itself.
func TestBackupFromAStandby(t *testing.T) {
	onEachMajor(t, func(t *testing.T, major int) {
		primary := pgtest.NewMajor(t, major, "--wal-segsize=1")
		primary.Start("wal_keep_size=64MB")
		bank := &pgtest.Bank{Accounts: 20, Balance: 1000}
		bank.Create(t, primary)
		standby := newStandby(t, primary)
		st := standOver(t, standby)
		for _, from := range []struct {
			name  string
			conn  *pgtest.Server
			peers []string
		}{{"WAL from the primary", standby, []string{primary.DSN("postgres")}}, {"WAL from the standby", standby, nil}} {
			t.Run(from.name, func(t *testing.T) {
				f := follow(t, ReceiverOptions{Conn: from.conn.DSN("postgres"), Peers: from.peers, Spool: filepath.Join(st.srv.Root, "spool")}, st.meta.Sink("main"))
				run(t, bank, primary, 20)
				primary.Exec("checkpoint")
				caughtUp(t, standby, currentLSN(t, primary))
				w, err := st.meta.NewSnapshot(t.Context(), "main", repo.SnapshotOptions{Kind: "full"})
				check(t, err)
				snap, err := st.store.Backup(t.Context(), w, store.BackupOptions{})
				check(t, err)
				if facts, err := FactsOf(snap); err != nil || !facts.FromStandby {
					t.Errorf("facts %+v, %v", facts, err)
				}
				run(t, bank, primary, 20)
				to := currentLSN(t, primary)
				eventually(t, "the repository holds it", func() bool { return f.position().Durable["vault"] >= to })
				check(t, f.stop())
				into := filepath.Join(st.srv.Root, "again"+snap.Started.Format("150405.000000"))
				_, again := st.mustRestore(into, relight.RecoveryTarget{Kind: relight.TargetLatest}, store.RestoreOptions{})
				if lost := bank.Missing(t, again.DSN("postgres")); len(lost) > 0 {
					t.Errorf("lost %d of %d acknowledged transfers", len(lost), bank.Count())
				}
				again.Stop()
			})
		}
	})
}

// The primary is lost and the standby promoted while relight is not there, and the new primary removes all WAL that nobody retains. The slot that
// relight kept on the standby retains it: there is no gap.
func TestFailoverWithAStandingSlot(t *testing.T) {
	onEachMajor(t, func(t *testing.T, major int) {
		primary := pgtest.NewMajor(t, major, "--wal-segsize=1")
		primary.Start("max_wal_size=4MB", "min_wal_size=2MB", "wal_keep_size=0")
		primary.Exec("create table t (id int, v text)", "select pg_create_physical_replication_slot('standby', true)")
		standby := newStandby(t, primary, "max_wal_size=4MB", "min_wal_size=2MB", "wal_keep_size=0", "primary_slot_name=standby")
		st := standOver(t, standby)
		st.config.Peers = []string{primary.DSN("postgres")}
		doctor := func(want relight.Verdict, words string) {
			t.Helper()
			c := st.config
			c.Conn, c.Peers = primary.DSN("postgres"), []string{standby.DSN("postgres")}
			for _, got := range New(c, st.deps).Doctor(t.Context(), DoctorOptions{}) {
				if strings.HasPrefix(got.Name, "standing slot") {
					if got.Verdict != want || !strings.Contains(got.Detail, words) {
						t.Errorf("%+v, want %s with %q", got, want, words)
					}
					return
				}
			}
			t.Error("the doctor does not look at the standby")
		}
		doctor(relight.Failed, "no slot relight_main")
		a := newMemSink("a")
		o := ReceiverOptions{Conn: primary.DSN("postgres"), Peers: []string{standby.DSN("postgres")}, Spool: spoolDir(t)}
		f := follow(t, o, a)
		held := func() string {
			return standby.Query("select coalesce((select restart_lsn::text from pg_replication_slots where slot_name = 'relight_main'), '')")
		}
		eventually(t, "the standby has the slot", func() bool { return held() != "" })
		doctor(relight.Passed, "relight_main")
		primary.Exec("insert into t select g, repeat('x', 300) from generate_series(1, 5000) g")
		to := f.flush(primary)
		caughtUp(t, standby, to)
		eventually(t, "the slot moves with the repository", func() bool {
			lsn, err := relight.ParseLSN(held())
			return err == nil && lsn >= to
		})
		check(t, f.stop())
		primary.Exec("insert into t select g, repeat('y', 300) from generate_series(1, 5000) g")
		last := currentLSN(t, primary)
		caughtUp(t, standby, last)
		primary.Kill()
		standby.Exec("select pg_promote()", "insert into t select g, repeat('z', 300) from generate_series(1, 30000) g", "checkpoint", "select pg_switch_wal()", "checkpoint")
		f = follow(t, o, a)
		end := f.flush(standby)
		if len(a.gaps) > 0 {
			t.Errorf("gaps %+v", a.gaps)
		}
		if _, err := a.bytes(1, to, last); err != nil {
			t.Errorf("the old timeline up to the switch: %v", err)
		}
		sameAsServer(t, standby, a, 2, 1<<20, end)
		if got := standby.Query("select count(*) from pg_replication_slots where slot_name = 'relight_main'"); got != "1" {
			t.Error("the slot is gone")
		}
	})
}

// A receiver that is there all the time goes to the standby when that is promoted, although the old primary still runs.
func TestReceiverFollowsAPromotion(t *testing.T) {
	onEachMajor(t, func(t *testing.T, major int) {
		primary := pgtest.NewMajor(t, major, "--wal-segsize=1")
		primary.Start("wal_keep_size=64MB")
		primary.Exec("create table t (id int, v text)")
		standby := newStandby(t, primary, "wal_keep_size=64MB")
		a := newMemSink("a")
		f := follow(t, ReceiverOptions{Conn: primary.DSN("postgres"), Peers: []string{standby.DSN("postgres")}, Spool: spoolDir(t)}, a)
		primary.Exec("insert into t values (1, 'before')")
		caughtUp(t, standby, f.flush(primary))
		standby.Exec("select pg_promote()", "insert into t values (2, 'after')")
		f.flush(standby)
		eventually(t, "two primaries are an alarm", func() bool { return strings.Contains(f.position().Alarm, "beside the primary that is followed") })
		eventually(t, "the new timeline is followed", func() bool { return f.position().Timeline == 2 })
		if len(a.gaps) > 0 {
			t.Errorf("gaps %v", a.gaps)
		}
	})
}
