//go:build pg

package postgres

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/internal/pgtest"
	"github.com/toolboxai/relight/store"
)

// Incremental backups of a primary, of its standby and of what that is promoted to: each takes pages from backups of its own directory only, since the same page has other hints
// under the same position on another server; and each equals a full backup at rest.
func TestIncrementalsOfAPrimaryAndItsStandby(t *testing.T) {
	onEachMajor(t, func(t *testing.T, major int) {
		primary := pgtest.NewMajor(t, major, "--wal-segsize=1")
		primary.Start("autovacuum=off", "wal_keep_size=64MB", "checkpoint_timeout=1h")
		primary.Exec(`create extension amcheck`, `create table cut as select g, repeat('x', 500) v from generate_series(1, 5000) g`, `create index on cut (g)`,
			`create table still as select g, repeat('y', 500) v from generate_series(1, 5000) g`, `vacuum still`)
		standby := newStandby(t, primary, "autovacuum=off", "checkpoint_timeout=1h")
		st, sb := standOver(t, primary), standOver(t, standby)
		sb.blobs, sb.meta, sb.id = st.blobs, st.meta, st.id
		st.follow()
		full := st.backup()
		change := func() {
			t.Helper()
			primary.Exec(`delete from cut where g % 7 = 0`, `vacuum cut`, `insert into cut select g, 'again' from generate_series(1, 3000) g`,
				`update still set v = 'z' where g % 1000 = 0`, `checkpoint`)
			caughtUp(t, standby, currentLSN(t, primary))
		}
		small := func(at *pgStand, why string) relight.Snapshot {
			t.Helper()
			snap := at.incremental(why)
			if snap.Stored*2 > full.Stored {
				t.Errorf("%s: it stored %d bytes, the first full backup %d", why, snap.Stored, full.Stored)
			}
			return snap
		}
		equal := func(at *pgStand, why string) {
			t.Helper()
			at.sameRelations(small(at, why).ID, at.backup().ID)
		}
		restores := func(at *pgStand, why string) {
			t.Helper()
			snap := small(at, why)
			writer := at
			if at.srv.Query("select pg_is_in_recovery()") == "true" {
				writer = st
			}
			writer.durable()
			out, again := at.mustRestore(filepath.Join(at.srv.Root, string(snap.ID)), relight.RecoveryTarget{Kind: relight.TargetLatest}, store.RestoreOptions{VerifyBefore: true, Verify: true})
			if out.Snapshot != snap.ID || !out.Verified {
				t.Errorf("%s: restored %+v", why, out)
			}
			const content = `select (select md5(string_agg(cut::text, ' ' order by cut::text)) from cut) || (select md5(string_agg(still::text, ' ' order by still::text)) from still)`
			if again.Query(content) != writer.srv.Query(content) {
				t.Errorf("%s: the restored server has other rows", why)
			}
			again.Stop()
		}
		foreign := func(at *pgStand) {
			t.Helper()
			if man, why, err := at.store.FindParent(t.Context(), at.meta); err != nil || man != nil || !strings.Contains(why, "another data directory") {
				t.Fatalf("parent %+v, %s, %v", man, why, err)
			}
		}
		change()
		standby.Exec("checkpoint") // a restart point
		foreign(sb)
		sb.backup()
		equal(sb, "of the standby, at the same restart point")
		change() // pages wait in the standby's memory
		restores(sb, "of the standby, with log replayed since and no restart point")
		change()
		standby.Exec("checkpoint")
		equal(sb, "of the standby, at a later restart point")
		equal(st, "of the primary, past its standby's")
		change()
		st.unfollow()
		standby.Exec("select pg_promote()")
		sb.follow()
		standby.Exec(`delete from cut where g % 5 = 0`, `vacuum cut`, `update still set v = 'w' where g % 900 = 0`, `checkpoint`)
		restores(sb, "of the promoted standby")
		equal(sb, "of the promoted standby, upon its own")
	})
}
