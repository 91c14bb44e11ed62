package file

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/toolboxai/relight/blob"
	"github.com/toolboxai/relight/internal/power"
)

func store(s *Storage, name, body string, replace bool) error {
	return s.Put(context.Background(), name, strings.NewReader(body), blob.PutOptions{Replace: replace})
}

// The order in which one object becomes durable, call by call: this list may change only with a reason.
func TestOrderOfOnePut(t *testing.T) {
	t.Parallel()
	o := newOnDisk(t, 0)
	begin := len(o.disk.Calls())
	if err := store(o.s, "a/b/object", "body", false); err != nil {
		t.Fatal(err)
	}
	if err := store(o.s, "a/b/second", "body", false); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"mkdir ~tmp", "sync repo", "create temp", "write temp", "sync file temp",
		"mkdir a", "sync repo", "mkdir b", "sync a", "place object", "sync b",
		"create temp", "write temp", "sync file temp", "place second", "sync b",
	}
	if got := o.calls(begin); !slices.Equal(got, want) {
		t.Errorf("calls:\n%s\nexpected:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestNewRootIsDurable(t *testing.T) {
	t.Parallel()
	o, into := newOnDisk(t, 0), t.TempDir()
	if err := o.disk.Left(into, power.Gone); err != nil {
		t.Fatal(err)
	}
	if !exists(filepath.Join(into, "made", "repo")) {
		t.Error("the root is acknowledged but not durable")
	}
}

// step is one operation of a history.
type step struct{ name, body, do string }

// pages is a body that lies on several pages, so that it can tear.
func pages(text string) string { return strings.Repeat(text, 10_000/len(text)) }

// history is a program on the storage; it stops at the first error and says what was acknowledged until then. In doubt is the operation that failed.
func history(s *Storage) (acknowledged map[string]string, doubt step) {
	acknowledged = map[string]string{}
	steps := []step{
		{"a/b/one", pages("1"), "put"}, {"a/b/two", pages("22"), "put"}, {"lease/x/1.beat", pages("t1"), "replace"}, {"top", "", "put"},
		{"lease/x/1.beat", pages("t2"), "replace"}, {"a/b/one", "", "delete"}, {"a/b/two", "", "delete"}, {"a/b/three", pages("333"), "put"},
		{"a/c", "c", "put"}, {"lease/x/1.beat", pages("t3"), "replace"}, {"top", "", "delete"}, {"a/b/one", pages("new"), "put"},
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
			return acknowledged, step
		}
		if delete(acknowledged, step.name); step.do != "delete" {
			acknowledged[step.name] = step.body
		}
	}
	return acknowledged, step{}
}

// The power is lost after every call of a history, with each outcome for what was not synced. Each time everything that was acknowledged is there, nothing else but
// what the operation in doubt was to leave, and no object holds bytes that were never synced.
func TestPowerLossAtEveryCall(t *testing.T) {
	t.Parallel()
	complete := newOnDisk(t, 0)
	if _, doubt := history(complete.s); doubt.name != "" {
		t.Fatalf("without loss of power %s failed", doubt.name)
	}
	calls := len(complete.disk.Calls())
	for last := 1; last <= calls; last++ {
		o := newOnDisk(t, last)
		if o.s == nil {
			continue // lost while the root was being made: nothing was acknowledged
		}
		acknowledged, doubt := history(o.s)
		for _, outcome := range power.Outcomes() {
			o.check(outcome, acknowledged, doubt)
		}
		o.s.dirs.close()
	}
	t.Logf("lost the power after each of %d calls", calls)
}

// check holds what a loss of power leaves against what was acknowledged.
func (o *onDisk) check(outcome power.Outcome, acknowledged map[string]string, doubt step) {
	o.t.Helper()
	calls, left := o.calls(0), o.left(outcome)
	at := fmt.Sprintf("call %d (%s), what was not synced is %s", len(calls), calls[len(calls)-1], outcome)
	for name, content := range acknowledged {
		got, there := left[name]
		if there && got == content || name == doubt.name && (there || doubt.do == "delete") {
			continue // of what is in doubt and there, the content is looked at below
		}
		o.t.Errorf("%s: %s was acknowledged, left is %.20q", at, name, got)
	}
	for name, content := range left {
		old, known := acknowledged[name]
		if known && content == old || name == doubt.name && doubt.do != "delete" && content == doubt.body {
			continue
		}
		o.t.Errorf("%s: %s is left with %.20q, which nobody stored or which was deleted", at, name, content)
	}
}

// forgetful is a disk on which one kind of sync does nothing: the test above must notice.
type forgetful struct{ modelDisk }

func (f forgetful) OpenDir(path string) (directory, error) {
	return f.system.OpenDir(path) // whose Sync the model does not see
}

