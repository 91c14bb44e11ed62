//go:build pg

package postgres

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob/fault"
	"github.com/toolboxai/relight/internal/pgtest"
	"github.com/toolboxai/relight/store"
	"github.com/toolboxai/relight/store/postgres/postmaster"
	"golang.org/x/sys/unix"
)

// Trap 20: a bucket that fails in the middle of replay stops recovery; it never promotes.
func TestTrap20FailingBucketNeverPromotes(t *testing.T) {
	onEachMajor(t, func(t *testing.T, major int) {
		st := newMajorStand(t, major)
		st.follow()
		bank := &pgtest.Bank{Accounts: 100, Balance: 1000}
		bank.Create(t, st.srv)
		st.backup()
		for range 3 {
			st.bankFor(bank, 50)
			st.srv.Exec(`select pg_switch_wal()`)
		}
		st.durable()
		var copied atomic.Bool
		flaky := fault.New(st.blobs, func(op fault.Op) fault.Fault {
			if copied.Load() && op.Kind == fault.Get && strings.Contains(op.Name, "/000000010000") && !strings.HasSuffix(op.Name, ".meta") {
				return fault.Fault{Effect: fault.Refuse}
			}
			return fault.Fault{}
		})
		dir := filepath.Join(st.srv.Root, "restored")
		p := point(relight.RecoveryTarget{Kind: relight.TargetLatest})
		_, err := st.store.Restore(t.Context(), st.reader(flaky), p, store.Target{Directory: dir}, store.RestoreOptions{Progress: func(p relight.Progress) {
			if p.Phase == "copy" {
				copied.Store(true)
			}
		}})
		if err == nil || !strings.Contains(err.Error(), "WAL file") || !strings.Contains(relight.HintOf(err), "nothing was promoted") {
			t.Fatalf("restore from a failing bucket: %v", err)
		}
		c, err := readControl(dir)
		check(t, err)
		if c.Timeline != 1 || !exists(filepath.Join(dir, "recovery.signal")) || exists(filepath.Join(dir, "pg_wal", "00000002.history")) {
			t.Errorf("the server was promoted: timeline %d, %s", c.Timeline, c.State)
		}
		if pid, err := running(dir); pid != 0 || err != nil {
			t.Errorf("process %d is left (%v)", pid, err)
		}
		_, srv := st.mustRestore(dir, p.Target, store.RestoreOptions{}) // the bucket is back: the same command finishes
		if lost := bank.Missing(t, srv.DSN("postgres")); len(lost) > 0 {
			t.Errorf("lost %d transfers", len(lost))
		}
	})
}

// Trap 21: nothing is committed after the target, because the database is idle.
func TestTrap21TargetAfterTheLastCommit(t *testing.T) {
	onEachMajor(t, func(t *testing.T, major int) {
		st := newMajorStand(t, major)
		st.follow()
		st.backup()
		st.srv.Exec(`create table t as select 1 as i`)
		lsn := st.durable()
		last, err := time.Parse(time.RFC3339Nano, st.srv.Query(`select clock_timestamp()`))
		check(t, err)
		idle := relight.RecoveryTarget{Kind: relight.TargetTime, Time: last}
		deadline := time.Now().Add(30 * time.Second)
		for { // the repository learns, without any commit, that the server has written nothing more
			a, err := loadArchive(t.Context(), st.meta, "main")
			check(t, err)
			if _, err = resolve(t.Context(), a, point(idle), nil); err == nil {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("an idle database's time %s stays out of reach: %v", last, err)
			}
			time.Sleep(50 * time.Millisecond)
		}
		out, srv := st.mustRestore(filepath.Join(st.srv.Root, "idle"), idle, store.RestoreOptions{})
		if out.Reached.LSN < lsn-1000 || srv.Query(`select count(*) from t`) != "1" {
			t.Errorf("reached %s, the last commit ended at %s", out.Reached.LSN, lsn)
		}
		dir := filepath.Join(st.srv.Root, "future")
		_, err = st.restoreInto(dir, relight.RecoveryTarget{Kind: relight.TargetTime, Time: last.Add(time.Hour)}, store.RestoreOptions{})
		if relight.CodeOf(err) != relight.CodeNotFound || !strings.Contains(relight.HintOf(err), "possible is from") || exists(dir) {
			t.Errorf("a target in the future: %v (directory exists: %v)", err, exists(dir))
		}
	})
}

