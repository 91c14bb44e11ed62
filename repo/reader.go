package repo

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"

	"github.com/zeebo/blake3"
)

// Reader reads what a repository protects: it needs a data identity. It may be used by several goroutines.
type Reader struct{ meta *Meta }

// Reader gives the right to read content, if the keys at hand include it.
func (m *Meta) Reader() (*Reader, error) {
	if !m.keys.CanRead() {
		return nil, errNoDataIdentity()
	}
	return &Reader{meta: m}, nil
}

// Meta is the repository that r reads.
func (r *Reader) Meta() *Meta { return r.meta }

// Chunks calls fn for the chunks of a file in order, each verified against its id. plain is valid until fn
// returns. Damage is a *DamageError that names the object and the chunk; what comes before it was delivered.
func (r *Reader) Chunks(ctx context.Context, man Manifest, e Entry, fn func(off int64, plain []byte) error) error {
	if err := r.chunks(ctx, man, e, fn); err != nil {
		return fmt.Errorf("read %s of snapshot %s: %w", e.Path, man.ID, err)
	}
	return nil
}

func (r *Reader) chunks(ctx context.Context, man Manifest, e Entry, fn func(off int64, plain []byte) error) error {
	slots, err := r.meta.slots(ctx, man.ID)
	if err != nil {
		return err
	}
	defer slots.close()
	cursor := newSlotCursor(e, slots.maps.load)
	off := int64(0)
	err = slots.stream(ctx, func() (mapped, bool, error) { return cursor.next(ctx) }, func(plain []byte) error {
		at := off
		off += int64(len(plain))
		return fn(at, plain)
	})
	if err == nil && off != e.Size {
		err = fmt.Errorf("%w: its chunks have %d bytes instead of %d", errMap, off, e.Size)
	}
	return err
}

// Restore writes a file to f at the offsets where its bytes belong, and verifies the digest of the whole where one
// was recorded.
func (r *Reader) Restore(ctx context.Context, man Manifest, e Entry, f io.WriterAt) error {
	return r.restore(ctx, man, e, func(off int64, plain []byte) error {
		_, err := f.WriteAt(plain, off)
		return err
	})
}

// Copy writes a file to w from beginning to end, like Restore.
func (r *Reader) Copy(ctx context.Context, man Manifest, e Entry, w io.Writer) error {
	return r.restore(ctx, man, e, func(_ int64, plain []byte) error {
		_, err := w.Write(plain)
		return err
	})
}

func (r *Reader) restore(ctx context.Context, man Manifest, e Entry, write func(off int64, plain []byte) error) error {
	h := blake3.New()
	err := r.Chunks(ctx, man, e, func(off int64, plain []byte) error {
		if e.Digest != "" {
			_, _ = h.Write(plain) // a hash never fails
		}
		return write(off, plain)
	})
	if err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); e.Digest != "" && got != e.Digest {
		return fmt.Errorf("read %s of snapshot %s: %w: its digest is %s instead of %s", e.Path, man.ID, ErrCorrupt, got, e.Digest)
	}
	return nil
}
