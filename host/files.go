package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/toolboxai/relight"
	"golang.org/x/sys/unix"
)

// WriteFileDurable replaces path by data: a reader sees the old bytes or the new ones, and after the return the new ones
// survive a power cut. The file's mode is exactly mode.
func WriteFileDurable(path string, data []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".tmp-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	err = fill(f, data, mode)
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, errors.Join(err, os.Remove(f.Name())))
	}
	return SyncDir(filepath.Dir(path))
}

func fill(f *os.File, data []byte, mode fs.FileMode) error {
	_, err := f.Write(data)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// SyncDir makes the names in a directory durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync directory %s: %w", dir, err)
	}
	return nil
}

// FileSystemAt is an open file system. Whoever syncs one is told only of writes that failed since it was opened, so it is opened before what is to be made durable is written:
// others that sync it meanwhile would take the news away.
type FileSystemAt struct{ dir *os.File }

// OpenFileSystem opens the file system that holds path.
func OpenFileSystem(path string) (*FileSystemAt, error) {
	d, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open file system: %w", err)
	}
	return &FileSystemAt{dir: d}, nil
}

// Sync makes everything on it durable.
func (f *FileSystemAt) Sync() error {
	if err := unix.Syncfs(int(f.dir.Fd())); err != nil {
		return fmt.Errorf("sync the file system of %s: %w", f.dir.Name(), err)
	}
	return nil
}

// Close gives it back.
func (f *FileSystemAt) Close() error { return f.dir.Close() }

// Move renames within one file system, durably, and never replaces: an existing target is fs.ErrExist.
func Move(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	switch {
	case errors.Is(err, unix.EXDEV):
		return &relight.Error{Op: "move", Subject: from, Code: relight.CodeFailed,
			Err:  fmt.Errorf("%s is on another file system", to),
			Hint: "name a place on the file system of " + from}
	case errors.Is(err, unix.EBUSY):
		return &relight.Error{Op: "move", Subject: from, Code: relight.CodeFailed,
			Err: err, Hint: "a mount point cannot be renamed; restore into a directory below it"}
	case err != nil:
		return fmt.Errorf("move %s to %s: %w", from, to, err)
	}
	if err := SyncDir(filepath.Dir(to)); err != nil {
		return err
	}
	if filepath.Dir(from) == filepath.Dir(to) {
		return nil
	}
	return SyncDir(filepath.Dir(from))
}

// FreeSpace is how many bytes an unprivileged writer could still add below path, which need not exist yet.
func FreeSpace(path string) (int64, error) {
	for p := filepath.Clean(path); ; p = filepath.Dir(p) {
		var st unix.Statfs_t
		err := unix.Statfs(p, &st)
		if err == nil {
			return int64(st.Bavail) * st.Bsize, nil
		}
		if !errors.Is(err, unix.ENOENT) || p == filepath.Dir(p) {
			return 0, fmt.Errorf("measure free space of %s: %w", path, err)
		}
	}
}

// FileSystem tells which file system path is on, or will be once it is made: paths with the same number share their free space.
func FileSystem(path string) (uint64, error) {
	for p := filepath.Clean(path); ; p = filepath.Dir(p) {
		var st unix.Stat_t
		err := unix.Stat(p, &st)
		if err == nil {
			return st.Dev, nil
		}
		if !errors.Is(err, unix.ENOENT) || p == filepath.Dir(p) {
			return 0, fmt.Errorf("find the file system of %s: %w", path, err)
		}
	}
}

// RealPath resolves the symbolic links in path as far as it exists; what does not exist yet stays as it is written.
func RealPath(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	for p, rest := path, ""; ; p, rest = filepath.Dir(p), filepath.Join(filepath.Base(p), rest) {
		real, err := filepath.EvalSymlinks(p)
		if err == nil {
			return filepath.Join(real, rest), nil
		}
		if !errors.Is(err, fs.ErrNotExist) || p == filepath.Dir(p) {
			return "", fmt.Errorf("resolve %s: %w", path, err)
		}
	}
}