func TestPowerLossIsNoticed(t *testing.T) {
	t.Parallel()
	o := newOnDisk(t, 0)
	o.s.disk = forgetful{o.disk}
	o.s.dirs = newDurable(o.s.disk, o.root)
	t.Cleanup(o.s.dirs.close)
	acknowledged, doubt := history(o.s)
	if left := o.left(power.Gone); doubt.name != "" || len(left) >= len(acknowledged) {
		t.Errorf("directories are never synced, yet %d of %d objects count as durable", len(left), len(acknowledged))
	}
}

// lying is a disk that does not sync files: the test above must notice that, too.
type lying struct{ modelDisk }

func (l lying) CreateTemp(dir string) (temporary, error) {
	f, err := l.Disk.CreateTemp(dir, "put-*")
	if err != nil {
		return nil, err
	}
	return lyingFile{f}, nil
}

type lyingFile struct{ *power.File }

func (lyingFile) Sync() error { return nil }

func TestUnsyncedBytesAreNoticed(t *testing.T) {
	t.Parallel()
	o := newOnDisk(t, 0)
	o.s.disk = lying{o.disk}
	if err := store(o.s, "a/object", pages("x"), false); err != nil {
		t.Fatal(err)
	}
	for outcome, want := range map[power.Outcome]bool{power.Gone: false, power.Zeros: false, power.Torn: false, power.Holed: false, power.All: true} {
		if got := o.left(outcome)["a/object"] == pages("x"); got != want {
			t.Errorf("%s: the object is whole: %v", outcome, got)
		}
	}
}

// A writer that died between placing an object and syncing its directory has acknowledged nothing. The next one that finds
// equal bytes may count them as stored, so they must be durable by then.
func TestTakenNameIsDurable(t *testing.T) {
	t.Parallel()
	whole := newOnDisk(t, 0)
	if err := store(whole.s, "a/first", "x", false); err != nil {
		t.Fatal(err)
	}
	at := slices.Index(whole.disk.Calls(), "place first")
	dying := newOnDisk(t, at+1) // the last call is the placing itself
	if err := store(dying.s, "a/first", "x", false); !errors.Is(err, power.ErrLost) {
		t.Fatalf("the first writer: %v", err)
	}
	if len(dying.left(power.Gone)) != 0 || !exists(filepath.Join(dying.root, "a/first")) {
		t.Fatal("the object should be visible and not durable")
	}
	dying.disk.Last = 0 // a second writer on the same disk
	next, err := open(dying.root, dying.disk)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(next.dirs.close)
	if err := store(next, "a/first", "x", false); !errors.Is(err, blob.ErrExists) {
		t.Fatalf("the second writer: %v", err)
	}
	if left := dying.left(power.Gone); left["a/first"] != "x" {
		t.Errorf("said to exist, but a loss of power leaves %v", left)
	}
}

// Others may remove a directory that became empty between any two calls, and make it again without syncing.
func TestDirectoryRemovedMeanwhile(t *testing.T) {
	t.Parallel()
	o := newOnDisk(t, 0)
	if err := store(o.s, "a/b/one", "1", false); err != nil {
		t.Fatal(err)
	}
	if err := o.s.Delete(t.Context(), "a/b/one"); err != nil {
		t.Fatal(err)
	}
	if exists(filepath.Join(o.root, "a")) {
		t.Error("the empty directory was left")
	}
	for _, dir := range []string{"a", "a/b"} { // another process, not synced
		if err := o.disk.Mkdir(filepath.Join(o.root, dir)); err != nil {
			t.Fatal(err)
		}
	}
	if err := store(o.s, "a/b/two", "2", false); err != nil {
		t.Fatal(err)
	}
	if left := o.left(power.Gone); left["a/b/two"] != "2" {
		t.Errorf("acknowledged, but a loss of power leaves %v", left)
	}
}

// rival removes the empty directory and makes it again, without syncing, just before an object is placed in it.
type rival struct{ modelDisk }

func (r rival) Place(temp, path string) error {
	dir := filepath.Dir(path)
	if err := errors.Join(r.RemoveDir(dir), r.Mkdir(dir)); err != nil {
		return err
	}
	return r.modelDisk.Place(temp, path)
}

func TestDirectoryReplacedBeforePlacing(t *testing.T) {
	t.Parallel()
	o := newOnDisk(t, 0)
	o.s.disk = rival{o.disk}
	if err := store(o.s, "a/b/object", "x", false); err != nil {
		t.Fatal(err)
	}
	if left := o.left(power.Gone); left["a/b/object"] != "x" {
		t.Errorf("acknowledged, but a loss of power leaves %v", left)
	}
}

func TestManyDirectoriesDoNotStayOpen(t *testing.T) {
	t.Parallel()
	s := openOn(t, filepath.Join(t.TempDir(), "repo"), system{})
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
			root := filepath.Join(t.TempDir(), "repo")
			s := openOn(t, root, broken{err: cause, calls: map[string]bool{call: true}})
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
