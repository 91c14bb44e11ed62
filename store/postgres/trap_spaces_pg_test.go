//go:build pg

package postgres

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob/fault"
	"github.com/toolboxai/relight/internal/pgtest"
	"github.com/toolboxai/relight/store"
)

// spaced is a running server with a tablespace in its base backup and one that was created later.
type spaced struct {
	*pgStand
	before, after string
}

const spacedRows = `select (select count(*) from b) || ' ' || (select count(*) from a)`

func newSpaced(t *testing.T, major int) spaced {
	t.Helper()
	st := spaced{pgStand: newMajorStand(t, major, "autovacuum=off")}
	st.before, st.after = filepath.Join(st.srv.Root, "before"), filepath.Join(st.srv.Root, "after")
	st.follow()
	st.space("before", st.before)
	st.srv.Exec(`create table b tablespace before as select g from generate_series(1, 1000) g`)
	st.backup()
	st.space("after", st.after)
	st.srv.Exec(`create table a tablespace after as select g from generate_series(1, 1000) g`, `checkpoint`)
	st.durable()
	return st
}

func (st spaced) space(name, dir string) {
	st.t.Helper()
	check(st.t, os.Mkdir(dir, 0o700))
	check(st.t, st.srv.Own(dir))
	st.srv.Exec(`create tablespace ` + name + ` location '` + dir + `'`)
}

// live describes everything in the two directories, identity and content.
func (st spaced) live() string {
	st.t.Helper()
	var b strings.Builder
	for _, dir := range []string{st.before, st.after} {
		check(st.t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			fmt.Fprintln(&b, path, info.Mode(), info.Size(), info.ModTime().UnixNano(), info.Sys().(*syscall.Stat_t).Ino)
			if !info.Mode().IsRegular() {
				return nil
			}
			content, err := os.ReadFile(path)
			fmt.Fprintf(&b, "%x\n", sha256.Sum256(content))
			return err
		}))
	}
	return b.String()
}

func (st spaced) into(t store.Target, o store.RestoreOptions) (relight.Restored, error) {
	st.t.Helper()
	return st.store.Restore(st.t.Context(), st.reader(st.blobs), point(relight.RecoveryTarget{Kind: relight.TargetLatest}), t, o)
}

// Trap 26: a restore beside a running server puts every tablespace beside too, those that the WAL creates among them, whatever is forced; and it goes where it is
// mapped to, but never into a directory that a server works in.
func TestTrap26RestoreBesideALiveServerTouchesNoTablespace(t *testing.T) {
	onEachMajor(t, func(t *testing.T, major int) {
		st := newSpaced(t, major)
		then := st.live()
		dir := filepath.Join(st.srv.Root, "look")
		inside := func(name string) string { return filepath.Join(st.srv.Root, name) }
		for _, c := range []struct {
			name   string
			spaces map[string]string
			o      store.RestoreOptions
			where  string // both tablespaces lie below
		}{
			{"free", nil, store.RestoreOptions{}, dir + ".tblspc/"},
			{"forced", nil, store.RestoreOptions{Force: true}, dir + ".tblspc/"},
			{"delta", nil, store.RestoreOptions{Force: true, Delta: true}, dir + ".tblspc/"},
			{"mapped by place and by name", map[string]string{st.after: inside("mapped-a"), "before": inside("mapped-b")}, store.RestoreOptions{Force: true}, inside("mapped-")},
			{"mapped again", map[string]string{st.after: inside("mapped-a"), "before": inside("mapped-b")}, store.RestoreOptions{Force: true}, inside("mapped-")},
		} {
			out, err := st.into(store.Target{Directory: dir, Tablespaces: c.spaces}, c.o)
			if err != nil {
				t.Fatalf("%s: %v (%s)", c.name, err, relight.HintOf(err))
			}
			if now := st.live(); now != then {
				t.Fatalf("%s: the live server's tablespaces changed:\n%s\nbefore:\n%s", c.name, now, then)
			}
			srv := pgtest.At(t, pgtest.Root(t), dir)
			srv.Start()
			if got := srv.Query(spacedRows); got != "1000 1000" {
				t.Errorf("%s: rows %s", c.name, got)
			}
			for _, name := range []string{"before", "after"} {
				got := srv.Query(`select pg_tablespace_location(oid) from pg_tablespace where spcname = $1`, name)
				if !strings.HasPrefix(got, c.where) || out.Tablespaces[inside(name)] != got {
					t.Errorf("%s: tablespace %s lies in %s, told is %v", c.name, name, got, out.Tablespaces)
				}
			}
			srv.Exec(`insert into a values (0)`, `create table more tablespace after as select 1`)
			srv.Stop()
		}
		if got := st.srv.Query(spacedRows); got != "1000 1000" {
			t.Errorf("the live server has rows %s", got)
		}
		st.refusesLivePlaces(inside("other"))
		if now := st.live(); now != then {
			t.Errorf("the live server's tablespaces changed:\n%s\nbefore:\n%s", now, then)
		}
	})
}

