package power

import (
	"errors"
	"io"
	"os"
	"path/filepath"
)

// File is an open file of the disk.
type File struct {
	*os.File
	d    *Disk
	n    *node
	name string

	since int // failures that it was not told of
}

// Open opens a file for reading and writing, and makes it if it is not there.
func (d *Disk) Open(path string) (*File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.node(path)
	if n == nil {
		if f := d.call("create %s", filepath.Base(path)); f.Err != nil {
			return nil, f.Err
		}
	} else if d.gone() {
		return nil, ErrLost
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if n == nil {
		n = d.put(path, &node{dirty: map[int64]bool{}})
	}
	return &File{File: f, d: d, n: n, name: filepath.Base(path), since: d.failures}, nil
}

// CreateTemp makes a file of a name that nothing has, as os.CreateTemp does.
func (d *Disk) CreateTemp(dir, pattern string) (*File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if f := d.call("create %s", pattern); f.Err != nil {
		return nil, f.Err
	}
	f, err := os.CreateTemp(dir, pattern)
	if err != nil {
		return nil, err
	}
	return &File{File: f, d: d, n: d.put(f.Name(), &node{dirty: map[int64]bool{}}), name: pattern, since: d.failures}, nil
}

// WriteAt writes, and makes nothing durable.
func (f *File) WriteAt(p []byte, off int64) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	fault := f.d.call("write %s", f.name)
	if fault.Err != nil && !fault.Short && !fault.Late {
		return 0, fault.Err
	}
	if fault.Short {
		p = p[:len(p)/2]
	}
	n, err := f.File.WriteAt(p, off)
	for at := off / page; at*page < off+int64(n); at++ {
		f.n.dirty[at] = true
	}
	if fault.Late {
		f.d.root.sync(false)
		f.d.failures, f.d.failed, fault.Err = f.d.failures+1, fault.Err, nil
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

// ReadFrom writes what it reads; io.Copy would pass the model by otherwise.
func (f *File) ReadFrom(r io.Reader) (int64, error) { return io.Copy(struct{ io.Writer }{f}, r) }

// Truncate sets the length.
func (f *File) Truncate(size int64) error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if fault := f.d.call("truncate %s", f.name); fault.Err != nil {
		return fault.Err
	}
	f.n.dirty[size/page] = true
	return f.File.Truncate(size)
}

// Forget drops what the kernel holds for clean: what is read next is what the disk has, which after a sync that failed is another thing.
func (f *File) Forget() error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	_, err := f.File.WriteAt(f.n.after(All), 0)
	return err
}

// Sync makes durable what was written; when it fails, nothing of that ever will be, unless it is written again.
func (f *File) Sync() error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	fault := f.d.call("sync file %s", f.name)
	if errors.Is(fault.Err, ErrLost) {
		return fault.Err
	}
	f.n.sync(fault.Err == nil)
	return errors.Join(fault.Err, f.d.told(&f.since))
}
