package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// walCache keeps fetched files on disk until they have been served, or taken: a file that has its name is complete, and whoever may enter the directory
// may rename it away. Two requests for one file share a fetch.
type walCache struct {
	dir string
	own func(path string) error

	mu    sync.Mutex
	files map[string]*cachedWAL
	old   []string // served, oldest first
}

type cachedWAL struct {
	done chan struct{}
	err  error // once done
}

func (f *cachedWAL) ready() bool {
	select {
	case <-f.done:
		return f.err == nil
	default:
		return false
	}
}

// keepServed is how many served files are kept: a server asks again for the segment it just had.
const keepServed = 3

func newWALCache(dir string, own func(string) error) *walCache {
	return &walCache{dir: dir, own: own, files: map[string]*cachedWAL{}}
}

func (c *walCache) path(name string) string { return filepath.Join(c.dir, name) }

// get has name's bytes in the cache, calling fill if nobody has yet.
func (c *walCache) get(ctx context.Context, name string, fill func(io.Writer) error) error {
	c.mu.Lock()
	f := c.files[name]
	mine := f == nil
	if mine {
		f = &cachedWAL{done: make(chan struct{})}
		c.files[name] = f
	}
	c.mu.Unlock()
	if mine {
		f.err = c.write(name, fill)
		if f.err != nil {
			c.forget(name) // the next one to ask tries again
		}
		close(f.done)
	}
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *walCache) write(name string, fill func(io.Writer) error) error {
	part := c.path(name) + ".part"
	f, err := os.OpenFile(part, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("cache a WAL file: %w", err)
	}
	err = errors.Join(fill(f), f.Close())
	if err == nil {
		err = errors.Join(c.own(part), os.Rename(part, c.path(name)))
	}
	if err != nil {
		return errors.Join(err, removeIfThere(part))
	}
	return nil
}

// open opens a file that get has brought. It may be gone again: then get has to bring it anew.
func (c *walCache) open(name string) (*os.File, error) {
	f, err := os.Open(c.path(name))
	if err != nil {
		c.forget(name)
		return nil, fmt.Errorf("open a cached WAL file: %w", err)
	}
	return f, nil
}

// taken gives the names of files, in their order, that somebody has renamed away, and forgets them.
func (c *walCache) taken() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var names []string
	for name, f := range c.files {
		if !f.ready() {
			continue
		}
		if _, err := os.Lstat(c.path(name)); errors.Is(err, os.ErrNotExist) {
			names = append(names, name)
			delete(c.files, name)
		}
	}
	c.old = slices.DeleteFunc(c.old, func(n string) bool { return slices.Contains(names, n) })
	slices.Sort(names)
	return names
}

func (c *walCache) forget(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.files, name)
}

// has tells whether name is fetched or being fetched.
func (c *walCache) has(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.files[name] != nil
}

// served marks a file as handed out and drops those that were long before.
func (c *walCache) served(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.old = append(slices.DeleteFunc(c.old, func(n string) bool { return n == name }), name)
	for len(c.old) > keepServed {
		drop := c.old[0]
		c.old = c.old[1:]
		delete(c.files, drop)
		_ = os.Remove(c.path(drop)) // whoever has it open reads on
	}
}
