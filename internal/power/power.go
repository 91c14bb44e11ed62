// Package power is a model of a disk that loses power, for tests of programs that promise durability.
//
// It promises to be no kinder than a disk may be: of a file only those pages are sure that were synced after they were written, of a directory only the
// entries that were there when it was synced. What was not may be there, or not, or in part; Left makes each. A sync that fails makes nothing durable, and
// the next one does not either: the kernel holds the pages for clean.
//
// Programs run upon real files; the model keeps book beside them. Calls are counted, so that a test can cut the power after any of them, or fail it.
package power

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// ErrLost is what every call says once the power is gone.
var ErrLost = errors.New("power lost")

// Outcome is what becomes of that which was not synced.
type Outcome string

// The outcomes.
const (
	Gone  Outcome = "gone"  // it is not there
	Zeros Outcome = "zeros" // files have their lengths and names, and zeros for their bytes
	Torn  Outcome = "torn"  // each second page of it is there, the others are zeros
	Holed Outcome = "holed" // it is there, but for the last page but one
	All   Outcome = "all"   // it is there all the same
)

// Outcomes is all of them.
func Outcomes() []Outcome { return []Outcome{Gone, Zeros, Torn, Holed, All} }

const page = 4096

// Fault is how one call fails. A write writes the first half of its bytes before that.
type Fault struct {
	Err   error
	Short bool
}

// Disk is a file system below one directory, which is taken for durable itself.
type Disk struct {
	Last   int           // after this call the power is gone; 0: it stays
	Faults map[int]Fault // by the number of the call, counted from 1

	mu    sync.Mutex
	base  string
	calls []string
	root  *node
}

// node is a file or a directory.
type node struct {
	entries, durable map[string]*node // of a directory: as they are, and as a loss of power leaves them; nil: a file
	synced           []byte           // of a file
	dirty            map[int64]bool   // pages that were written since
	now              []byte           // the content of a file that has no name any more
	path             string           // of the real file; "" once it has no name
}

func directory() *node { return &node{entries: map[string]*node{}, durable: map[string]*node{}} }

// New makes a disk of the directory base, which must be empty.
func New(base string) *Disk { return &Disk{base: base, root: directory(), Faults: map[int]Fault{}} }

// Calls tells what was called so far.
func (d *Disk) Calls() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.calls)
}

// call counts one, and says how it is to fail.
func (d *Disk) call(format string, args ...any) Fault {
	if d.Last > 0 && len(d.calls) >= d.Last {
		return Fault{Err: ErrLost}
	}
	d.calls = append(d.calls, fmt.Sprintf(format, args...))
	return d.Faults[len(d.calls)]
}

// find gives the directory that holds path, and the name in it; nil when path lies outside.
func (d *Disk) find(path string) (parent *node, name string) {
	rel, err := filepath.Rel(d.base, path)
	if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
		return nil, ""
	}
	at := d.root
	parts := strings.Split(rel, "/")
	for _, part := range parts[:len(parts)-1] {
		if at = at.entries[part]; at == nil || at.entries == nil {
			return nil, ""
		}
	}
	return at, parts[len(parts)-1]
}

// Mkdir makes a directory.
func (d *Disk) Mkdir(path string, mode fs.FileMode) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if f := d.call("mkdir %s", filepath.Base(path)); f.Err != nil {
		return f.Err
	}
	if err := os.Mkdir(path, mode); err != nil {
		return err
	}
	if parent, name := d.find(path); parent != nil {
		parent.entries[name] = directory()
	}
	return nil
}

// SyncDir makes the names in a directory durable. One outside the disk is.
func (d *Disk) SyncDir(path string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	dir := d.root
	if path != d.base {
		parent, name := d.find(path)
		if parent == nil || parent.entries[name] == nil {
			return nil
		}
		dir = parent.entries[name]
	}
	if f := d.call("sync %s", filepath.Base(path)); f.Err != nil {
		return f.Err
	}
	dir.durable = maps.Clone(dir.entries)
	return nil
}

// Remove removes a file.
func (d *Disk) Remove(path string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if f := d.call("remove %s", filepath.Base(path)); f.Err != nil {
		return f.Err
	}
	d.unname(path)
	return os.Remove(path)
}

// unname keeps the content of a file that is about to lose its name: an entry that is still durable leads to it.
func (d *Disk) unname(path string) {
	parent, name := d.find(path)
	if parent == nil || parent.entries[name] == nil {
		return
	}
	n := parent.entries[name]
	n.now, n.path = n.content(), ""
	delete(parent.entries, name)
}