// Traps 22 and 24, over every kind of target.
func TestTrap22EveryKindOfTargetKeepsExactlyWhatItSays(t *testing.T) {
	onEachMajor(t, func(t *testing.T, major int) {
		st := newMajorStand(t, major, "track_commit_timestamp=on")
		st.follow()
		st.srv.Exec(`create table t (i int)`)
		st.backup()
		st.srv.Exec(`insert into t values (1)`)
		st.srv.Exec(`insert into t values (2)`)
		second := st.srv.Query(`select pg_xact_commit_timestamp(xmin) from t where i = 2`)
		xid := st.srv.Query(`select xmin::text::int8 from t where i = 2`)
		lsn, err := relight.ParseLSN(st.srv.Query(`select pg_current_wal_insert_lsn()::text`))
		check(t, err)
		st.srv.Exec(`select pg_create_restore_point('after two')`)
		st.srv.Exec(`insert into t values (3)`)
		st.srv.Exec(`select pg_switch_wal()`)
		st.srv.Exec(`insert into t values (4)`)
		st.durable()
		moment, err := time.Parse(time.RFC3339Nano, second)
		check(t, err)
		var number uint32
		_, err = fmt.Sscan(xid, &number)
		check(t, err)
		cases := []struct {
			name   string
			target relight.RecoveryTarget
			want   string
			once   bool // on one version is enough: another case gives the server the same setting, or other tests do
		}{
			{"time inclusive", relight.RecoveryTarget{Kind: relight.TargetTime, Time: moment}, "{1,2}", true},
			{"time exclusive", relight.RecoveryTarget{Kind: relight.TargetTime, Time: moment, Exclusive: true}, "{1}", false},
			{"time in another zone", relight.RecoveryTarget{Kind: relight.TargetTime, Time: moment.In(time.FixedZone("", 5*3600+1800))}, "{1,2}", true},
			{"xid inclusive", relight.RecoveryTarget{Kind: relight.TargetXID, XID: number}, "{1,2}", false},
			{"xid exclusive", relight.RecoveryTarget{Kind: relight.TargetXID, XID: number, Exclusive: true}, "{1}", true},
			{"lsn", relight.RecoveryTarget{Kind: relight.TargetLSN, LSN: lsn}, "{1,2}", false},
			{"name", relight.RecoveryTarget{Kind: relight.TargetName, Name: "after two"}, "{1,2}", false},
			{"immediate", relight.RecoveryTarget{Kind: relight.TargetImmediate}, "{}", true},
			{"latest", relight.RecoveryTarget{Kind: relight.TargetLatest}, "{1,2,3,4}", true},
		}
		for i, c := range cases {
			if c.once && major != pgtest.Majors[0] {
				continue
			}
			dir := filepath.Join(st.srv.Root, fmt.Sprint("r", i))
			out, srv := st.mustRestore(dir, c.target, store.RestoreOptions{})
			if got := srv.Query(`select coalesce(array_agg(i order by i), '{}')::text from t`); got != c.want {
				t.Errorf("%s: the table holds %s, want %s", c.name, got, c.want)
			}
			if out.NewLine != 2 || out.Reached.Timeline != 1 || exists(filepath.Join(dir, "recovery.signal")) {
				t.Errorf("%s: %+v", c.name, out)
			}
			srv.Stop()
			check(t, os.RemoveAll(dir))
		}
		_, err = st.restoreInto(filepath.Join(st.srv.Root, "no"), relight.RecoveryTarget{Kind: relight.TargetXID, XID: number + 1000}, store.RestoreOptions{})
		if relight.CodeOf(err) != relight.CodeNotFound || exists(filepath.Join(st.srv.Root, "no")) {
			t.Errorf("an unknown transaction: %v", err)
		}
	})
}

