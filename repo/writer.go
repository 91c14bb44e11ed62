package repo

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/toolboxai/relight"
)

// SnapshotOptions of a new snapshot.
type SnapshotOptions struct {
	Kind    string             // "full", "incremental", "restore-point"
	Parent  *Manifest          // whose block maps AddPages may take over; nil for none
	ID      relight.SnapshotID // "": made from the time
	Lease   *Lease             // of backup/<store>, under which it runs; nil for none
	Workers int                // files stored at the same time; 0: the number of CPUs, at most 8

	packBytes int // where a pack ends; 0: packTarget. Tests make many small packs
	flushAt   int // packs in an index object; 0: flushPacks
}

// PageSource yields the chunks of a paged file in order.
type PageSource interface {
	// Chunk fills buf with chunk i, called for i = 0, 1, … until n is less than len(buf), and says which of its bytes may differ from those of the
	// parent's chunk i, in ascending order; the parent must have all others. Where none are fresh and the parent's chunk has n bytes too, it stands for
	// this one, and buf is looked at only if the parent's was lost. fresh is valid until the next call.
	Chunk(ctx context.Context, i int64, buf []byte) (n int, fresh []Stretch, err error)
}

// Stretch is the bytes of a chunk from From up to To.
type Stretch struct{ From, To int }

var errClosed = errors.New("the snapshot was committed or aborted")

// Writer stores one snapshot. Its Add methods may be called from several goroutines; each stores one file at a
// time, at most SnapshotOptions.Workers at once. Nothing is visible before Commit returns.
type Writer struct {
	m        *Meta
	store    string
	o        SnapshotOptions
	id       relight.SnapshotID
	started  time.Time
	page     int
	chunkKey []byte
	x        *chunkIndex
	whole    bool
	avoid    map[packID]bool // marked by retention, or damaged: what lies there is stored again
	damaged  map[packID]bool // found damaged: what lies there, nobody has
	swept    int64           // the newest epoch of retention that was seen
	cut      *cutter

	ctx    context.Context // of the uploads, which outlive the call that filled the pack
	cancel context.CancelCauseFunc

	slots   chan *slot
	count   int // of slots
	memory  chan *packMemory
	metaMu  sync.Mutex
	meta    *slot
	claims  claims
	uploads sync.WaitGroup
	flush   flushState
	spool   *entrySpool
	stored  atomic.Int64
	sealed  atomic.Int64 // packs
	closed  atomic.Bool

	attested bool // the manifest may have a witness

	parentOnce sync.Once
	parentTree *parentTree
	parentErr  error
	parentLost sync.Once // what of the parent is damaged is said once
}

// NewSnapshot begins a snapshot of a store. End it with Commit or Abort; Abort after Commit does nothing.
func (m *Meta) NewSnapshot(ctx context.Context, store string, o SnapshotOptions) (*Writer, error) {
	if err := validElement("store", store); err != nil {
		return nil, err
	}
	if !m.keys.CanWrite() {
		return nil, usage("back up", "store "+store, "use a writer's credential", "the keys at hand cannot sign a snapshot")
	}
	epoch, err := m.keys.epoch()
	if err != nil {
		return nil, err
	}
	o.packBytes, o.flushAt = cmp.Or(o.packBytes, packTarget), cmp.Or(o.flushAt, flushPacks)
	w := &Writer{m: m, store: store, o: o, started: m.now().UTC(), page: m.desc.Chunk, chunkKey: epoch.chunk[:], spool: &entrySpool{dir: m.o.CacheDir}}
	if w.id, err = m.snapshotID(store, w.started, o.ID); err != nil {
		return nil, err
	}
	if err := w.prepare(); err != nil {
		return nil, err
	}
	if err := w.register(ctx); err != nil {
		return nil, err
	}
	if err := w.look(ctx); err != nil {
		w.unregister(context.WithoutCancel(ctx), false)
		return nil, err
	}
	w.ctx, w.cancel = context.WithCancelCause(ctx)
	return w, nil
}

// snapshotID makes "<UTC time>-<store>-<random>", which sorts by time.
func (m *Meta) snapshotID(store string, at time.Time, given relight.SnapshotID) (relight.SnapshotID, error) {
	if given != "" {
		return given, validElement("snapshot", string(given))
	}
	suffix, err := randomHex(m.rand, 4)
	if err != nil {
		return "", err
	}
	return relight.SnapshotID(at.Format("20060102T150405Z") + "-" + store + "-" + suffix), nil
}

func (w *Writer) prepare() error {
	w.count = slotCount(w.o)
	w.slots = make(chan *slot, w.count)
	for range w.count {
		s, err := newSlot(w, dataPack)
		if err != nil {
			return err
		}
		w.slots <- s
	}
	var err error
	if w.meta, err = newSlot(w, metaPack); err != nil {
		return err
	}
	w.cut = newCutter(w.meta.hash)
	spare := w.count + 3 // one for metadata, two on their way
	w.memory = make(chan *packMemory, spare)
	for range spare {
		w.memory <- &packMemory{}
	}
	return nil
}

