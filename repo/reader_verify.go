package repo

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/toolboxai/relight"
	"golang.org/x/sync/errgroup"
)

const (
	verifySort  = 16 << 20 // bytes of places sorted in memory
	maxDamage   = 1 << 16  // damaged chunks that a report follows to their files
	maxDamaged  = 1000     // files that a report names
	placeSize   = 48
	verifyLimit = 8 // parallel readers at most: each needs some MiB
)

// Damage is what is wrong with a snapshot, and how far it reaches.
type Damage struct {
	Snapshot relight.SnapshotID
	Objects  []string // damaged or missing, by name
	Files    []string // that cannot be restored whole; at most 1,000
	Lost     int64    // chunks that cannot be read
	First    error    // the first failure, in full
}

func (d *Damage) Error() string {
	s := fmt.Sprintf("snapshot %s is damaged: %d chunks cannot be read", d.Snapshot, d.Lost)
	if len(d.Objects) > 0 {
		s += "; damaged objects: " + strings.Join(d.Objects[:min(len(d.Objects), 10)], ", ")
	}
	if len(d.Files) > 0 {
		s += "; files touched: " + strings.Join(d.Files[:min(len(d.Files), 10)], ", ")
	}
	return s + "; first failure: " + d.First.Error()
}

// Is makes Damage an ErrCorrupt.
func (d *Damage) Is(target error) bool { return target == ErrCorrupt }

// VerifySnapshot reads back every chunk that a snapshot needs, each once and in the order of the packs. Damage
// is reported whole, as a *Damage inside a relight.Error with CodeVerification. progress may be nil; it is called
// by one goroutine at a time. When the keys at hand can sign, the outcome is recorded, and with it the snapshot's
// state.
func (r *Reader) VerifySnapshot(ctx context.Context, man Manifest, workers int, progress func(relight.Progress)) error {
	v := &verification{r: r, man: man, progress: progress, files: map[string]bool{}, objects: map[string]bool{}, spoiled: map[string]bool{}, lost: map[ChunkID]bool{}}
	if err := v.run(ctx, min(max(workers, 1), verifyLimit)); err != nil {
		return fmt.Errorf("verify snapshot %s: %w", man.ID, err)
	}
	damage := v.damage()
	v.record(ctx, damage)
	if damage == nil {
		return nil
	}
	return &relight.Error{
		Op: "verify", Subject: "snapshot " + string(man.ID), Code: relight.CodeVerification, Err: damage,
		Hint: "restore from another snapshot or another repository; files that are not named are whole. The next backup stores again what it has of the damaged packs",
	}
}

type verification struct {
	r        *Reader
	man      Manifest
	progress func(relight.Progress)
	mosaics  bool  // some slot is one
	total    int64 // stored bytes of all places; chunks that files share are read once, so done may stay below

	mu      sync.Mutex
	done    int64
	chunks  int64
	first   error
	files   map[string]bool
	objects map[string]bool
	spoiled map[string]bool // packs with damaged bytes, also where another pack has the chunk
	lost    map[ChunkID]bool
	hit     map[uint64]bool // numbers of files that lack chunks
	count   int64           // of lost chunks
}

func (v *verification) run(ctx context.Context, workers int) error {
	x, err := v.r.meta.index(ctx, v.man.ID)
	if err != nil {
		return err
	}
	places := newPlaces(x)
	sorter := newRowSorter(x.cache.temp(), placeSize, verifySort)
	defer sorter.close()
	if err := v.collect(ctx, places, sorter); err != nil {
		return err
	}
	if err := readPlaces(ctx, v.r.meta, places, sorter, workers, v.took); err != nil {
		return err
	}
	if len(v.lost)+len(v.hit) > 0 {
		return v.trace(ctx)
	}
	return v.join(ctx)
}

