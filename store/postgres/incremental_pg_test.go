//go:build pg

package postgres

import (
	"crypto/sha256"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob"
	"github.com/toolboxai/relight/internal/pgtest"
	"github.com/toolboxai/relight/repo"
	"github.com/toolboxai/relight/store"
)

// incremental takes a backup with the parent that is found; why is for a test that expects one.
func (st *pgStand) incremental(why string) relight.Snapshot {
	st.t.Helper()
	man, not, err := st.store.FindParent(st.t.Context(), st.meta)
	check(st.t, err)
	if man == nil {
		st.t.Fatalf("%s: no parent: %s", why, not)
	}
	return st.incrementalTo(man)
}

func (st *pgStand) incrementalTo(man *repo.Manifest) relight.Snapshot {
	st.t.Helper()
	w, err := st.meta.NewSnapshot(st.t.Context(), "main", repo.SnapshotOptions{Parent: man})
	check(st.t, err)
	snap, err := st.store.Backup(st.t.Context(), w, store.BackupOptions{Parent: man.ID})
	check(st.t, err)
	if snap.Kind != "incremental" || snap.Parent != man.ID {
		st.t.Errorf("snapshot %+v", snap)
	}
	return snap
}

func execIn(st *pgStand, database, statement string) {
	st.t.Helper()
	conn, err := pgx.Connect(st.t.Context(), st.srv.DSN(database))
	check(st.t, err)
	defer closeConn(st.t.Context(), conn)
	_, err = conn.Exec(st.t.Context(), statement)
	check(st.t, err)
}

// relations gives a digest of every relation file of a snapshot, from its bytes.
func (st *pgStand) relations(id relight.SnapshotID) map[string]string {
	st.t.Helper()
	r := st.reader(st.blobs)
	man, err := r.Meta().Manifest(st.t.Context(), "main", id)
	check(st.t, err)
	out := map[string]string{}
	for p, e := range st.entries(id) {
		if _, ok := relationFile(p); ok {
			h := sha256.New()
			check(st.t, r.Copy(st.t.Context(), man, e, h))
			out[p] = string(h.Sum(nil))
		}
	}
	return out
}

// sameRelations compares two backups of a server at rest.
func (st *pgStand) sameRelations(a, b relight.SnapshotID) {
	st.t.Helper()
	one, two := st.relations(a), st.relations(b)
	for p, digest := range one {
		if two[p] != "" && two[p] != digest {
			st.t.Errorf("%s differs", p)
		}
		if two[p] == "" {
			st.t.Errorf("%s is only in %s", p, a)
		}
	}
	for p := range two {
		if _, ok := one[p]; !ok {
			st.t.Errorf("%s is only in %s", p, b)
		}
	}
}

// Everything that gives files another content without giving pages a new position, or a file to another owner, between parent and child.
func TestIncrementalEqualsAFullBackup(t *testing.T) {
	t.Parallel()
	st := newPGStand(t, "autovacuum=off")
	st.follow()
	space := filepath.Join(st.srv.Root, "space")
	makeSpace(t, st.srv, space)
	st.srv.Exec(`create table cut as select g, repeat('x', 500) v from generate_series(1, 5000) g`, `create index on cut (g)`,
		`create table still as select g, repeat('y', 500) v from generate_series(1, 5000) g`,
		`create table hinted as select g from generate_series(1, 20000) g`,
		`create table moved as select g from generate_series(1, 5000) g`,
		`create table reborn as select g from generate_series(1, 5000) g`,
		`create database one oid = 70001`, `create database two oid = 70002 strategy = file_copy`, `vacuum still`)
	execIn(st, "one", `create table t as select g, 'one' v from generate_series(1, 3000) g`)
	execIn(st, "two", `create table t as select g, 'two' v from generate_series(1, 3000) g`)
	full := st.backup()

	st.srv.Exec(`delete from cut where g > 2000`, `vacuum cut`, `insert into cut select g, 'again' from generate_series(1, 4000) g`,
		`select count(*) from hinted`, `update still set v = 'z' where g = 77`,
		`alter table moved set tablespace space`, `drop table reborn`, `create table reborn as select g, 2 from generate_series(1, 5000) g`,
		`vacuum full cut`, `truncate hinted`, `insert into hinted select g from generate_series(1, 1000) g`)
	// The same number, and in it pages of another database with positions from before the parent.
	st.srv.Exec(`drop database two`, `create database two oid = 70002 template one strategy = file_copy`, `alter database one set tablespace space`)
	first := st.incremental("first")
	fresh := st.backup()
	st.sameRelations(first.ID, fresh.ID)
	if first.Stored*3 > full.Stored {
		t.Errorf("the incremental backup stored %d bytes, the full one %d", first.Stored, full.Stored)
	}
	f, err := FactsOf(first)
	check(t, err)
	if f.Lineage == nil || f.Lineage.Databases[70002] == 0 {
		t.Errorf("lineage %+v", f.Lineage)
	}
	// Parent of a parent.
	st.srv.Exec(`update still set v = 'zz' where g = 78`)
	man, err := st.meta.Manifest(t.Context(), "main", first.ID)
	check(t, err)
	second := st.incrementalTo(&man)
	st.sameRelations(second.ID, st.backup().ID)
}

