package repo

import (
	"context"
	"fmt"
	"sync"

	"github.com/toolboxai/relight"
)

// content is what a Meta keeps for reading chunks: the index, and readers that are free.
type content struct {
	mu   sync.Mutex
	x    *chunkIndex
	seen map[relight.SnapshotID]bool // snapshots for which the index is new enough
	free []*chunkReader
}

const keepReaders = 8

// index gives the chunk index, refreshed when it was not yet asked about this snapshot: what a committed snapshot
// needs was indexed before it.
func (m *Meta) index(ctx context.Context, id relight.SnapshotID) (*chunkIndex, error) {
	m.content.mu.Lock()
	defer m.content.mu.Unlock()
	if m.content.x != nil && m.content.seen[id] {
		return m.content.x, nil
	}
	if err := m.refreshIndex(ctx); err != nil {
		return nil, err
	}
	m.content.seen[id] = true
	return m.content.x, nil
}

// freshIndex gives the index as of now.
func (m *Meta) freshIndex(ctx context.Context) (*chunkIndex, error) {
	m.content.mu.Lock()
	defer m.content.mu.Unlock()
	return m.content.x, m.refreshIndex(ctx)
}

func (m *Meta) refreshIndex(ctx context.Context) error {
	if m.content.x == nil {
		dir, err := openIndexDir(m.cachePath("index"))
		if err != nil {
			return err
		}
		m.content.x = newChunkIndex(m.storage, m.keys.openMeta, dir)
		m.content.seen = map[relight.SnapshotID]bool{}
	}
	if err := m.content.x.refresh(ctx); err != nil {
		return fmt.Errorf("read index of %s: %w", m.name, err)
	}
	return nil
}

// chunkReader lends a reader; give it back with release. The index must have been asked for before.
func (m *Meta) chunkReader(ctx context.Context) (*chunkReader, error) {
	m.content.mu.Lock()
	defer m.content.mu.Unlock()
	if m.content.x == nil {
		if err := m.refreshIndex(ctx); err != nil {
			return nil, err
		}
	}
	if n := len(m.content.free); n > 0 {
		c := m.content.free[n-1]
		m.content.free = m.content.free[:n-1]
		return c, nil
	}
	return newChunkReader(m.storage, m.keys, m.content.x)
}

func (c *content) release(r *chunkReader) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.free) < keepReaders {
		c.free = append(c.free, r)
	}
}

// lines walks the tree of a snapshot.
func (m *Meta) lines(ctx context.Context, man Manifest, fn func(e Entry, line []byte) error) error {
	if _, err := m.index(ctx, man.ID); err != nil {
		return err
	}
	c, err := m.chunkReader(ctx)
	if err != nil {
		return err
	}
	defer m.content.release(c)
	n := int64(0)
	err = eachLine(&treeReader{ctx: ctx, load: c.load, ids: man.Tree}, func(e Entry, line []byte) error {
		n++
		return fn(e, line)
	})
	if err == nil && n != man.Entries {
		err = fmt.Errorf("%w: %d entries instead of %d", errEntry, n, man.Entries)
	}
	return err
}

// Entries calls fn for the entries of a snapshot in path order.
func (m *Meta) Entries(ctx context.Context, man Manifest, fn func(Entry) error) error {
	err := m.lines(ctx, man, func(e Entry, _ []byte) error { return fn(e) })
	if err != nil {
		return fmt.Errorf("entries of snapshot %s: %w", man.ID, err)
	}
	return nil
}
