package host

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func makePrivate(t *testing.T, root string) *Private {
	t.Helper()
	p, err := MakePrivate(root, "relight-", time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// die leaves a private directory as the death of its maker does: the kernel gives the lock back, and the rest stays.
// Said aloud: a child that another test is just creating shares the descriptor for a moment.
func (p *Private) die(t *testing.T) {
	t.Helper()
	if err := errors.Join(flock(p.lock.f, unix.LOCK_UN), p.lock.f.Close()); err != nil {
		t.Fatal(err)
	}
}

func there(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func TestPrivateDirectoryOfADeadProcessIsSwept(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	dead, alive := makePrivate(t, root), makePrivate(t, root)
	foreign, other := filepath.Join(root, "relight-demo-1"), filepath.Join(root, "other")
	for _, dir := range []string{foreign, other} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(other, ownerFile), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(other, ownerFile), filepath.Join(foreign, ownerFile)); err != nil {
		t.Fatal(err)
	}
	if !there(dead.Path) {
		t.Fatal("a living process's directory was swept")
	}
	dead.die(t)
	next := makePrivate(t, root)
	if there(dead.Path) {
		t.Error("a dead process's directory is still there")
	}
	for _, path := range []string{alive.Path, next.Path, foreign, filepath.Join(other, ownerFile)} {
		if !there(path) {
			t.Errorf("%s was swept", path)
		}
	}
	if err := errors.Join(alive.Remove(), next.Remove()); err != nil || there(alive.Path) || there(next.Path) {
		t.Errorf("removed: %v", err)
	}
}

// A server may outlive its relight for a while, and use the directory.
func TestPrivateDirectoryStaysWhileAProcessWorksInIt(t *testing.T) {
	t.Parallel()
	root, l := t.TempDir(), NewLocal(Options{})
	t.Cleanup(func() { _ = l.Close() })
	p := makePrivate(t, root)
	proc, err := l.Start(t.Context(), Command{Argv: []string{"sleep", "600"}, What: "a server"})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Serve(proc.Handle()); err != nil {
		t.Fatal(err)
	}
	p.die(t)
	check := func(want bool) {
		t.Helper()
		if err := makePrivate(t, root).Remove(); err != nil {
			t.Fatal(err)
		}
		if there(p.Path) != want {
			t.Errorf("it is there: %v", !want)
		}
	}
	check(true)
	if err := proc.Stop(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	check(false)
}
