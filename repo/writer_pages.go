package repo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/toolboxai/relight"
)

// Parent is the snapshot whose block maps may be taken over; nil where there is none.
func (w *Writer) Parent() *Manifest { return w.o.Parent }

// ParentEntry is the parent's entry of a path; false where there is no parent or no such path.
func (w *Writer) ParentEntry(ctx context.Context, path string) (Entry, bool, error) {
	if w.o.Parent == nil {
		return Entry{}, false, nil
	}
	w.parentOnce.Do(func() {
		w.parentTree, w.parentErr = newParentTree(w.m.o.CacheDir, func(fn func(Entry, []byte) error) error {
			return w.m.lines(ctx, *w.o.Parent, fn)
		})
	})
	if w.parentErr != nil {
		return Entry{}, false, fmt.Errorf("read parent snapshot %s: %w", w.o.Parent.ID, w.parentErr)
	}
	return w.parentTree.find(path)
}

// AddPages stores a paged file of which src may say, chunk by chunk, what the parent has already. A chunk of which less than half is new becomes a
// mosaic of the parent's bytes and the new ones; what is new of neighbouring chunks is stored together. No digest of the whole file is recorded: the ids
// of the slots cover every byte.
func (w *Writer) AddPages(ctx context.Context, e Entry, src PageSource) (Entry, error) {
	e.Mode &^= fs.ModeType
	e.Paged, e.Digest = true, ""
	if err := checkPath(e.Path); err != nil {
		return e, err
	}
	parent, _, err := w.ParentEntry(ctx, e.Path)
	if err != nil {
		return e, err
	}
	s, err := w.acquire(ctx)
	if err != nil {
		return e, fmt.Errorf("add %s: %w", e.Path, err)
	}
	defer func() { w.slots <- s }()
	s.maps.reset()
	c, err := w.m.chunkReader(ctx)
	if err != nil {
		return e, err
	}
	defer w.m.content.release(c)
	p := &pager{w: w, s: s, parent: parent, old: newSlotCursor(parent, c.load), gather: gatherer{w: w, s: s}}
	s.maps.settle = p.gather.flush
	if err := p.copy(ctx, src); err != nil {
		return e, fmt.Errorf("add %s: %w", e.Path, err)
	}
	if err := errors.Join(p.gather.flush(ctx), s.maps.finish(ctx, &e)); err != nil {
		return e, fmt.Errorf("add %s: %w", e.Path, err)
	}
	e.Size = p.size
	return e, w.addEntry(e)
}

// pager stores one paged file beside its parent's map.
type pager struct {
	w      *Writer
	s      *slot
	parent Entry
	old    *slotCursor
	gather gatherer
	size   int64
}

func (p *pager) copy(ctx context.Context, src PageSource) error {
	p.s.room(p.w.page)
	buf := p.s.in[:p.w.page]
	for i := int64(0); ; i++ {
		n, fresh, err := src.Chunk(ctx, i, buf)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		eof := err != nil
		if n < 0 || n > len(buf) {
			return fmt.Errorf("page source gave %d bytes for chunk %d", n, i)
		}
		old, had, err := p.old.next(ctx)
		if err != nil {
			return err
		}
		switch has := p.parentHas(i, had); {
		case n == 0:
		case len(fresh) == 0 && n == has:
			err = p.reuse(ctx, old, n)
		default:
			err = p.renew(ctx, old, has, buf[:n], fresh)
		}
		if err != nil {
			return err
		}
		p.size += int64(n)
		if eof || n < len(buf) {
			return nil
		}
		if err := p.w.alive(ctx); err != nil {
			return err
		}
	}
}

// parentHas is the bytes of the parent's chunk i; 0 where it has none.
func (p *pager) parentHas(i int64, had bool) int {
	page := int64(p.w.page)
	if !had || !p.parent.Paged {
		return 0
	}
	return int(max(0, min(page, p.parent.Size-i*page)))
}

// reuse takes the parent's whole slot over.
func (p *pager) reuse(ctx context.Context, old mapped, n int) error {
	lost, known, err := p.held(old)
	if err != nil {
		return err
	}
	if !known {
		return &relight.Error{
			Op: "take over", Subject: "chunk of snapshot " + string(p.w.o.Parent.ID), Code: relight.CodeFailed,
			Err:  &DamageError{Chunk: lost, Err: errPackGone},
			Hint: "the parent is damaged; make a full backup instead",
		}
	}
	if !old.isMosaic() {
		return p.s.maps.add(ctx, old.id)
	}
	return p.s.maps.addMosaic(ctx, old.id, cutTiles(nil, old, 0, n))
}

// held tells whether all that a slot of the parent consists of is there, and what is not. It looks only when some pack is gone.
func (p *pager) held(old mapped) (lost ChunkID, known bool, err error) {
	if p.w.whole {
		return lost, true, nil
	}
	known = true
	err = old.chunks(func(id ChunkID, _ int) error {
		there, err := p.w.held(id)
		if !there && known {
			lost, known = id, false
		}
		return err
	})
	return lost, known, err
}
