// Package power is a model of a disk that loses power, for tests of programs that promise durability.
//
// It promises to be no kinder than a disk may be: of a file only those pages are sure that were synced after they were written, of a directory only the
// entries that were there when it was synced. What was not may be there, or not, or in part; Left and Lose make each. A sync that fails makes nothing durable, and
// the next one does not either: the kernel holds the pages for clean.
//
// Programs run upon real files; the model keeps book beside them. Calls are counted, so that a test can cut the power after any of them, or fail it.
package power

import (
	"errors"
	"fmt"
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

// Fault is how one call fails. A write that is Short writes the first half of its bytes before that. One that is Late succeeds; what is written on the disk's behalf fails
// after it, as the kernel does behind everybody's back: what was not synced by then never will be, and they are told that had the file, or the file system, open.
type Fault struct {
	Err   error
	Short bool
	Late  bool
}

// Disk is a file system below one directory, which is taken for durable itself.
type Disk struct {
	Last   int           // after this call the power is gone; 0: it stays
	Faults map[int]Fault // by the number of the call, counted from 1

	mu    sync.Mutex
	base  string
	calls []string
	root  *node

	failures int // of what was written behind everybody's back
	failed   error
}

// New makes a disk of the directory base. What is in it is durable.
func New(base string) *Disk {
	d := &Disk{base: base, root: directory(), Faults: map[int]Fault{}}
	d.root.real = base
	d.root.adopt()
	return d
}

// Calls tells what was called so far.
func (d *Disk) Calls() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.calls)
}

// call counts one, and says how it is to fail.
func (d *Disk) call(format string, args ...any) Fault {
	if d.gone() {
		return Fault{Err: ErrLost}
	}
	d.calls = append(d.calls, fmt.Sprintf(format, args...))
	return d.Faults[len(d.calls)]
}

func (d *Disk) gone() bool { return d.Last > 0 && len(d.calls) >= d.Last }

// find gives the directory that holds path, and the name in it; nil when path lies outside, or nowhere.
func (d *Disk) find(path string) (parent *node, name string) {
	rel, err := filepath.Rel(d.base, path)
	if err != nil || rel == "." || rel == ".." || strings.HasPrefix(rel, "../") {
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

// node gives what path leads to; nil when it lies outside, or nowhere.
func (d *Disk) node(path string) *node {
	if path == d.base {
		return d.root
	}
	parent, name := d.find(path)
	if parent == nil {
		return nil
	}
	return parent.entries[name]
}

// put makes a new entry of what was just made.
func (d *Disk) put(path string, n *node) *node {
	if parent, name := d.find(path); parent != nil {
		parent.put(name, n)
	}
	return n
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
	d.put(path, directory())
	return nil
}

// Symlink makes a symbolic link.
func (d *Disk) Symlink(to, path string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if f := d.call("link %s", filepath.Base(path)); f.Err != nil {
		return f.Err
	}
	if err := os.Symlink(to, path); err != nil {
		return err
	}
	d.put(path, &node{link: to})
	return nil
}

// Remove removes a file, a link or an empty directory.
func (d *Disk) Remove(path string) error { return d.remove(path, os.Remove) }

// RemoveAll removes all below a path, too.
func (d *Disk) RemoveAll(path string) error { return d.remove(path, os.RemoveAll) }

func (d *Disk) remove(path string, remove func(string) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if f := d.call("remove %s", filepath.Base(path)); f.Err != nil {
		return f.Err
	}
	n := d.node(path)
	if n != nil {
		n.keep()
	}
	if err := remove(path); err != nil {
		return err
	}
	if n != nil {
		n.unname()
	}
	return nil
}

// Rename moves a file or a directory, and replaces what has the name.
func (d *Disk) Rename(from, to string) error { return d.rename("rename", from, to) }

// Place moves a file to a name that nothing has: else it is fs.ErrExist.
func (d *Disk) Place(from, to string) error { return d.rename("place", from, to) }

func (d *Disk) rename(what, from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if f := d.call("%s %s", what, filepath.Base(to)); f.Err != nil {
		return f.Err
	}
	if _, err := os.Lstat(to); what == "place" && err == nil {
		return &os.LinkError{Op: what, Old: from, New: to, Err: fs.ErrExist}
	}
	old := d.node(to)
	if old != nil {
		old.keep()
	}
	n := d.node(from)
	if err := os.Rename(from, to); err != nil {
		return err
	}
	if old != nil {
		old.unname()
	}
	n.detach()
	d.put(to, n)
	return nil
}

// SyncDir makes the names in a directory durable. One outside the disk is.
func (d *Disk) SyncDir(path string) error { return d.OpenDir(path).Sync() }

// told gives the error of what failed since.
func (d *Disk) told(since *int) error {
	if d.failures == *since {
		return nil
	}
	*since = d.failures
	return d.failed
}

// OpenFS opens the file system. What has failed before is not told to it.
func (d *Disk) OpenFS() *FS {
	d.mu.Lock()
	defer d.mu.Unlock()
	return &FS{d: d, since: d.failures}
}

// FS is an open file system.
type FS struct {
	d     *Disk
	since int
}

// Sync makes all of the disk durable.
func (f *FS) Sync() error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	fault := f.d.call("sync all")
	if errors.Is(fault.Err, ErrLost) {
		return fault.Err
	}
	f.d.root.sync(fault.Err == nil)
	return errors.Join(fault.Err, f.d.told(&f.since))
}

// Close does nothing.
func (f *FS) Close() error { return nil }

// OpenDir gives a directory, which stays the same whatever becomes of its name.
func (d *Disk) OpenDir(path string) *Dir {
	d.mu.Lock()
	defer d.mu.Unlock()
	return &Dir{d: d, n: d.node(path), name: filepath.Base(path)}
}

// Dir is a directory of the disk.
type Dir struct {
	d    *Disk
	n    *node // nil: one that lies outside
	name string
}

// Sync makes the names in it durable.
func (d *Dir) Sync() error {
	d.d.mu.Lock()
	defer d.d.mu.Unlock()
	if d.n == nil {
		return nil
	}
	if f := d.d.call("sync %s", d.name); f.Err != nil {
		return f.Err
	}
	d.n.durable = maps.Clone(d.n.entries)
	return nil
}
