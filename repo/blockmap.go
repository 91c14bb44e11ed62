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

// decodeIDs checks the body of a root: 1 to maxRootIDs ids, nothing else.
func decodeIDs(b []byte) error {
	if len(b) == 0 || len(b)%idSize != 0 || len(b)/idSize > maxRootIDs {
		return fmt.Errorf("%w: %d bytes are not 1 to %d ids", errMap, len(b), maxRootIDs)
	}
	return nil
}

// mapWriter collects the slots of a file, keeping one leaf and one root in memory.
type mapWriter struct {
	store   func(ctx context.Context, plain []byte) (ChunkID, error)
	leaves  int // per root
	leaf    []byte
	mosaics []tiled // of the leaf
	root    []byte
	roots   []ChunkID
	body    []byte // of a leaf, for the next one to use again

	settle func(ctx context.Context) error // gives every tile's chunk its id, before a leaf ends; nil where there are no mosaics
}

func (w *mapWriter) reset() {
	w.leaf, w.mosaics, w.root, w.roots, w.settle = w.leaf[:0], nil, w.root[:0], nil, nil
}

// add takes the next slot, which is stored as one chunk.
func (w *mapWriter) add(ctx context.Context, id ChunkID) error {
	w.leaf = append(w.leaf, id[:]...)
	if len(w.leaf) < leafIDs*idSize {
		return nil
	}
	return w.endLeaf(ctx)
}

// addMosaic takes the next slot, whose bytes the tiles join to.
func (w *mapWriter) addMosaic(ctx context.Context, id ChunkID, tiles []tile) error {
	w.mosaics = append(w.mosaics, tiled{slot: len(w.leaf) / idSize, tiles: tiles})
	return w.add(ctx, id)
}

func (w *mapWriter) endLeaf(ctx context.Context) error {
	if w.settle != nil {
		if err := w.settle(ctx); err != nil {
			return err
		}
	}
	var err error
	if w.body, err = encodeLeaf(w.body[:0], w.leaf, w.mosaics); err != nil {
		return err
	}
	id, err := w.store(ctx, w.body)
	if err != nil {
		return err
	}
	w.leaf, w.mosaics, w.root = w.leaf[:0], nil, append(w.root, id[:]...)
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
	if len(w.roots) == 0 && len(w.root) == 0 && len(w.leaf) <= inlineIDs*idSize && len(w.mosaics) == 0 {
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

// slotCursor walks the slots of a file in order, holding one root and one leaf.
type slotCursor struct {
	load   loadFunc
	inline []ChunkID
	roots  []ChunkID
	root   []byte
	leaf   *leaf
	slot   int      // the next one of the leaf
	rest   []mosaic // from that slot on
}

func newSlotCursor(e Entry, load loadFunc) *slotCursor {
	return &slotCursor{load: load, inline: e.Chunks, roots: e.Maps}
}

// next is false after the last slot.
func (c *slotCursor) next(ctx context.Context) (s mapped, ok bool, err error) {
	if len(c.inline) > 0 {
		s.id, c.inline = c.inline[0], c.inline[1:]
		return s, true, nil
	}
	if c.leaf == nil || c.slot == c.leaf.slots() {
		if ok, err := c.nextLeaf(ctx); !ok || err != nil {
			return s, false, err
		}
	}
	s.id = c.leaf.id(c.slot)
	if len(c.rest) > 0 && c.rest[0].slot == c.slot {
		s.leaf, s.pieces, c.rest = c.leaf, c.rest[0].pieces, c.rest[1:]
	}
	c.slot++
	return s, true, nil
}

func (c *slotCursor) nextLeaf(ctx context.Context) (bool, error) {
	if len(c.root) == 0 {
		if len(c.roots) == 0 {
			return false, nil
		}
		b, err := c.load(ctx, c.roots[0])
		if err == nil {
			err = decodeIDs(b)
		}
		if err != nil {
			return false, fmt.Errorf("read block map root %s: %w", c.roots[0], err)
		}
		c.root, c.roots = append([]byte(nil), b...), c.roots[1:]
	}
	id := ChunkID(c.root)
	l, err := loadLeaf(ctx, c.load, id)
	if err != nil {
		return false, err
	}
	c.leaf, c.slot, c.rest, c.root = l, 0, l.mosaics, c.root[idSize:]
	return true, nil
}

func loadLeaf(ctx context.Context, load loadFunc, id ChunkID) (*leaf, error) {
	b, err := load(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("read block map leaf %s: %w", id, err)
	}
	l, err := decodeLeaf(b)
	if err != nil {
		return nil, fmt.Errorf("read block map leaf %s: %w", id, err)
	}
	return l, nil
}
