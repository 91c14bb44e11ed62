package repo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/klauspost/compress/zstd"
	"github.com/toolboxai/relight/blob"
)

const (
	sealChunk    = 64 << 10       // age seals a body in pieces of this size,
	sealOverhead = 16             // each with a tag
	openPacks    = 16             // whose headers a reader keeps
	runBytes     = 4 << 20        // fetched at once
	runGap       = 64 << 10       // unneeded bytes inside a run that are cheaper to read than to skip
	headBytes    = 8 << 10        // of a pack, fetched at once to open it
	runIDs       = runBytes / 512 // bounds the list of tiny chunks in a run
)

// DamageError says which object is damaged or gone, and which chunk cannot be had because of it.
type DamageError struct {
	Object string // "" where no index names the chunk
	Chunk  ChunkID
	Err    error
}

func (e *DamageError) Error() string {
	if e.Object == "" {
		return fmt.Sprintf("chunk %s: %v", e.Chunk, e.Err)
	}
	return fmt.Sprintf("object %s is %v: chunk %s: %v", e.Object, ErrCorrupt, e.Chunk, e.Err)
}

// Is makes a DamageError an ErrCorrupt. The cause is not unwrapped: a missing pack must not pass for "not found".
func (e *DamageError) Is(target error) bool { return target == ErrCorrupt }

// chunkReader fetches, opens, decodes and verifies chunks. It belongs to one goroutine.
type chunkReader struct {
	s      blob.Storage
	keys   *Keyring
	x      *chunkIndex
	dec    *zstd.Decoder
	packs  []*openPack // most recently used last
	sealed []byte
	frames []byte
	plain  []byte
	epoch  int          // whose chunk-id key matched last
	spare  *chunkReader // for the other copies of chunks that are damaged; nil before the first
}

func newChunkReader(s blob.Storage, keys *Keyring, x *chunkIndex) (*chunkReader, error) {
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxChunk), zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		return nil, fmt.Errorf("prepare zstd: %w", err)
	}
	return &chunkReader{s: s, keys: keys, x: x, dec: dec, epoch: keys.Epoch()}, nil
}

// openPack is a pack whose age header was opened once.
type openPack struct {
	info  packInfo
	win   *sealedWindow
	plain io.ReaderAt
	size  int64 // opened
	body  int64 // where the sealed body begins
}

// sealedWindow serves age's reads from bytes that were fetched in one request. It carries the context of the
// request for which it is used.
type sealedWindow struct {
	ctx  context.Context
	s    blob.Storage
	info packInfo
	off  int64
	buf  []byte
	err  error // of the storage, told apart from a seal that does not match
}

func (w *sealedWindow) ReadAt(p []byte, off int64) (int, error) {
	want := min(int64(len(p)), w.info.size-off)
	if want < 0 {
		return 0, io.EOF
	}
	if off >= w.off && off+want <= w.off+int64(len(w.buf)) {
		copy(p[:want], w.buf[off-w.off:])
	} else if err := getRange(w.ctx, w.s, w.info.name(), off, p[:want]); err != nil {
		w.err = err
		return 0, err
	}
	if want < int64(len(p)) {
		return int(want), io.EOF
	}
	return int(want), nil
}

// fetch loads the window.
func (w *sealedWindow) fetch(off int64, buf []byte) error {
	w.buf = nil
	if err := getRange(w.ctx, w.s, w.info.name(), off, buf); err != nil {
		w.err = err
		return err
	}
	w.off, w.buf = off, buf
	return nil
}

func getRange(ctx context.Context, s blob.Storage, name string, off int64, p []byte) error {
	r, err := s.Get(ctx, name, off, int64(len(p)))
	if err != nil {
		return err
	}
	_, err = io.ReadFull(r, p)
	return errors.Join(err, r.Close())
}

// pack opens a pack, or finds it open.
func (c *chunkReader) pack(ctx context.Context, info packInfo) (*openPack, error) {
	if i := slices.IndexFunc(c.packs, func(p *openPack) bool { return p.info == info }); i >= 0 {
		p := c.packs[i]
		c.packs = append(slices.Delete(c.packs, i, i+1), p)
		p.win.ctx = ctx
		return p, nil
	}
	p := &openPack{info: info, win: &sealedWindow{ctx: ctx, s: c.s, info: info}}
	if err := p.win.fetch(0, make([]byte, min(headBytes, info.size))); err != nil {
		return nil, c.blame(p.win, err)
	}
	open := c.keys.openDataAt
	if info.kind == metaPack {
		open = c.keys.openMetaAt
	}
	var err error
	if p.plain, p.size, err = open(p.win, info.size); err != nil {
		return nil, c.blame(p.win, err)
	}
	p.win.buf = nil
	pieces := max(1, (p.size+sealChunk-1)/sealChunk)
	p.body = info.size - p.size - pieces*sealOverhead
	if len(c.packs) >= openPacks {
		c.packs = slices.Delete(c.packs, 0, 1)
	}
	c.packs = append(c.packs, p)
	return p, nil
}

