package file

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/toolboxai/relight/blob"
)

func store(s *Storage, name, body string, replace bool) error {
	return s.Put(context.Background(), name, strings.NewReader(body), blob.PutOptions{Replace: replace})
}

// The order in which one object becomes durable, call by call: this list may change only with a reason.
func TestOrderOfOnePut(t *testing.T) {
	t.Parallel()
	p := newPower(0)
	s, _ := openOn(t, p)
	begin := len(p.log)
	if err := store(s, "a/b/object", "body", false); err != nil {
		t.Fatal(err)
	}
	if err := store(s, "a/b/second", "body", false); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"mkdir ~tmp", "sync repo", "create", "write", "sync file",
		"mkdir a", "sync repo", "mkdir b", "sync a", "place object", "sync b",
		"create", "write", "sync file", "place second", "sync b",
	}
	if got := p.log[begin:]; !slices.Equal(got, want) {
		t.Errorf("calls:\n%s\nexpected:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestNewRootIsDurable(t *testing.T) {
	t.Parallel()
	p := newPower(0)
	_, root := openOn(t, p)
	made := p.stable[p.id(filepath.Dir(filepath.Dir(root)))]["made"]
	if repo := p.stable[made.dir]["repo"]; repo.dir == 0 {
		t.Errorf("the root is acknowledged but not durable: %v", p.stable)
	}
}

// history is a program on the storage; it stops at the first error and says what was acknowledged until then. A name in
// doubt is one whose last operation failed.
func history(s *Storage) (acknowledged map[string]string, doubt string) {
	acknowledged = map[string]string{}
	steps := []struct{ name, body, do string }{
		{"a/b/one", "1", "put"}, {"a/b/two", "22", "put"}, {"lease/x/1.beat", "t1", "replace"}, {"top", "", "put"},
		{"lease/x/1.beat", "t2", "replace"}, {"a/b/one", "", "delete"}, {"a/b/two", "", "delete"}, {"a/b/three", "333", "put"},
		{"a/c", "c", "put"}, {"lease/x/1.beat", "t3", "replace"}, {"top", "", "delete"}, {"a/b/one", "new", "put"},
	}
	for _, step := range steps {
		var err error
		switch step.do {
		case "delete":
			err = s.Delete(context.Background(), step.name)
		default:
			err = store(s, step.name, step.body, step.do == "replace")
		}
		if err != nil {
			return acknowledged, step.name
		}
		if delete(acknowledged, step.name); step.do != "delete" {
			acknowledged[step.name] = "file " + step.body
		}
	}
	return acknowledged, ""
}

// The power is lost after every call of a history. Each time everything that was acknowledged is there, nothing else but the
// object in doubt, and no object holds bytes that were never synced.
func TestPowerLossAtEveryCall(t *testing.T) {
	t.Parallel()
	complete := newPower(0)
	s, _ := openOn(t, complete)
	if _, doubt := history(s); doubt != "" {
		t.Fatalf("without loss of power %s failed", doubt)
	}
	for last := 1; last <= len(complete.log); last++ {
		p := newPower(last)
		s, root := openOn(t, p)
		if s == nil {
			continue // lost while the root was being made: nothing was acknowledged
		}
		acknowledged, doubt := history(s)
		checkLeft(t, p, p.after(root), acknowledged, doubt)
		s.dirs.close()
	}
	t.Logf("lost the power after each of %d calls", len(complete.log))
}

func checkLeft(t *testing.T, p *power, left, acknowledged map[string]string, doubt string) {
	t.Helper()
	at := p.log[len(p.log)-1]
	for name, content := range acknowledged {
		if left[name] != content && name != doubt {
			t.Errorf("call %d (%s): %s was acknowledged with %q, left is %q", len(p.log), at, name, content, left[name])
		}
	}
	for name, content := range left {
		if content == lostBytes {
			t.Errorf("call %d (%s): %s holds bytes that were never synced", len(p.log), at, name)
		}
		if _, ok := acknowledged[name]; !ok && name != doubt {
			t.Errorf("call %d (%s): %s is left, but was deleted or never acknowledged", len(p.log), at, name)
		}
	}
}

// forgetful is a disk on which one kind of sync does nothing: the test above must notice.
type forgetful struct{ *power }

func (f forgetful) OpenDir(path string) (directory, error) {
	d, err := f.power.system.OpenDir(path)
	return d, err // whose Sync the model does not see
}

func TestPowerLossIsNoticed(t *testing.T) {
	t.Parallel()
	p := newPower(0)
	s, root := openOn(t, forgetful{p})
	acknowledged, doubt := history(s)
	if left := p.after(root); doubt != "" || len(left) >= len(acknowledged) {
		t.Errorf("directories are never synced, yet %d of %d objects count as durable", len(left), len(acknowledged))
	}
}

// A writer that died between placing an object and syncing its directory has acknowledged nothing. The next one that finds
// equal bytes may count them as stored, so they must be durable by then.
func TestTakenNameIsDurable(t *testing.T) {
	t.Parallel()
	p := newPower(0)
	s, _ := openOn(t, p)
	if err := store(s, "a/first", "x", false); err != nil {
		t.Fatal(err)
	}
	at := slices.Index(p.log, "place first")
	dying := newPower(at + 1) // the last call is the placing itself
	s, root := openOn(t, dying)
	if err := store(s, "a/first", "x", false); !errors.Is(err, errPower) {
		t.Fatalf("the first writer: %v", err)
	}
	if len(dying.after(root)) != 0 || !exists(filepath.Join(root, "a/first")) {
		t.Fatal("the object should be visible and not durable")
	}
	dying.last = 0 // a second writer on the same disk
	next, err := open(root, dying)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(next.dirs.close)
	if err := store(next, "a/first", "x", false); !errors.Is(err, blob.ErrExists) {
		t.Fatalf("the second writer: %v", err)
	}
	if left := dying.after(root); left["a/first"] != "file x" {
		t.Errorf("said to exist, but a loss of power leaves %v", left)
	}
}

// Others may remove a directory that became empty between any two calls, and make it again without syncing.
func TestDirectoryRemovedMeanwhile(t *testing.T) {
	t.Parallel()
	p := newPower(0)
	s, root := openOn(t, p)
	if err := store(s, "a/b/one", "1", false); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context(), "a/b/one"); err != nil {
		t.Fatal(err)
	}
	if exists(filepath.Join(root, "a")) {
		t.Error("the empty directory was left")
	}
	for _, dir := range []string{"a", "a/b"} { // another process, not synced
		if err := p.Mkdir(filepath.Join(root, dir)); err != nil {
			t.Fatal(err)
		}
	}
	if err := store(s, "a/b/two", "2", false); err != nil {
		t.Fatal(err)
	}
	if left := p.after(root); left["a/b/two"] != "file 2" {
		t.Errorf("acknowledged, but a loss of power leaves %v", left)
	}
}

