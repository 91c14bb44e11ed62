package repo

import (
	"context"
	"errors"
	"fmt"
)

const (
	idSize       = len(ChunkID{})
	leafIDs      = 1024    // chunk ids in a leaf
	segmentBytes = 1 << 30 // of a paged file under one root
	inlineIDs    = 16      // a file of at most that many chunks lists them in its entry
	maxRootIDs   = 1024
)

var errMap = errors.New("block map is damaged")

// leavesPerRoot is how many leaves one root lists; it follows from the page size for every file.
func leavesPerRoot(page int) int { return segmentBytes / (page * leafIDs) }

// decodeIDs checks the body of a leaf or root: 1 to most ids, nothing else.
func decodeIDs(b []byte, most int) error {
	if len(b) == 0 || len(b)%idSize != 0 || len(b)/idSize > most {
		return fmt.Errorf("%w: %d bytes are not 1 to %d ids", errMap, len(b), most)
	}
	return nil
}

// mapWriter collects the ids of a file's chunks, keeping one leaf and one root in memory.
type mapWriter struct {
	store  func(ctx context.Context, plain []byte) (ChunkID, error)
	leaves int // per root
	leaf   []byte
	root   []byte
	roots  []ChunkID
}

func (w *mapWriter) reset() { w.leaf, w.root, w.roots = w.leaf[:0], w.root[:0], nil }

func (w *mapWriter) add(ctx context.Context, id ChunkID) error {
	w.leaf = append(w.leaf, id[:]...)
	if len(w.leaf) < leafIDs*idSize {
		return nil
	}
	return w.endLeaf(ctx)
}

func (w *mapWriter) endLeaf(ctx context.Context) error {
	id, err := w.store(ctx, w.leaf)
	if err != nil {
		return err
	}
	w.leaf, w.root = w.leaf[:0], append(w.root, id[:]...)
	if len(w.root) < w.leaves*idSize {
		return nil
	}
	return w.endRoot(ctx)
}

func (w *mapWriter) endRoot(ctx context.Context) error {
	id, err := w.store(ctx, w.root)
	w.root, w.roots = w.root[:0], append(w.roots, id)
	return err
}

// finish writes what is left and puts the ids, or the roots that lead to them, into e.
func (w *mapWriter) finish(ctx context.Context, e *Entry) error {
	e.Chunks, e.Maps = nil, nil
	if len(w.roots) == 0 && len(w.root) == 0 && len(w.leaf) <= inlineIDs*idSize {
		for b := w.leaf; len(b) > 0; b = b[idSize:] {
			e.Chunks = append(e.Chunks, ChunkID(b))
		}
		return nil
	}
	if len(w.leaf) > 0 {
		if err := w.endLeaf(ctx); err != nil {
			return err
		}
	}
	if len(w.root) > 0 {
		if err := w.endRoot(ctx); err != nil {
			return err
		}
	}
	e.Maps = w.roots
	return nil
}

// loadFunc reads one metadata chunk; the bytes are valid until the next call.
type loadFunc func(ctx context.Context, id ChunkID) ([]byte, error)

// idCursor walks the ids of a file's chunks in order, holding one root and one leaf.
type idCursor struct {
	load   loadFunc
	inline []ChunkID
	roots  []ChunkID
	root   []byte
	leaf   []byte
}

func newIDCursor(e Entry, load loadFunc) *idCursor {
	return &idCursor{load: load, inline: e.Chunks, roots: e.Maps}
}

// next is false after the last id.
func (c *idCursor) next(ctx context.Context) (id ChunkID, ok bool, err error) {
	if len(c.inline) > 0 {
		id, c.inline = c.inline[0], c.inline[1:]
		return id, true, nil
	}
	for len(c.leaf) == 0 {
		if ok, err := c.nextLeaf(ctx); !ok || err != nil {
			return id, false, err
		}
	}
	id, c.leaf = ChunkID(c.leaf), c.leaf[idSize:]
	return id, true, nil
}

func (c *idCursor) nextLeaf(ctx context.Context) (bool, error) {
	if len(c.root) == 0 {
		if len(c.roots) == 0 {
			return false, nil
		}
		b, err := c.loadIDs(ctx, c.roots[0], maxRootIDs)
		if err != nil {
			return false, fmt.Errorf("read block map root %s: %w", c.roots[0], err)
		}
		c.root, c.roots = append([]byte(nil), b...), c.roots[1:]
	}
	id := ChunkID(c.root)
	b, err := c.loadIDs(ctx, id, leafIDs)
	if err != nil {
		return false, fmt.Errorf("read block map leaf %s: %w", id, err)
	}
	c.leaf, c.root = append([]byte(nil), b...), c.root[idSize:]
	return true, nil
}

func (c *idCursor) loadIDs(ctx context.Context, id ChunkID, most int) ([]byte, error) {
	b, err := c.load(ctx, id)
	if err != nil {
		return nil, err
	}
	return b, decodeIDs(b, most)
}
