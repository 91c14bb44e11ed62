package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
)

// walCache keeps fetched files on disk until they have been served. Two requests for one file share a fetch.
type walCache struct {
	dir string

	mu    sync.Mutex
	files map[string]*cachedWAL
	old   []string // served, oldest first
}

type cachedWAL struct {
	done chan struct{}
	path string
	err  error
}

// keepServed is how many served files are kept: a server asks again for the segment it just had.
const keepServed = 3

func newWALCache(dir string) *walCache { return &walCache{dir: dir, files: map[string]*cachedWAL{}} }

// get gives the path of name's bytes, calling fill if nobody has yet.
func (c *walCache) get(ctx context.Context, name string, fill func(io.Writer) error) (string, error) {
	c.mu.Lock()
	f := c.files[name]
	mine := f == nil
	if mine {
		f = &cachedWAL{done: make(chan struct{}), path: filepath.Join(c.dir, name)}
		c.files[name] = f
	}
	c.mu.Unlock()
	if mine {
		f.err = writeCached(f.path, fill)
		if f.err != nil {
			c.forget(name) // the next one to ask tries again
		}
		close(f.done)
	}
	select {
	case <-f.done:
		return f.path, f.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

func writeCached(path string, fill func(io.Writer) error) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("cache a WAL file: %w", err)
	}
	err = errors.Join(fill(f), f.Close())
	if err != nil {
		err = errors.Join(err, os.Remove(path))
	}
	return err
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
	for i, n := range c.old {
		if n == name {
			c.old = append(c.old[:i], c.old[i+1:]...)
			break
		}
	}
	c.old = append(c.old, name)
	for len(c.old) > keepServed {
		drop := c.old[0]
		c.old = c.old[1:]
		delete(c.files, drop)
		_ = os.Remove(filepath.Join(c.dir, drop)) // whoever has it open reads on
	}
}
