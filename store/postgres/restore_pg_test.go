//go:build pg

package postgres

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/internal/pgtest"
	"github.com/toolboxai/relight/store"
)

func TestRestoreLatestKeepsEveryAcknowledgedCommit(t *testing.T) {
	t.Parallel()
	st := newPGStand(t)
	st.follow()
	bank := &pgtest.Bank{Accounts: 100, Balance: 1000}
	bank.Create(t, st.srv)
	st.bankFor(bank, 50)
	snap := st.backup()
	st.bankFor(bank, 200)
	st.durable()
	st.unfollow()
	st.srv.Kill()

	dir := filepath.Join(st.srv.Root, "restored")
	out, srv := st.mustRestore(dir, relight.RecoveryTarget{Kind: relight.TargetLatest}, store.RestoreOptions{VerifyBefore: true, Verify: true})
	if out.Snapshot != snap.ID || !out.Verified || out.NewLine != 2 || out.LastCommit.IsZero() || out.Reached.LSN == 0 {
		t.Errorf("restored: %+v", out)
	}
	if lost := bank.Missing(t, srv.DSN("postgres")); len(lost) > 0 {
		t.Errorf("lost %d acknowledged transfers, first %+v", len(lost), lost[0])
	}
	for _, name := range []string{"recovery.signal", "backup_label", "tablespace_map.old", "standby.signal"} {
		if exists(filepath.Join(dir, name)) {
			t.Errorf("%s is left in the restored directory", name)
		}
	}
	if got := srv.Query(`select count(*) from pg_extension where extname = 'amcheck'`); got != "0" {
		t.Errorf("the check left its extension behind")
	}
	if _, err := os.Stat(st.srv.Dir); err != nil {
		t.Errorf("the damaged directory is gone: %v", err)
	}
}
