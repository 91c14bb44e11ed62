package app

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/action"
	"github.com/toolboxai/relight/repo"
)

// kept is the stand with a store, a policy, and snapshots of the given ages.
func kept(t *testing.T, ages ...time.Duration) *stand {
	t.Helper()
	st := newStand(t)
	st.write("relight.yaml", "estate: shop\nstate: state\nrepositories:\n  vault: {url: "+st.vault+"}\n"+
		"stores:\n  main: {kind: postgres, data: data, policy: {keep: [{every: daily, for: 3d}]}}\n", 0o644)
	for _, age := range ages {
		a := st.app(func(o *Options) { o.Now = func() time.Time { return time.Now().Add(-age) } })
		w, err := st.repository(a).NewSnapshot(t.Context(), "main", repo.SnapshotOptions{Kind: "full"})
		ok(t, err)
		_, err = w.AddFile(t.Context(), repo.Entry{Path: "f", Mode: 0o600}, strings.NewReader(age.String()))
		ok(t, err)
		_, err = w.Commit(t.Context(), relight.Snapshot{})
		ok(t, err)
	}
	return st
}

func (st *stand) snapshots(a *App) []repo.Manifest {
	st.t.Helper()
	all, err := st.repository(a).Snapshots(st.t.Context(), "main")
	ok(st.t, err)
	return all
}

// run executes an action as the command line does; what must be confirmed is noted.
func run(t *testing.T, a *App, name string, in map[string]any) (out any, asked action.Blast, err error) {
	t.Helper()
	r, err := a.Actions()
	ok(t, err)
	act, err := r.Lookup(name)
	ok(t, err)
	decoded, err := act.Decode(in)
	ok(t, err)
	env := action.Env{Actor: "alice", Now: time.Now, Log: a.Log(), Confirm: func(_ context.Context, b action.Blast) error { asked = b; return nil }}
	out, err = action.Execute(t.Context(), act, env.WithDefaults(), decoded)
	return out, asked, err
}

func TestPruneAsksForTheStoresNameAndNeedsTheRecoveryKey(t *testing.T) {
	t.Parallel()
	const d = 24 * time.Hour
	st := kept(t, 9*d, 8*d, 2*d, d)
	_, asked, err := run(t, st.app(), "backup.prune", nil)
	refused(t, err, relight.CodeUsage, "may not remove")
	if asked.Target != "main" || !strings.Contains(strings.Join(asked.Lines, "\n"), "--identity FILE") {
		t.Fatalf("%+v", asked)
	}
	if all := st.snapshots(st.app()); len(all) != 4 {
		t.Fatalf("%d snapshots are left", len(all))
	}
	out, asked, err := run(t, st.app(st.recovering), "backup.prune", nil)
	ok(t, err)
	if pruned, is := out.(repo.Pruned); !is || len(pruned.Expired()) != 2 || pruned.Marked.Objects == 0 || pruned.Deleted.Objects != 0 || asked.Danger != action.Data {
		t.Fatalf("%+v %+v", out, asked)
	}
	if all := st.snapshots(st.app()); len(all) != 2 {
		t.Fatalf("%d snapshots are left", len(all))
	}
	// Nothing is left to do: nobody is asked.
	_, asked, err = run(t, st.app(st.recovering), "backup.prune", nil)
	if ok(t, err); asked.Target != "" {
		t.Fatalf("asked: %+v", asked)
	}
}

func TestTwoBackupsNeverRunAtOnce(t *testing.T) {
	t.Parallel()
	st := kept(t)
	a := st.app()
	m := st.repository(a)
	held, err := a.lock("backup-main-vault", "backup of main into vault")
	ok(t, err)
	_, err = baseBackup{Kind: kindFull, Lock: st.app().lock}.from(t.Context(), nil, m, "main")
	refused(t, err, relight.CodeLeaseHeld, "backup of main into vault")
	ok(t, held.Unlock())
	// A dead process of this host left its lease behind: the next one does not wait for it.
	_, err = m.Acquire(t.Context(), "backup/main", time.Hour)
	ok(t, err)
	taken := false
	ok(t, m.Hold(t.Context(), "backup/main", time.Hour, repo.ForOtherHosts, func(context.Context, *repo.Lease) error { taken = true; return nil }))
	if !taken {
		t.Fatal("the lease was not taken over")
	}
}

// All is lost but a mirror and the recovery key.
func TestRecoveryFromTheMirrorAlone(t *testing.T) {
	t.Parallel()
	st := kept(t, time.Hour)
	st.keep()
	mirror := filepath.Join(t.TempDir(), "offsite")
	out, asked, err := run(t, st.app(), "backup.copy", map[string]any{"to": "file://" + mirror})
	ok(t, err)
	if made, is := out.(MirrorMade); !is || made.Snapshots != 1 || asked.Target != "" {
		t.Fatalf("%+v", out)
	}
	ok(t, os.RemoveAll(st.vault))
	ok(t, os.RemoveAll(st.dir))
	a := st.bare()
	e, err := a.FromBare(t.Context(), Bare{URL: "file://" + mirror, Directory: filepath.Join(t.TempDir(), "new"), Host: "db2"})
	ok(t, err)
	r, err := a.Reader(t.Context(), "vault")
	ok(t, err)
	all, err := r.Meta().Snapshots(t.Context(), "main")
	if ok(t, err); len(all) != 1 {
		t.Fatalf("%d snapshots", len(all))
	}
	ok(t, r.VerifySnapshot(t.Context(), all[0], 1, nil))
	// Another process, which knows relight.yaml alone, finds the mirror too, and may write to it.
	other := st.app(func(o *Options) { o.Config = e.File })
	if url, _, err := other.RepositoryURL("vault"); err != nil || url != "file://"+mirror {
		t.Fatal(url, err)
	}
	w, err := st.repository(other).NewSnapshot(t.Context(), "main", repo.SnapshotOptions{Kind: "full"})
	ok(t, err)
	_, err = w.Commit(t.Context(), relight.Snapshot{})
	ok(t, err)
}

func TestCopyRefusesWhatIsNoPlace(t *testing.T) {
	t.Parallel()
	st := kept(t, time.Hour)
	_, _, err := run(t, st.app(), "backup.copy", map[string]any{"to": "offsite"})
	refused(t, err, relight.CodeUsage, "offsite", "neither a URL nor an absolute path")
	_, _, err = run(t, st.app(), "backup.copy", map[string]any{"to": st.vault})
	refused(t, err, relight.CodeUsage, "this is the repository itself")
}
