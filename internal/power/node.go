package power

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
)

const page = 4096

// node is a file, a directory or a symbolic link.
type node struct {
	up   *node // the directory that holds it; nil: it has no name, or is the disk's base
	name string
	real string // of the base: where it is

	entries, durable map[string]*node // of a directory: as they are, and as a loss of power leaves them; nil: no directory
	link             string           // where a symbolic link leads to; "": it is none
	synced           []byte           // of a file
	dirty            map[int64]bool   // pages that were written since
	now              []byte           // the content of a file that has no name any more
}

func directory() *node { return &node{entries: map[string]*node{}, durable: map[string]*node{}} }

func (n *node) path() string {
	if n.up == nil {
		return n.real
	}
	return filepath.Join(n.up.path(), n.name)
}

func (n *node) put(name string, e *node) {
	e.up, e.name = n, name
	n.entries[name] = e
}

// adopt takes what lies in a real directory for durable.
func (n *node) adopt() {
	entries, err := os.ReadDir(n.path())
	if err != nil {
		panic(fmt.Sprintf("the model cannot read a directory: %v", err))
	}
	for _, e := range entries {
		found := &node{dirty: map[int64]bool{}}
		switch {
		case e.IsDir():
			found = directory()
		case e.Type()&os.ModeSymlink != 0:
			found.link, err = os.Readlink(filepath.Join(n.path(), e.Name()))
		}
		if err != nil {
			panic(fmt.Sprintf("the model cannot read a link: %v", err))
		}
		n.put(e.Name(), found)
		if found.entries != nil {
			found.adopt()
		} else {
			found.synced = found.content()
		}
	}
	n.durable = maps.Clone(n.entries)
}

// keep takes the content of what is about to lose its name: an entry that is still durable leads to it.
func (n *node) keep() {
	n.now = n.content()
	for _, e := range n.entries {
		e.keep()
	}
}

// unname takes its name away, and those below.
func (n *node) unname() {
	n.detach()
	for _, e := range n.entries {
		e.unname()
	}
}

func (n *node) detach() {
	if n.up != nil {
		delete(n.up.entries, n.name)
	}
	n.up = nil
}

// sync makes it durable with all below; where that failed, what was written never will be.
func (n *node) sync(well bool) {
	if n.dirty != nil && well {
		n.synced = n.mixed(n.content(), func(at int64) bool { return n.dirty[at] })
	}
	clear(n.dirty)
	for _, e := range n.entries {
		e.sync(well)
	}
	if n.entries != nil && well {
		n.durable = maps.Clone(n.entries)
	}
}

// content is what the real file holds.
func (n *node) content() []byte {
	if n.entries != nil || n.link != "" {
		return nil
	}
	if n.up == nil {
		return n.now
	}
	b, err := os.ReadFile(n.path())
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
