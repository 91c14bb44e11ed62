package file_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob"
	"github.com/toolboxai/relight/blob/file"
)

func create(t *testing.T) (*file.Storage, string) {
	t.Helper()
	root := filepath.Join(t.TempDir(), "repo")
	s, err := file.Create("file://" + root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, root
}

func put(t *testing.T, s blob.Storage, name, body string) {
	t.Helper()
	if err := s.Put(t.Context(), name, strings.NewReader(body), blob.PutOptions{}); err != nil {
		t.Fatal(err)
	}
}

func names(t *testing.T, s blob.Storage) []string {
	t.Helper()
	var got []string
	if err := s.List(t.Context(), "", func(i blob.Info) error { got = append(got, i.Name); return nil }); err != nil {
		t.Fatal(err)
	}
	return got
}

func TestPath(t *testing.T) {
	t.Parallel()
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for url, want := range map[string]string{
		"file:///srv/repo": "/srv/repo", "file:///srv/repo/": "/srv/repo", "file://localhost/srv": "/srv", "/srv/repo": "/srv/repo",
		"file:///a%20b": "/a b", "/a b": "/a b", "repo": filepath.Join(here, "repo"), "./x/../repo": filepath.Join(here, "repo"),
	} {
		if got, err := file.Path(url); got != want || err != nil {
			t.Errorf("%s: %q, %v; expected %q", url, got, err, want)
		}
	}
	for url, hint := range map[string]string{
		"": "file:///absolute", "s3://bucket": "file:///absolute", "file://srv/repo": "file:///srv/repo", "file:///a?b=c": "file:///absolute",
		"file://%zz": "file:///absolute",
	} {
		_, err := file.Path(url)
		if relight.CodeOf(err) != relight.CodeUsage || !strings.Contains(relight.HintOf(err), hint) {
			t.Errorf("%s: %v, hint %q", url, err, relight.HintOf(err))
		}
	}
}

func TestStringOpensAgain(t *testing.T) {
	t.Parallel()
	s, err := file.Create(filepath.Join(t.TempDir(), "100% odd name?#"))
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, "a", "x")
	again, err := file.Open(s.String())
	if err != nil {
		t.Fatal(err)
	}
	if got := names(t, again); !slices.Equal(got, []string{"a"}) {
		t.Errorf("%s holds %v", s, got)
	}
}

func TestOpenMissing(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "none")
	_, err := file.Open(path)
	if relight.CodeOf(err) != relight.CodeNotFound || !strings.Contains(relight.HintOf(err), "relight repo init") {
		t.Errorf("%v, hint %q", err, relight.HintOf(err))
	}
	if errors.Is(err, blob.ErrNotFound) {
		t.Error("a missing root proves no object absent")
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Error("Open made the directory")
	}
}

func TestOpenFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, open := range map[string]func(string) (*file.Storage, error){"open": file.Open, "create": file.Create} {
		if _, err := open(path); relight.CodeOf(err) != relight.CodeUsage || !strings.Contains(relight.HintOf(err), "directory") {
			t.Errorf("%s: %v, hint %q", name, err, relight.HintOf(err))
		}
	}
}

func TestCreateKeepsWhatIsThere(t *testing.T) {
	t.Parallel()
	s, root := create(t)
	put(t, s, "a", "x")
	again, err := file.Create(root)
	if err != nil {
		t.Fatal(err)
	}
	if got := names(t, again); !slices.Equal(got, []string{"a"}) {
		t.Errorf("holds %v", got)
	}
}

// An unmounted disk leaves an empty directory, or none: nothing is proven absent then, and nothing may be written below.
func TestRootThatWentAway(t *testing.T) {
	t.Parallel()
	s, root := create(t)
	put(t, s, "a/b", "x")
	if err := os.Rename(root, root+".away"); err != nil {
		t.Fatal(err)
	}
	for _, state := range []string{"missing", "another directory"} {
		ctx := t.Context()
		_, getErr := s.Get(ctx, "a/b", 0, -1)
		_, statErr := s.Stat(ctx, "none")
		for what, err := range map[string]error{
			"get": getErr, "stat": statErr, "delete": s.Delete(ctx, "a/b"),
			"put":  s.Put(ctx, "a/c", strings.NewReader("x"), blob.PutOptions{}),
			"list": s.List(ctx, "", func(blob.Info) error { return nil }),
		} {
			if err == nil || errors.Is(err, blob.ErrNotFound) || !strings.Contains(relight.HintOf(err), "mount the disk") {
				t.Errorf("root %s, %s: %v, hint %q", state, what, err, relight.HintOf(err))
			}
		}
		if err := os.MkdirAll(root, 0o750); err != nil {
			t.Fatal(err)
		}
	}
	if left, err := os.ReadDir(root); err != nil || len(left) > 0 {
		t.Errorf("%d entries were written into another directory, %v", len(left), err)
	}
}

