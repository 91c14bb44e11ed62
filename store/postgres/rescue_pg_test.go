//go:build pg && slow

package postgres

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/toolboxai/relight/blob"
	"github.com/toolboxai/relight/internal/pgtest"
)

// A stock server starts from what the independent script restored, as docs/rescue.md tells it, and holds every acknowledged commit: relight is not needed to get the data back.
func TestRescueScriptBringsBackAServer(t *testing.T) {
	t.Parallel()
	st := newPGStand(t)
	st.follow()
	bank := &pgtest.Bank{Accounts: 100, Balance: 1000}
	bank.Create(t, st.srv)
	st.bankFor(bank, 50)
	st.backup()
	st.bankFor(bank, 100)
	st.srv.Exec(`select pg_switch_wal()`)
	st.bankFor(bank, 100) // of this, some is in live ranges only
	st.durable()
	st.unfollow()
	st.srv.Kill()

	bucket, out := t.TempDir(), filepath.Join(st.srv.Root, "rescued")
	download(st, bucket)
	id := filepath.Join(t.TempDir(), "recovery.key")
	check(t, os.WriteFile(id, []byte(st.id.String()+"\n"), 0o600))
	script := exec.CommandContext(t.Context(), "python3", "-B", "../../tools/rescue/rescue.py", "--repo", bucket, "--identity", id, "--store", "main", "--out", out)
	if said, err := script.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	data, wal := filepath.Join(out, "data"), filepath.Join(out, "wal")
	check(t, os.WriteFile(filepath.Join(data, "recovery.signal"), nil, 0o600))
	if os.Geteuid() == 0 {
		if said, err := exec.CommandContext(t.Context(), "chown", "-R", st.srv.User+":", out).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, said)
		}
	}
	srv := pgtest.At(t, pgtest.Root(t), data)
	srv.Start(fmt.Sprintf("restore_command=cp %s/%%f %%p", wal), "recovery_target_timeline=latest")
	for begun := time.Now(); srv.Query(`select pg_is_in_recovery()`) != "false"; time.Sleep(50 * time.Millisecond) {
		if time.Since(begun) > time.Minute {
			t.Fatalf("the server does not finish its recovery:\n%s", srv.Log())
		}
	}
	if lost := bank.Missing(t, srv.DSN("postgres")); len(lost) > 0 {
		t.Errorf("lost %d of %d acknowledged transfers, first %+v", len(lost), bank.Count(), lost[0])
	}
	if bank.Count() < 250 {
		t.Errorf("only %d transfers were acknowledged", bank.Count())
	}
}

// download copies a bucket into a directory, names and all.
func download(st *pgStand, dir string) {
	st.t.Helper()
	var names []string
	check(st.t, st.blobs.List(st.t.Context(), "", func(i blob.Info) error {
		names = append(names, i.Name)
		return nil
	}))
	for _, name := range names {
		in, err := st.blobs.Get(st.t.Context(), name, 0, -1)
		check(st.t, err)
		b, err := io.ReadAll(in)
		check(st.t, err)
		check(st.t, in.Close())
		path := filepath.Join(dir, filepath.FromSlash(name))
		check(st.t, os.MkdirAll(filepath.Dir(path), 0o755))
		check(st.t, os.WriteFile(path, b, 0o600))
	}
}
