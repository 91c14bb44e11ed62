package postgres

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/toolboxai/relight/host"
)

// spoolDisk is what changes the spool's file system, narrow enough for a test to fail any of its calls and to say what a loss of power after each leaves.
type spoolDisk interface {
	Mkdir(path string) error
	Open(path string) (spoolFile, error) // for reading and writing; made if it is not there
	Rename(from, to string) error
	Remove(path string) error
	SyncDir(path string) error
}

// spoolFile is an open file of the spool.
type spoolFile interface {
	io.ReadSeeker
	io.WriterAt
	Truncate(size int64) error
	Sync() error
	Close() error
}

// systemDisk is the real one.
type systemDisk struct{}

func (systemDisk) Mkdir(path string) error      { return os.Mkdir(path, 0o700) }
func (systemDisk) Rename(from, to string) error { return os.Rename(from, to) }
func (systemDisk) Remove(path string) error     { return os.Remove(path) }
func (systemDisk) SyncDir(path string) error    { return host.SyncDir(path) }

func (systemDisk) Open(path string) (spoolFile, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// makeDurable makes a directory with its parents, and sees to it that their names survive: also those of one that was there, as its maker may have died before
// that. Of a directory that may not be opened nothing can be said; it is not ours.
func makeDurable(d spoolDisk, path string) error {
	parent := filepath.Dir(path)
	if parent == path {
		return nil
	}
	if err := makeDurable(d, parent); err != nil {
		return err
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = d.Mkdir(path)
	case err == nil && !info.IsDir():
		err = &fs.PathError{Op: "mkdir", Path: path, Err: errors.New("not a directory")}
	}
	if err != nil {
		return err
	}
	if err := d.SyncDir(parent); err != nil && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return nil
}

// replaceFile writes a small file so that it is there whole or not at all, after a crash, too.
func replaceFile(d spoolDisk, path string, b []byte) error {
	temp := path + ".tmp"
	f, err := d.Open(temp)
	if err != nil {
		return err
	}
	err = f.Truncate(0) // what a former process may have left
	if err == nil {
		_, err = f.WriteAt(b, 0)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, d.Remove(temp))
	}
	if err := d.Rename(temp, path); err != nil {
		return err
	}
	return d.SyncDir(filepath.Dir(path))
}
