package repo

import (
	"bufio"
	"bytes"
	"container/heap"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

// mergeWidth bounds how many files a merge reads at once, and so its memory.
const mergeWidth = 32

// rowSource yields fixed-size rows in ascending order.
type rowSource struct {
	r   *bufio.Reader
	row []byte
}

func newRowSource(f io.ReaderAt, bytes int64, row int) *rowSource {
	buffered := int(min(bytes, runBuffered))
	return &rowSource{r: bufio.NewReaderSize(io.NewSectionReader(f, 0, bytes), buffered), row: make([]byte, row)}
}

func (s *rowSource) next() (bool, error) {
	_, err := io.ReadFull(s.r, s.row)
	if errors.Is(err, io.EOF) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read sorted rows: %w", err)
	}
	return true, nil
}

type rowHeap struct {
	src []*rowSource
	cmp func(a, b []byte) int
}

func (h *rowHeap) Len() int           { return len(h.src) }
func (h *rowHeap) Less(i, j int) bool { return h.cmp(h.src[i].row, h.src[j].row) < 0 }
func (h *rowHeap) Swap(i, j int)      { h.src[i], h.src[j] = h.src[j], h.src[i] }
func (h *rowHeap) Push(x any)         { h.src = append(h.src, x.(*rowSource)) }
func (h *rowHeap) Pop() any {
	last := h.src[len(h.src)-1]
	h.src = h.src[:len(h.src)-1]
	return last
}

// mergeRows calls fn for the rows of all sources in order, without repeating identical neighbours. fn must not
// keep the row.
func mergeRows(src []*rowSource, cmp func(a, b []byte) int, fn func(row []byte) error) error {
	h := &rowHeap{cmp: cmp}
	for _, s := range src {
		ok, err := s.next()
		if err != nil {
			return err
		}
		if ok {
			h.src = append(h.src, s)
		}
	}
	heap.Init(h)
	var last []byte
	for h.Len() > 0 {
		s := h.src[0]
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
		if ok {
			heap.Fix(h, 0)
		} else {
			heap.Pop(h)
		}
	}
	return nil
}

// rowSorter sorts any number of fixed-size rows in bounded memory: full buffers are sorted into temporary
// files, which are merged at the end. It belongs to one goroutine.
type rowSorter struct {
	dir   string
	row   int
	cmp   func(a, b []byte) int
	limit int
	buf   []byte
	runs  []sortedRun
}

type sortedRun struct {
	f     *os.File
	bytes int64
}

func newRowSorter(dir string, row, limit int, cmp func(a, b []byte) int) *rowSorter {
	return &rowSorter{dir: dir, row: row, cmp: cmp, limit: limit / row * row}
}

func (s *rowSorter) add(row []byte) error {
	s.buf = append(s.buf, row...)
	if len(s.buf) < s.limit {
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

// sortBuffer orders the rows of buf in place through an index, so that rows move once.
func (s *rowSorter) sortBuffer() {
	n := len(s.buf) / s.row
	order := make([]uint32, n)
	for i := range order {
		order[i] = uint32(i)
	}
	at := func(i uint32) []byte { return s.buf[int(i)*s.row : int(i+1)*s.row] }
	slices.SortFunc(order, func(a, b uint32) int { return s.cmp(at(a), at(b)) })
	out := make([]byte, 0, len(s.buf))
	for _, i := range order {
		out = append(out, at(i)...)
	}
	s.buf = out
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
	s.buf = nil
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
	return mergeRows(src, s.cmp, fn)
}

// fold merges the oldest files into one.
func (s *rowSorter) fold() error {
	old := s.runs[:mergeWidth]
	s.runs = slices.Clone(s.runs[mergeWidth:])
	err := s.write(func(w io.Writer) error {
		return mergeRows(s.sources(old), s.cmp, func(row []byte) error { _, err := w.Write(row); return err })
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
	s.runs, s.buf = nil, nil
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
