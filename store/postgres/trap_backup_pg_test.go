//go:build pg

package postgres

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/internal/pgtest"
	"github.com/toolboxai/relight/repo"
	"github.com/toolboxai/relight/store"
)

// entries lists a snapshot.
func (st *pgStand) entries(id relight.SnapshotID) map[string]repo.Entry {
	st.t.Helper()
	man, err := st.meta.Manifest(st.t.Context(), "main", id)
	check(st.t, err)
	out := map[string]repo.Entry{}
	check(st.t, st.meta.Entries(st.t.Context(), man, func(e repo.Entry) error {
		out[e.Path] = e
		return nil
	}))
	return out
}

// content reads one file of a snapshot.
func (st *pgStand) content(id relight.SnapshotID, path string) string {
	st.t.Helper()
	man, err := st.meta.Manifest(st.t.Context(), "main", id)
	check(st.t, err)
	var b bytes.Buffer
	check(st.t, st.reader(st.blobs).Copy(st.t.Context(), man, st.entries(id)[path], &b))
	return b.String()
}

// tryBackup takes a backup with another configuration and returns its error.
func (st *pgStand) tryBackup(change func(*Config), o store.BackupOptions) (relight.Snapshot, error) {
	st.t.Helper()
	c := st.config
	change(&c)
	w, err := st.meta.NewSnapshot(st.t.Context(), "main", repo.SnapshotOptions{Kind: "full"})
	check(st.t, err)
	return New(c, st.deps).Backup(st.t.Context(), w, o)
}

func TestTrap01LabelIsKeptByteForByteAndWithoutItNothingStarts(t *testing.T) {
	t.Parallel()
	st := newPGStand(t)
	st.follow()
	snap := st.backup()
	f, err := FactsOf(snap)
	check(t, err)
	label := st.content(snap.ID, "backup_label")
	want := fmt.Sprintf("START WAL LOCATION: %s (file ", f.StartLSN)
	if !strings.HasPrefix(label, want) || !strings.HasSuffix(label, "START TIMELINE: 1\n") {
		t.Errorf("backup_label is %q", label)
	}
	if exists(filepath.Join(st.srv.Dir, "backup_label")) {
		t.Error("backup_label was written into the live directory")
	}
	dir := filepath.Join(st.srv.Root, "half")
	ctx, cancel := context.WithCancel(t.Context())
	_, err = st.store.Restore(ctx, st.reader(st.blobs), point(relight.RecoveryTarget{Kind: relight.TargetLatest}), store.Target{Directory: dir},
		store.RestoreOptions{Progress: func(p relight.Progress) {
			if p.Phase == "copy" && p.Done > p.Total/2 {
				cancel()
			}
		}})
	if err == nil {
		t.Fatal("the cancelled restore succeeded")
	}
	if exists(filepath.Join(dir, controlName)) {
		t.Error("a half-restored directory has a pg_control")
	}
	if out, err := st.srv.Command(t.Context(), "postgres", "-D", dir).CombinedOutput(); err == nil {
		t.Errorf("a server started from a half-restored directory: %s", out)
	}
	if _, err := st.restoreInto(dir, relight.RecoveryTarget{Kind: relight.TargetLatest}, store.RestoreOptions{}); err != nil {
		t.Errorf("the restore cannot be done again: %v", err)
	}
	if got, err := RestoreState(dir, point(relight.RecoveryTarget{Kind: relight.TargetLatest})); err != nil || got.State != "done" || got.Restored == nil {
		t.Errorf("state of the finished restore: %+v, %v", got, err)
	}
	if got, err := RestoreState(dir, point(relight.RecoveryTarget{Kind: relight.TargetImmediate})); err != nil || got.State != "not-done" {
		t.Errorf("state of another restore: %+v, %v", got, err)
	}
}

func TestTrap03StandbyPromotedDuringItsBackup(t *testing.T) {
	t.Parallel()
	primary := pgtest.New(t, "--wal-segsize=1")
	primary.Start()
	standby := newStandby(t, primary)
	st := standOver(t, standby)
	var once sync.Once
	_, err := st.tryBackup(func(*Config) {}, store.BackupOptions{Progress: func(relight.Progress) {
		once.Do(func() { standby.Query(`select pg_promote()`) })
	}})
	if err == nil || !strings.Contains(err.Error(), "promoted") || relight.HintOf(err) == "" {
		t.Errorf("backup of a standby that was promoted meanwhile: %v", err)
	}
	if snaps, err := st.meta.Snapshots(t.Context(), "main"); err != nil || len(snaps) != 0 {
		t.Errorf("snapshots %v, %v", snaps, err)
	}
}

