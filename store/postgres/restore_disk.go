package postgres

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/toolboxai/relight/host"
)

const tempSuffix = ".tmp"

// targetDisk is what changes the file systems that a restore writes, narrow enough for a test to fail any of its calls and to say what a loss of power after each
// leaves. Modes and owners are set beside it.
type targetDisk interface {
	Mkdir(path string) error
	Symlink(to, path string) error
	Create(path string) (targetFile, error) // nothing has the name
	Open(path string) (targetFile, error)   // to be changed where it is
	Rename(from, to string) error
	Move(from, to string) error // durably; nothing has the name
	Remove(path string) error
	RemoveAll(path string) error
	SyncDir(path string) error
	OpenFS(path string) (targetFS, error) // before what it is to make durable is written
}

// targetFS is an open file system.
type targetFS interface {
	Sync() error
	Close() error
}

// targetFile is an open file of the target.
type targetFile interface {
	io.ReaderAt
	io.WriterAt
	Behind() io.WriterAt // for one who writes from the beginning to the end
	Forget() error       // what is read next is what the disk has: memory may hold bytes for written whose sync failed
	Stat() (fs.FileInfo, error)
	Chmod(mode fs.FileMode) error
	Truncate(size int64) error
	Sync() error
	Close() error
}

// systemTarget is the real one.
type systemTarget struct{ systemDisk }

func (systemTarget) Symlink(to, path string) error { return os.Symlink(to, path) }
func (systemTarget) Move(from, to string) error    { return host.Move(from, to) }
func (systemTarget) RemoveAll(path string) error   { return os.RemoveAll(path) }

func (systemTarget) OpenFS(path string) (targetFS, error) {
	f, err := host.OpenFileSystem(path)
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (systemTarget) Create(path string) (targetFile, error) {
	return openTarget(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY)
}

func (systemTarget) Open(path string) (targetFile, error) {
	return openTarget(path, os.O_RDWR|syscall.O_NOFOLLOW)
}

func openTarget(path string, flag int) (targetFile, error) {
	f, err := os.OpenFile(path, flag, 0o600)
	if err != nil {
		return nil, err
	}
	return systemFile{f}, nil
}

type systemFile struct{ *os.File }

func (f systemFile) Behind() io.WriterAt { return host.NewWriteBehind(f.File) }

// Forget is advice: a file system that does not take it keeps nothing in memory, or nothing else.
func (f systemFile) Forget() error {
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	return nil
}

// fileSystems are those that a restore writes.
type fileSystems []targetFS

func openFileSystems(d targetDisk, paths []string) (fileSystems, error) {
	var all fileSystems
	for _, path := range paths {
		one, err := d.OpenFS(path)
		if err != nil {
			return nil, errors.Join(err, all.Close())
		}
		all = append(all, one)
	}
	return all, nil
}

// Sync makes all of them durable.
func (f fileSystems) Sync() error {
	for _, one := range f {
		if err := one.Sync(); err != nil {
			return err
		}
	}
	return nil
}

// Close closes all of them.
func (f fileSystems) Close() error {
	var errs []error
	for _, one := range f {
		errs = append(errs, one.Close())
	}
	return errors.Join(errs...)
}

// mkdirAll makes a directory with its parents; mode is that of those which were not there.
func mkdirAll(d targetDisk, path string, mode fs.FileMode) error {
	if exists(path) || filepath.Dir(path) == path {
		return nil
	}
	if err := mkdirAll(d, filepath.Dir(path), mode); err != nil {
		return err
	}
	return mkdir(d, path, mode)
}

// mkdir makes a directory, or gives the one that is there its mode.
func mkdir(d targetDisk, path string, mode fs.FileMode) error {
	if err := d.Mkdir(path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return os.Chmod(path, mode)
}

// put makes a file that holds b, in place of what is there. It is durable by what comes later.
func put(d targetDisk, path string, b []byte, mode fs.FileMode) error {
	return putFile(d, path, b, mode, func(targetFile) error { return nil })
}

// replace makes a file that holds b. A reader sees the old one or the new one, also after a loss of power; after the return it is the new one.
func replace(d targetDisk, path string, b []byte, mode fs.FileMode) error {
	temp := path + tempSuffix
	if err := putFile(d, temp, b, mode, targetFile.Sync); err != nil {
		return errors.Join(err, drop(d, temp))
	}
	if err := d.Rename(temp, path); err != nil {
		return errors.Join(err, drop(d, temp))
	}
	return d.SyncDir(filepath.Dir(path))
}

func putFile(d targetDisk, path string, b []byte, mode fs.FileMode, last func(targetFile) error) error {
	if err := drop(d, path); err != nil {
		return err
	}
	f, err := d.Create(path)
	if err != nil {
		return err
	}
	if _, err = f.WriteAt(b, 0); err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = last(f)
	}
	return errors.Join(err, f.Close())
}

// drop removes a file that may be there.
func drop(d targetDisk, path string) error {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return d.Remove(path)
}
