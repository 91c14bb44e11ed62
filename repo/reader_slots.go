package repo

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/toolboxai/relight"
)

const (
	keepSide  = 64 // chunks that mosaics took from and may take from again: 4 MiB
	aheadSide = 8  // of them read at once
	aheadLook = 64 // rows of a leaf's table that are looked through for them
)

var errJoin = errors.New("its pieces do not join to it")

// slotReader reads slots of a file. The chunks that lead to the slots are read in runs, as they lie in the packs; what mosaics take from others is
// read beside them, some at once, and kept a while: neighbouring slots take from the same ones. It belongs to one goroutine.
type slotReader struct {
	m    *Meta
	maps *chunkReader
	data *chunkReader
	side *chunkReader // nil before the first mosaic
	due  []mapped     // asked for, not yet read
	buf  []byte       // the slot that was joined last

	kept  map[ChunkID][]byte
	order []ChunkID // of kept, oldest first
	spare [][]byte
	leaf  *leaf  // whose table was looked through
	aside []bool // which of its sources lead to no slot, or to another one too
}

// slots gives a reader for what a snapshot needs; close gives it back.
func (m *Meta) slots(ctx context.Context, id relight.SnapshotID) (*slotReader, error) {
	if _, err := m.index(ctx, id); err != nil {
		return nil, err
	}
	// Two readers: the map is read between the runs of data.
	maps, err := m.chunkReader(ctx)
	if err != nil {
		return nil, err
	}
	data, err := m.chunkReader(ctx)
	if err != nil {
		m.content.release(maps)
		return nil, err
	}
	return &slotReader{m: m, maps: maps, data: data}, nil
}

func (r *slotReader) close() {
	for _, c := range []*chunkReader{r.maps, r.data, r.side} {
		if c != nil {
			r.m.content.release(c)
		}
	}
}

// stream calls fn for the slots that next yields, in order. plain is valid until fn returns.
func (r *slotReader) stream(ctx context.Context, next func() (mapped, bool, error), fn func(plain []byte) error) error {
	ask := func() (ChunkID, bool, error) {
		s, ok, err := next()
		if !ok || err != nil {
			return ChunkID{}, false, err
		}
		r.due = append(r.due, s)
		return s.leads(), true, nil
	}
	return r.data.stream(ctx, ask, func(plain []byte) error {
		s := r.due[0]
		r.due = r.due[1:]
		if !s.isMosaic() {
			return fn(plain)
		}
		joined, err := r.join(ctx, s, plain)
		if err != nil {
			return err
		}
		return fn(joined)
	})
}

// join puts a mosaic together and holds it against its id.
func (r *slotReader) join(ctx context.Context, s mapped, lead []byte) ([]byte, error) {
	first := s.primary()
	r.buf = r.buf[:0]
	for _, p := range s.pieces {
		from := lead
		if p.source != first {
			var err error
			if from, err = r.other(ctx, s.leaf, p.source); err != nil {
				return nil, err
			}
		}
		if p.off+p.n > len(from) {
			return nil, fmt.Errorf("%w: slot %s takes %d bytes at %d of chunk %s, which has %d", errMap, s.id, p.n, p.off, s.leaf.source(p.source), len(from))
		}
		r.buf = append(r.buf, from[p.off:p.off+p.n]...)
	}
	if !r.data.matches(s.id, r.buf) {
		return nil, &DamageError{Chunk: s.id, Err: errJoin}
	}
	return r.buf, nil
}

// other gives a chunk that mosaics of a leaf take from.
func (r *slotReader) other(ctx context.Context, l *leaf, source int) ([]byte, error) {
	id := l.source(source)
	if b, ok := r.kept[id]; ok {
		return b, nil
	}
	if r.side == nil {
		c, err := r.m.chunkReader(ctx)
		if err != nil {
			return nil, err
		}
		r.side, r.kept = c, map[ChunkID][]byte{}
	}
	at, err := r.side.x.find(id)
	if err != nil {
		return nil, missing(id, at, err)
	}
	var batch run
	batch.take(want{id, at})
	r.ahead(l, source+1, &batch)
	err = r.side.readEach(ctx, &batch, func(w want, plain []byte, err error) error {
		if errors.Is(err, ErrCorrupt) && w.id == id {
			plain, err = r.side.elsewhere(ctx, w, err)
		}
		if errors.Is(err, ErrCorrupt) && w.id != id {
			return nil // it is reported where it is needed
		}
		if err != nil {
			return err
		}
		r.keep(w.id, plain)
		return nil
	})
	return r.kept[id], err
}

// ahead adds to a run what the leaf's mosaics will ask for next.
func (r *slotReader) ahead(l *leaf, from int, batch *run) {
	if r.leaf != l {
		r.leaf, r.aside = l, slices.Grow(r.aside[:0], len(l.sources)/idSize)[:len(l.sources)/idSize]
		clear(r.aside)
		for _, m := range l.mosaics {
			first := mapped{pieces: m.pieces}.primary()
			for _, p := range m.pieces {
				r.aside[p.source] = r.aside[p.source] || p.source != first
			}
		}
	}
	for i := from; i < min(from+aheadLook, len(r.aside)) && len(batch.want) < aheadSide; i++ {
		if !r.aside[i] {
			continue
		}
		id := l.source(i)
		if _, ok := r.kept[id]; ok {
			continue
		}
		if at, err := r.side.x.find(id); err == nil {
			batch.take(want{id, at})
		}
	}
}

func (r *slotReader) keep(id ChunkID, plain []byte) {
	if _, ok := r.kept[id]; ok {
		return
	}
	if len(r.order) >= keepSide {
		r.spare = append(r.spare, r.kept[r.order[0]])
		delete(r.kept, r.order[0])
		r.order = append(r.order[:0], r.order[1:]...)
	}
	var b []byte
	if n := len(r.spare); n > 0 {
		b, r.spare = r.spare[n-1], r.spare[:n-1]
	}
	r.kept[id] = append(b[:0], plain...)
	r.order = append(r.order, id)
}
