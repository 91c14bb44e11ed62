package power

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func try(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, d *Disk, path, text string) *File {
	t.Helper()
	f, err := d.Open(path)
	try(t, err)
	t.Cleanup(func() { _ = f.Close() })
	_, err = f.WriteAt([]byte(text), 0)
	try(t, err)
	return f
}

// tree shows what lies in a directory.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var out []string
	try(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		switch {
		case e.IsDir():
			rel += "/"
		case e.Type()&fs.ModeSymlink != 0:
			to, lerr := os.Readlink(path)
			rel, err = rel+"->"+to, lerr
		default:
			b, rerr := os.ReadFile(path)
			rel, err = rel+"="+string(b), rerr
		}
		out = append(out, rel)
		return err
	}))
	return strings.Join(out, " ")
}

// What Lose makes in the place itself is what Left makes elsewhere, and both are what was synced.
func TestWhatIsLeft(t *testing.T) {
	t.Parallel()
	for outcome, want := range map[Outcome]string{
		Gone: "dir/ dir/file=old gone=there link->dir", Bytes: "dir/ dir/file=new gone=there link->dir", All: "moved/ moved/file=new moved/more=x",
		Zeros: "moved/ moved/file=old moved/more=\x00",
	} {
		base, other := t.TempDir(), t.TempDir()
		try(t, os.Mkdir(filepath.Join(base, "dir"), 0o700), os.WriteFile(filepath.Join(base, "dir", "file"), []byte("old"), 0o600),
			os.WriteFile(filepath.Join(base, "gone"), []byte("there"), 0o600), os.Symlink("dir", filepath.Join(base, "link")))
		dir := stat(t, filepath.Join(base, "dir"))
		d := New(base)
		write(t, d, filepath.Join(base, "dir", "file"), "new")
		try(t, d.Rename(filepath.Join(base, "dir"), filepath.Join(base, "moved")))
		write(t, d, filepath.Join(base, "moved", "more"), "x")
		try(t, d.Remove(filepath.Join(base, "link")), d.RemoveAll(filepath.Join(base, "gone")))
		try(t, d.Left(other, outcome), d.Lose(outcome))
		for _, place := range []string{base, other} {
			if got := tree(t, place); got != want {
				t.Errorf("%s: %q, want %q", outcome, got, want)
			}
		}
		at := strings.TrimSuffix(strings.Fields(want)[0], "/")
		if !os.SameFile(stat(t, filepath.Join(base, at)), dir) {
			t.Errorf("%s: the directory is another one", outcome)
		}
	}
}

func stat(t *testing.T, path string) fs.FileInfo {
	t.Helper()
	info, err := os.Stat(path)
	try(t, err)
	return info
}

// What a failed sync left out is lost, although the next one succeeds.
func TestFailedSyncIsNotMadeGoodByTheNext(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	d := New(base)
	write(t, d, filepath.Join(base, "file"), "text")
	d.Faults[len(d.Calls())+1] = Fault{Err: errors.New("no")}
	if d.OpenFS().Sync() == nil {
		t.Fatal("it did not fail")
	}
	try(t, d.OpenFS().Sync(), d.Lose(All))
	if got := tree(t, base); got != "file=\x00\x00\x00\x00" {
		t.Errorf("left %q", got)
	}
}

// What fails behind everybody's back is told to those who had the file system open, and to nobody who comes later.
func TestLateFailureIsToldToThoseWhoWereThere(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	d := New(base)
	early := d.OpenFS()
	d.Faults[2] = Fault{Err: errors.New("no"), Late: true}
	write(t, d, filepath.Join(base, "file"), "text")
	if late := d.OpenFS(); late.Sync() != nil || early.Sync() == nil {
		t.Error("the wrong one was told")
	}
	try(t, early.Sync(), d.Lose(Gone))
	if got := tree(t, base); got != "file=\x00\x00\x00\x00" {
		t.Errorf("left %q", got)
	}
}
