//go:build pg

package postgres

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob"
	"github.com/toolboxai/relight/internal/pgtest"
	"github.com/toolboxai/relight/store"
)

// variant is one kind of cluster. The four of them hold every pair of version, checksums and size of segments.
type variant struct {
	major     int
	checksums bool
	segment   int  // MB
	linked    bool // pg_wal is a symbolic link
	tables    int  // that many beside
}

func (v variant) String() string {
	return fmt.Sprintf("%d-checksums-%v-%dMB", v.major, v.checksums, v.segment)
}

// matrixDigest answers with everything that a matrix cluster holds, in one value.
const matrixDigest = `
	select md5(string_agg(d, ' ' order by d)) from (
		select 'spaced' || md5(string_agg(s::text, ' ' order by g)) d from spaced s
		union all select 'kept' || md5(string_agg(k::text, ' ' order by g)) from kept k
		union all select 'large' || loid || md5(lo_get(loid)) from (select oid loid from pg_largeobject_metadata) l
		union all select 'tables' || count(*) from pg_class where relname like 'many\_%') x`

// germanOrder reads a table by its index, in the order of the language.
const germanOrder = `select string_agg(w, ' ') from (select w from word order by w) x`

// TestMatrix takes clusters of every kind through protection, an incremental backup, destruction and recovery to the last commit, which only the
// destroyed server's own log holds.
func TestMatrix(t *testing.T) {
	t.Parallel()
	for _, v := range []variant{
		{major: 15, checksums: true, segment: 16, linked: true}, {major: 15, segment: 64},
		{major: 17, checksums: true, segment: 64, tables: 10_000}, {major: 17, segment: 16, linked: true},
	} {
		t.Run(v.String(), func(t *testing.T) {
			t.Parallel()
			matrixOf(t, v)
		})
	}
}

func matrixOf(t *testing.T, v variant) {
	st, spaces := v.stand(t)
	st.follow()
	bank := &pgtest.Bank{Accounts: 100, Balance: 1000}
	bank.Create(t, st.srv)
	v.fill(st)
	held := openTemporary(st)
	full := st.backup()
	st.srv.Exec(`update kept set v = 'changed' where g % 10 = 0`, `insert into spaced select g, 'later' from generate_series(2001, 2100) g`,
		`select lo_put(oid, 5, 'other') from pg_largeobject_metadata order by oid limit 1`, `insert into u values (2)`)
	snap := v.again(st, full)
	v.judge(st, snap)
	st.srv.Exec(`insert into kept select g, 'last' from generate_series(5001, 5200) g`)
	execIn(st, "icu", `insert into word values ('Öl'), ('offen'), ('Zahl')`)
	st.durable()
	st.unfollow()
	st.bankFor(bank, 50) // only salvage brings these
	want, words := st.srv.Query(matrixDigest), queryIn(t, st.srv, "icu", germanOrder)
	if words != "Apfel Ärger Bär Base offen Öl Zahl Zebra" {
		t.Fatalf("the order of the language is %q", words)
	}
	st.srv.Kill()
	_ = held.Close(t.Context())
	st.config.Spool = ""
	won, err := st.store.Salvage(t.Context(), st.meta, SalvageOptions{Sink: st.meta.Sink("main")})
	check(t, err)
	if won.Commits < 50 || won.Broken != "" {
		t.Errorf("salvaged %+v", won)
	}
	for _, gone := range append([]string{st.srv.Dir}, spaces...) {
		check(t, os.RemoveAll(gone))
	}

	dir := filepath.Join(st.srv.Root, "restored")
	elsewhere := filepath.Join(st.srv.Root, "elsewhere")
	out, err := st.store.Restore(t.Context(), st.reader(st.blobs), point(relight.RecoveryTarget{Kind: relight.TargetLatest}),
		store.Target{Directory: dir, Tablespaces: map[string]string{spaces[0]: elsewhere}}, store.RestoreOptions{VerifyBefore: true, Verify: true})
	check(t, err)
	if out.Snapshot != snap.ID || !out.Verified {
		t.Errorf("restored: %+v", out)
	}
	noTemporaryFiles(t, dir)
	srv := pgtest.At(t, pgtest.Root(t), dir)
	srv.Start(v.settings()...)
	if lost := bank.Missing(t, srv.DSN("postgres")); len(lost) > 0 {
		t.Errorf("lost %d acknowledged transfers", len(lost))
	}
	if got := srv.Query(matrixDigest); got != want {
		t.Errorf("the content differs: %s, want %s", got, want)
	}
	if got := queryIn(t, srv, "icu", germanOrder); got != words {
		t.Errorf("the ICU database answers %q, want %q", got, words)
	}
	if got := srv.Query(`select pg_tablespace_location(oid) from pg_tablespace where spcname = 'space'`); got != elsewhere {
		t.Errorf("the tablespace lies in %s", got)
	}
	if got := srv.Query(`select (select count(*) from u) || ' ' || (select relpersistence::text from pg_class where relname = 'u')`); got != "0 u" {
		t.Errorf("the unlogged table: %s", got)
	}
	srv.Exec(`insert into u values (1)`)
}