// refusesLivePlaces asks for what must never be: nothing is made, not even the target.
func (st spaced) refusesLivePlaces(dir string) {
	t := st.t
	t.Helper()
	taken := filepath.Join(st.srv.Root, "link")
	check(t, os.Symlink(st.after, taken)) // the same place under another name
	for _, c := range []struct {
		old, place string
		o          store.RestoreOptions
		code       relight.Code
		want       string
	}{
		{"before", st.before, store.RestoreOptions{}, relight.CodeLeaseHeld, "works in"},
		{"before", st.before, store.RestoreOptions{Force: true}, relight.CodeLeaseHeld, "works in"},
		{"before", st.before, store.RestoreOptions{Force: true, Delta: true}, relight.CodeLeaseHeld, "works in"},
		{st.after, taken, store.RestoreOptions{Force: true}, relight.CodeLeaseHeld, "works in"},
		{"before", filepath.Join(st.srv.Dir, "x"), store.RestoreOptions{Force: true}, relight.CodeUsage, "inside the data directory"},
		{"before", filepath.Join(dir, "x"), store.RestoreOptions{Force: true}, relight.CodeUsage, "inside the data directory"},
		{"before", filepath.Join(st.srv.Root, "mapped-a"), store.RestoreOptions{}, relight.CodeUsage, "is occupied"},
		{"befor", filepath.Join(st.srv.Root, "x"), store.RestoreOptions{}, relight.CodeUsage, st.after},
	} {
		_, err := st.into(store.Target{Directory: dir, Tablespaces: map[string]string{c.old: c.place}}, c.o)
		if relight.CodeOf(err) != c.code || !strings.Contains(err.Error()+relight.HintOf(err), c.want) {
			t.Errorf("%s to %s with %+v: %v", c.old, c.place, c.o, err)
		}
		if exists(dir) || exists(dir+".tblspc") {
			t.Fatalf("%s to %s: the refused restore made something", c.old, c.place)
		}
	}
}

