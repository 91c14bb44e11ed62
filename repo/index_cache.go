package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/klauspost/compress/zstd"
	"github.com/toolboxai/relight/blob"
	"github.com/zeebo/blake3"
	"golang.org/x/sync/errgroup"
)

const (
	indexPrefix  = "index/"
	indexMax     = 256 << 20 // sealed bytes of an index object that a reader accepts
	indexFetches = 4         // index objects in memory at once
	indexSort    = 8 << 20   // bytes sorted in memory while the cache is built
)

// chunkIndex finds chunks. The repository's index objects are merged into a few sorted local files, so memory
// does not grow with the repository; with a cache directory they survive the process, and only new index
// objects are fetched. What it says is a hint: bytes are believed when they match their id.
type chunkIndex struct {
	s     blob.Storage
	open  func(io.Reader) (io.Reader, error)
	cache *indexDir // nil: private nameless files
	pool  *sync.Pool

	change sync.Mutex // one refresh or addition at a time
	mu     sync.RWMutex
	st     indexState
	rows   map[packID]uint32
	there  []bool           // per pack: listed with its size at the last refresh, or added since
	broken map[string]error // index objects that do not open or decode
}

// indexState is all that lookups need; it is replaced as a whole.
type indexState struct {
	runs    []*indexRun // biggest first
	packs   []packInfo
	objects map[string]bool
}

func newChunkIndex(s blob.Storage, open func(io.Reader) (io.Reader, error), cache *indexDir) *chunkIndex {
	x := &chunkIndex{s: s, open: open, cache: cache, pool: newRunPool()}
	x.reset()
	return x
}

func (x *chunkIndex) reset() {
	x.closeRuns(x.st.runs)
	x.st = indexState{objects: map[string]bool{}}
	x.rows, x.there, x.broken = map[packID]uint32{}, nil, map[string]error{}
}

// forget empties the memory, so that the next load reads the cache directory again.
func (x *chunkIndex) forget() {
	x.reset()
	x.cache.forget()
}

func (x *chunkIndex) closeRuns(runs []*indexRun) {
	for _, r := range runs {
		_ = r.f.Close() // opened for reading, or nameless
	}
}

// location is where a chunk can be read.
type location struct {
	pack  packInfo
	off   uint32
	frame uint32
	plain uint32
}

var (
	errNoChunk  = errors.New("no index names the chunk")
	errPackGone = errors.New("the pack is gone from the repository, or has another size")
)

// find is the place of a chunk. It returns errNoChunk, or errPackGone with the place that is lost.
func (x *chunkIndex) find(id ChunkID) (location, error) { return x.findOutside(id, nil) }

// findOutside is find that does not see some packs.
func (x *chunkIndex) findOutside(id ChunkID, avoid map[packID]bool) (location, error) {
	return x.findWhere(id, func(l location) bool { return !avoid[l.pack.id] })
}

// findWhere is find that sees only the places that are wanted.
func (x *chunkIndex) findWhere(id ChunkID, wanted func(location) bool) (location, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var at, lost location
	gone := false
	take := func(r record, _ int64) bool {
		if int64(r.pack) >= int64(len(x.st.packs)) {
			return false
		}
		l := location{pack: x.st.packs[r.pack], off: r.off, frame: r.frame, plain: r.plain}
		if !wanted(l) {
			return false
		}
		if !x.there[r.pack] {
			lost, gone = l, true
			return false
		}
		at = l
		return true
	}
	for _, run := range x.st.runs {
		ok, err := run.find(id, x.pool, take)
		if ok || err != nil {
			return at, err
		}
	}
	if gone {
		return lost, errPackGone
	}
	return location{}, errNoChunk
}

// whole says that no pack which an index names is missing, so that whatever a committed snapshot refers to is there.
func (x *chunkIndex) whole() bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for _, there := range x.there {
		if !there {
			return false
		}
	}
	return len(x.broken) == 0
}

// refresh takes in what other writers added since, and notices packs that went away.
func (x *chunkIndex) refresh(ctx context.Context) error {
	x.change.Lock()
	defer x.change.Unlock()
	return x.cache.locked(func() error {
		// Indexes before packs: every pack of a listed index was durable before it.
		listed, err := x.listIndexes(ctx)
		if err != nil {
			return err
		}
		x.mu.Lock()
		defer x.mu.Unlock()
		if err := x.load(); err != nil {
			return err
		}
		for name := range x.st.objects {
			if !listed[name] { // retention took it: its records must go too
				x.reset()
				break
			}
		}
		if err := x.fetch(ctx, listed); err != nil {
			return err
		}
		return x.listPacks(ctx)
	})
}

func (x *chunkIndex) listIndexes(ctx context.Context) (map[string]bool, error) {
	listed := map[string]bool{}
	err := x.s.List(ctx, indexPrefix, func(i blob.Info) error { listed[i.Name] = true; return nil })
	if err != nil {
		return nil, fmt.Errorf("list indexes: %w", err)
	}
	return listed, nil
}

