package repo

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
)

const (
	lookupSize = idSize + 8
	lookupSort = 16 << 20 // bytes of lookups sorted in memory
	cursorRows = 8 << 10  // records of a run read at once: 384 KiB
)

// spot is one record of a chunk in the index.
type spot struct {
	run int
	at  int64 // in the run
	record
	info  packInfo
	there bool // the pack is
}

func (s spot) location() location {
	return location{pack: s.info, off: s.off, frame: s.frame, plain: s.plain}
}

// lookups finds any number of chunks in one pass over the index, in the order of their ids, instead of with a read for each.
type lookups struct {
	x      *chunkIndex
	sorter *rowSorter
	buf    [lookupSize]byte
}

func newLookups(x *chunkIndex) *lookups {
	return &lookups{x: x, sorter: newRowSorter(x.cache.temp(), lookupSize, lookupSort)}
}

func (l *lookups) close() { l.sorter.close() }

// add asks for a chunk; what is noted is told with the answer.
func (l *lookups) add(id ChunkID, note uint64) error {
	copy(l.buf[:], id[:])
	binary.BigEndian.PutUint64(l.buf[idSize:], note)
	return l.sorter.add(l.buf[:])
}

// each answers in the order of ids and notes, each different pair once. all is valid until fn returns. Nothing may be added afterwards.
func (l *lookups) each(fn func(id ChunkID, note uint64, all []spot) error) error {
	f := follower{x: l.x}
	var last ChunkID
	var all []spot
	asked := false
	return l.sorter.each(func(row []byte) error {
		id := ChunkID(row)
		if !asked || id != last {
			var err error
			if all, err = f.find(id, all[:0]); err != nil {
				return err
			}
			last, asked = id, true
		}
		return fn(id, binary.BigEndian.Uint64(row[idSize:]), all)
	})
}

// follower finds chunks in ascending order of their ids.
type follower struct {
	x       *chunkIndex
	runs    []*indexRun // that the cursors go through
	cursors []runCursor
}

// find appends every record of a chunk to out.
func (f *follower) find(id ChunkID, out []spot) ([]spot, error) {
	f.x.mu.RLock()
	defer f.x.mu.RUnlock()
	if !slices.Equal(f.runs, f.x.st.runs) { // the index has changed since
		f.runs, f.cursors = slices.Clone(f.x.st.runs), make([]runCursor, len(f.x.st.runs))
	}
	for i, run := range f.runs {
		rows, at, err := f.cursors[i].find(run, id, f.x.pool)
		if err != nil {
			return nil, err
		}
		for ; len(rows) > 0; rows, at = rows[recordSize:], at+1 {
			r := decodeRecord(rows)
			if int64(r.pack) < int64(len(f.x.st.packs)) {
				out = append(out, spot{run: i, at: at, record: r, info: f.x.st.packs[r.pack], there: f.x.there[r.pack]})
			}
		}
	}
	return out, nil
}

// runCursor goes through a run with what was read of it last. Where one lookup follows close upon another it reads ever more at once.
type runCursor struct {
	buf     []byte
	at, end int64 // the records in buf
	ahead   int64
}

// find gives the records of an id, and the place of the first one.
func (c *runCursor) find(run *indexRun, id ChunkID, pool *sync.Pool) (rows []byte, at int64, err error) {
	lo, hi := run.bucket(id)
	if hi-lo > cursorRows { // of hundreds of millions of records, or of ids that nobody's digest made
		return c.search(run, id, pool)
	}
	if lo < c.at || hi > c.end {
		if err := c.load(run, lo, hi); err != nil {
			return nil, 0, err
		}
	}
	rows = c.buf[(lo-c.at)*recordSize : (hi-c.at)*recordSize]
	first := firstRow(rows, id)
	rows = rows[first*recordSize:]
	n := 0
	for n < len(rows) && bytes.Equal(rows[n:n+idSize], id[:]) {
		n += recordSize
	}
	return rows[:n], lo + int64(first), nil
}

func (c *runCursor) load(run *indexRun, lo, hi int64) error {
	if near := lo >= c.at && lo-c.end <= c.ahead; near {
		c.ahead = min(max(2*c.ahead, 4*(hi-lo)), cursorRows)
	} else {
		c.ahead = 0
	}
	end := min(max(hi, lo+c.ahead), run.count)
	size := int(end-lo) * recordSize
	c.buf = slices.Grow(c.buf[:0], size)[:size]
	if _, err := run.f.ReadAt(c.buf, lo*recordSize); err != nil {
		c.at, c.end = 0, 0
		return fmt.Errorf("read index cache: %w", err)
	}
	c.at, c.end = lo, end
	return nil
}

func (c *runCursor) search(run *indexRun, id ChunkID, pool *sync.Pool) (rows []byte, first int64, err error) {
	_, err = run.find(id, pool, func(r record, at int64) bool {
		if len(rows) == 0 {
			first = at
		}
		rows = r.append(rows)
		return false
	})
	return rows, first, err
}