// join puts the mosaics together, whose chunks were all found right, and holds them against their ids.
func (v *verification) join(ctx context.Context) error {
	if !v.mosaics || v.count > 0 {
		return nil
	}
	slots, err := v.r.meta.slots(ctx, v.man.ID)
	if err != nil {
		return err
	}
	defer slots.close()
	return v.eachFile(ctx, func(e Entry, next func() (mapped, bool, error)) error {
		err := slots.stream(ctx, func() (mapped, bool, error) {
			for {
				s, ok, err := next()
				if !ok || err != nil || s.isMosaic() {
					return s, ok, err
				}
			}
		}, func([]byte) error { return ctx.Err() })
		slots.due = nil
		if err != nil {
			return v.blame(e.Path, err)
		}
		return nil
	})
}

// eachFile walks the files of the snapshot with their slots.
func (v *verification) eachFile(ctx context.Context, fn func(e Entry, next func() (mapped, bool, error)) error) error {
	c, err := v.r.meta.chunkReader(ctx)
	if err != nil {
		return err
	}
	defer v.r.meta.content.release(c)
	return v.r.meta.lines(ctx, v.man, func(e Entry, _ []byte) error {
		slots := newSlotCursor(e, c.load)
		return fn(e, func() (mapped, bool, error) { return slots.next(ctx) })
	})
}

// blame counts damage that was met on the way to a file's chunks; other errors end the verification.
func (v *verification) blame(file string, err error) error {
	if !errors.Is(err, ErrCorrupt) && !errors.Is(err, errMap) && !errors.Is(err, errEntry) {
		return err
	}
	id := ChunkID{}
	var d *DamageError
	if errors.As(err, &d) {
		id = d.Chunk
	}
	v.lose(id, file, err)
	return nil
}

func (v *verification) lose(id ChunkID, file string, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.count++
	if v.first == nil {
		v.first = err
	}
	var d *DamageError
	if errors.As(err, &d) && d.Object != "" {
		v.objects[d.Object] = true
	}
	v.spoil(err)
	if file != "" {
		if len(v.files) < maxDamaged {
			v.files[file] = true
		}
	} else if len(v.lost) < maxDamage {
		v.lost[id] = true
	}
}

// miss counts a chunk that the file of a number lacks; trace finds out which file that is.
func (v *verification) miss(file uint64, err error) {
	if v.hit == nil {
		v.hit = map[uint64]bool{}
	}
	if len(v.hit) < maxDamaged {
		v.hit[file] = true
	}
	v.count++
	v.first = cmp.Or(v.first, err)
	var d *DamageError
	if errors.As(err, &d) && d.Object != "" {
		v.objects[d.Object] = true
	}
}