// A standby goes over to the timeline of a new primary in the middle of its backup: what is needed to make it consistent lies on two timelines.
func TestTrap03StandbyThatChangesItsTimelineDuringItsBackup(t *testing.T) {
	onEachMajor(t, func(t *testing.T, major int) {
		primary := pgtest.NewMajor(t, major, "--wal-segsize=1")
		primary.Start("wal_keep_size=64MB")
		primary.Exec("create table t (i int)")
		next, standby := newStandby(t, primary, "wal_keep_size=64MB"), newStandby(t, primary)
		st := standOver(t, standby)
		var once sync.Once
		_, err := st.tryBackup(func(*Config) {}, store.BackupOptions{Progress: func(relight.Progress) {
			once.Do(func() {
				next.Exec("select pg_promote()", "insert into t select generate_series(1, 10000)")
				standby.Exec("alter system set primary_conninfo = '"+next.DSN("postgres")+"'", "select pg_reload_conf()")
				caughtUp(t, standby, currentLSN(t, next))
				next.Exec("checkpoint")
				caughtUp(t, standby, currentLSN(t, next))
				standby.Exec("checkpoint") // a restart point: what was replayed is on disk, and its end on record
			})
		}})
		if err == nil || !strings.Contains(err.Error(), "timeline 1 to 2") || relight.HintOf(err) == "" {
			t.Errorf("backup of a standby that changed its timeline meanwhile: %v", err)
		}
		if snaps, err := st.meta.Snapshots(t.Context(), "main"); err != nil || len(snaps) != 0 {
			t.Errorf("snapshots %v, %v", snaps, err)
		}
	})
}

func TestTrap04BackupWithoutItsWALDurableFails(t *testing.T) {
	t.Parallel()
	st := newPGStand(t) // nobody streams
	_, err := st.tryBackup(func(c *Config) { c.DurableWait = 300 * time.Millisecond }, store.BackupOptions{})
	if err == nil || !strings.Contains(relight.HintOf(err), "relight serve") {
		t.Errorf("backup without a receiver: %v", err)
	}
	if snaps, err := st.meta.Snapshots(t.Context(), "main"); err != nil || len(snaps) != 0 {
		t.Errorf("snapshots %v, %v", snaps, err)
	}
}

// The server's own pg_basebackup is the measure of what belongs into a backup.
func TestTrap05ListIsExactlyTheServers(t *testing.T) {
	onEachMajor(t, func(t *testing.T, major int) {
		srv := pgtest.NewMajor(t, major, "--wal-segsize=1")
		settings := []string{"autovacuum=off"}
		if major >= 17 {
			settings = append(settings, "summarize_wal=on")
		}
		srv.Start(settings...)
		trap05(t, standOver(t, srv))
	})
}

func trap05(t *testing.T, st *pgStand) {
	st.follow()
	space := filepath.Join(st.srv.Root, "space")
	st.srv.Exec(`create unlogged table u (i int primary key)`, `insert into u select generate_series(1, 100)`, `create table kept as select 1`)
	makeSpace(t, st.srv, space)
	st.srv.Exec(`create table t (i int) tablespace space`, `create unlogged table tu (i int) tablespace space`, `insert into tu values (1)`, `checkpoint`)
	database := st.srv.Query(`select oid from pg_database where datname = 'postgres'`)
	for _, junk := range []string{
		"base/pgsql_tmp/pgsql_tmp1.0", "base/" + database + "/t3_99999", "base/" + database + "/t3_99999_fsm.1", "global/pg_internal.init.5", "pg_internal.init",
		"postgresql.auto.conf.tmp", "backup_manifest", "current_logfiles.tmp", "pg_replslot/x/state", "pg_stat_tmp/x", "pg_notify/0099", "pg_serial/0099",
		"pg_snapshots/x", "pg_subtrans/0099", "pg_dynshmem/x", "kept_file", "kept_dir/file",
	} {
		path := filepath.Join(st.srv.Dir, junk)
		check(t, os.MkdirAll(filepath.Dir(path), 0o700))
		check(t, os.WriteFile(path, []byte("junk"), 0o600))
		if os.Geteuid() == 0 {
			uid, gid := owner(t, st.srv.Dir)
			check(t, os.Chown(path, uid, gid))
			check(t, os.Chown(filepath.Dir(path), uid, gid))
		}
	}
	mine := map[string]bool{}
	for p, e := range st.entries(st.backup().ID) {
		mine[p] = true
		if _, ok := relationFile(p); ok != e.Paged {
			t.Errorf("%s: paged is %v", p, e.Paged)
		}
	}
	check(t, os.Remove(filepath.Join(st.srv.Dir, "backup_manifest"))) // else pg_basebackup complains about its own
	theirs := listBaseBackup(t, st.srv, space)
	for p := range theirs {
		if !mine[p] {
			t.Errorf("%s is in the server's own backup and not in ours", p)
		}
	}
	for p := range mine {
		if !theirs[p] {
			t.Errorf("%s is in our backup and not in the server's own", p)
		}
	}
	if len(mine) < 900 {
		t.Errorf("only %d entries", len(mine))
	}
}