// Trap 23: after a recovery in the past, the new timeline is followed, the old one on request, and a later restore takes a number
// that is free.
func TestTrap23TimelinesAfterRecovery(t *testing.T) {
	onEachMajor(t, func(t *testing.T, major int) {
		st := newMajorStand(t, major)
		st.follow()
		st.srv.Exec(`create table t (i int)`)
		st.backup()
		st.srv.Exec(`insert into t values (1)`, `select pg_create_restore_point('fork')`, `insert into t values (2)`)
		st.durable()
		st.unfollow()
		st.srv.Stop()
		dir := filepath.Join(st.srv.Root, "second")
		_, srv := st.mustRestore(dir, relight.RecoveryTarget{Kind: relight.TargetName, Name: "fork"}, store.RestoreOptions{})
		srv.Stop()
		srv.Start("wal_keep_size=64MB")
		old := st.srv
		st.srv = srv
		st.config.Conn, st.config.DataDir = srv.DSN("postgres"), dir
		st.store = New(st.config, st.deps)
		st.follow()
		srv.Exec(`insert into t values (3)`)
		st.durable()
		st.unfollow()
		content := func(srv *pgtest.Server) string {
			return srv.Query(`select coalesce(array_agg(i order by i), '{}')::text from t`)
		}
		out, third := st.mustRestore(filepath.Join(old.Root, "third"), relight.RecoveryTarget{Kind: relight.TargetLatest}, store.RestoreOptions{})
		if got := content(third); got != "{1,3}" || out.NewLine != 3 {
			t.Errorf("latest holds %s on timeline %d, want {1,3} on 3", got, out.NewLine)
		}
		out, again := st.mustRestore(filepath.Join(old.Root, "again"), relight.RecoveryTarget{Kind: relight.TargetLatest, Timeline: 1}, store.RestoreOptions{})
		if got := content(again); got != "{1,2}" || out.NewLine != 3 {
			t.Errorf("timeline 1 holds %s on timeline %d, want {1,2} on 3: timeline 2 is taken", got, out.NewLine)
		}
	})
}

// Trap 25: the recovering server is never smaller than the source; a prepared transaction survives.
func TestTrap25SettingsOfTheSourceAreRespected(t *testing.T) {
	onEachMajor(t, func(t *testing.T, major int) {
		st := newMajorStand(t, major, "max_connections=217", "max_prepared_transactions=7", "max_locks_per_transaction=123", "max_worker_processes=19", "max_wal_senders=23")
		st.follow()
		snap := st.backup()
		f, err := FactsOf(snap)
		check(t, err)
		want := Settings{MaxConnections: 217, MaxWorkers: 19, MaxWALSenders: 23, MaxPrepared: 7, MaxLocksPerXact: 123, WALLevel: "replica"}
		if f.Settings != want {
			t.Errorf("settings %+v, want %+v", f.Settings, want)
		}
		st.srv.Exec(`create table t (i int)`, `begin; insert into t values (1); prepare transaction 'kept'`)
		st.durable()
		_, err = st.restoreInto(filepath.Join(st.srv.Root, "restored"), relight.RecoveryTarget{Kind: relight.TargetLatest}, store.RestoreOptions{})
		check(t, err)
		srv := pgtest.At(t, pgtest.Root(t), filepath.Join(st.srv.Root, "restored"))
		srv.Start("max_prepared_transactions=7")
		if got := srv.Query(`select gid from pg_prepared_xacts`); got != "kept" {
			t.Errorf("prepared transaction %q", got)
		}
	})
}

