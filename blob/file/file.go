// Package file keeps objects as files below a directory.
//
// It promises that an acknowledged object survives the loss of power: the bytes are written to a temporary file of the
// same file system and synced, the file is moved to its name in one step that fails if the name is taken, and the
// directory, with every parent that had to be made, is synced before Put returns. The same holds before ErrExists
// is returned, so that a caller who finds equal bytes may count them as stored.
//
// An object's name is its path below the root, so the directory can be read, copied and restored from with ordinary
// tools. Temporary files lie in "~tmp", which no object can be called; what a crash leaves there is removed
// after a day. Directories that become empty are removed, so that short-lived objects leave nothing behind.
//
// Start with Open for a directory that must be there (a missing one is more often an unmounted disk than a new
// repository) and with Create to make it.
package file

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/toolboxai/relight/blob"
)

const (
	tempDir = "~tmp"         // no object's name: "~" is outside the alphabet of names
	tempAge = 24 * time.Hour // far longer than any write pauses
)

// Storage is a blob.Storage below one directory.
type Storage struct {
	root  string
	ident os.FileInfo // of the root as it was opened
	disk  disk
	dirs  *durable
	now   func() time.Time
	sweep sync.Once
}

// Open opens the existing directory that url names: "file:///path" or a path.
func Open(url string) (*Storage, error) {
	path, err := Path(url)
	if err != nil {
		return nil, err
	}
	return open(path, system{})
}

// Create makes the directory that url names, durably, if it is not there, and opens it.
func Create(url string) (*Storage, error) {
	path, err := Path(url)
	if err != nil {
		return nil, err
	}
	return create(path, system{})
}

func open(path string, d disk) (*Storage, error) {
	info, err := d.Stat(path)
	if err == nil && !info.IsDir() {
		err = &fs.PathError{Op: "open", Path: path, Err: syscall.ENOTDIR}
	}
	if err != nil {
		return nil, failed("open storage", address(path), path, err)
	}
	return &Storage{root: path, ident: info, disk: d, dirs: newDurable(d, path), now: time.Now}, nil
}

func create(path string, d disk) (*Storage, error) {
	if err := makeRoot(d, path); err != nil {
		return nil, failed("create storage", address(path), path, err)
	}
	return open(path, d)
}

// makeRoot makes path and its missing parents; each new entry is synced in its parent.
func makeRoot(d disk, path string) error {
	err := d.Mkdir(path)
	if errors.Is(err, fs.ErrNotExist) && filepath.Dir(path) != path {
		if err := makeRoot(d, filepath.Dir(path)); err != nil {
			return err
		}
		err = d.Mkdir(path)
	}
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	parent, err := d.OpenDir(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(parent.Sync(), parent.Close())
}

// String is the storage's URL.
func (s *Storage) String() string { return address(s.root) }

// Close gives back the directories that are held open between writes. The storage can be used afterwards.
func (s *Storage) Close() error {
	s.dirs.close()
	return nil
}

func (s *Storage) path(name string) string { return filepath.Join(s.root, filepath.FromSlash(name)) }

func (s *Storage) fail(op, name string, err error) error {
	return failed(op, s.String()+" "+name, s.root, err)
}

// Get opens length bytes of name from offset.
func (s *Storage) Get(ctx context.Context, name string, offset, length int64) (io.ReadCloser, error) {
	if err := s.ready(ctx, name); err != nil {
		return nil, s.fail("get", name, err)
	}
	f, size, err := s.open(name)
	if err != nil {
		return nil, s.fail("get", name, err)
	}
	n, err := blob.Span(size, offset, length)
	if err == nil {
		_, err = f.Seek(offset, io.SeekStart)
	}
	if err != nil {
		return nil, s.fail("get", name, errors.Join(err, f.Close()))
	}
	return blob.Exactly(ctx, f, n), nil
}

func (s *Storage) open(name string) (*os.File, int64, error) {
	f, err := os.Open(s.path(name))
	if err != nil {
		return nil, 0, s.absent(err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = blob.ErrNotFound // a directory: names lie below it, the name itself is free
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, info.Size(), nil
}

// Stat describes one object.
func (s *Storage) Stat(ctx context.Context, name string) (blob.Info, error) {
	if err := s.ready(ctx, name); err != nil {
		return blob.Info{}, s.fail("stat", name, err)
	}
	info, err := os.Stat(s.path(name))
	if err == nil && !info.Mode().IsRegular() {
		err = fs.ErrNotExist
	}
	if err != nil {
		return blob.Info{}, s.fail("stat", name, s.absent(err))
	}
	return blob.Info{Name: name, Size: info.Size(), Modified: info.ModTime()}, nil
}

func (s *Storage) ready(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return blob.CheckName(name)
}

// absent turns "no such file" into ErrNotFound only if the root is still the directory that was opened: below a disk
// that went away nothing is proven absent.
func (s *Storage) absent(err error) error {
	if !missing(err) {
		return err
	}
	if lost := s.present(); lost != nil {
		return lost
	}
	return blob.ErrNotFound
}

// missing says that a path leads nowhere: a part of it is absent, or is a file where a directory would have to be.
func missing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

func (s *Storage) present() error {
	info, err := s.disk.Stat(s.root)
	if err != nil {
		return fmt.Errorf("%w: %w", errRootGone, err)
	}
	if !os.SameFile(info, s.ident) {
		return errRootGone
	}
	return nil
}

// Delete removes an object durably, and the directories that it leaves empty.
func (s *Storage) Delete(ctx context.Context, name string) error {
	if err := s.ready(ctx, name); err != nil {
		return s.fail("delete", name, err)
	}
	if err := s.present(); err != nil {
		return s.fail("delete", name, err)
	}
	path := s.path(name)
	if err := s.remove(path); err != nil && !missing(err) {
		return s.fail("delete", name, err)
	}
	if err := s.syncAfterRemoval(filepath.Dir(path)); err != nil {
		return s.fail("delete", name, err)
	}
	return nil
}

// remove takes away a file only: a directory of the same path is other objects' place.
func (s *Storage) remove(path string) error {
	info, err := s.disk.Stat(path)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fs.ErrNotExist
	}
	return s.disk.Remove(path)
}

// syncAfterRemoval climbs from dir while directories are empty or gone, and syncs the first that stays. It does so for
// absent objects too: another process may have removed one and died before it synced.
func (s *Storage) syncAfterRemoval(dir string) error {
	for dir != s.root {
		if err := s.disk.RemoveDir(dir); err != nil && !missing(err) {
			break
		}
		dir = filepath.Dir(dir)
	}
	d, err := s.disk.OpenDir(dir)
	if missing(err) && dir != s.root {
		return s.syncAfterRemoval(filepath.Dir(dir))
	}
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