// In place a tablespace that the log creates may be there already, with what was written after the moment that is restored: none of that may come back.
func TestRestoreInPlaceSetsLaterTablespacesAside(t *testing.T) {
	t.Parallel()
	st := newSpaced(t, pgtest.Majors[0])
	st.srv.Exec(`select pg_create_restore_point('thousand')`, `insert into a select g from generate_series(1, 50000) g`, `update b set g = 0`, `checkpoint`)
	st.durable()
	st.unfollow()
	p := point(relight.RecoveryTarget{Kind: relight.TargetName, Name: "thousand"})
	o := store.RestoreOptions{Force: true}
	if _, err := st.store.Restore(t.Context(), st.reader(st.blobs), p, store.Target{Directory: st.srv.Dir}, o); relight.CodeOf(err) != relight.CodeLeaseHeld {
		t.Fatalf("in place under a running server: %v", err)
	}
	st.srv.Kill()
	plan, err := st.store.PlanRestore(t.Context(), st.reader(st.blobs), p, store.Target{Directory: st.srv.Dir}, o)
	check(t, err)
	if len(plan.Spaces) != 2 || slices.ContainsFunc(plan.Spaces, func(s SpaceBlast) bool { return !s.Occupied || s.Place != s.Location }) {
		t.Errorf("planned %+v", plan.Spaces)
	}
	aside := ""
	for _, delta := range []bool{false, true} {
		o.Delta = delta
		out, err := st.store.Restore(t.Context(), st.reader(st.blobs), p, store.Target{Directory: st.srv.Dir}, o)
		check(t, err)
		if !delta {
			aside = out.SetAside
		}
		srv := pgtest.At(t, pgtest.Root(t), st.srv.Dir)
		srv.Start()
		if got := srv.Query(spacedRows) + srv.Query(`select ' ' || sum(g) from b`); got != "1000 1000 500500" {
			t.Errorf("delta %v: rows %s", delta, got)
		}
		srv.Exec(`insert into a select g from generate_series(1, 50000) g`, `update b set g = 0`)
		srv.Stop()
	}
	for _, dir := range []string{st.before, st.after} {
		kept, err := filepath.Glob(filepath.Join(dir, "PG_*.damaged-*"))
		check(t, err)
		if len(kept) < 2 { // the whole, and what the delta restore did not need
			t.Errorf("in %s is set aside %v", dir, kept)
		}
	}
	st.judgeAside(aside)

	// On a bare machine there is not even the place.
	for _, gone := range []string{st.srv.Dir, st.before, st.after} {
		check(t, os.RemoveAll(gone))
	}
	_, err = st.store.Restore(t.Context(), st.reader(st.blobs), p, store.Target{Directory: st.srv.Dir}, o)
	check(t, err)
	srv := pgtest.At(t, pgtest.Root(t), st.srv.Dir)
	srv.Start()
	if got := srv.Query(spacedRows); got != "1000 1000" {
		t.Errorf("bare: rows %s", got)
	}
}

// A restore that was cut off during replay goes on in its own tablespaces, without force, and leaves nothing of the first attempt in them.
func TestUnfinishedRestoreGoesOnInItsTablespaces(t *testing.T) {
	t.Parallel()
	st := newSpaced(t, pgtest.Majors[0])
	st.srv.Exec(`select pg_switch_wal()`, `insert into a select g from generate_series(1, 5000) g`, `select pg_switch_wal()`, `insert into a values (0)`, `select pg_switch_wal()`)
	st.durable()
	dir := filepath.Join(st.srv.Root, "look")
	var replayed atomic.Bool
	flaky := fault.New(st.blobs, func(op fault.Op) fault.Fault {
		if replayed.Load() && op.Kind == fault.Get && strings.Contains(op.Name, "/000000010000") && !strings.HasSuffix(op.Name, ".meta") {
			return fault.Fault{Effect: fault.Refuse}
		}
		return fault.Fault{}
	})
	latest := point(relight.RecoveryTarget{Kind: relight.TargetLatest})
	_, err := st.store.Restore(t.Context(), st.reader(flaky), latest, store.Target{Directory: dir}, store.RestoreOptions{Progress: func(p relight.Progress) {
		if p.Phase == "copy" {
			replayed.Store(true)
		}
	}})
	if err == nil {
		t.Fatal("the failing bucket does not matter")
	}
	stale, err := filepath.Glob(dir + ".tblspc/*/PG_*")
	check(t, err)
	if len(stale) != 2 {
		t.Fatalf("the first attempt left %v", stale)
	}
	for _, inner := range stale { // as replay may have
		check(t, os.MkdirAll(filepath.Join(inner, "5"), 0o700))
		check(t, os.WriteFile(filepath.Join(inner, "5", "99999"), []byte("stale"), 0o600))
	}
	_, srv := st.mustRestore(dir, latest.Target, store.RestoreOptions{})
	if got := srv.Query(spacedRows); got != "1000 6001" {
		t.Errorf("rows %s", got)
	}
	left, err := filepath.Glob(dir + ".tblspc/*/PG_*/5/99999")
	check(t, err)
	aside, err := filepath.Glob(dir + ".tblspc/*/*.damaged-*")
	check(t, err)
	if len(left)+len(aside) > 0 {
		t.Errorf("left are %v and %v", left, aside)
	}
	_, err = st.into(store.Target{Directory: dir}, store.RestoreOptions{})
	if relight.CodeOf(err) != relight.CodeLeaseHeld {
		t.Errorf("over the running restored server: %v", err)
	}
}

