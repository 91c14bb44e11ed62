package repo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
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
	if isDamage(w.parentErr) {
		w.parentLacks(ctx, w.parentErr)
		return Entry{}, false, nil
	}
	if w.parentErr != nil {
		return Entry{}, false, fmt.Errorf("read parent snapshot %s: %w", w.o.Parent.ID, w.parentErr)
	}
	return w.parentTree.find(path)
}

// parentLacks says that something of the parent was lost: all of it is at hand, and stored again.
func (w *Writer) parentLacks(ctx context.Context, err error) {
	w.parentLost.Do(func() {
		w.m.log.WarnContext(ctx, "the parent snapshot is damaged; what is lost of it is stored again", "snapshot", w.o.Parent.ID, "err", err)
	})
}

// AddPages stores a paged file of which src may say, chunk by chunk, what the parent has already. A chunk of which less than half is new becomes a
// mosaic of the parent's bytes and the new ones; what is new of neighbouring chunks is stored together. What the parent has lost is stored whole. No
// digest of the whole file is recorded: the ids of the slots cover every byte.
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
	p := &pager{w: w, s: s, parent: parent, old: newSlotCursor(parent, c.load), gather: gatherer{w: w, s: s}, blind: isDamage(w.parentErr)}
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
	blind  bool // the parent's map is damaged from here on
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
		old, had, err := p.next(ctx)
		if err != nil {
			return err
		}
		switch has := p.parentHas(i, had); {
		case n == 0:
		case p.blind:
			err = p.w.addChunk(ctx, p.s, buf[:n])
		case len(fresh) == 0 && n == has:
			err = p.reuse(ctx, old, buf[:n])
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

// next is the parent's next slot.
func (p *pager) next(ctx context.Context) (old mapped, had bool, err error) {
	if p.blind {
		return mapped{}, false, nil
	}
	old, had, err = p.old.next(ctx)
	if isDamage(err) {
		p.blind = true
		p.w.parentLacks(ctx, err)
		return mapped{}, false, nil
	}
	return old, had, err
}

// parentHas is the bytes of the parent's chunk i; 0 where it has none.
func (p *pager) parentHas(i int64, had bool) int {
	page := int64(p.w.page)
	if !had || !p.parent.Paged {
		return 0
	}
	return int(max(0, min(page, p.parent.Size-i*page)))
}

// reuse takes the parent's whole slot over, or stores it again where the parent has lost it.
func (p *pager) reuse(ctx context.Context, old mapped, plain []byte) error {
	held, err := p.held(ctx, old)
	if err != nil {
		return err
	}
	if !held {
		return p.w.addChunk(ctx, p.s, plain)
	}
	if !old.isMosaic() {
		return p.s.maps.add(ctx, old.id)
	}
	return p.s.maps.addMosaic(ctx, old.id, cutTiles(nil, old, 0, len(plain)))
}

// held tells whether all that a slot of the parent consists of is there. It looks only when some pack is gone or damaged.
func (p *pager) held(ctx context.Context, old mapped) (bool, error) {
	if p.w.whole {
		return true, nil
	}
	held := true
	err := old.chunks(func(id ChunkID, _ int) error {
		there, err := p.w.held(id)
		if err == nil && !there {
			held = false
			p.w.parentLacks(ctx, &DamageError{Chunk: id, Err: errPackGone})
		}
		return err
	})
	return held, err
}
