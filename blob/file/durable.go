package file

import (
	"errors"
	"io/fs"
	"path/filepath"
	"sync"
)

const (
	held  = 64 // directories that stay open between writes
	tries = 64 // to make a directory that others remove as empty
)

// durable makes directories and knows which of them survive a loss of power. A directory that another process made may
// not be durable yet, so it counts only once its parent was synced here; it is then held open, which keeps
// its inode from being reused, so that a removed and re-made directory of the same path is told apart.
type durable struct {
	disk disk
	root string
	mu   sync.RWMutex // held for reading while a directory is synced, for writing while open changes
	open map[string]directory
}

func newDurable(d disk, root string) *durable {
	return &durable{disk: d, root: root, open: map[string]directory{}}
}

// ensure makes path, a directory at or below the root, with all its parents, durably. The root itself is never made
// here.
func (u *durable) ensure(path string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	_, err := u.get(path)
	return err
}

// seal syncs the directory path after an entry was put into it. If it is no longer the directory that ensure made (it was
// empty, removed and made again meanwhile), the one that holds the entry is made durable in its place.
func (u *durable) seal(path string) error {
	if known, err := u.sync(path); known {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	d, err := u.get(path)
	if err != nil {
		return err
	}
	return d.Sync()
}

// sync is the common case, which several writers may be in at once.
func (u *durable) sync(path string) (bool, error) {
	u.mu.RLock()
	defer u.mu.RUnlock()
	d, ok := u.open[path]
	if !ok || !d.Is(path) {
		return false, nil
	}
	return true, d.Sync()
}

// get tries again while others remove, as empty, a parent that was just found or made.
func (u *durable) get(path string) (d directory, err error) {
	if len(u.open) >= held {
		u.forgetAll()
	}
	for range tries {
		if d, err = u.reach(path); !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	return d, err
}

func (u *durable) reach(path string) (directory, error) {
	if d, ok := u.open[path]; ok {
		if d.Is(path) {
			return d, nil
		}
		u.forget(path)
	}
	if path == u.root {
		return u.hold(path)
	}
	parent, err := u.reach(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	if err := u.disk.Mkdir(path); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	d, err := u.hold(path)
	if err != nil {
		return nil, err
	}
	if err := parent.Sync(); err != nil {
		u.forget(path)
		return nil, err
	}
	return d, nil
}

func (u *durable) hold(path string) (directory, error) {
	d, err := u.disk.OpenDir(path)
	if err != nil {
		return nil, err
	}
	u.open[path] = d
	return d, nil
}

func (u *durable) forget(path string) {
	_ = u.open[path].Close() // read-only handle: nothing can be lost
	delete(u.open, path)
}

func (u *durable) forgetAll() {
	for path := range u.open {
		u.forget(path)
	}
}

func (u *durable) close() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.forgetAll()
}
