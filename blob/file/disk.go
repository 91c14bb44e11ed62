package file

import (
	"io"
	"os"
	"syscall"
)

// disk is what changes the file system, narrow enough for a test to record the order of its calls, to fail any of
// them and to say what a loss of power after each would leave.
type disk interface {
	Stat(path string) (os.FileInfo, error)
	Mkdir(path string) error
	OpenDir(path string) (directory, error)
	CreateTemp(dir string) (temporary, error)
	Place(temp, path string) error   // fails with fs.ErrExist if path is taken
	Replace(temp, path string) error // path may be taken
	Remove(path string) error
	RemoveDir(path string) error // fails unless it is empty
}

// temporary is a file that is being written.
type temporary interface {
	io.Writer
	Name() string
	Sync() error
	Close() error
}

// directory is an open directory. While it is open, its inode cannot be given to another.
type directory interface {
	Sync() error
	Is(path string) bool // path still leads to this very directory
	Close() error
}

type system struct{}

func (system) Stat(path string) (os.FileInfo, error) { return os.Stat(path) }
func (system) Mkdir(path string) error               { return os.Mkdir(path, 0o750) }
func (system) Replace(temp, path string) error       { return os.Rename(temp, path) }
func (system) Remove(path string) error              { return os.Remove(path) }
func (system) RemoveDir(path string) error           { return syscall.Rmdir(path) }

func (system) OpenDir(path string) (directory, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	return openDirectory{f}, nil
}

func (system) CreateTemp(dir string) (temporary, error) {
	f, err := os.CreateTemp(dir, "put-*")
	if err != nil {
		return nil, err
	}
	if err := f.Chmod(0o640); err != nil {
		_ = f.Close()           // it holds nothing yet
		_ = os.Remove(f.Name()) // swept later if this fails
		return nil, err
	}
	return f, nil
}

// Place moves temp to path unless path is taken.
func (system) Place(temp, path string) error {
	err := renameNoReplace(temp, path)
	if unsupported(err) {
		return linkInPlace(temp, path)
	}
	return err
}

// linkInPlace is for file systems that cannot refuse to replace. A link whose answer was lost on the network shows as a
// second name of temp.
func linkInPlace(temp, path string) error {
	err := os.Link(temp, path)
	if err != nil && !sameFile(temp, path) {
		return err
	}
	return os.Remove(temp)
}

func sameFile(a, b string) bool {
	one, err := os.Lstat(a)
	if err != nil {
		return false
	}
	two, err := os.Lstat(b)
	return err == nil && os.SameFile(one, two)
}

type openDirectory struct{ f *os.File }

func (d openDirectory) Sync() error  { return d.f.Sync() }
func (d openDirectory) Close() error { return d.f.Close() }

func (d openDirectory) Is(path string) bool {
	mine, err := d.f.Stat()
	if err != nil {
		return false
	}
	info, err := os.Stat(path)
	return err == nil && os.SameFile(mine, info)
}