// Trap 26: a proof neither writes to the live archive nor to live tablespaces, and leaves nothing.
func TestTrap26ProofIsIsolated(t *testing.T) {
	onEachMajor(t, func(t *testing.T, major int) {
		st := newMajorStand(t, major, "archive_mode=on")
		archive := filepath.Join(st.srv.Root, "archive")
		st.srv.Exec(`alter system set archive_command = 'echo %f >> `+archive+`'`, `alter system set primary_conninfo = 'host=live'`, `select pg_reload_conf()`)
		st.follow()
		before, after := filepath.Join(st.srv.Root, "before"), filepath.Join(st.srv.Root, "after")
		uid, gid := owner(t, st.srv.Dir)
		for _, dir := range []string{before, after} {
			check(t, os.Mkdir(dir, 0o700))
			check(t, os.Chown(dir, uid, gid))
		}
		st.srv.Exec(`create tablespace before location '`+before+`'`, `create table b (i int) tablespace before`, `insert into b values (1)`)
		st.backup()
		st.srv.Exec(`create tablespace after location '`+after+`'`, `create table a (i int) tablespace after`, `insert into a values (1)`, `insert into b values (2)`)
		st.durable()
		st.unfollow()
		st.srv.Stop() // so that nothing but the proof could change what follows
		listing := func() string {
			var b strings.Builder
			for _, dir := range []string{before, after, filepath.Dir(archive)} {
				check(t, filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
					if err == nil && (strings.HasPrefix(path, before) || strings.HasPrefix(path, after) || path == archive) {
						fmt.Fprintln(&b, path, info.Size(), info.ModTime().UnixNano())
					}
					return err
				}))
			}
			entries, err := os.ReadDir(st.srv.Root)
			check(t, err)
			for _, e := range entries {
				fmt.Fprintln(&b, e.Name())
			}
			return b.String()
		}
		then := listing()
		c := st.config
		c.Invariants = []Invariant{
			{Name: "rows of b", Database: "postgres", Query: "select sum(i) from b", Want: "3"},
			{Name: "rows of a", Database: "postgres", Query: "select sum(i) from a", Want: "1"},
			{Name: "nothing is archived", Database: "postgres", Query: "show archive_mode", Want: "off"},
			{Name: "nothing replicates", Database: "postgres", Query: "show primary_conninfo", Want: ""},
			{Name: "nothing listens", Database: "postgres", Query: "show listen_addresses", Want: ""},
			{Name: "no subscription works", Database: "postgres", Query: "show max_logical_replication_workers", Want: "0"},
			{Name: "the tablespaces lie in the sandbox", Database: "postgres",
				Query: "select count(*) from pg_tablespace where pg_tablespace_location(oid) like '%/relight-proof-%/data.tblspc/' || oid", Want: "2"},
		}
		proof, err := New(c, st.deps).Prove(t.Context(), st.reader(st.blobs), point(relight.RecoveryTarget{Kind: relight.TargetLatest}))
		check(t, err)
		if !proof.OK || len(proof.Checks) < 10 {
			t.Errorf("proof: %+v", proof)
		}
		if now := listing(); now != then {
			t.Errorf("the proof changed what is live, or left something:\n%s\nbefore:\n%s", now, then)
		}
		snaps, err := st.reader(st.blobs).Meta().Snapshots(t.Context(), "main")
		check(t, err)
		if len(snaps) != 1 || snaps[0].State != relight.Proven {
			t.Errorf("snapshots %+v", snaps)
		}
		c.Invariants[0].Want = "4711"
		proof, err = New(c, st.deps).Prove(t.Context(), st.reader(st.blobs), point(relight.RecoveryTarget{Kind: relight.TargetLatest}))
		check(t, err)
		if proof.OK {
			t.Error("a proof with a broken invariant is OK")
		}
	})
}

// Trap 27: configuration outside the directory is kept, a symbolic pg_wal becomes a directory, modes and ownership are the source's.
func TestTrap27PlacesOutsideModesAndOwnership(t *testing.T) {
	onEachMajor(t, func(t *testing.T, major int) {
		root := pgtest.Root(t)
		check(t, os.Chmod(root, 0o777))
		srv := pgtest.NewMajor(t, major, "--wal-segsize=1", "-g", "-X", filepath.Join(root, "wal"))
		etc := filepath.Join(root, "etc", "main")
		check(t, os.MkdirAll(filepath.Join(etc, "conf.d"), 0o755))
		hba := filepath.Join(etc, "pg_hba.conf")
		check(t, os.WriteFile(hba, []byte("# ours\nlocal all all trust\nlocal replication all trust\n"), 0o644))
		srv.Start("hba_file=" + hba)
		st := standOver(t, srv)
		st.follow()
		snap := st.backup()
		if got := st.content(snap.ID, keptEtc+hba); !strings.HasPrefix(got, "# ours") {
			t.Errorf("pg_hba.conf is kept as %q", got)
		}
		f, err := FactsOf(snap)
		check(t, err)
		if f.WALDir != filepath.Join(root, "wal") || f.DirMode != 0o750 || len(f.Configs) != 1 {
			t.Errorf("facts %+v", f)
		}
		dir := filepath.Join(srv.Root, "restored")
		_, restored := st.mustRestore(dir, relight.RecoveryTarget{Kind: relight.TargetImmediate}, store.RestoreOptions{})
		restored.Query(`select 1`)
		info, err := os.Lstat(filepath.Join(dir, "pg_wal"))
		check(t, err)
		top, err := os.Stat(dir)
		check(t, err)
		if !info.IsDir() || top.Mode().Perm() != 0o750 {
			t.Errorf("pg_wal is %s, the directory %s", info.Mode(), top.Mode())
		}
		uid, gid := owner(t, srv.Dir)
		check(t, filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
			if u, g := owner(t, path); err == nil && (u != uid || g != gid) && filepath.Base(path) != stateFile {
				t.Errorf("%s belongs to %d:%d, want %d:%d", path, u, g, uid, gid)
			}
			return err
		}))
		if _, err := os.Stat(filepath.Join(dir, "base", "1")); err != nil {
			t.Error(err)
		}
	})
}