func TestNestedNames(t *testing.T) {
	t.Parallel()
	s, _ := create(t)
	put(t, s, "a/b", "x")
	for _, name := range []string{"a", "a/b/c", "a/b/c/d"} {
		for _, o := range []blob.PutOptions{{}, {Replace: true}} {
			if err := s.Put(t.Context(), name, strings.NewReader(""), o); !errors.Is(err, blob.ErrName) {
				t.Errorf("put %s %+v beside a/b: %v", name, o, err)
			}
		}
	}
	if got := names(t, s); !slices.Equal(got, []string{"a/b"}) {
		t.Errorf("holds %v", got)
	}
}

func TestForeignEntries(t *testing.T) {
	t.Parallel()
	s, root := create(t)
	put(t, s, "a/b", "x")
	for _, dir := range []string{"lost+found", "with space"} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if got := names(t, s); !slices.Equal(got, []string{"a/b"}) {
		t.Errorf("listed %v", got)
	}
	if err := os.Symlink("/etc", filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	err := s.List(t.Context(), "", func(blob.Info) error { return nil })
	if err == nil || !strings.Contains(relight.HintOf(err), "move links") {
		t.Errorf("a link was passed over in silence: %v", err)
	}
}

func TestOldTemporariesAreSwept(t *testing.T) {
	t.Parallel()
	s, root := create(t)
	put(t, s, "a", "x")
	old, young := filepath.Join(root, "~tmp", "put-old"), filepath.Join(root, "~tmp", "put-young")
	for path, age := range map[string]time.Duration{old: 25 * time.Hour, young: 23 * time.Hour} {
		if err := os.WriteFile(path, []byte("left by a crash"), 0o600); err != nil {
			t.Fatal(err)
		}
		at := time.Now().Add(-age)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	again, err := file.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(old); err != nil {
		t.Errorf("opening removed it already: %v", err)
	}
	put(t, again, "b", "x")
	if _, err := os.Stat(old); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a day-old temporary file is left: %v", err)
	}
	if _, err := os.Stat(young); err != nil {
		t.Errorf("another writer's temporary file was removed: %v", err)
	}
	if got := names(t, again); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("listed %v", got)
	}
}

// Whatever the names, the order is that of the bytes.
func TestListOrder(t *testing.T) {
	t.Parallel()
	element := rapid.StringMatching(`[ab0._-]{1,3}`).Filter(func(e string) bool { return e != "." && e != ".." })
	rapid.Check(t, func(r *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			r.Fatal(err)
		}
		s, err := file.Open(dir)
		if err != nil {
			r.Fatal(err)
		}
		var stored []string
		for _, elems := range rapid.SliceOfN(rapid.SliceOfN(element, 1, 4), 0, 12).Draw(r, "names") {
			name := strings.Join(elems, "/")
			err := s.Put(context.Background(), name, strings.NewReader(""), blob.PutOptions{})
			if err == nil {
				stored = append(stored, name)
			} else if !errors.Is(err, blob.ErrExists) && !errors.Is(err, blob.ErrName) {
				r.Fatal(err)
			}
		}
		prefix := rapid.StringMatching(`([ab]/?)?`).Draw(r, "prefix")
		want := slices.DeleteFunc(stored, func(n string) bool { return !strings.HasPrefix(n, prefix) })
		slices.Sort(want)
		var got []string
		if err := s.List(context.Background(), prefix, func(i blob.Info) error { got = append(got, i.Name); return nil }); err != nil {
			r.Fatal(err)
		}
		if !slices.Equal(got, want) {
			r.Errorf("prefix %q: listed %q, stored %q", prefix, got, want)
		}
		if err := s.Close(); err != nil {
			r.Error(err)
		}
	})
}

// Objects stay readable with ordinary tools.
func TestObjectsAreFiles(t *testing.T) {
	t.Parallel()
	s, root := create(t)
	put(t, s, "pack/data/1", "body")
	got, err := os.ReadFile(filepath.Join(root, "pack", "data", "1"))
	if err != nil || string(got) != "body" {
		t.Errorf("holds %q, %v", got, err)
	}
	info, err := os.Stat(filepath.Join(root, "pack", "data", "1"))
	if err != nil || info.Mode().Perm()&0o007 != 0 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestTruncatedObjectIsNotShort(t *testing.T) {
	t.Parallel()
	s, root := create(t)
	put(t, s, "a", strings.Repeat("x", 1000))
	rc, err := s.Get(t.Context(), "a", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(root, "a"), 10); err != nil {
		t.Fatal(err)
	}
	_, err = io.ReadAll(rc)
	if err := errors.Join(rc.Close()); err != nil {
		t.Error(err)
	}
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a file cut while it was read: %v", err)
	}
}

// A full file system is a real one here: a small tmpfs, which only root can mount.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	if err := syscall.Mount("tmpfs", root, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("needs the right to mount: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(root, 0); err != nil {
			t.Error(err)
		}
	})
	s, err := file.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, "before", "x")
	err = s.Put(t.Context(), "big", strings.NewReader(strings.Repeat("x", 1<<20)), blob.PutOptions{})
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(relight.HintOf(err), "free space") {
		t.Errorf("%v, hint %q", err, relight.HintOf(err))
	}
	put(t, s, "after", strings.Repeat("y", 100<<10)) // the failed write gave its space back
	if got := names(t, s); !slices.Equal(got, []string{"after", "before"}) {
		t.Errorf("holds %v", got)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