func owner(t *testing.T, path string) (int, int) {
	t.Helper()
	e, err := os.Stat(path)
	check(t, err)
	x := entryOf("x", e)
	return x.UID, x.GID
}

func makeSpace(t *testing.T, srv *pgtest.Server, dir string) {
	t.Helper()
	check(t, os.Mkdir(dir, 0o700))
	uid, gid := owner(t, srv.Dir)
	check(t, os.Chown(dir, uid, gid))
	srv.Exec(`create tablespace space location '` + dir + `'`)
}

func listBaseBackup(t *testing.T, srv *pgtest.Server, space string) map[string]bool {
	t.Helper()
	dir := filepath.Join(srv.Root, "theirs")
	cmd := srv.Command(t.Context(), "pg_basebackup", "-D", dir, "-X", "none", "-c", "fast", "--no-manifest", "-T", space+"="+dir+"-space", "-d", srv.DSN("postgres"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("pg_basebackup: %v\n%s", err, out)
	}
	out := map[string]bool{}
	var walk func(root, prefix string)
	walk = func(root, prefix string) {
		check(t, filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
			check(t, err)
			rel, _ := filepath.Rel(root, path)
			rel = filepath.Join(prefix, rel)
			out[rel] = true
			if e.Type()&fs.ModeSymlink != 0 {
				to, err := os.Readlink(path)
				check(t, err)
				walk(to, rel)
			}
			return nil
		}))
	}
	walk(dir, "")
	out["tablespace_map"] = true // pg_basebackup turns it into links
	return out
}

// While a long file is read, one that is listed behind it vanishes, one grows and one shrinks.
func TestTrap06FilesVanishGrowAndShrinkDuringTheBackup(t *testing.T) {
	onEachMajor(t, func(t *testing.T, major int) {
		st := newMajorStand(t, major)
		st.follow()
		bank := &pgtest.Bank{Accounts: 100, Balance: 1000}
		bank.Create(t, st.srv)
		st.srv.Exec(`create table long as select i, repeat('l', 1000) as pad from generate_series(1, 10000) i`)
		size := map[string]func() int64{}
		for _, name := range []string{"vanishing", "growing", "shrinking"} {
			st.srv.Exec(`create table ` + name + ` as select i, repeat('z', 500) as pad from generate_series(1, 3000) i`)
			path := filepath.Join(st.srv.Dir, st.srv.Query(`select pg_relation_filepath('`+name+`')`))
			size[name] = func() int64 {
				info, err := os.Stat(path)
				if errors.Is(err, fs.ErrNotExist) {
					return -1
				}
				check(t, err)
				return info.Size()
			}
		}
		st.srv.Exec(`checkpoint`)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { bank.Run(ctx, st.srv.DSN("postgres"), 2) })

		was, done, changed := size["growing"](), int64(0), false
		snap, err := st.tryBackup(func(*Config) {}, store.BackupOptions{Workers: 1, Progress: func(p relight.Progress) {
			step := p.Done - done
			if done = p.Done; changed || p.Phase != "copy" || step < progressStride {
				return // only the long file is read in strides; its directory has been listed then
			}
			changed = true
			st.srv.Exec(`drop table vanishing`, `insert into growing select i, repeat('z', 500) from generate_series(1, 3000) i`, `delete from shrinking where i > 100`, `checkpoint`)
			eventually(t, "the end of the file is cut off", func() bool { // once nobody needs the deleted rows
				st.srv.Exec(`vacuum shrinking`)
				return size["shrinking"]() < was
			})
			if size["vanishing"]() != -1 || size["growing"]() <= was {
				t.Errorf("vanishing has %d bytes and growing %d, of %d before", size["vanishing"](), size["growing"](), was)
			}
		}})
		check(t, err)
		cancel()
		wg.Wait()
		st.durable()
		if f, err := FactsOf(snap); err != nil || !changed || f.Vanished == 0 {
			t.Fatalf("files changed during the backup: %v, %d vanished, %v", changed, f.Vanished, err)
		}
		_, srv := st.mustRestore(filepath.Join(st.srv.Root, "restored"), relight.RecoveryTarget{Kind: relight.TargetLatest}, store.RestoreOptions{Verify: true})
		if lost := bank.Missing(t, srv.DSN("postgres")); len(lost) > 0 {
			t.Errorf("lost %d transfers", len(lost))
		}
		if got := srv.Query(`select (select count(*) from long) || ' ' || (select count(*) from growing) || ' ' || (select count(*) from shrinking) || ' ' || coalesce(to_regclass('vanishing')::text, 'none')`); got != "10000 6000 100 none" {
			t.Errorf("restored: %s", got)
		}
	})
}

