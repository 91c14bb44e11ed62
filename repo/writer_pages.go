package repo

import (
	"context"
	"encoding/hex"
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

// AddPages stores a paged file of which src may say, chunk by chunk, that the parent has it already. The digest
// of the whole file is known, and recorded, only when no chunk was taken over.
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
	s.file.Reset()
	c, err := w.m.chunkReader(ctx)
	if err != nil {
		return e, err
	}
	defer w.m.content.release(c)
	p := &pager{w: w, s: s, parent: parent, ids: newIDCursor(parent, c.load)}
	if err := p.copy(ctx, src); err != nil {
		return e, fmt.Errorf("add %s: %w", e.Path, err)
	}
	if err := s.maps.finish(ctx, &e); err != nil {
		return e, fmt.Errorf("add %s: %w", e.Path, err)
	}
	e.Size = p.size
	if !p.reused {
		e.Digest = hex.EncodeToString(s.file.Sum(nil))
	}
	return e, w.addEntry(e)
}

// pager stores one paged file beside its parent's map.
type pager struct {
	w      *Writer
	s      *slot
	parent Entry
	ids    *idCursor
	size   int64
	reused bool
}

func (p *pager) copy(ctx context.Context, src PageSource) error {
	p.s.room(p.w.page)
	buf := p.s.in[:p.w.page]
	for i := int64(0); ; i++ {
		n, same, err := src.Chunk(ctx, i, buf)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		eof := err != nil
		if n < 0 || n > len(buf) {
			return fmt.Errorf("page source gave %d bytes for chunk %d", n, i)
		}
		old, had, err := p.ids.next(ctx)
		if err != nil {
			return err
		}
		if same {
			n, err = p.reuse(ctx, i, old, had)
		} else if n > 0 {
			_, _ = p.s.file.Write(buf[:n]) // a hash never fails
			err = p.w.addChunk(ctx, p.s, buf[:n])
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

// reuse takes the parent's chunk i over, with the length that it has there.
func (p *pager) reuse(ctx context.Context, i int64, id ChunkID, had bool) (int, error) {
	page := int64(p.w.page)
	n := min(page, p.parent.Size-i*page)
	if !had || !p.parent.Paged || n <= 0 {
		return 0, fmt.Errorf("the parent has no chunk %d of this file to take over", i)
	}
	p.reused = true
	if !p.w.whole { // some pack is gone: look whether this chunk was in it
		known, err := p.w.held(id)
		if err != nil {
			return 0, err
		}
		if !known {
			return 0, &relight.Error{
				Op: "take over", Subject: "chunk of snapshot " + string(p.w.o.Parent.ID), Code: relight.CodeFailed,
				Err:  &DamageError{Chunk: id, Err: errPackGone},
				Hint: "the parent is damaged; make a full backup instead",
			}
		}
	}
	return int(n), p.s.maps.add(ctx, id)
}
