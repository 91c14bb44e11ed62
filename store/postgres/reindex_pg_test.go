//go:build pg

package postgres

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/internal/pgtest"
)

// lookUp counts the rows that an index does not find.
const lookUp = `create function lost() returns bigint language plpgsql set enable_seqscan = off set enable_bitmapscan = off as $$
	declare x text; n bigint := 0;
	begin
		foreach x in array (select array_agg(w::text) from word) loop
			if not exists (select from word where w = x) then n := n + 1; end if;
		end loop;
		return n;
	end $$`

// staleServer orders text under the indexes of a server anew, as another version of a library does.
func staleServer(t *testing.T, major int) *pgStand {
	t.Helper()
	srv := pgtest.NewMajor(t, major)
	srv.Start("autovacuum=off")
	st := standOver(t, srv)
	srv.Exec(`create database words`)
	for _, q := range []string{
		`create collation numbers (provider = icu, locale = 'en')`,
		`create table word (n int, w text collate numbers primary key)`, `insert into word select g, 'item' || g from generate_series(1, 3000) g`,
		`create index plain on word (n)`, `create index "Expression" on word (lower(w))`, `create index other on word ((w collate "C"))`,
		`create table parted (w text collate numbers) partition by range (w)`, lookUp,
	} {
		execIn(st, "words", q)
	}
	if lost := queryIn(t, srv, "words", `select lost()::text`); lost != "0" {
		t.Fatalf("a sound index does not find %s rows", lost)
	}
	locale := map[bool]string{true: "colllocale", false: "colliculocale"}[major >= 17]
	execIn(st, "words", `update pg_collation set `+locale+` = 'en-u-kn-true', collversion = 'old' where collname = 'numbers'`)
	if lost := queryIn(t, srv, "words", `select lost()::text`); lost == "0" {
		t.Fatal("the indexes find every row: this shows nothing")
	}
	return st
}

// TestStaleIndexesAreRebuilt: what is on record tells which indexes miss rows, and rebuilt they find them.
func TestStaleIndexesAreRebuilt(t *testing.T) {
	onEachMajor(t, func(t *testing.T, major int) {
		st := staleServer(t, major)
		checks, err := st.store.Check(t.Context(), CheckOptions{})
		check(t, err)
		if !slices.ContainsFunc(checks, func(c relight.Check) bool {
			return c.Verdict == relight.Failed && strings.Contains(c.Detail, "collation public.numbers was built with version old") && strings.Contains(c.Detail, "relight postgres reindex")
		}) {
			t.Errorf("the check names no stale collation: %+v", checks)
		}
		out, err := st.store.Reindex(t.Context(), nil)
		check(t, err)
		if want := []string{`words: public."Expression"`, `words: public.word_pkey`}; !slices.Equal(out.Rebuilt, want) || len(out.Stale) != 1 {
			t.Errorf("rebuilt %q, want %q; stale %v", out.Rebuilt, want, out.Stale)
		}
		if !slices.Equal(out.Unsure, []string{"words: public.parted"}) {
			t.Errorf("unsure of %q", out.Unsure)
		}
		st.nothingLost("words")
	})
}

// nothingLost demands that every row is found, and that nothing is stale.
func (st *pgStand) nothingLost(database string) {
	st.t.Helper()
	if lost := queryIn(st.t, st.srv, database, `select lost()::text`); lost != "0" {
		st.t.Errorf("the indexes do not find %s rows", lost)
	}
	if left, err := st.store.Stale(st.t.Context()); err != nil || len(left) > 0 {
		st.t.Errorf("still stale: %v, %v", left, err)
	}
}

// TestStaleDatabaseIsRebuilt: with the database's own order everything that compares text is rebuilt, and what depends on it unseen.
func TestStaleDatabaseIsRebuilt(t *testing.T) {
	t.Parallel()
	srv := pgtest.NewMajor(t, 15)
	srv.Start("autovacuum=off")
	st := standOver(t, srv)
	srv.Exec(`create database words locale_provider icu icu_locale 'en' template template0`)
	for _, q := range []string{`create table word (n int, w text primary key)`, `insert into word select g, 'item' || g from generate_series(1, 3000) g`,
		`create index plain on word (n)`, `create index half on word (n) where w > 'item2'`, `create index bytes on word (w collate "C")`, lookUp} {
		execIn(st, "words", q)
	}
	srv.Exec(`update pg_database set daticulocale = 'en-u-kn-true', datcollversion = 'old' where datname = 'words'`)
	out, err := st.store.Reindex(t.Context(), nil)
	check(t, err)
	if want := []string{`words: public.half`, `words: public.word_pkey`}; !slices.Equal(out.Rebuilt, want) {
		t.Errorf("rebuilt %q, want %q", out.Rebuilt, want)
	}
	st.nothingLost("words")
}

// TestRowsThatOnlyAStaleIndexLetIn: two rows that are equal keep their index from being rebuilt; it is named, and what is on record stays.
func TestRowsThatOnlyAStaleIndexLetIn(t *testing.T) {
	t.Parallel()
	st := staleServer(t, 15)
	execIn(st, "words", `insert into word select 0, w from (select w::text from word where w like 'item1%') x on conflict do nothing`)
	if n := queryIn(t, st.srv, "words", `select (count(*) > count(distinct w collate "C"))::text from word`); n != "true" {
		t.Fatal("the stale index let no row in twice: this shows nothing")
	}
	out, err := st.store.Reindex(t.Context(), nil)
	var failed *relight.Error
	if !errors.As(err, &failed) || failed.Code != relight.CodeVerification || !strings.Contains(err.Error(), "public.word_pkey: could not create unique index") {
		t.Fatalf("%+v, %v", out, err)
	}
	if left, err := st.store.Stale(t.Context()); err != nil || len(left) != 1 {
		t.Errorf("what could not be rebuilt must stay on record: %v, %v", left, err)
	}
	execIn(st, "words", `delete from word where n = 0`)
	_, err = st.store.Reindex(t.Context(), nil)
	check(t, err)
	st.nothingLost("words")
}