// stand makes the cluster; spaces are the directories outside of it.
func (v variant) stand(t *testing.T) (st *pgStand, spaces []string) {
	t.Helper()
	options := []string{fmt.Sprintf("--wal-segsize=%d", v.segment)}
	outside := pgtest.Root(t)
	check(t, os.Chmod(outside, 0o777))
	if v.linked {
		options = append(options, "-X", filepath.Join(outside, "wal"))
	}
	srv := pgtest.NewMajor(t, v.major, options...)
	if !v.checksums {
		if out, err := srv.Command(t.Context(), "pg_checksums", "--disable", "-N", "-D", srv.Dir).CombinedOutput(); err != nil {
			t.Fatalf("pg_checksums: %v\n%s", err, out)
		}
	}
	srv.Start(v.settings()...)
	if got := srv.Query(`select current_setting('data_checksums') || ' ' || current_setting('wal_segment_size') || ' ' || current_setting('server_version_num')::int / 10000`); got !=
		fmt.Sprintf("%s %dMB %d", map[bool]string{true: "on", false: "off"}[v.checksums], v.segment, v.major) {
		t.Fatalf("the server is %s", got)
	}
	spaces = []string{filepath.Join(srv.Root, "space")}
	makeSpace(t, srv, spaces[0])
	if v.linked {
		spaces = append(spaces, filepath.Join(outside, "wal"))
	}
	return standOver(t, srv), spaces
}

func (v variant) settings() []string {
	set := []string{"checkpoint_timeout=1h", "max_wal_size=2GB", "autovacuum=off"}
	if v.major >= 17 {
		set = append(set, "summarize_wal=on")
	}
	return set
}

func (v variant) fill(st *pgStand) {
	st.t.Helper()
	st.srv.Exec(`create table spaced (g int primary key using index tablespace space, v text) tablespace space`, `insert into spaced select g, 's' from generate_series(1, 2000) g`,
		`create table kept as select g, repeat('k', 300) v from generate_series(1, 5000) g`, `create index on kept (v, g)`,
		`create unlogged table u (i int primary key)`, `insert into u values (1)`,
		`select lo_from_bytea(0, decode(repeat('00ff', 5000 * i), 'hex')) from generate_series(1, 4) i`,
		`create database icu locale_provider icu icu_locale 'de-DE' template template0`)
	execIn(st, "icu", `create table word (w text primary key)`)
	execIn(st, "icu", `insert into word values ('Zebra'), ('Ärger'), ('Apfel'), ('Bär'), ('Base')`)
	if v.tables > 0 {
		st.srv.Exec(`create procedure many(n int) language plpgsql as $$ begin for i in 1..n loop
			execute format('create table many_%s as select %s as i', i, i); if i % 500 = 0 then commit; end if; end loop; end $$`, fmt.Sprintf(`call many(%d)`, v.tables))
	}
	st.srv.Exec(`checkpoint`)
}

// again takes the backup after the changes: an incremental one, or, where pages can change under their old position, another full one.
func (v variant) again(st *pgStand, full relight.Snapshot) relight.Snapshot {
	st.t.Helper()
	if !v.checksums {
		if man, why, err := st.store.FindParent(st.t.Context(), st.meta); err != nil || man != nil || !strings.Contains(why, "no page checksums") {
			st.t.Errorf("parent %v, %q, %v", man, why, err)
		}
		return st.backup()
	}
	snap := st.incremental(v.String())
	if snap.Stored*2 > full.Stored {
		st.t.Errorf("the incremental backup stored %d bytes, the full one %d", snap.Stored, full.Stored)
	}
	return snap
}

// judge looks at what a backup holds.
func (v variant) judge(st *pgStand, snap relight.Snapshot) {
	st.t.Helper()
	f, err := FactsOf(snap)
	check(st.t, err)
	if f.Major() != v.major || f.Checksums != v.checksums || f.SegmentSize != int64(v.segment)<<20 || (f.WALDir != "") != v.linked || len(f.Tablespaces) != 1 {
		st.t.Errorf("facts %+v", f)
	}
	for p := range st.entries(snap.ID) {
		if temporary(filepath.Base(p)) {
			st.t.Errorf("the temporary relation %s is in the backup", p)
		}
		if strings.HasPrefix(p, walDir+"/") && p != walStatus && p != walSummary {
			st.t.Errorf("%s is in the backup", p)
		}
	}
	if v.major >= 17 {
		made, err := filepath.Glob(filepath.Join(st.srv.Dir, walSummary, "*.summary"))
		check(st.t, err)
		if len(made) == 0 {
			st.t.Error("the server summarises no WAL: this variant tests nothing of it")
		}
	}
	if v.tables == 0 {
		return
	}
	packs := 0
	check(st.t, st.blobs.List(st.t.Context(), "pack/", func(blob.Info) error { packs++; return nil }))
	if packs*50 > v.tables {
		st.t.Errorf("%d tables lie in %d packs", v.tables, packs)
	}
}

// openTemporary keeps a session with a temporary table, which has files.
func openTemporary(st *pgStand) *pgx.Conn {
	st.t.Helper()
	conn, err := pgx.Connect(st.t.Context(), st.srv.DSN("postgres"))
	check(st.t, err)
	_, err = conn.Exec(st.t.Context(), `create temporary table passing as select g from generate_series(1, 1000) g`)
	check(st.t, err)
	return conn
}

func noTemporaryFiles(t *testing.T, dir string) {
	t.Helper()
	n := 0
	check(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if n++; err == nil && temporary(e.Name()) {
			t.Errorf("the temporary relation %s was restored", path)
		}
		return err
	}))
	if n < 900 {
		t.Errorf("%s holds only %d files", dir, n)
	}
}

func queryIn(t testing.TB, srv *pgtest.Server, database, query string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), srv.DSN(database))
	check(t, err)
	defer closeConn(t.Context(), conn)
	var got string
	check(t, conn.QueryRow(t.Context(), query).Scan(&got))
	return got
}
