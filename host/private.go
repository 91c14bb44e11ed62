package host

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/toolboxai/relight"
	"golang.org/x/sys/unix"
)

const (
	ownerFile  = "owner"  // locked by the process that made the directory, as long as that lives
	workerFile = "worker" // the handle of another that works in it
)

// Private is a directory for the temporary files of one process. When that has died, the next one that is made beside it removes it.
type Private struct {
	Path string
	lock *FileLock
}

// MakePrivate makes a directory in root ("": the system's place for temporary files) whose name begins with prefix, and removes those that dead processes left there.
func MakePrivate(root, prefix string, now func() time.Time) (*Private, error) {
	if root == "" {
		root = os.TempDir()
	}
	sweepPrivate(root, prefix)
	path, err := os.MkdirTemp(root, prefix)
	if err != nil {
		return nil, err
	}
	p := &Private{Path: path}
	if err := p.claim(now); err != nil {
		return nil, errors.Join(err, os.RemoveAll(path))
	}
	return p, nil
}

// claim gives the lock its name when it is held already: one that can be had under that name is a dead process's.
func (p *Private) claim(now func() time.Time) (err error) {
	claimed := filepath.Join(p.Path, ownerFile+".new")
	if p.lock, err = Lock(claimed, "the directory "+p.Path, now); err != nil {
		return err
	}
	if err := os.Rename(claimed, filepath.Join(p.Path, ownerFile)); err != nil {
		return errors.Join(err, p.lock.Unlock())
	}
	return nil
}

// Serve notes a process that works in the directory: as long as that, or anything left of what it started, lives, nobody else removes it. The note need not be durable:
// no process outlives a loss of power.
func (p *Private) Serve(h relight.Handle) error {
	b, err := json.Marshal(h)
	if err != nil {
		return err
	}
	file := filepath.Join(p.Path, workerFile)
	if err := os.WriteFile(file+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

// Remove removes the directory with all that is in it.
func (p *Private) Remove() error {
	if err := errors.Join(os.RemoveAll(p.Path), p.lock.Unlock()); err != nil {
		return fmt.Errorf("remove the directory %s: %w", p.Path, err)
	}
	return nil
}

// sweepPrivate only tidies: what cannot be looked at or removed stays.
func sweepPrivate(root, prefix string) {
	entries, err := os.ReadDir(root)
	if err != nil {
		return
	}
	for _, e := range entries {
		if e.IsDir() && strings.HasPrefix(e.Name(), prefix) {
			removeAbandoned(filepath.Join(root, e.Name()))
		}
	}
}

func removeAbandoned(path string) {
	owner := filepath.Join(path, ownerFile)
	if !ownFile(owner) {
		return // it is none of these, it is being made, or another user's
	}
	f, err := os.OpenFile(owner, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return
	}
	defer f.Close()
	if flock(f, unix.LOCK_EX|unix.LOCK_NB) != nil || worked(filepath.Join(path, workerFile)) {
		return
	}
	_ = os.RemoveAll(path)
}

// worked tells whether the process that a file names may live.
func worked(file string) bool {
	if _, err := os.Lstat(file); errors.Is(err, fs.ErrNotExist) {
		return false
	}
	if !ownFile(file) {
		return true
	}
	h, err := ReadHandle(file)
	if err != nil {
		return true
	}
	alive, err := Alive(h)
	return alive || err != nil
}

// ownFile keeps away from what others may have laid into a directory that everybody writes.
func ownFile(path string) bool {
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Geteuid()
}