// rival removes the empty directory and makes it again, without syncing, just before an object is placed in it.
type rival struct{ *power }

func (r rival) Place(temp, path string) error {
	dir := filepath.Dir(path)
	if err := errors.Join(r.RemoveDir(dir), r.Mkdir(dir)); err != nil {
		return err
	}
	return r.power.Place(temp, path)
}

func TestDirectoryReplacedBeforePlacing(t *testing.T) {
	t.Parallel()
	p := newPower(0)
	s, root := openOn(t, rival{p})
	if err := store(s, "a/b/object", "x", false); err != nil {
		t.Fatal(err)
	}
	if left := p.after(root); left["a/b/object"] != "file x" {
		t.Errorf("acknowledged, but a loss of power leaves %v", left)
	}
}

func TestManyDirectoriesDoNotStayOpen(t *testing.T) {
	t.Parallel()
	s, _ := openOn(t, system{})
	for i := range 3 * held {
		if err := store(s, "d"+strings.Repeat("x", i)+"/object", "1", false); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(s.dirs.open); n > held+2 {
		t.Errorf("%d directories are held open", n)
	}
}

// broken fails calls with a given error.
type broken struct {
	system
	err   error
	calls map[string]bool
}

func (b broken) CreateTemp(dir string) (temporary, error) {
	if b.calls["create"] {
		return nil, &os.PathError{Op: "open", Path: dir, Err: b.err}
	}
	f, err := b.system.CreateTemp(dir)
	return brokenFile{f, b}, err
}

type brokenFile struct {
	temporary
	b broken
}

func (f brokenFile) Write(p []byte) (int, error) {
	if f.b.calls["write"] {
		return 0, f.b.err
	}
	return f.temporary.Write(p)
}

func (f brokenFile) Sync() error {
	if f.b.calls["sync"] {
		return f.b.err
	}
	return f.temporary.Sync()
}

func (b broken) Place(temp, path string) error {
	if b.calls["place"] {
		return b.err
	}
	return b.system.Place(temp, path)
}

func TestFailedCallsLeaveNothing(t *testing.T) {
	t.Parallel()
	for _, call := range []string{"create", "write", "sync", "place"} {
		for _, cause := range []syscall.Errno{syscall.ENOSPC, syscall.EIO, syscall.EACCES} {
			s, root := openOn(t, broken{err: cause, calls: map[string]bool{call: true}})
			err := store(s, "a/object", "body", false)
			if !errors.Is(err, cause) {
				t.Errorf("%s fails with %v: put says %v", call, cause, err)
			}
			if exists(filepath.Join(root, "a/object")) {
				t.Errorf("%s fails with %v: the object is there", call, cause)
			}
			left, err := os.ReadDir(filepath.Join(root, tempDir))
			if err != nil || len(left) > 0 {
				t.Errorf("%s fails with %v: %d temporary files are left, %v", call, cause, len(left), err)
			}
		}
	}
}

func TestLinkWhereRenameCannot(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	temp, path := filepath.Join(dir, "temp"), filepath.Join(dir, "path")
	write := func(name, body string) {
		if err := os.WriteFile(name, []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(temp, "new")
	if err := linkInPlace(temp, path); err != nil || exists(temp) {
		t.Errorf("first: %v", err)
	}
	write(temp, "newer")
	if err := linkInPlace(temp, path); !errors.Is(err, os.ErrExist) {
		t.Errorf("a taken name: %v", err)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, []byte("new")) {
		t.Errorf("holds %q, %v", got, err)
	}
	// The link was made, but its answer lost: the retransmitted call finds the name taken by its own file.
	other := filepath.Join(dir, "other")
	if err := os.Link(temp, other); err != nil {
		t.Fatal(err)
	}
	if err := linkInPlace(temp, other); err != nil {
		t.Errorf("a link whose answer was lost: %v", err)
	}
}
