package repo

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"math/bits"
	"os"
	"sort"
	"sync"

	"github.com/zeebo/blake3"
)

const (
	runBucket   = 128     // records that a fan-out slot leads to, on average
	runFanBits  = 16      // at most: 256 KiB of memory per run
	runPread    = 64      // records fetched by one read: of a bucket's 128, four deviations either way from the expected place
	runBuffered = 1 << 18 // bytes buffered per run in a merge
)

// indexRun is a local file of records sorted by id, searched with a read as a rule. Ids are uniformly
// distributed, so a small table over their leading bits and an interpolation lead to the place.
type indexRun struct {
	name   string
	f      *os.File
	count  int64
	digest string // BLAKE3 of the file: a damaged cache is noticed before it is believed
	shift  uint
	fan    []uint32 // fan[b] = first record whose leading bits are ≥ b
}

// runBuf spares a lookup its allocation.
type runBuf [runPread * recordSize]byte

func newRunPool() *sync.Pool { return &sync.Pool{New: func() any { return new(runBuf) }} }

func fanShift(count int64) uint {
	width := uint(0)
	for width < runFanBits && count>>width > runBucket {
		width++
	}
	return 64 - width
}

// find calls fn for each record of id, with its place in the run, until fn says that it has enough.
func (r *indexRun) find(id ChunkID, pool *sync.Pool, fn func(rec record, at int64) (enough bool)) (bool, error) {
	buf := pool.Get().(*runBuf)
	defer pool.Put(buf)
	q := r.search(id)
	for q.lo < q.hi {
		part, err := r.read(q.at, q.end, buf)
		if err != nil {
			return false, err
		}
		first := firstRow(part, id)
		if !q.narrow(first, len(part)/recordSize) {
			continue
		}
		at := q.at + int64(first)
		for part = part[first*recordSize:]; len(part) > 0; part, at = part[recordSize:], at+1 {
			if !bytes.Equal(part[:32], id[:]) {
				return false, nil
			}
			if fn(decodeRecord(part), at) {
				return true, nil
			}
		}
		q.lo, q.at, q.hi = at, at, q.end
	}
	return false, nil
}

func (r *indexRun) read(at, end int64, buf *runBuf) ([]byte, error) {
	part := buf[:min(end-at, runPread)*recordSize]
	if _, err := r.f.ReadAt(part, at*recordSize); err != nil {
		return nil, fmt.Errorf("read index cache: %w", err)
	}
	return part, nil
}

// firstRow is how many rows come before id.
func firstRow(rows []byte, id ChunkID) int {
	return sort.Search(len(rows)/recordSize, func(i int) bool {
		return bytes.Compare(rows[i*recordSize:i*recordSize+32], id[:]) >= 0
	})
}

// runSearch looks for the first record that is not below an id, one window of runPread records after the other: first where
// the id would lie if all were evenly spread, then ever farther away, and once that leads out of what is left, in its middle.
type runSearch struct {
	lo, hi int64 // the record lies here, or there is none
	end    int64 // of what the leading bits lead to
	at     int64 // where the next window begins
	step   int64
}

// bucket is where the leading bits of an id lead to.
func (r *indexRun) bucket(id ChunkID) (lo, hi int64) {
	b := binary.BigEndian.Uint64(id[:]) >> r.shift
	return int64(r.fan[b]), int64(r.fan[b+1])
}

func (r *indexRun) search(id ChunkID) runSearch {
	lead := binary.BigEndian.Uint64(id[:])
	q := runSearch{step: runPread}
	q.lo, q.hi = r.bucket(id)
	q.end = q.hi
	below, _ := bits.Mul64(lead<<(64-r.shift), uint64(q.hi-q.lo))
	q.at = q.lo + int64(below) - runPread/2
	q.clamp()
	return q
}

func (q *runSearch) clamp() { q.at = max(q.lo, min(q.at, q.hi-runPread)) }

// narrow takes in that first of the window's n rows come before the id, and says whether the record was there.
func (q *runSearch) narrow(first, n int) bool {
	switch {
	case first == 0 && q.at > q.lo:
		q.hi = q.at + 1
		q.at -= q.step
	case first == n:
		q.lo = q.at + int64(n)
		q.at += q.step
	default:
		return true
	}
	q.step *= 2
	if q.at < q.lo || q.at > q.hi-runPread {
		q.at = q.lo + (q.hi-q.lo-runPread)/2
	}
	q.clamp()
	return false
}

// openRun checks the whole file against its digest and builds the fan-out on the way.
func openRun(path, name string, count int64, digest string) (*indexRun, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	run := &indexRun{name: name, f: f, count: count, digest: digest}
	fan := newFanBuilder(count)
	h := blake3.New()
	r := bufio.NewReaderSize(io.TeeReader(f, h), runBuffered)
	var row [recordSize]byte
	for range count {
		if _, err = io.ReadFull(r, row[:]); err != nil {
			break
		}
		fan.add(row[:])
	}
	if err == nil {
		if _, over := r.ReadByte(); over != io.EOF {
			err = fmt.Errorf("longer than recorded")
		} else if hex.EncodeToString(h.Sum(nil)) != digest {
			err = fmt.Errorf("digest differs")
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("index cache %s: %w", name, err)
	}
	run.shift, run.fan = fan.finish()
	return run, nil
}

type fanBuilder struct {
	shift uint
	fan   []uint32
	next  uint64 // first slot not yet set
	n     uint32
}

func newFanBuilder(count int64) *fanBuilder {
	s := fanShift(count)
	return &fanBuilder{shift: s, fan: make([]uint32, 1<<(64-s)+1)}
}

func (b *fanBuilder) add(row []byte) {
	for slot := binary.BigEndian.Uint64(row) >> b.shift; b.next <= slot; b.next++ {
		b.fan[b.next] = b.n
	}
	b.n++
}

func (b *fanBuilder) finish() (uint, []uint32) {
	for ; b.next < uint64(len(b.fan)); b.next++ {
		b.fan[b.next] = b.n
	}
	return b.shift, b.fan
}

// recordWriter writes sorted rows to a new file, and hashes them where a hasher is given.
type recordWriter struct {
	h *blake3.Hasher
	w *bufio.Writer
	n int64
}

func newRecordWriter(f io.Writer, h *blake3.Hasher) *recordWriter {
	if h != nil {
		f = io.MultiWriter(f, h)
	}
	return &recordWriter{h: h, w: bufio.NewWriterSize(f, runBuffered)}
}

func (w *recordWriter) add(row []byte) error {
	w.n++
	_, err := w.w.Write(row)
	return err
}

func (w *recordWriter) finish() (count int64, digest string, err error) {
	if err := w.w.Flush(); err != nil {
		return 0, "", fmt.Errorf("write index cache: %w", err)
	}
	if w.h == nil {
		return w.n, "", nil
	}
	return w.n, hex.EncodeToString(w.h.Sum(nil)), nil
}