// errDamaged marks what is wrong with bytes, as against what is wrong with the way to them.
var errDamaged = errors.New("damaged bytes")

// blame decides whether a failure lies in the storage, which may work the next time, or in the object.
func (c *chunkReader) blame(w *sealedWindow, err error) error {
	defer func() { w.err = nil }()
	if errors.Is(err, blob.ErrNotFound) || errors.Is(err, blob.ErrRange) {
		return fmt.Errorf("%w: %v", errDamaged, err)
	}
	if w.err != nil {
		return fmt.Errorf("read %s: %w", w.info.name(), err)
	}
	if len(c.keys.identities(w.info.kind == dataPack)) == 0 {
		return err
	}
	return fmt.Errorf("%w: %v", errDamaged, err)
}

// bytes reads n bytes of an opened pack from off; they are valid until the next call.
func (c *chunkReader) bytes(ctx context.Context, info packInfo, off, n int64) ([]byte, error) {
	p, err := c.pack(ctx, info)
	if err != nil {
		return nil, err
	}
	if off+n > p.size {
		return nil, fmt.Errorf("%w: the pack opens to %d bytes", errDamaged, p.size)
	}
	from := p.body + off/sealChunk*(sealChunk+sealOverhead)
	to := min(info.size, p.body+((off+n-1)/sealChunk+1)*(sealChunk+sealOverhead))
	c.sealed = slices.Grow(c.sealed[:0], int(to-from))[:to-from]
	if err := p.win.fetch(from, c.sealed); err != nil {
		return nil, c.blame(p.win, err)
	}
	c.frames = slices.Grow(c.frames[:0], int(n))[:n]
	if _, err := p.plain.ReadAt(c.frames, off); err != nil && !errors.Is(err, io.EOF) {
		return nil, c.blame(p.win, err)
	}
	return c.frames, nil
}

// decode turns a frame into the chunk that it must be.
func (c *chunkReader) decode(id ChunkID, frame []byte, plain uint32) ([]byte, error) {
	c.plain = slices.Grow(c.plain[:0], int(plain))
	out, err := c.dec.DecodeAll(frame, c.plain[:0:plain])
	if err != nil {
		return nil, fmt.Errorf("%w: %v", errDamaged, err)
	}
	if len(out) != int(plain) {
		return nil, fmt.Errorf("%w: it has %d bytes instead of %d", errDamaged, len(out), plain)
	}
	if !c.matches(id, out) {
		return nil, fmt.Errorf("%w: its bytes do not match its id", errDamaged)
	}
	return out, nil
}

// matches tries the chunk-id keys of all epochs: a snapshot may refer to chunks of earlier ones.
func (c *chunkReader) matches(id ChunkID, plain []byte) bool {
	if c.keys.chunkIDIn(c.epoch, plain) == id {
		return true
	}
	for _, e := range c.keys.epochList() {
		if e != c.epoch && c.keys.chunkIDIn(e, plain) == id {
			c.epoch = e
			return true
		}
	}
	return false
}

// load reads one chunk; its bytes are valid until the next call.
func (c *chunkReader) load(ctx context.Context, id ChunkID) ([]byte, error) {
	at, err := c.x.find(id)
	if err != nil {
		return nil, missing(id, at, err)
	}
	plain, err := c.loadAt(ctx, want{id, at})
	if errors.Is(err, ErrCorrupt) {
		return c.elsewhere(ctx, want{id, at}, err)
	}
	return plain, err
}

// loadAt reads a chunk at one of its places.
func (c *chunkReader) loadAt(ctx context.Context, w want) ([]byte, error) {
	frame, err := c.bytes(ctx, w.at.pack, int64(w.at.off), int64(w.at.frame))
	if err != nil {
		return nil, damage(w.id, w.at, err)
	}
	plain, err := c.decode(w.id, frame, w.at.plain)
	if err != nil {
		return nil, damage(w.id, w.at, err)
	}
	return plain, nil
}