// judgeAside starts what was set aside: it is a whole cluster, whose tablespaces are not the restored one's.
func (st spaced) judgeAside(dir string) {
	t := st.t
	t.Helper()
	then := st.live()
	srv := pgtest.At(t, pgtest.Root(t), dir)
	srv.Start("autovacuum=off")
	if got := srv.Query(spacedRows); got != "1000 51000" {
		t.Errorf("what was set aside has rows %s", got)
	}
	srv.Exec(`insert into a values (0)`, `checkpoint`)
	srv.Stop()
	for line := range strings.Lines(st.live()) {
		if !strings.Contains(then, line) && strings.HasPrefix(line, "/") && !strings.Contains(line, ".damaged-") {
			t.Errorf("the server over what was set aside changed %s", line)
		}
	}
}

// A moment before a tablespace was created leaves no trace of it; one that was dropped leaves none either.
func TestRestoreLeavesNoPlaceOfATablespaceThatIsNot(t *testing.T) {
	t.Parallel()
	st := newPGStand(t)
	st.follow()
	s := spaced{pgStand: st}
	s.space("early", filepath.Join(st.srv.Root, "early"))
	st.backup()
	st.srv.Exec(`drop tablespace early`, `select pg_create_restore_point('between')`)
	s.space("late", filepath.Join(st.srv.Root, "late"))
	st.durable()
	dir := filepath.Join(st.srv.Root, "look")
	out, srv := st.mustRestore(dir, relight.RecoveryTarget{Kind: relight.TargetName, Name: "between"}, store.RestoreOptions{})
	if got := srv.Query(`select count(*) from pg_tablespace`); got != "2" {
		t.Errorf("%s tablespaces", got)
	}
	left, err := os.ReadDir(filepath.Join(dir, tblspcDir))
	check(t, err)
	if len(left) > 0 || exists(dir+".tblspc") || len(out.Tablespaces) > 0 {
		t.Errorf("left is %v, told %v", left, out.Tablespaces)
	}
}

// The receiver says of what it ships whether it creates a tablespace: a plan reads only that, and what nobody has looked at.
func TestOnlyWALThatCreatesTablespacesIsReadForThem(t *testing.T) {
	t.Parallel()
	st := newPGStand(t)
	s := spaced{pgStand: st}
	st.follow()
	st.srv.Exec(`create table t (i int)`)
	st.backup()
	for range 4 {
		st.srv.Exec(`insert into t values (1)`, `select pg_switch_wal()`)
	}
	s.space("later", filepath.Join(st.srv.Root, "later"))
	for range 4 {
		st.srv.Exec(`insert into t values (1)`, `select pg_switch_wal()`)
	}
	st.durable()
	a, err := loadArchive(t.Context(), st.meta, "main")
	check(t, err)
	plan, err := resolve(t.Context(), a, point(relight.RecoveryTarget{Kind: relight.TargetLatest}), nil)
	check(t, err)
	wal := newPlannedWAL(st.reader(st.blobs), "main", plan)
	read := slices.Concat(wal.suspects()...)
	if len(wal.names()) < 8 || len(read) != 2 {
		t.Errorf("of %d segments %v would be read", len(wal.names()), read)
	}
	found, err := wal.creations(t.Context())
	check(t, err)
	if len(found) != 1 || found[0].Name != filepath.Join(st.srv.Root, "later") {
		t.Errorf("found %+v", found)
	}
	for i := range wal.plan.Pieces { // as an older writer left it
		wal.plan.Pieces[i].Tablespaces = nil
	}
	if blind, err := wal.creations(t.Context()); err != nil || len(blind) != 1 || blind[0].Start != found[0].Start || len(wal.suspects()) != 1 {
		t.Errorf("without facts: %+v, %v", blind, err)
	}
}
