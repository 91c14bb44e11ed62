package file

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/toolboxai/relight/internal/power"
)

// modelDisk is the model of a disk that loses power, as the storage sees it.
type modelDisk struct {
	system // for what changes nothing
	*power.Disk
}

func (d modelDisk) Mkdir(path string) error         { return d.Disk.Mkdir(path, 0o750) }
func (d modelDisk) Place(temp, path string) error   { return d.Disk.Place(temp, path) }
func (d modelDisk) Replace(temp, path string) error { return d.Disk.Rename(temp, path) }
func (d modelDisk) Remove(path string) error        { return d.Disk.Remove(path) }
func (d modelDisk) RemoveDir(path string) error     { return d.Disk.Remove(path) }

func (d modelDisk) CreateTemp(dir string) (temporary, error) {
	f, err := d.Disk.CreateTemp(dir, "put-*")
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (d modelDisk) OpenDir(path string) (directory, error) {
	open, err := d.system.OpenDir(path)
	if err != nil {
		return nil, err
	}
	return modelDir{directory: open, model: d.Disk.OpenDir(path)}, nil
}

type modelDir struct {
	directory
	model *power.Dir
}

func (d modelDir) Sync() error { return d.model.Sync() }

// onDisk is a storage on the model of a disk.
type onDisk struct {
	t    *testing.T
	base string
	root string // of the storage
	disk modelDisk
	s    *Storage // nil: the power was lost while it was made
}

func newOnDisk(t *testing.T, last int) *onDisk {
	t.Helper()
	base := t.TempDir()
	o := &onDisk{t: t, base: base, root: filepath.Join(base, "made", "repo"), disk: modelDisk{Disk: power.New(base)}}
	o.disk.Last = last
	o.s = openOn(t, o.root, o.disk)
	return o
}

func openOn(t *testing.T, root string, d disk) *Storage {
	t.Helper()
	s, err := create(root, d)
	if err != nil && !errors.Is(err, power.ErrLost) {
		t.Fatal(err)
	}
	if s != nil {
		t.Cleanup(s.dirs.close)
	}
	return s
}

// left is what a loss of power leaves: the objects' names and contents.
func (o *onDisk) left(outcome power.Outcome) map[string]string {
	o.t.Helper()
	into := o.t.TempDir()
	if err := o.disk.Left(into, outcome); err != nil {
		o.t.Fatal(err)
	}
	objects := map[string]string{}
	root := filepath.Join(into, "made", "repo")
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		switch {
		case path == root && errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case e.IsDir() && e.Name() == tempDir:
			return fs.SkipDir
		case e.IsDir():
			return nil
		}
		b, err := os.ReadFile(path)
		objects[path[len(root)+1:]] = string(b)
		return err
	})
	if err != nil {
		o.t.Fatal(err)
	}
	return objects
}

// calls are what was called since the first n, without the chance in temporary names.
func (o *onDisk) calls(n int) []string {
	random := regexp.MustCompile(`put-(\d+|\*)`)
	calls := o.disk.Calls()[n:]
	for i := range calls {
		calls[i] = random.ReplaceAllString(calls[i], "temp")
	}
	return calls
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}