// took takes in that a chunk was read. It is lost only where no other pack has it.
func (v *verification) took(ctx context.Context, c *chunkReader, w want, err error) error {
	if err != nil {
		v.mu.Lock()
		v.spoil(err)
		v.mu.Unlock()
		_, err = c.elsewhere(ctx, w, err)
	}
	if err != nil && !errors.Is(err, ErrCorrupt) {
		return err
	}
	if err != nil {
		v.lose(w.id, "", err)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.done += int64(w.at.frame)
	v.chunks++
	if v.progress != nil {
		v.progress(relight.Progress{Phase: "verify", Done: v.done, Total: v.total, Unit: "bytes"})
	}
	return nil
}

// spoil notes the pack that an error blames; the caller holds the lock.
func (v *verification) spoil(err error) {
	if pack := damagedPack(err); pack != "" {
		v.spoiled[pack] = true
	}
}

// trace finds the files that lack chunks, and those that need the ones which cannot be read.
func (v *verification) trace(ctx context.Context) error {
	file := uint64(0)
	err := v.eachFile(ctx, func(e Entry, next func() (mapped, bool, error)) error {
		file++
		hit, err := v.hit[file], error(nil)
		if !hit {
			hit, err = v.needsLost(next)
		}
		if hit && len(v.files) < maxDamaged {
			v.files[e.Path] = true
		}
		return err
	})
	if isDamage(err) {
		return nil // a damaged tree was counted when the places were collected
	}
	return err
}

func (v *verification) needsLost(next func() (mapped, bool, error)) (bool, error) {
	for len(v.lost) > 0 {
		s, ok, err := next()
		if isDamage(err) || err == nil && !ok {
			return false, nil // a damaged map was counted when the places were collected
		}
		if err != nil {
			return false, err
		}
		err = s.chunks(func(id ChunkID, _ int) error {
			if v.lost[id] {
				return errNoChunk
			}
			return nil
		})
		if err != nil {
			return true, nil
		}
	}
	return false, nil
}

func (v *verification) damage() *Damage {
	if v.count == 0 {
		return nil
	}
	return &Damage{Snapshot: v.man.ID, Objects: slices.Sorted(maps.Keys(v.objects)), Files: slices.Sorted(maps.Keys(v.files)), Lost: v.count, First: v.first}
}

// record keeps the outcome. A repository that takes no record is no reason to doubt what was read.
func (v *verification) record(ctx context.Context, d *Damage) {
	m := v.r.meta
	if !m.keys.CanWrite() {
		return
	}
	c := Checked{Store: v.man.Store, Snapshot: v.man.ID, At: m.now(), OK: d == nil, Chunks: v.chunks, Bytes: v.man.Size}
	if d != nil {
		c.Damage = d.Objects
	}
	m.noteDamaged(ctx, slices.Collect(maps.Keys(v.spoiled)))
	if err := m.PutChecked(ctx, c); err != nil {
		m.log.WarnContext(ctx, "the outcome of the verification is not recorded", "snapshot", v.man.ID, "err", err)
	}
}

// places turns locations into rows that sort by pack and offset.
type places struct {
	x     *chunkIndex
	rows  map[packInfo]uint32
	packs []packInfo
	bytes int64
	buf   [placeSize]byte
}

func newPlaces(x *chunkIndex) *places { return &places{x: x, rows: map[packInfo]uint32{}} }

func (p *places) row(id ChunkID, at location) []byte {
	n, ok := p.rows[at.pack]
	if !ok {
		n = uint32(len(p.packs))
		p.rows[at.pack] = n
		p.packs = append(p.packs, at.pack)
	}
	p.bytes += int64(at.frame)
	binary.BigEndian.PutUint32(p.buf[0:], n)
	binary.BigEndian.PutUint32(p.buf[4:], at.off)
	binary.BigEndian.PutUint32(p.buf[8:], at.frame)
	binary.BigEndian.PutUint32(p.buf[12:], at.plain)
	copy(p.buf[16:], id[:])
	return p.buf[:]
}

func (p *places) want(row []byte) want {
	u := func(i int) uint32 { return binary.BigEndian.Uint32(row[i:]) }
	return want{id: ChunkID(row[16:]), at: location{pack: p.packs[u(0)], off: u(4), frame: u(8), plain: u(12)}}
}

// tookFunc is told of each chunk that was read whether it is damaged, with the reader that read it.
type tookFunc func(ctx context.Context, c *chunkReader, w want, damaged error) error

// readPlaces reads the sorted places in runs, by several readers, and tells fn, which is called from several goroutines.
func readPlaces(ctx context.Context, m *Meta, p *places, sorter *rowSorter, workers int, fn tookFunc) error {
	runs := make(chan run)
	g, ctx := errgroup.WithContext(ctx)
	for range workers {
		g.Go(func() error {
			c, err := newChunkReader(m.storage, m.keys, p.x)
			if err != nil {
				return err
			}
			tell := func(w want, _ []byte, err error) error { return fn(ctx, c, w, err) }
			for r := range runs {
				if err := c.readEach(ctx, &r, tell); err != nil {
					return err
				}
			}
			return nil
		})
	}
	g.Go(func() error {
		defer close(runs)
		return cutRuns(ctx, p, sorter, runs)
	})
	return g.Wait()
}

func cutRuns(ctx context.Context, p *places, sorter *rowSorter, runs chan<- run) error {
	var r run
	send := func() error {
		if len(r.want) == 0 {
			return nil
		}
		select {
		case runs <- r:
			r = run{}
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	err := sorter.each(func(row []byte) error {
		w := p.want(row)
		if r.take(w) {
			return nil
		}
		if err := send(); err != nil {
			return err
		}
		r.take(w)
		return nil
	})
	if err != nil {
		return err
	}
	return send()
}