// Trap 28: the versions of collation libraries are on record.
func TestTrap28CollationVersionsAreRecorded(t *testing.T) {
	onEachMajor(t, func(t *testing.T, major int) {
		st := newMajorStand(t, major)
		st.srv.Exec(`create database icu locale_provider icu icu_locale 'de-DE' template template0`)
		st.follow()
		f, err := FactsOf(st.backup())
		check(t, err)
		for _, d := range f.Databases {
			if d.Name == "icu" {
				if d.Provider != "icu" || d.Recorded == "" || d.Recorded != d.Actual {
					t.Errorf("%+v", d)
				}
				return
			}
		}
		t.Errorf("databases %+v", f.Databases)
	})
}

// Trap 29: another major version is refused before anything is touched.
func TestTrap29OtherMajorVersionIsRefused(t *testing.T) {
	onEachMajor(t, func(t *testing.T, major int) {
		st := newMajorStand(t, major)
		st.follow()
		st.backup()
		bin := t.TempDir()
		check(t, os.WriteFile(filepath.Join(bin, "postgres"), []byte("#!/bin/sh\necho 'postgres (PostgreSQL) 14.9'\n"), 0o755))
		c := st.config
		c.BinDir = bin
		dir := filepath.Join(st.srv.Root, "restored")
		_, err := New(c, st.deps).Restore(t.Context(), st.reader(st.blobs), point(relight.RecoveryTarget{Kind: relight.TargetLatest}), store.Target{Directory: dir}, store.RestoreOptions{})
		if relight.CodeOf(err) != relight.CodeUsage || !strings.Contains(err.Error(), "version 14") || !strings.Contains(relight.HintOf(err), fmt.Sprintf("postgresql-%d", major)) || exists(dir) {
			t.Errorf("restore with another major: %v", err)
		}
	})
}

// sharedMemory is the segment that a killed server left.
func sharedMemory(t *testing.T, dir string) int {
	t.Helper()
	id, ok := postmaster.Memory(dir)
	if !ok {
		t.Fatal("the killed server's lock file names no memory")
	}
	if attached(id) != 0 {
		t.Fatalf("%d processes are attached to the killed server's memory", attached(id))
	}
	return id
}

// attached is how many processes use a segment; -1 when there is none.
func attached(segment int) int {
	var d unix.SysvShmDesc
	if _, err := unix.SysvShmCtl(segment, unix.IPC_STAT, &d); err != nil {
		return -1
	}
	return int(d.Nattch)
}

// An occupied directory is refused, and with Force set aside whole; a running server is never touched.
func TestOccupiedTarget(t *testing.T) {
	t.Parallel()
	st := newPGStand(t)
	st.follow()
	st.srv.Exec(`create table t as select 1 as i`)
	st.backup()
	st.durable()
	latest := relight.RecoveryTarget{Kind: relight.TargetLatest}
	if _, err := st.restoreInto(st.srv.Dir, latest, store.RestoreOptions{Force: true}); relight.CodeOf(err) != relight.CodeLeaseHeld {
		t.Errorf("restore over a running server: %v", err)
	}
	st.unfollow()
	st.srv.Kill()
	segment := sharedMemory(t, st.srv.Dir)
	if _, err := st.restoreInto(st.srv.Dir, latest, store.RestoreOptions{}); relight.CodeOf(err) != relight.CodeUsage || !strings.Contains(err.Error(), "occupied") {
		t.Errorf("restore over data: %v", err)
	}
	var handle relight.Handle
	out, err := st.restoreInto(st.srv.Dir, latest, store.RestoreOptions{Force: true, Started: startedInto(&handle)})
	check(t, err)
	if !exists(filepath.Join(out.SetAside, "PG_VERSION")) || handle.PID == 0 {
		t.Errorf("set aside in %q, handle %+v", out.SetAside, handle)
	}
	if attached(segment) >= 0 {
		t.Error("the killed server's shared memory is still there")
	}
	st.srv.Restart()
	if got := st.srv.Query(`select count(*) from t`); got != "1" {
		t.Errorf("the restored server holds %s rows", got)
	}
}
