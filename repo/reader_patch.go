package repo

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/zeebo/blake3"
)

// PatchFile is a file that may already hold what an entry says, or most of it.
type PatchFile interface {
	io.ReaderAt
	io.WriterAt
	Truncate(size int64) error
}

// Patch makes f, whose length now is size, hold exactly a file of a snapshot, and writes only where it differs: what lies in f is compared
// with the chunks' ids, and only the others are fetched. It gives the bytes that were written.
func (r *Reader) Patch(ctx context.Context, man Manifest, e Entry, f PatchFile, size int64) (written int64, err error) {
	if e.Paged {
		written, err = r.patchPages(ctx, man, e, f, size)
	} else {
		written, err = r.patchWhole(ctx, man, e, f, size)
	}
	if err == nil && size > e.Size {
		err = f.Truncate(e.Size)
	}
	if err != nil {
		return written, fmt.Errorf("patch %s from snapshot %s: %w", e.Path, man.ID, err)
	}
	return written, nil
}

// patchWhole is for files that are cut by content: they are small, or differ throughout.
func (r *Reader) patchWhole(ctx context.Context, man Manifest, e Entry, f PatchFile, size int64) (int64, error) {
	if size == e.Size && e.Digest != "" {
		h := blake3.New()
		if _, err := io.Copy(h, io.NewSectionReader(f, 0, size)); err != nil {
			return 0, err
		}
		if hex.EncodeToString(h.Sum(nil)) == e.Digest {
			return 0, nil
		}
	}
	return e.Size, r.Restore(ctx, man, e, f)
}

func (r *Reader) patchPages(ctx context.Context, man Manifest, e Entry, f PatchFile, size int64) (int64, error) {
	slots, err := r.meta.slots(ctx, man.ID)
	if err != nil {
		return 0, err
	}
	defer slots.close()
	p := &patch{cursor: newSlotCursor(e, slots.maps.load), data: slots.data, f: f, have: size, size: e.Size, buf: make([]byte, r.meta.desc.Chunk)}
	err = slots.stream(ctx, func() (mapped, bool, error) { return p.next(ctx) }, p.write)
	if err == nil && p.at != e.Size {
		err = fmt.Errorf("%w: its chunks have %d bytes instead of %d", errMap, p.at, e.Size)
	}
	return p.written, err
}

// patch is one paged file that is being compared and mended.
type patch struct {
	cursor  *slotCursor
	data    *chunkReader
	f       PatchFile
	have    int64 // bytes in f
	size    int64 // bytes that f is to have
	at      int64 // compared up to here
	buf     []byte
	due     []int64 // where the chunks that were asked for belong
	written int64
}

// next is the next slot that f does not hold.
func (p *patch) next(ctx context.Context) (mapped, bool, error) {
	for {
		if err := ctx.Err(); err != nil {
			return mapped{}, false, err
		}
		s, ok, err := p.cursor.next(ctx)
		if err != nil || !ok {
			return s, false, err
		}
		off, n := p.at, p.length(p.at)
		if n <= 0 {
			return s, false, fmt.Errorf("%w: it has more chunks than the file has bytes", errMap)
		}
		p.at += n
		same, err := p.holds(s.id, off, n)
		if err != nil {
			return s, false, err
		}
		if !same {
			p.due = append(p.due, off)
			return s, true, nil
		}
	}
}

// length of the chunk that begins at off.
func (p *patch) length(off int64) int64 { return min(int64(len(p.buf)), p.size-off) }

func (p *patch) holds(id ChunkID, off, n int64) (bool, error) {
	if off+n > p.have {
		return false, nil
	}
	if _, err := p.f.ReadAt(p.buf[:n], off); err != nil && !errors.Is(err, io.EOF) {
		return false, nil //nolint:nilerr // a sector that cannot be read may be written again
	}
	return p.data.matches(id, p.buf[:n]), nil
}

func (p *patch) write(plain []byte) error {
	off := p.due[0]
	p.due = p.due[1:]
	if int64(len(plain)) != p.length(off) {
		return fmt.Errorf("%w: the chunk at %d has %d bytes", errMap, off, len(plain))
	}
	n, err := p.f.WriteAt(plain, off)
	p.written += int64(n)
	return err
}