// elsewhere reads a chunk at another place than the one where it is damaged. A chunk may be stored twice, and an index, which nobody signs, may lie about
// where: only when no place has the bytes is the chunk lost. It has buffers of its own, since the caller may be in the middle of a run.
func (c *chunkReader) elsewhere(ctx context.Context, w want, damaged error) ([]byte, error) {
	tried := map[location]bool{w.at: true}
	for {
		at, err := c.x.findWhere(w.id, func(l location) bool { return !tried[l] })
		if errors.Is(err, errNoChunk) || errors.Is(err, errPackGone) {
			return nil, damaged
		}
		if err != nil {
			return nil, err
		}
		if c.spare == nil {
			if c.spare, err = newChunkReader(c.s, c.keys, c.x); err != nil {
				return nil, err
			}
		}
		plain, err := c.spare.loadAt(ctx, want{w.id, at})
		if !errors.Is(err, ErrCorrupt) {
			return plain, err
		}
		tried[at] = true
	}
}

func missing(id ChunkID, at location, err error) error {
	switch {
	case errors.Is(err, errPackGone):
		return &DamageError{Object: at.pack.name(), Chunk: id, Err: err}
	case errors.Is(err, errNoChunk):
		return &DamageError{Chunk: id, Err: err}
	}
	return err
}

func damage(id ChunkID, at location, err error) error {
	if errors.Is(err, errDamaged) {
		return &DamageError{Object: at.pack.name(), Chunk: id, Err: err}
	}
	return err
}

// want is a chunk of a run.
type want struct {
	id ChunkID
	at location
}

// run is neighbouring chunks of one pack, read at once.
type run struct {
	want     []want
	from, to int64
}

// take adds a chunk when it lies close enough behind the others, or is the last one again.
func (r *run) take(w want) bool {
	from, to := int64(w.at.off), int64(w.at.off)+int64(w.at.frame)
	if len(r.want) == 0 {
		r.want, r.from, r.to = append(r.want, w), from, to
		return true
	}
	last := r.want[len(r.want)-1]
	if w.id == last.id && len(r.want) < runIDs {
		r.want = append(r.want, w)
		return true
	}
	if w.at.pack != last.at.pack || from < r.to || from > r.to+runGap || to-r.from > runBytes || len(r.want) >= runIDs {
		return false
	}
	r.want, r.to = append(r.want, w), to
	return true
}

// stream calls fn for the chunks that next yields, in order. plain is valid until fn returns.
func (c *chunkReader) stream(ctx context.Context, next func() (ChunkID, bool, error), fn func(plain []byte) error) error {
	var r run
	for {
		id, ok, err := next()
		if err != nil {
			return err
		}
		if !ok {
			return c.readRun(ctx, &r, fn)
		}
		at, err := c.x.find(id)
		if err != nil {
			// What comes before is delivered first: a caller may keep it.
			return errors.Join(c.readRun(ctx, &r, fn), missing(id, at, err))
		}
		if r.take(want{id, at}) {
			continue
		}
		if err := c.readRun(ctx, &r, fn); err != nil {
			return err
		}
		r.take(want{id, at})
	}
}

// readRun fetches a run, delivers its chunks and empties it.
func (c *chunkReader) readRun(ctx context.Context, r *run, fn func(plain []byte) error) error {
	return c.readEach(ctx, r, func(w want, plain []byte, err error) error {
		if errors.Is(err, ErrCorrupt) {
			plain, err = c.elsewhere(ctx, w, err)
		}
		if err != nil {
			return err
		}
		return fn(plain)
	})
}

// readEach is readRun for those who go on after damage: fn gets it instead of the bytes.
func (c *chunkReader) readEach(ctx context.Context, r *run, fn func(w want, plain []byte, err error) error) error {
	defer func() { r.want = r.want[:0] }()
	if len(r.want) == 0 {
		return nil
	}
	frames, err := c.bytes(ctx, r.want[0].at.pack, r.from, r.to-r.from)
	if err != nil && !errors.Is(err, errDamaged) {
		return err
	}
	if err != nil && len(r.want) > 1 {
		return c.readSingly(ctx, r, fn)
	}
	var plain []byte
	for i, w := range r.want {
		if err == nil && (i == 0 || w.id != r.want[i-1].id) {
			at := int64(w.at.off) - r.from
			plain, err = c.decode(w.id, frames[at:at+int64(w.at.frame)], w.at.plain)
		}
		if ferr := fn(w, plain, wrapDamage(w, err)); ferr != nil {
			return ferr
		}
		err = nil
	}
	return nil
}

func wrapDamage(w want, err error) error {
	if err == nil {
		return nil
	}
	return damage(w.id, w.at, err)
}

// readSingly finds out which chunks of a damaged run are whole.
func (c *chunkReader) readSingly(ctx context.Context, r *run, fn func(w want, plain []byte, err error) error) error {
	for _, w := range r.want {
		single := run{}
		single.take(w)
		if err := c.readEach(ctx, &single, fn); err != nil {
			return err
		}
	}
	return nil
}