// damagePage overwrites part of a page of a table's file; with lsn, it puts a position into the page's header.
func damagePage(t *testing.T, path string, block int64, lsn relight.LSN) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	check(t, err)
	defer func() { _ = f.Close() }()
	_, err = f.WriteAt([]byte("damaged!"), block*8192+4000)
	check(t, err)
	if lsn != 0 {
		b := binary.LittleEndian.AppendUint32(nil, uint32(lsn>>32))
		b = binary.LittleEndian.AppendUint32(b, uint32(lsn))
		_, err = f.WriteAt(b, block*8192)
		check(t, err)
	}
}

func TestTrap07DamagedPagesAreNoticedNamedAndFailTheBackup(t *testing.T) {
	t.Parallel()
	st := newPGStand(t)
	st.follow()
	st.srv.Exec(`create table t as select i, repeat('p', 1000) as pad from generate_series(1, 2000) i`, `vacuum freeze t`, `checkpoint`)
	file := st.srv.Query(`select pg_relation_filepath('t')`)
	st.backup() // all is well so far
	damagePage(t, filepath.Join(st.srv.Dir, file), 5, 0)
	damagePage(t, filepath.Join(st.srv.Dir, file), 9, 0x7fffffff00000000) // claims to be written after the backup began

	_, err := st.tryBackup(func(*Config) {}, store.BackupOptions{})
	if relight.CodeOf(err) != relight.CodeVerification || !strings.Contains(err.Error(), "2 damaged pages") || !strings.Contains(err.Error(), file+" block 5") {
		t.Errorf("backup of damaged pages: %v", err)
	}
	st.srv.Kill()
	report, err := st.store.VerifyPages(t.Context(), st.srv.Dir, 2, nil)
	check(t, err)
	if report.Damaged != 2 || report.Pages < 1000 {
		t.Errorf("offline: %+v", report)
	}
}

// From a log of level minimal nothing can be recovered: no backup is begun, and the doctor says what to set.
func TestTrap19WALLevelMinimalIsRefused(t *testing.T) {
	t.Parallel()
	st := newPGStand(t, "wal_level=minimal", "max_wal_senders=0")
	w, err := st.meta.NewSnapshot(t.Context(), "main", repo.SnapshotOptions{Kind: "full"})
	check(t, err)
	defer w.Abort(t.Context())
	_, err = st.store.Backup(t.Context(), w, store.BackupOptions{})
	if relight.CodeOf(err) != relight.CodeUsage || !strings.Contains(err.Error(), "wal_level is minimal") || !strings.Contains(relight.HintOf(err), "wal_level = replica") {
		t.Errorf("%v, hint %q", err, relight.HintOf(err))
	}
	if all, err := st.meta.Snapshots(t.Context(), "main"); err != nil || len(all) > 0 {
		t.Errorf("%d snapshots, %v", len(all), err)
	}
	checks := st.store.Doctor(t.Context(), DoctorOptions{})
	if i := slices.IndexFunc(checks, func(c relight.Check) bool { return c.Name == "wal_level" }); i < 0 || checks[i].Verdict != relight.Failed {
		t.Errorf("%+v", checks)
	}
}
