package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"
	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob"
	"github.com/zeebo/blake3"
)

// An index object is written when that many packs or records wait for one: it bounds the memory for records, and
// what an interrupted backup has to store again.
const (
	flushPacks   = 64
	flushRecords = 1 << 17
)

// flushState is the durable packs that no index names yet.
type flushState struct {
	mu    sync.Mutex
	packs []packInfo
	recs  []record
}

// upload makes a pack durable, and then, at times, an index.
func (w *Writer) upload(info packInfo, mem *packMemory) error {
	err := w.m.storage.Put(w.ctx, info.name(), bytes.NewReader(mem.buf.Bytes()), blob.PutOptions{})
	if err != nil && !errors.Is(err, blob.ErrExists) { // its name is its content
		return fmt.Errorf("store %s: %w", info.name(), err)
	}
	w.stored.Add(info.size)
	w.sealed.Add(1)
	packs, recs := w.flush.take(info, mem.recs, w.o.flushAt, flushRecords)
	return w.writeIndex(w.ctx, packs, recs)
}

// take adds a pack, and empties the state when it has reached a bound.
func (f *flushState) take(info packInfo, recs []record, maxPacks, maxRecs int) ([]packInfo, []record) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(recs) > 0 {
		row := uint32(len(f.packs))
		f.packs = append(f.packs, info)
		for _, r := range recs {
			r.pack = row
			f.recs = append(f.recs, r)
		}
	}
	if len(f.packs) < maxPacks && len(f.recs) < maxRecs {
		return nil, nil
	}
	packs, all := f.packs, f.recs
	f.packs, f.recs = nil, nil
	return packs, all
}

// writeIndex makes an index object durable and takes it into the local index; only then the claims can go.
func (w *Writer) writeIndex(ctx context.Context, packs []packInfo, recs []record) error {
	if len(packs) == 0 {
		return nil
	}
	sortRecords(recs)
	name, size, err := w.m.putIndex(ctx, packs, recs)
	if err != nil {
		return err
	}
	w.stored.Add(size)
	if err := w.x.add(name, packs, recs); err != nil {
		return err
	}
	w.claims.release(recs)
	return nil
}

// putIndex makes an index object durable, and witnesses it. recs are sorted.
func (m *Meta) putIndex(ctx context.Context, packs []packInfo, recs []record) (name string, size int64, err error) {
	sealed, err := m.sealIndex(packs, recs)
	if err != nil {
		return "", 0, fmt.Errorf("seal index: %w", err)
	}
	name, begun := indexPrefix+packID(blake3.Sum256(sealed)).String(), m.now()
	err = m.storage.Put(ctx, name, bytes.NewReader(sealed), blob.PutOptions{})
	if err != nil && !errors.Is(err, blob.ErrExists) {
		return "", 0, fmt.Errorf("store %s: %w", name, err)
	}
	m.witness(ctx, name, begun)
	return name, int64(len(sealed)), nil
}

func (m *Meta) sealIndex(packs []packInfo, recs []record) ([]byte, error) {
	var out bytes.Buffer
	a, err := m.keys.sealMeta(&out)
	if err != nil {
		return nil, err
	}
	z, err := zstd.NewWriter(a, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(maxChunk))
	if err != nil {
		return nil, err
	}
	if err := errors.Join(encodeIndex(z, packs, recs), z.Close(), a.Close()); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// Commit makes everything durable, then the manifest, whose existence is the snapshot's. facts gives Facts; what
// the repository knows better (ID, Store, Kind, Epoch, Host, Started, Finished, Files, Size, Stored, Parent) is filled in.
// After an error the snapshot may only exist if it is whole: the manifest comes last.
func (w *Writer) Commit(ctx context.Context, facts relight.Snapshot) (relight.Snapshot, error) {
	if !w.closed.CompareAndSwap(false, true) {
		return relight.Snapshot{}, errClosed
	}
	man, err := w.commit(ctx, facts)
	w.end(ctx, err == nil)
	if err != nil {
		return relight.Snapshot{}, fmt.Errorf("commit snapshot %s: %w", w.id, err)
	}
	return man.Snapshot, nil
}

func (w *Writer) commit(ctx context.Context, facts relight.Snapshot) (Manifest, error) {
	if err := w.endData(ctx); err != nil {
		return Manifest{}, err
	}
	tree, err := w.writeTree(ctx)
	if err != nil {
		return Manifest{}, err
	}
	w.metaMu.Lock()
	err = w.endPack(w.meta)
	w.metaMu.Unlock()
	w.uploads.Wait()
	if err := errors.Join(err, context.Cause(w.ctx)); err != nil {
		return Manifest{}, err
	}
	packs, recs := w.flush.take(packInfo{}, nil, 0, 0)
	if err := w.writeIndex(ctx, packs, recs); err != nil {
		return Manifest{}, err
	}
	if err := w.mayCommit(ctx); err != nil {
		return Manifest{}, err
	}
	w.attested = true
	if err := putWitness(ctx, w.m.storage, w.m.keys, snapName(w.store, w.id), w.m.now()); err != nil {
		return Manifest{}, err
	}
	man := w.manifest(facts, tree)
	if err := w.m.putSigned(ctx, manifestKind, snapName(w.store, w.id), man, sealedMeta); err != nil {
		return Manifest{}, err
	}
	// Whoever took this backup for dead has fenced it before he looked for the manifest.
	fenced, err := w.m.isFenced(ctx, w.store, w.id)
	if err == nil && fenced {
		err = w.givenUp("it was taken for dead in the moment of its commit")
	}
	return man, err
}

// endData waits for every slot, that is for every file under way, and ends its pack.
func (w *Writer) endData(ctx context.Context) error {
	for range w.count {
		select {
		case s := <-w.slots:
			if err := w.endPack(s); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-w.ctx.Done():
			return context.Cause(w.ctx)
		}
	}
	return nil
}

func (w *Writer) writeTree(ctx context.Context) ([]ChunkID, error) {
	t := &treeWriter{store: w.storeMeta, cut: w.cut}
	if err := w.spool.each(func(line []byte) error { return t.add(ctx, line) }); err != nil {
		return nil, err
	}
	return t.finish(ctx)
}

func (w *Writer) manifest(s relight.Snapshot, tree []ChunkID) Manifest {
	s.ID, s.Store, s.State, s.Epoch, s.Host = w.id, w.store, relight.Complete, w.m.keys.Epoch(), w.m.keys.Host()
	if s.Kind == "" {
		s.Kind = w.o.Kind
	}
	if s.Started.IsZero() {
		s.Started = w.started
	}
	s.Finished = w.m.now().UTC()
	s.Files, s.Size, s.Stored = w.spool.files, w.spool.bytes, w.stored.Load()
	if w.o.Parent != nil {
		s.Parent = w.o.Parent.ID
	}
	return Manifest{Snapshot: s, Format: Format, Tree: tree, Packs: int(w.sealed.Load()), Entries: w.spool.total}
}

// Abort gives the snapshot up. What was stored stays as garbage for retention, or is found again by the next backup.
func (w *Writer) Abort(ctx context.Context) {
	if w.closed.CompareAndSwap(false, true) {
		w.cancel(errClosed)
		w.end(ctx, false)
	}
}

// end frees what the writer holds.
func (w *Writer) end(ctx context.Context, committed bool) {
	w.cancel(errClosed)
	w.uploads.Wait()
	w.spool.close()
	w.parentTree.close()
	w.unregister(context.WithoutCancel(ctx), committed)
}
