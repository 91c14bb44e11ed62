package repo

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"sync"

	"github.com/zeebo/blake3"
)

const maxSlots = 8 // each needs some tens of MiB

// slot is what one goroutine needs to turn bytes into a pack, made once and reused for every chunk.
type slot struct {
	kind packKind
	fr   *framer
	hash *chunkHash
	file *blake3.Hasher
	in   []byte
	maps mapWriter
	pack *packBuilder
	mem  *packMemory
}

// packMemory is the memory of one pack. It travels from the slot to the upload and back to the pool.
type packMemory struct {
	buf  bytes.Buffer
	recs []record
}

func newSlot(w *Writer, kind packKind) (*slot, error) {
	fr, err := newFramer()
	if err != nil {
		return nil, err
	}
	hash, err := newChunkHash(w.chunkKey)
	if err != nil {
		return nil, err
	}
	s := &slot{kind: kind, fr: fr, hash: hash, file: blake3.New()}
	s.maps = mapWriter{store: w.storeMeta, leaves: leavesPerRoot(w.page)}
	return s, nil
}

func slotCount(o SnapshotOptions) int {
	n := o.Workers
	if n <= 0 {
		n = runtime.GOMAXPROCS(0)
	}
	return min(n, maxSlots)
}

// claims is the set of chunks that this snapshot has stored and no index on disk names yet.
type claims [64]struct {
	mu  sync.Mutex
	ids map[ChunkID]struct{}
}

func (c *claims) has(id ChunkID) bool {
	s := &c[id[0]%64]
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.ids[id]
	return ok
}

// claim is true for the one caller that is to store the chunk.
func (c *claims) claim(id ChunkID) bool {
	s := &c[id[0]%64]
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.ids[id]; ok {
		return false
	}
	if s.ids == nil {
		s.ids = map[ChunkID]struct{}{}
	}
	s.ids[id] = struct{}{}
	return true
}

func (c *claims) release(recs []record) {
	for _, r := range recs {
		s := &c[r.id[0]%64]
		s.mu.Lock()
		delete(s.ids, r.id)
		s.mu.Unlock()
	}
}

// put stores a chunk unless the repository has it, and gives its id.
func (w *Writer) put(ctx context.Context, s *slot, plain []byte) (ChunkID, error) {
	id := s.hash.id(plain)
	known, err := w.known(id)
	if err != nil || known || !w.claims.claim(id) {
		return id, err
	}
	if err := w.pack(ctx, s, id, plain); err != nil {
		w.cancel(err) // others may have left the claimed chunk to this call: the snapshot cannot be whole any more
		return id, err
	}
	return id, nil
}

func (w *Writer) pack(ctx context.Context, s *slot, id ChunkID, plain []byte) error {
	if s.pack == nil {
		if err := w.beginPack(ctx, s); err != nil {
			return err
		}
	}
	frame := s.fr.frame(plain)
	if buf := &s.mem.buf; buf.Available() < len(frame)+packStart { // once: what comes now may fill the pack
		buf.Grow(w.o.packBytes + 2*maxChunk - buf.Len())
	}
	if err := s.pack.add(id, frame, len(plain)); err != nil {
		return err
	}
	if !s.pack.full(w.o.packBytes) {
		return nil
	}
	return w.endPack(s)
}

// known says whether a chunk need not be stored: it lies in a pack that stays.
func (w *Writer) known(id ChunkID) (bool, error) { return w.lookUp(id, w.avoid) }

// held says whether a chunk of the parent is there, in whatever pack that is not damaged: the parent needs it, so that it stays.
func (w *Writer) held(id ChunkID) (bool, error) { return w.lookUp(id, w.damaged) }

func (w *Writer) lookUp(id ChunkID, avoid map[packID]bool) (bool, error) {
	if w.claims.has(id) {
		return true, nil
	}
	_, err := w.x.findOutside(id, avoid)
	switch {
	case err == nil:
		return true, nil
	case isAbsent(err):
		return false, nil
	}
	return false, fmt.Errorf("look up chunk %s: %w", id, err)
}

func (w *Writer) beginPack(ctx context.Context, s *slot) error {
	select {
	case s.mem = <-w.memory:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-w.ctx.Done():
		return context.Cause(w.ctx)
	}
	s.mem.buf.Reset()
	s.mem.buf.Grow(2 * packStart)
	seal := w.m.keys.sealData
	if s.kind == metaPack {
		seal = w.m.keys.sealMeta
	}
	var err error
	s.pack, err = newPackBuilder(s.kind, seal, &s.mem.buf, s.mem.recs)
	return err
}

// endPack hands the pack to an upload. There is memory for a few: the slot waits when it is used up.
func (w *Writer) endPack(s *slot) error {
	pack, mem := s.pack, s.mem
	s.pack, s.mem = nil, nil
	if pack == nil {
		return nil
	}
	info, err := pack.finish()
	if err != nil {
		return err
	}
	mem.recs = pack.recs
	w.uploads.Go(func() {
		if err := w.upload(info, mem); err != nil {
			w.cancel(err)
		}
		w.memory <- mem // never blocks: there is room for all
	})
	return nil
}

// storeMeta stores a leaf, a root or a piece of the tree.
func (w *Writer) storeMeta(ctx context.Context, plain []byte) (ChunkID, error) {
	w.metaMu.Lock()
	defer w.metaMu.Unlock()
	return w.put(ctx, w.meta, plain)
}
