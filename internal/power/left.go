package power

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
)

// Outcome is what becomes of that which was not synced.
type Outcome string

// The outcomes.
const (
	Gone  Outcome = "gone"  // it is not there
	Zeros Outcome = "zeros" // files have their lengths and names, and zeros for their bytes
	Torn  Outcome = "torn"  // each second page of it is there, the others are zeros
	Holed Outcome = "holed" // it is there, but for the last page but one
	Bytes Outcome = "bytes" // bytes are there, and names are not
	All   Outcome = "all"   // it is there all the same
)

// Outcomes is all of them.
func Outcomes() []Outcome { return []Outcome{Gone, Zeros, Torn, Holed, Bytes, All} }

// Left writes what a loss of power leaves into a directory that is empty.
func (d *Disk) Left(into string, o Outcome) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.root.remains(o).build(into, nil)
}

// Lose makes the disk's directory what a loss of power leaves. Directories keep their numbers (inodes). The disk is spent then; New makes the next one of the same base.
func (d *Disk) Lose(o Outcome) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	limbo, err := os.MkdirTemp(filepath.Dir(d.base), "limbo-")
	if err != nil {
		return err
	}
	left, dirs := d.root.remains(o), map[*node]string{}
	err = d.root.clear(d.base, limbo, dirs)
	if err == nil {
		err = left.build(d.base, dirs)
	}
	return errors.Join(err, os.RemoveAll(limbo))
}

// remains are what is left of a node.
type remains struct {
	n       *node
	content []byte
	entries map[string]*remains
}

func (n *node) remains(o Outcome) *remains {
	r := &remains{n: n}
	if n.entries == nil {
		r.content = n.after(o)
		return r
	}
	entries := n.durable
	if o != Gone && o != Bytes {
		entries = n.entries
	}
	r.entries = map[string]*remains{}
	for name, e := range entries {
		r.entries[name] = e.remains(o)
	}
	return r
}

// after is what a file holds then. Pages whose sync failed are as they were, whatever the outcome.
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

// clear empties a directory; the directories in it go to limbo.
func (n *node) clear(at, limbo string, dirs map[*node]string) error {
	for name, e := range n.entries {
		path := filepath.Join(at, name)
		err := error(nil)
		if e.entries == nil {
			err = os.Remove(path)
		} else if err = e.clear(path, limbo, dirs); err == nil {
			dirs[e] = filepath.Join(limbo, strconv.Itoa(len(dirs)))
			err = os.Rename(path, dirs[e])
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// build makes what is left in a directory, of the directories in limbo where there are such.
func (r *remains) build(at string, dirs map[*node]string) error {
	for name, e := range r.entries {
		path := filepath.Join(at, name)
		if err := e.make(path, dirs); err != nil {
			return err
		}
	}
	return nil
}

func (r *remains) make(path string, dirs map[*node]string) error {
	switch {
	case r.n.link != "":
		return os.Symlink(r.n.link, path)
	case r.n.entries == nil:
		return os.WriteFile(path, r.content, 0o600)
	}
	err := error(nil)
	if was, ok := dirs[r.n]; ok {
		delete(dirs, r.n) // it may have had two names
		err = os.Rename(was, path)
	} else {
		err = os.Mkdir(path, 0o700)
	}
	if err != nil {
		return err
	}
	return r.build(path, dirs)
}
