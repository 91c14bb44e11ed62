package repo

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"os"
	"slices"
)

// A merge reads at most so many files at once, and so much of each: 8 MiB together.
const (
	mergeWidth    = 128
	mergeBuffered = 64 << 10
)

// rowBits are enough for the number of a row in a sorter's buffer.
const rowBits = 24

// rowSource yields fixed-size rows in ascending order. A row is valid until the next one.
type rowSource struct {
	r    *bufio.Reader
	size int
	row  []byte
	head uint64 // of the row: decides most comparisons
}

func newRowSource(f io.ReaderAt, bytes int64, row int) *rowSource {
	buffered := int(max(min(bytes, mergeBuffered), int64(row)))
	return &rowSource{r: bufio.NewReaderSize(io.NewSectionReader(f, 0, bytes), buffered), size: row}
}

func (s *rowSource) next() (bool, error) {
	if _, err := s.r.Discard(len(s.row)); err != nil {
		return false, fmt.Errorf("read sorted rows: %w", err)
	}
	var err error
	s.row, err = s.r.Peek(s.size)
	if errors.Is(err, io.EOF) && len(s.row) == 0 {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read sorted rows: %w", err)
	}
	s.head = binary.BigEndian.Uint64(s.row)
	return true, nil
}

// rowHeap has the source with the lowest row first.
type rowHeap []*rowSource

func (h rowHeap) less(i, j int) bool {
	if h[i].head != h[j].head {
		return h[i].head < h[j].head
	}
	return bytes.Compare(h[i].row, h[j].row) < 0
}

// sink restores the order where only the source at i may be too high.
func (h rowHeap) sink(i int) {
	for {
		child := 2*i + 1
		if child >= len(h) {
			return
		}
		if child+1 < len(h) && h.less(child+1, child) {
			child++
		}
		if !h.less(child, i) {
			return
		}
		h[i], h[child] = h[child], h[i]
		i = child
	}
}

// mergeRows calls fn for the rows of all sources in order, without repeating identical neighbours. fn must not
// keep the row.
func mergeRows(src []*rowSource, fn func(row []byte) error) error {
	var h rowHeap
	for _, s := range src {
		ok, err := s.next()
		if err != nil {
			return err
		}
		if ok {
			h = append(h, s)
		}
	}
	for i := len(h) / 2; i >= 0; i-- {
		h.sink(i)
	}
	var last []byte
	for len(h) > 0 {
		s := h[0]
		if !bytes.Equal(last, s.row) {
			if err := fn(s.row); err != nil {
				return err
			}
			last = append(last[:0], s.row...)
		}
		ok, err := s.next()
		if err != nil {
			return err
		}
		if !ok {
			h[0] = h[len(h)-1]
			h = h[:len(h)-1]
		}
		h.sink(0)
	}
	return nil
}

// rowSorter sorts any number of fixed-size rows, of 8 bytes at least, by their bytes and in bounded memory: full buffers are sorted into temporary
// files, which are merged at the end. It belongs to one goroutine.
type rowSorter struct {
	dir   string
	row   int
	limit int
	buf   []byte
	spare []byte
	order []uint64
	runs  []sortedRun
}

type sortedRun struct {
	f     *os.File
	bytes int64
}

func newRowSorter(dir string, row, limit int) *rowSorter {
	return &rowSorter{dir: dir, row: row, limit: limit / row * row}
}

func (s *rowSorter) add(row []byte) error {
	s.buf = append(s.buf, row...)
	if len(s.buf) < s.limit {
		return nil
	}
	return s.spill()
}

// cut keeps what was added apart from what follows, where that is worth a file: rows that come in order need no sorting as long as they are by themselves.
func (s *rowSorter) cut() error {
	if len(s.buf) < s.limit/4 {
		return nil
	}
	return s.spill()
}

func (s *rowSorter) spill() error {
	s.sortBuffer()
	buf := s.buf
	if err := s.write(func(w io.Writer) error { _, err := w.Write(buf); return err }); err != nil {
		return err
	}
	s.buf = s.buf[:0]
	return nil
}