// Of a parent whose packs are gone, and nobody has noticed yet, an incremental backup takes nothing: it stores what is lost again. One that was found damaged is
// not even asked.
func TestIncrementalOfADamagedParent(t *testing.T) {
	t.Parallel()
	st := newPGStand(t, "autovacuum=off")
	st.follow()
	st.srv.Exec(`create table still as select g, repeat('y', 500) v from generate_series(1, 5000) g`, `vacuum still`)
	st.backup()
	packs := func(prefix string) (names []string) {
		check(t, st.blobs.List(t.Context(), prefix, func(i blob.Info) error { names = append(names, i.Name); return nil }))
		return names
	}
	for _, prefix := range []string{"pack/data/", "pack/"} {
		for _, name := range packs(prefix) {
			check(t, st.blobs.Delete(t.Context(), name))
		}
		st.srv.Exec(`update still set v = 'z' where g = 77`)
		snap := st.incremental("its packs are gone")
		st.sameRelations(snap.ID, st.backup().ID)
	}
	for _, name := range packs("pack/data/") {
		check(t, st.blobs.Corrupt(name, func(b []byte) []byte { b[len(b)/2] ^= 1; return b }))
	}
	r := st.reader(st.blobs)
	all, err := r.Meta().Snapshots(t.Context(), "main")
	check(t, err)
	for _, man := range all {
		if err := r.VerifySnapshot(t.Context(), man, 1, nil); relight.CodeOf(err) != relight.CodeVerification {
			t.Fatal(err)
		}
	}
	if man, why, err := st.store.FindParent(t.Context(), st.meta); err != nil || man != nil || !strings.Contains(why, "is damaged") {
		t.Fatalf("found %v, %s, %v", man, why, err)
	}
	healed := st.backup()
	st.srv.Exec(`update still set v = 'zz' where g = 77`)
	last := st.incremental("a whole one is there again")
	if last.Parent != healed.ID {
		t.Errorf("its parent is %s", last.Parent)
	}
	for _, id := range []relight.SnapshotID{healed.ID, last.ID} {
		man, err := r.Meta().Manifest(t.Context(), "main", id)
		check(t, err)
		check(t, r.VerifySnapshot(t.Context(), man, 1, nil))
	}
}

func TestIncrementalUnderLoadRestores(t *testing.T) {
	t.Parallel()
	st := newPGStand(t)
	st.follow()
	bank := &pgtest.Bank{Accounts: 2000, Balance: 1000}
	bank.Create(t, st.srv)
	st.bankFor(bank, 50)
	st.backup()
	for range 2 {
		st.bankFor(bank, 100)
		st.incremental("under load")
	}
	last := st.incremental("last")
	st.bankFor(bank, 100)
	st.durable()
	st.unfollow()
	st.srv.Kill()
	out, srv := st.mustRestore(filepath.Join(st.srv.Root, "restored"), relight.RecoveryTarget{Kind: relight.TargetLatest}, store.RestoreOptions{VerifyBefore: true, Verify: true})
	if out.Snapshot != last.ID || !out.Verified {
		t.Errorf("restored: %+v", out)
	}
	if lost := bank.Missing(t, srv.DSN("postgres")); len(lost) > 0 {
		t.Errorf("lost %d acknowledged transfers", len(lost))
	}
}

// A server that went back in time has pages with positions below a newer parent's start and other content: such a parent is refused, and an older one, on
// whose history the server still is, is found.
func TestIncrementalAfterAPointInTimeRecovery(t *testing.T) {
	t.Parallel()
	st := newPGStand(t)
	st.follow()
	st.srv.Exec(`create table t as select g, repeat('a', 200) v from generate_series(1, 5000) g`)
	before := st.backup()
	st.srv.Exec(`select pg_create_restore_point('back')`, `update t set v = repeat('b', 200)`, `checkpoint`)
	newer := st.incremental("before the disaster")
	st.durable()
	st.unfollow()
	st.srv.Kill()

	dir := filepath.Join(st.srv.Root, "back")
	_, srv := st.mustRestore(dir, relight.RecoveryTarget{Kind: relight.TargetName, Name: "back"}, store.RestoreOptions{})
	c := st.config
	c.Conn, c.DataDir = srv.DSN("postgres"), dir
	st.store, st.srv = New(c, st.deps), srv
	st.follow()
	// Far enough to be beyond the newer parent's end.
	srv.Exec(`create table fill as select g, repeat('c', 800) v from generate_series(1, 20000) g`, `drop table fill`, `update t set v = 'c' where g = 1`)
	man, err := st.meta.Manifest(t.Context(), "main", newer.ID)
	check(t, err)
	w, err := st.meta.NewSnapshot(t.Context(), "main", repo.SnapshotOptions{Parent: &man})
	check(t, err)
	if _, err := st.store.Backup(t.Context(), w, store.BackupOptions{Parent: newer.ID}); err == nil || !strings.Contains(err.Error(), "left timeline 1") {
		t.Errorf("backup against a parent of a history that was given up: %v", err)
	}
	found, why, err := st.store.FindParent(t.Context(), st.meta)
	check(t, err)
	if found == nil || found.ID != before.ID {
		t.Fatalf("found %+v, %s; want %s", found, why, before.ID)
	}
	snap := st.incrementalTo(found)
	st.sameRelations(snap.ID, st.backup().ID)
}
