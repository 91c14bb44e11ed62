//go:build pg

package postgres

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/internal/pgtest"
	"github.com/toolboxai/relight/store"
)

// damage breaks a stopped cluster in every way that a delta restore must mend. It gives what it put where nothing belongs.
func (st *pgStand) damageFiles() (extras []string) {
	t, dir := st.t, st.srv.Dir
	t.Helper()
	n := 0
	check(t, filepath.WalkDir(filepath.Join(dir, "base"), func(path string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(dir, path)
		if _, ok := relationFile(rel); err != nil || !ok {
			return err
		}
		info, err := d.Info()
		check(t, err)
		switch n++; {
		case info.Size() == 0 || n%3 != 0:
		case n%4 == 0:
			check(t, os.Remove(path))
		case n%4 == 1:
			check(t, os.Truncate(path, info.Size()/2))
		case n%4 == 2:
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			check(t, err)
			_, err = f.WriteAt([]byte("scribble"), info.Size()/2)
			check(t, err)
			_, err = f.WriteAt([]byte("beyond"), info.Size()+100)
			check(t, err)
			check(t, f.Close())
		default: // a link whose other end is somebody else's
			other := filepath.Join(st.srv.Root, "linked-"+filepath.Base(path))
			check(t, os.Link(path, other))
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			check(t, err)
			_, err = f.WriteAt([]byte("linked"), 0)
			check(t, err)
			check(t, f.Close())
			extras = append(extras, other)
		}
		return nil
	}))
	check(t, os.RemoveAll(filepath.Join(dir, "pg_xact")))
	check(t, os.WriteFile(filepath.Join(dir, "pg_xact"), []byte("a file where a directory belongs"), 0o600))
	check(t, os.Remove(filepath.Join(dir, "PG_VERSION")))
	check(t, os.Mkdir(filepath.Join(dir, "PG_VERSION"), 0o700))
	check(t, os.WriteFile(filepath.Join(dir, "base", "999999"), []byte("extra"), 0o600))
	check(t, os.MkdirAll(filepath.Join(dir, "junk", "deep"), 0o700))
	check(t, os.WriteFile(filepath.Join(dir, "junk", "deep", "file"), []byte("extra"), 0o600))
	return extras
}

func TestDeltaRestoreMendsADamagedDirectory(t *testing.T) {
	onEachMajor(t, func(t *testing.T, major int) {
		st := newMajorStand(t, major)
		st.follow()
		space := filepath.Join(st.srv.Root, "space")
		makeSpace(t, st.srv, space)
		bank := &pgtest.Bank{Accounts: 2000, Balance: 1000}
		bank.Create(t, st.srv)
		st.srv.Exec(`create table spaced tablespace space as select g, repeat('s', 100) v from generate_series(1, 10000) g`,
			`create table still as select g, repeat('y', 500) v from generate_series(1, 20000) g`)
		st.bankFor(bank, 50)
		st.backup()
		st.bankFor(bank, 50)
		st.srv.Exec(`create table later as select 1`)
		st.durable()
		st.unfollow()
		dir := st.srv.Dir
		latest := relight.RecoveryTarget{Kind: relight.TargetLatest}
		delta := store.RestoreOptions{Force: true, Delta: true, Verify: true}
		if _, err := st.restoreInto(dir, latest, delta); relight.CodeOf(err) != relight.CodeLeaseHeld {
			t.Fatalf("delta restore under a running server: %v", err)
		}
		if !exists(filepath.Join(dir, controlName)) {
			t.Fatal("a refused restore took pg_control away")
		}
		st.srv.Kill()
		log, err := os.ReadDir(filepath.Join(dir, walDir))
		check(t, err)
		linked := st.damageFiles()
		before := map[string]string{}
		for _, p := range linked {
			b, err := os.ReadFile(p)
			check(t, err)
			before[p] = string(b)
		}
		if _, err := st.restoreInto(dir, latest, store.RestoreOptions{Delta: true}); relight.CodeOf(err) != relight.CodeUsage {
			t.Fatalf("delta restore without force: %v", err)
		}

		// Cut off in the middle first: it must be possible to go on.
		ctx, cancel := context.WithCancel(t.Context())
		cut := delta
		cut.Progress = func(p relight.Progress) {
			if p.Phase == "copy" && p.Done > p.Total/2 {
				cancel()
			}
		}
		if _, err := st.store.Restore(ctx, st.reader(st.blobs), point(latest), store.Target{Directory: dir}, cut); err == nil {
			t.Fatal("the cancelled restore succeeded")
		}
		if exists(filepath.Join(dir, controlName)) {
			t.Error("a half-mended directory has a pg_control")
		}
		out, srv := st.mustRestore(dir, latest, delta)
		if !out.Verified {
			t.Errorf("restored: %+v", out)
		}
		var written int64
		for _, p := range out.Phases {
			if p.Name == "copy" {
				written = p.Bytes
			}
		}
		if written == 0 || written > out.Bytes/2 {
			t.Errorf("%d bytes of %d were written", written, out.Bytes)
		}
		if lost := bank.Missing(t, srv.DSN("postgres")); len(lost) > 0 {
			t.Errorf("lost %d acknowledged transfers", len(lost))
		}
		if got := srv.Query(`select count(*) || ' ' || (select count(*) from spaced) || ' ' || (select count(*) from later) from still`); got != "20000 10000 1" {
			t.Errorf("rows: %s", got)
		}
		for p, want := range before {
			if b, err := os.ReadFile(p); err != nil || string(b) != want {
				t.Errorf("%s, another name of a file, was changed: %v", p, err)
			}
		}
		if out.SetAside == "" {
			t.Fatal("nothing is said of what was moved aside")
		}
		for _, name := range []string{controlName, "base/999999", "junk/deep/file", "pg_xact", "PG_VERSION"} {
			if !exists(filepath.Join(out.SetAside, name)) {
				t.Errorf("%s is not in %s", name, out.SetAside)
			}
			if name[0] == 'j' && exists(filepath.Join(dir, name)) {
				t.Errorf("%s is still there", name)
			}
		}
		for _, seg := range log {
			if seg.IsDir() {
				continue
			}
			if !exists(filepath.Join(out.SetAside, walDir, seg.Name())) {
				t.Errorf("the damaged server's %s is lost", seg.Name())
			}
		}
	})
}

func TestDeltaRestoreRefusesAnotherClustersDirectory(t *testing.T) {
	t.Parallel()
	st := newPGStand(t)
	st.follow()
	st.backup()
	latest := relight.RecoveryTarget{Kind: relight.TargetLatest}
	other := pgtest.New(t)
	_, err := st.restoreInto(other.Dir, latest, store.RestoreOptions{Force: true, Delta: true})
	if relight.CodeOf(err) != relight.CodeUsage || !strings.Contains(err.Error(), "belongs to cluster") {
		t.Errorf("directory of another cluster: %v", err)
	}
	plain := filepath.Join(st.srv.Root, "plain")
	check(t, os.Mkdir(plain, 0o755))
	check(t, os.WriteFile(filepath.Join(plain, "letter"), []byte("dear"), 0o644))
	_, err = st.restoreInto(plain, latest, store.RestoreOptions{Force: true, Delta: true})
	if relight.CodeOf(err) != relight.CodeUsage || !strings.Contains(err.Error(), "not recognised") {
		t.Errorf("directory that is no cluster: %v", err)
	}
	if b, err := os.ReadFile(filepath.Join(plain, "letter")); err != nil || string(b) != "dear" {
		t.Errorf("it was touched: %v", err)
	}
}