// sortBuffer orders the rows of buf through an index, so that rows move once: numbers of rows behind what tells the rows apart first. Where that is not enough,
// the rows decide.
func (s *rowSorter) sortBuffer() {
	n := len(s.buf) / s.row
	if n == 0 {
		return
	}
	at := func(key uint64) []byte {
		i := int(key & (1<<rowBits - 1))
		return s.buf[i*s.row : (i+1)*s.row]
	}
	first, differ := binary.BigEndian.Uint64(s.buf), uint64(0)
	for i := range uint64(n) {
		differ |= first ^ binary.BigEndian.Uint64(at(i))
	}
	same := bits.LeadingZeros64(differ)
	s.order = slices.Grow(s.order[:0], n)
	for i := range uint64(n) {
		s.order = append(s.order, binary.BigEndian.Uint64(at(i))<<same>>rowBits<<rowBits|i)
	}
	slices.Sort(s.order)
	out := slices.Grow(s.spare[:0], len(s.buf))
	for rest := s.order; len(rest) > 0; {
		alike := 1
		for alike < len(rest) && rest[alike]>>rowBits == rest[0]>>rowBits {
			alike++
		}
		slices.SortFunc(rest[:alike], func(a, b uint64) int { return bytes.Compare(at(a), at(b)) })
		for _, key := range rest[:alike] {
			out = append(out, at(key)...)
		}
		rest = rest[alike:]
	}
	s.buf, s.spare = out, s.buf
}

func (s *rowSorter) write(fill func(io.Writer) error) error {
	f, err := tempFile(s.dir)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, runBuffered)
	if err := errors.Join(fill(w), w.Flush()); err != nil {
		return errors.Join(fmt.Errorf("write sorted rows: %w", err), f.Close())
	}
	end, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	s.runs = append(s.runs, sortedRun{f: f, bytes: end})
	return nil
}

// count is how many rows were added.
func (s *rowSorter) count() int64 {
	n := int64(len(s.buf))
	for _, r := range s.runs {
		n += r.bytes
	}
	return n / int64(s.row)
}

// finish gives sources that together hold all rows; nothing may be added afterwards.
func (s *rowSorter) finish() ([]*rowSource, error) {
	if len(s.runs) == 0 {
		s.sortBuffer()
		return []*rowSource{newRowSource(bytes.NewReader(s.buf), int64(len(s.buf)), s.row)}, nil
	}
	if len(s.buf) > 0 {
		if err := s.spill(); err != nil {
			return nil, err
		}
	}
	s.buf, s.spare, s.order = nil, nil, nil
	for len(s.runs) > mergeWidth {
		if err := s.fold(); err != nil {
			return nil, err
		}
	}
	return s.sources(s.runs), nil
}

// each calls fn for all rows in order, without repeating identical ones.
func (s *rowSorter) each(fn func(row []byte) error) error {
	src, err := s.finish()
	if err != nil {
		return err
	}
	return mergeRows(src, fn)
}

// fold merges the oldest files into one.
func (s *rowSorter) fold() error {
	old := s.runs[:mergeWidth]
	s.runs = slices.Clone(s.runs[mergeWidth:])
	err := s.write(func(w io.Writer) error {
		return mergeRows(s.sources(old), func(row []byte) error { _, err := w.Write(row); return err })
	})
	for _, r := range old {
		err = errors.Join(err, r.f.Close())
	}
	return err
}

func (s *rowSorter) sources(runs []sortedRun) []*rowSource {
	src := make([]*rowSource, len(runs))
	for i, r := range runs {
		src[i] = newRowSource(r.f, r.bytes, s.row)
	}
	return src
}

func (s *rowSorter) close() {
	for _, r := range s.runs {
		_ = r.f.Close() // nameless temporary files: closing frees them
	}
	s.runs, s.buf, s.spare, s.order = nil, nil, nil, nil
}

// tempFile is an open file without a name: it disappears with the process, however that ends.
func tempFile(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, "relight-*")
	if err != nil {
		return nil, fmt.Errorf("create temporary file: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