// Rename moves a file, and replaces what has the name.
func (d *Disk) Rename(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if f := d.call("rename %s", filepath.Base(to)); f.Err != nil {
		return f.Err
	}
	source, name := d.find(from)
	target, as := d.find(to)
	n := source.entries[name]
	d.unname(to)
	if err := os.Rename(from, to); err != nil {
		return err
	}
	delete(source.entries, name)
	target.entries[as], n.path = n, to
	return nil
}

// Open opens a file for reading and writing, and makes it if it is not there.
func (d *Disk) Open(path string) (*File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	parent, name := d.find(path)
	n := parent.entries[name]
	if n == nil {
		if f := d.call("create %s", name); f.Err != nil {
			return nil, f.Err
		}
		n = &node{path: path, dirty: map[int64]bool{}}
	} else if d.Last > 0 && len(d.calls) >= d.Last {
		return nil, ErrLost
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	parent.entries[name] = n
	return &File{File: f, d: d, n: n}, nil
}

// File is an open file of the disk.
type File struct {
	*os.File
	d *Disk
	n *node
}

// WriteAt writes, and makes nothing durable.
func (f *File) WriteAt(p []byte, off int64) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	fault := f.d.call("write %s", filepath.Base(f.n.path))
	if fault.Err != nil && !fault.Short {
		return 0, fault.Err
	}
	if fault.Short {
		p = p[:len(p)/2]
	}
	n, err := f.File.WriteAt(p, off)
	for at := off / page; at*page < off+int64(n); at++ {
		f.n.dirty[at] = true
	}
	return n, errors.Join(err, fault.Err)
}

// Write writes at the file's position.
func (f *File) Write(p []byte) (int, error) {
	at, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return 0, err
	}
	n, err := f.WriteAt(p, at)
	_, serr := f.Seek(at+int64(n), io.SeekStart)
	return n, errors.Join(err, serr)
}

// Truncate sets the length.
func (f *File) Truncate(size int64) error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if fault := f.d.call("truncate %s", filepath.Base(f.n.path)); fault.Err != nil {
		return fault.Err
	}
	f.n.dirty[size/page] = true
	return f.File.Truncate(size)
}

// Sync makes durable what was written; when it fails, nothing of that ever will be, unless it is written again.
func (f *File) Sync() error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	fault := f.d.call("sync file %s", filepath.Base(f.n.path))
	if errors.Is(fault.Err, ErrLost) {
		return fault.Err
	}
	defer clear(f.n.dirty)
	if fault.Err != nil {
		return fault.Err
	}
	f.n.synced = f.n.mixed(f.n.content(), func(at int64) bool { return f.n.dirty[at] })
	return nil
}

// content is what the real file holds.
func (n *node) content() []byte {
	if n.path == "" {
		return n.now
	}
	b, err := os.ReadFile(n.path)
	if err != nil {
		panic(fmt.Sprintf("the model lost a file: %v", err))
	}
	return b
}

// mixed is the file at its present length, with the pages that take chooses as they are, and the others as they were synced, zeros where they never were.
func (n *node) mixed(content []byte, take func(page int64) bool) []byte {
	out := make([]byte, len(content))
	copy(out, n.synced)
	for at := int64(0); at*page < int64(len(content)); at++ {
		if take(at) {
			copy(out[at*page:], content[at*page:min(int64(len(content)), (at+1)*page)])
		}
	}
	return out
}

// Left writes what a loss of power leaves into a directory that is empty.
func (d *Disk) Left(into string, o Outcome) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.root.left(into, o)
}

func (n *node) left(into string, o Outcome) error {
	entries := n.durable
	if o != Gone {
		entries = n.entries
	}
	for name, e := range entries {
		path := filepath.Join(into, name)
		var err error
		if e.entries != nil {
			err = errors.Join(os.Mkdir(path, 0o700), e.left(path, o))
		} else {
			err = os.WriteFile(path, e.after(o), 0o600)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// after is what a file holds then. Pages whose sync failed are as they were, whatever the outcome but one.
func (n *node) after(o Outcome) []byte {
	switch o {
	case Gone:
		return n.synced
	case Zeros:
		return n.mixed(n.content(), func(int64) bool { return false })
	case Torn:
		return n.mixed(n.content(), func(at int64) bool { return n.dirty[at] && at%2 == 0 })
	case Holed:
		last := int64(len(n.content())-1) / page
		return n.mixed(n.content(), func(at int64) bool { return n.dirty[at] && at != last-1 })
	default:
		return n.mixed(n.content(), func(at int64) bool { return n.dirty[at] })
	}
}
