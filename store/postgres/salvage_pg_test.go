//go:build pg

package postgres

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/internal/pgtest"
	"github.com/toolboxai/relight/store"
)

// ruin overwrites every data file of a stopped server, and pg_control; only pg_wal stays.
func ruin(t *testing.T, dir string) {
	t.Helper()
	garbage := []byte(strings.Repeat("ruined! ", 1024))
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err != nil || !info.Mode().IsRegular() || strings.Contains(path, "/pg_wal/") {
			return err
		}
		return os.WriteFile(path, garbage, 0o600)
	})
	check(t, err)
}

func TestSalvageWinsEveryCommitOfARuinedServer(t *testing.T) {
	t.Parallel()
	st := newPGStand(t)
	st.follow()
	bank := &pgtest.Bank{Accounts: 100, Balance: 1000}
	bank.Create(t, st.srv)
	st.backup()
	st.bankFor(bank, 30)
	st.durable()
	st.unfollow() // from here on nothing reaches the repository
	st.bankFor(bank, 200)
	st.srv.Exec(`create table bulk as select i, repeat('y', 200) as pad from generate_series(1, 20000) i`) // several segments
	st.bankFor(bank, 200)
	st.srv.Kill()
	ruin(t, st.srv.Dir)

	st.config.Spool = ""
	out, err := st.store.Salvage(t.Context(), st.meta, SalvageOptions{Sink: st.meta.Sink("main")})
	check(t, err)
	if out.Commits < 400 || !out.Pushed || out.To <= out.From || out.Broken != "" || len(out.Segments) < 2 {
		t.Fatalf("salvaged %+v", out)
	}
	if !exists(filepath.Join(out.Directory, out.Segments[0])) || !exists(filepath.Join(out.Directory, "salvage.json")) {
		t.Errorf("nothing was saved in %s", out.Directory)
	}
	again, err := st.store.Salvage(t.Context(), st.meta, SalvageOptions{Sink: st.meta.Sink("main")})
	check(t, err)
	if again.Commits != 0 || again.Directory != "" {
		t.Errorf("a second salvage won %+v", again)
	}
	got, srv := st.mustRestore(filepath.Join(st.srv.Root, "restored"), relight.RecoveryTarget{Kind: relight.TargetLatest}, store.RestoreOptions{Verify: true})
	if lost := bank.Missing(t, srv.DSN("postgres")); len(lost) > 0 {
		t.Errorf("lost %d acknowledged transfers", len(lost))
	}
	if got.CoveredAt.IsZero() || got.LastCommit.IsZero() || got.CoveredAt.Before(got.LastCommit) {
		t.Errorf("covered at %s, last commit %s", got.CoveredAt, got.LastCommit)
	}
}

func TestSalvageSaysWhereWALIsBroken(t *testing.T) {
	t.Parallel()
	st := newPGStand(t)
	st.follow()
	bank := &pgtest.Bank{Accounts: 100, Balance: 1000}
	bank.Create(t, st.srv)
	st.backup()
	at := st.durable()
	st.unfollow()
	st.bankFor(bank, 200)
	st.srv.Exec(`create table bulk as select i, repeat('y', 200) as pad from generate_series(1, 20000) i`) // several segments
	st.bankFor(bank, 200)
	st.srv.Kill()
	v := &salvage{s: st.store, o: SalvageOptions{DataDir: st.srv.Dir}}
	a, err := loadArchive(t.Context(), st.meta, "main")
	check(t, err)
	v.a = a
	check(t, v.survey())
	seg := v.files[at&^(1<<20-1)+1<<20] // the next segment: damage its middle
	f, err := os.OpenFile(seg, os.O_WRONLY, 0)
	check(t, err)
	_, err = f.WriteAt([]byte(strings.Repeat("x", 100)), 500_000)
	check(t, err)
	check(t, f.Close())
	out, err := st.store.Salvage(t.Context(), st.meta, SalvageOptions{Sink: st.meta.Sink("main")})
	check(t, err)
	if !strings.Contains(out.Broken, "damaged at") || out.Commits == 0 || out.Commits >= 400 {
		t.Errorf("salvaged %+v", out)
	}
}

func TestSalvageRefusesARunningServer(t *testing.T) {
	t.Parallel()
	st := newPGStand(t)
	_, err := st.store.Salvage(t.Context(), st.meta, SalvageOptions{})
	if relight.CodeOf(err) != relight.CodeLeaseHeld || relight.HintOf(err) == "" {
		t.Errorf("salvaging under a running server: %v", err)
	}
}