func (x *chunkIndex) listPacks(ctx context.Context) error {
	x.there = make([]bool, len(x.st.packs))
	err := x.s.List(ctx, "pack/", func(i blob.Info) error {
		id, ok := packFromName(i.Name)
		if row, known := x.rows[id]; ok && known && x.st.packs[row].name() == i.Name && x.st.packs[row].size == i.Size {
			x.there[row] = true
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("list packs: %w", err)
	}
	return nil
}

// fetch merges the index objects that are not in the cache yet.
func (x *chunkIndex) fetch(ctx context.Context, listed map[string]bool) error {
	sorter := newRowSorter(x.cache.temp(), recordSize, indexSort)
	defer sorter.close()
	var mu sync.Mutex
	found := 0
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(indexFetches)
	news := slices.DeleteFunc(slices.Sorted(maps.Keys(listed)), func(name string) bool { return x.st.objects[name] })
	for _, name := range news {
		g.Go(func() error {
			sealed, err := getAll(gctx, x.s, name, indexMax)
			if errors.Is(err, blob.ErrNotFound) {
				return nil // retention took it after it was listed
			}
			if err != nil {
				return fmt.Errorf("read %s: %w", name, err)
			}
			mu.Lock() // pack rows and the sorter are shared; the download above is what takes long
			defer mu.Unlock()
			delete(x.broken, name)
			if err := x.take(name, sealed, sorter); err != nil {
				if !errors.Is(err, errIndex) {
					return err
				}
				x.broken[name] = err
				return nil
			}
			x.st.objects[name] = true
			found++
			return sorter.cut()
		})
	}
	if err := g.Wait(); err != nil {
		x.forget() // pack rows without their records would be left behind
		return err
	}
	if found == 0 {
		return nil
	}
	return x.addRun(sorter)
}

// take decodes one index object into the sorter.
func (x *chunkIndex) take(name string, sealed []byte, sorter *rowSorter) error {
	if got := blake3.Sum256(sealed); indexPrefix+packID(got).String() != name {
		return fmt.Errorf("%w: its bytes do not match its name", errIndex)
	}
	plain, err := x.open(bytes.NewReader(sealed))
	if err != nil {
		return fmt.Errorf("%w: %w", errIndex, err)
	}
	z, err := zstd.NewReader(plain, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(8<<20), zstd.WithDecoderLowmem(true))
	if err != nil {
		return fmt.Errorf("%w: %w", errIndex, err)
	}
	defer z.Close()
	var global []uint32
	row := make([]byte, 0, recordSize)
	return decodeIndex(z, func(packs []packInfo) error {
		for _, p := range packs {
			global = append(global, x.rowOf(p))
		}
		return nil
	}, func(r record) error {
		r.pack = global[r.pack]
		return sorter.add(r.append(row[:0]))
	})
}

// rowOf gives a pack its row in the table.
func (x *chunkIndex) rowOf(p packInfo) uint32 {
	if row, ok := x.rows[p.id]; ok {
		return row
	}
	row := uint32(len(x.st.packs))
	x.st.packs = append(x.st.packs, p)
	x.there = append(x.there, false)
	x.rows[p.id] = row
	return row
}

// add takes in an index object that this process has just made durable.
func (x *chunkIndex) add(name string, packs []packInfo, recs []record) error {
	x.change.Lock()
	defer x.change.Unlock()
	return x.cache.locked(func() error {
		x.mu.Lock()
		defer x.mu.Unlock()
		sorter := newRowSorter(x.cache.temp(), recordSize, indexSort)
		defer sorter.close()
		if err := x.load(); err != nil {
			return err
		}
		row := make([]byte, 0, recordSize)
		for _, r := range recs {
			n := x.rowOf(packs[r.pack])
			x.there[n] = true
			r.pack = n
			if err := sorter.add(r.append(row[:0])); err != nil {
				return err
			}
		}
		x.st.objects[name] = true
		return x.addRun(sorter)
	})
}

// addRun writes the sorter's rows as a new run, together with the runs that are not much bigger: so each record
// is rewritten only a few times, and lookups search only a few runs.
func (x *chunkIndex) addRun(sorter *rowSorter) error {
	runs := x.st.runs
	keep := len(runs)
	total := sorter.count()
	for keep > 0 && total*2 >= runs[keep-1].count {
		keep--
		total += runs[keep].count
	}
	run, err := x.cache.writeRun(total, func(add func(row []byte) error) error {
		src, err := sorter.finish()
		if err != nil {
			return err
		}
		for _, r := range runs[keep:] {
			src = append(src, newRowSource(r.f, r.count*recordSize, recordSize))
		}
		return mergeRows(src, add)
	})
	if err != nil {
		return err
	}
	merged := runs[keep:]
	x.st.runs = append(runs[:keep:keep], run)
	x.closeRuns(merged)
	return x.cache.save(x.st)
}

// load takes over what another process put into the cache directory since.
func (x *chunkIndex) load() error {
	st, ok, err := x.cache.load()
	if err != nil || !ok {
		return err
	}
	lost := map[packID]bool{}
	for i, there := range x.there {
		if !there {
			lost[x.st.packs[i].id] = true
		}
	}
	x.reset()
	x.st = st
	x.there = make([]bool, len(st.packs))
	for i, p := range st.packs {
		x.rows[p.id] = uint32(i)
		x.there[i] = !lost[p.id] // a pack is durable before its index; refresh looks again
	}
	return nil
}

// packFromName is the id in a pack object's name.
func packFromName(name string) (packID, bool) {
	hexed, ok := strings.CutPrefix(name, dataPack.prefix())
	if !ok {
		hexed, ok = strings.CutPrefix(name, metaPack.prefix())
	}
	var id ChunkID
	if !ok || id.UnmarshalText([]byte(hexed)) != nil {
		return packID{}, false
	}
	return packID(id), true
}
