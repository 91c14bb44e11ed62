package host_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/host"
)

func itoa(i int) string { return strconv.Itoa(i) }

func lockedForEver() { runtime.LockOSThread() }

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func TestLockNamesItsHolderAndDiesWithIt(t *testing.T) {
	t.Parallel()
	dir, ctx := t.TempDir(), within(t)
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), "HOST_TEST_ROLE=locker", "HOST_TEST_DIR="+dir)
	var out syncBuffer
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for out.String() == "" && ctx.Err() == nil {
		time.Sleep(5 * time.Millisecond)
	}
	path := filepath.Join(dir, "lock")
	_, err := host.Lock(path, "backup", clock)
	want := "process " + itoa(cmd.Process.Pid) + " holds it for restore of main since 2026-01-02T03:04:05Z"
	if err == nil || !strings.Contains(err.Error(), want) || relight.CodeOf(err) != relight.CodeLeaseHeld {
		t.Fatalf("err = %v, want %q", err, want)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	l, err := host.Lock(path, "backup", clock)
	if err != nil {
		t.Fatal("after the holder's death:", err)
	}
	if _, err := host.Lock(path, "again", clock); relight.CodeOf(err) != relight.CodeLeaseHeld {
		t.Fatal("one process took the lock twice:", err)
	}
	if err := errors.Join(l.Unlock(), l.Unlock()); err != nil {
		t.Fatal(err)
	}
	l, err = host.Lock(path, "third", clock)
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Unlock()
}

// A lock must not travel to children: they would hold it after relight's death.
func TestLockIsNotInherited(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lock")
	l, err := host.Lock(path, "a", clock)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Unlock() }()
	ls, err := host.Output(within(t), local(t), host.Command{Argv: []string{"sh", "-c", "ls -l /proc/$$/fd"},
		Started: func(context.Context, relight.Handle) error { return nil }})
	if err != nil || !bytes.Contains(ls, []byte(" 1 -> ")) || bytes.Contains(ls, []byte(path)) || bytes.Contains(ls, []byte(" 4 -> ")) {
		t.Fatalf("the child holds: %v\n%s", err, ls)
	}
}

func TestWriteFileDurable(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	for _, s := range []string{"one", "two"} {
		if err := host.WriteFileDurable(path, []byte(s), 0o666); err != nil {
			t.Fatal(err)
		}
		if b, _ := os.ReadFile(path); string(b) != s {
			t.Fatalf("read %q", b)
		}
	}
	if st, _ := os.Stat(path); st.Mode().Perm() != 0o666 {
		t.Fatalf("mode %v: the umask had its way", st.Mode())
	}
	if err := os.Mkdir(filepath.Join(dir, "d"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := host.WriteFileDurable(filepath.Join(dir, "d"), []byte("x"), 0o600); err == nil {
		t.Fatal("a directory was replaced")
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".*tmp*")); len(left) != 0 {
		t.Fatalf("left %v", left)
	}
}

func TestMoveNeverReplaces(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "sub", "b")
	for _, d := range []string{a, filepath.Join(dir, "sub")} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := host.Move(a, b); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(a, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := host.Move(a, b); !errors.Is(err, fs.ErrExist) {
		t.Fatalf("moved onto an existing directory: %v", err)
	}
	if err := host.Move(a, "/dev/shm/relight-no"); err == nil || relight.HintOf(err) == "" {
		t.Fatalf("across file systems: %v", err)
	}
	disk, err := host.OpenFileSystem(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(host.SyncDir(dir), disk.Sync(), disk.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestFreeSpaceOfWhatDoesNotExistYet(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	here, err := host.FreeSpace(dir)
	if err != nil || here <= 0 {
		t.Fatal(here, err)
	}
	if n, err := host.FreeSpace(filepath.Join(dir, "a", "b")); err != nil || n <= 0 {
		t.Fatal(n, err)
	}
	u, err := host.OwnerOf(dir)
	if err != nil || int(u.UID) != os.Geteuid() {
		t.Fatal(u, err)
	}
}

func TestRealPathAndFileSystem(t *testing.T) {
	t.Parallel()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "real"), 0o755), os.Symlink("real", filepath.Join(dir, "link"))); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{"link": "real", "link/none/x": "real/none/x", "none": "none", "link/../real/y": "real/y"} {
		if got, err := host.RealPath(filepath.Join(dir, "x/..") + "/" + path); err != nil || got != filepath.Join(dir, want) {
			t.Errorf("%s is %s, %v", path, got, err)
		}
	}
	here, err := host.FileSystem(dir)
	if err != nil {
		t.Fatal(err)
	}
	if below, err := host.FileSystem(filepath.Join(dir, "none", "deep")); err != nil || below != here {
		t.Errorf("%d below %d, %v", below, here, err)
	}
	if other, err := host.FileSystem("/proc/none"); err != nil || other == here {
		t.Errorf("/proc is on %d as %s, %v", other, dir, err)
	}
}

// Whether a lock is taken is told without taking it.
func TestLocked(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "x.lock")
	locked := func(want bool) {
		t.Helper()
		if is := host.Locked(path); is != want {
			t.Errorf("%v, want %v", is, want)
		}
	}
	locked(false)
	l, err := host.Lock(path, "a test", time.Now)
	if err != nil {
		t.Fatal(err)
	}
	locked(true)
	if err := l.Unlock(); err != nil {
		t.Fatal(err)
	}
	locked(false)
	if err := os.WriteFile(path, []byte(`{"pid":999999999,"what":"of a process that died"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	locked(false)
}

// A holder that was killed while it created a child: the child shares the lock until it becomes another program, and then the lock is free. That is waited for.
func TestLockOfADeadProcessIsWaitedFor(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "x.lock")
	dead := exec.Command("true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(f, `{"pid":%d,"what":"of a process that was killed"}`, dead.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	child := exec.Command("sleep", "0.3")
	child.ExtraFiles = []*os.File{f} // with its lock
	if err := errors.Join(child.Start(), f.Close()); err != nil {
		t.Fatal(err)
	}
	if host.Locked(path) {
		t.Error("held by a process that is dead")
	}
	l, err := host.Lock(path, "a test", time.Now)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(l.Unlock(), child.Wait()); err != nil {
		t.Fatal(err)
	}
}
