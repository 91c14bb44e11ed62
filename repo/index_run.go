package repo

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/zeebo/blake3"
)

const (
	runBucket   = 128     // records that a fan-out slot leads to, on average
	runFanBits  = 16      // at most: 256 KiB of memory per run
	runPread    = 256     // records fetched by one read at the end of a search
	runBuffered = 1 << 18 // bytes buffered per run in a merge
)

// indexRun is a local file of records sorted by id, searched with one or two reads. Ids are uniformly
// distributed, so a small table over their leading bits leads close to the place.
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
	bits := uint(0)
	for bits < runFanBits && count>>bits > runBucket {
		bits++
	}
	return 64 - bits
}

// find calls fn for each record of id, with its place in the run, until fn says that it has enough.
func (r *indexRun) find(id ChunkID, pool *sync.Pool, fn func(rec record, at int64) (enough bool)) (bool, error) {
	b := binary.BigEndian.Uint64(id[:]) >> r.shift
	lo, hi := int64(r.fan[b]), int64(r.fan[b+1])
	buf := pool.Get().(*runBuf)
	defer pool.Put(buf)
	lo, err := r.narrow(id, lo, hi, buf[:recordSize])
	if err != nil {
		return false, err
	}
	for ; lo < hi; lo += runPread {
		part := buf[:min(hi-lo, runPread)*recordSize]
		if _, err := r.f.ReadAt(part, lo*recordSize); err != nil {
			return false, fmt.Errorf("read index cache: %w", err)
		}
		for at := lo; len(part) > 0; part, at = part[recordSize:], at+1 {
			switch c := bytes.Compare(part[:32], id[:]); {
			case c > 0:
				return false, nil
			case c == 0 && fn(decodeRecord(part), at):
				return true, nil
			}
		}
	}
	return false, nil
}

// narrow moves lo up by halving until what is left fits one read. Records equal to id stay inside.
func (r *indexRun) narrow(id ChunkID, lo, hi int64, row []byte) (int64, error) {
	for hi-lo > runPread {
		mid := lo + (hi-lo)/2
		if _, err := r.f.ReadAt(row, mid*recordSize); err != nil {
			return 0, fmt.Errorf("read index cache: %w", err)
		}
		if bytes.Compare(row[:32], id[:]) < 0 {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo, nil
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

// recordWriter writes sorted rows to a new file and hashes them.
type recordWriter struct {
	h *blake3.Hasher
	w *bufio.Writer
	n int64
}

func newRecordWriter(f io.Writer, h *blake3.Hasher) *recordWriter {
	return &recordWriter{h: h, w: bufio.NewWriterSize(io.MultiWriter(f, h), runBuffered)}
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
	return w.n, hex.EncodeToString(w.h.Sum(nil)), nil
}
