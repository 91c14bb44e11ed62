package repo

import (
	"bufio"
	"bytes"
	"cmp"
	"container/heap"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sort"
	"sync"
)

const (
	spoolBytes  = 8 << 20 // entries sorted in memory at once
	sparseEvery = 1 << 10 // bytes of a parent's tree between two remembered paths
)

// entrySpool sorts entries by path while files are added in any order by several goroutines, in bounded memory.
type entrySpool struct {
	dir string

	mu    sync.Mutex
	lines []spoolLine
	size  int
	runs  []*os.File
	files int64
	total int64
	bytes int64
}

type spoolLine struct {
	path string
	line []byte
}

func (s *entrySpool) add(e Entry) error {
	if err := e.check(); err != nil {
		return err
	}
	line, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("encode entry %q: %w", e.Path, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total++
	if e.Mode.IsRegular() {
		s.files++
		s.bytes += e.Size
	}
	s.lines = append(s.lines, spoolLine{e.Path, line})
	if s.size += len(line) + len(e.Path) + 64; s.size < spoolBytes {
		return nil
	}
	return s.spill()
}

func (s *entrySpool) sort() {
	slices.SortFunc(s.lines, func(a, b spoolLine) int { return cmp.Compare(a.path, b.path) })
}

func (s *entrySpool) spill() error {
	s.sort()
	f, err := tempFile(s.dir)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, runBuffered)
	for _, l := range s.lines {
		var n []byte
		n = binary.AppendUvarint(binary.AppendUvarint(n, uint64(len(l.path))), uint64(len(l.line)))
		_, _ = w.Write(n) // bufio keeps the first error for Flush
		_, _ = w.WriteString(l.path)
		_, _ = w.Write(l.line)
	}
	s.runs = append(s.runs, f)
	s.lines, s.size = nil, 0
	if err := w.Flush(); err != nil {
		return fmt.Errorf("spool entries: %w", err)
	}
	return nil
}

// each calls fn for all lines in path order. A path that was added twice is an error.
func (s *entrySpool) each(fn func(line []byte) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sort()
	h := &lineHeap{}
	memory := &lineSource{memory: s.lines}
	for _, src := range append(s.sources(), memory) {
		if ok, err := src.next(); err != nil {
			return err
		} else if ok {
			*h = append(*h, src)
		}
	}
	heap.Init(h)
	last := ""
	for h.Len() > 0 {
		src := (*h)[0]
		if src.at.path == last {
			return fmt.Errorf("%q was added twice to the snapshot", last)
		}
		last = src.at.path
		if err := fn(src.at.line); err != nil {
			return err
		}
		if ok, err := src.next(); err != nil {
			return err
		} else if ok {
			heap.Fix(h, 0)
		} else {
			heap.Pop(h)
		}
	}
	return nil
}

func (s *entrySpool) sources() []*lineSource {
	var src []*lineSource
	for _, f := range s.runs {
		src = append(src, &lineSource{r: bufio.NewReaderSize(io.NewSectionReader(f, 0, 1<<62), 64<<10)})
	}
	return src
}

func (s *entrySpool) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.runs {
		_ = f.Close() // nameless temporary files: closing frees them
	}
	s.runs, s.lines = nil, nil
}

// lineSource yields the lines of one sorted run, from a file or from memory.
type lineSource struct {
	r      *bufio.Reader
	memory []spoolLine
	at     spoolLine
}

func (s *lineSource) next() (bool, error) {
	if s.r == nil {
		if len(s.memory) == 0 {
			return false, nil
		}
		s.at, s.memory = s.memory[0], s.memory[1:]
		return true, nil
	}
	np, err := binary.ReadUvarint(s.r)
	if errors.Is(err, io.EOF) {
		return false, nil
	}
	nl, err2 := binary.ReadUvarint(s.r)
	if err := errors.Join(err, err2); err != nil {
		return false, fmt.Errorf("read spooled entries: %w", err)
	}
	b := make([]byte, np+nl)
	if _, err := io.ReadFull(s.r, b); err != nil {
		return false, fmt.Errorf("read spooled entries: %w", err)
	}
	s.at = spoolLine{path: string(b[:np]), line: b[np:]}
	return true, nil
}

type lineHeap []*lineSource

func (h lineHeap) Len() int           { return len(h) }
func (h lineHeap) Less(i, j int) bool { return h[i].at.path < h[j].at.path }
func (h lineHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *lineHeap) Push(x any)        { *h = append(*h, x.(*lineSource)) }
func (h *lineHeap) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

// parentTree answers for single paths of a parent snapshot: its lines lie in a nameless file, and of every few lines
// one path is remembered.
type parentTree struct {
	f     *os.File
	marks []treeMark
	end   int64
}

type treeMark struct {
	path string
	off  int64
}

func newParentTree(dir string, each func(fn func(e Entry, line []byte) error) error) (*parentTree, error) {
	f, err := tempFile(dir)
	if err != nil {
		return nil, err
	}
	t := &parentTree{f: f}
	w := bufio.NewWriterSize(f, runBuffered)
	err = each(func(e Entry, line []byte) error {
		if len(t.marks) == 0 || t.end-t.marks[len(t.marks)-1].off >= sparseEvery {
			t.marks = append(t.marks, treeMark{e.Path, t.end})
		}
		t.end += int64(len(line)) + 1
		_, _ = w.Write(line) // bufio keeps the first error for Flush
		return w.WriteByte('\n')
	})
	if err := errors.Join(err, w.Flush()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return t, nil
}

func (t *parentTree) find(path string) (Entry, bool, error) {
	i := sort.Search(len(t.marks), func(i int) bool { return t.marks[i].path > path })
	if i == 0 {
		return Entry{}, false, nil
	}
	end := t.end
	if i < len(t.marks) {
		end = t.marks[i].off
	}
	off := t.marks[i-1].off
	lines := make([]byte, end-off)
	if _, err := t.f.ReadAt(lines, off); err != nil {
		return Entry{}, false, fmt.Errorf("read the parent's entries: %w", err)
	}
	for line := range bytes.Lines(lines) {
		e, err := decodeEntry(line)
		if err != nil || e.Path == path {
			return e, err == nil, err
		}
	}
	return Entry{}, false, nil
}

func (t *parentTree) close() {
	if t != nil {
		_ = t.f.Close() // nameless temporary file: closing frees it
	}
}