// ID is the id that the snapshot will have.
func (w *Writer) ID() relight.SnapshotID { return w.id }

// Page is the length of a chunk of a paged file.
func (w *Writer) Page() int { return w.page }

// acquire waits for a free slot.
func (w *Writer) acquire(ctx context.Context) (*slot, error) {
	if w.closed.Load() {
		return nil, errClosed
	}
	select {
	case s := <-w.slots:
		if err := w.ctx.Err(); err != nil {
			w.slots <- s
			return nil, context.Cause(w.ctx)
		}
		return s, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-w.ctx.Done():
		return nil, context.Cause(w.ctx)
	}
}

// AddDir adds a directory.
func (w *Writer) AddDir(_ context.Context, e Entry) (Entry, error) {
	e.Mode = e.Mode&^fs.ModeType | fs.ModeDir
	e.Size, e.Link, e.Digest, e.Paged, e.Chunks, e.Maps = 0, "", "", false, nil, nil
	return e, w.addEntry(e)
}

// AddLink adds a symbolic link to e.Link.
func (w *Writer) AddLink(_ context.Context, e Entry) (Entry, error) {
	e.Mode = e.Mode&^fs.ModeType | fs.ModeSymlink
	e.Size, e.Digest, e.Paged, e.Chunks, e.Maps = 0, "", false, nil, nil
	return e, w.addEntry(e)
}

func (w *Writer) addEntry(e Entry) error {
	if w.closed.Load() {
		return errClosed
	}
	e.ModTime = e.ModTime.UTC()
	if err := w.spool.add(e); err != nil {
		return fmt.Errorf("add %s: %w", e.Path, err)
	}
	return nil
}

// AddFile stores src to its end as a regular file and gives the entry with its size. With e.Paged it is cut at fixed lengths, else by content; only
// then the digest of the whole is recorded: for the big files of a database it would cost another reading of every byte, and the chunks' ids cover all.
func (w *Writer) AddFile(ctx context.Context, e Entry, src io.Reader) (Entry, error) {
	e.Mode &^= fs.ModeType
	if err := checkPath(e.Path); err != nil {
		return e, err
	}
	s, err := w.acquire(ctx)
	if err != nil {
		return e, fmt.Errorf("add %s: %w", e.Path, err)
	}
	defer func() { w.slots <- s }()
	s.maps.reset()
	s.file.Reset()
	e.Digest = ""
	if e.Paged {
		e.Size, err = w.addPaged(ctx, s, src)
	} else {
		e.Size, err = w.addCut(ctx, s, src)
	}
	if err == nil {
		err = s.maps.finish(ctx, &e)
	}
	if err != nil {
		return e, fmt.Errorf("add %s: %w", e.Path, err)
	}
	if !e.Paged {
		e.Digest = hex.EncodeToString(s.file.Sum(nil))
	}
	return e, w.addEntry(e)
}

// addCut keeps at least maxChunk bytes before each cut, so that a cut depends on content alone.
func (w *Writer) addCut(ctx context.Context, s *slot, src io.Reader) (size int64, err error) {
	s.room(2 * maxChunk)
	held, eof := 0, false
	for !eof || held > 0 {
		for !eof && held < maxChunk {
			n, rerr := src.Read(s.in[held:])
			_, _ = s.file.Write(s.in[held : held+n]) // a hash never fails
			held, size = held+n, size+int64(n)
			if eof = errors.Is(rerr, io.EOF); rerr != nil && !eof {
				return size, rerr
			}
		}
		b := s.in[:held]
		for len(b) >= maxChunk || eof && len(b) > 0 {
			k := w.cut.cut(b)
			if err := w.addChunk(ctx, s, b[:k]); err != nil {
				return size, err
			}
			b = b[k:]
		}
		held = copy(s.in, b)
		if err := w.alive(ctx); err != nil {
			return size, err
		}
	}
	return size, nil
}

func (s *slot) room(n int) {
	if len(s.in) < n {
		s.in = make([]byte, n)
	}
}

func (w *Writer) alive(ctx context.Context) error {
	if err := w.ctx.Err(); err != nil {
		return context.Cause(w.ctx)
	}
	return ctx.Err()
}

func (w *Writer) addChunk(ctx context.Context, s *slot, plain []byte) error {
	id, err := w.put(ctx, s, plain)
	if err != nil {
		return err
	}
	return s.maps.add(ctx, id)
}

func snapName(store string, id relight.SnapshotID) string {
	return strings.Join([]string{"snap", store, string(id)}, "/")
}

func isAbsent(err error) bool { return errors.Is(err, errNoChunk) || errors.Is(err, errPackGone) }
