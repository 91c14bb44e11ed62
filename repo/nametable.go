package repo

import (
	"bytes"
	"encoding/binary"
	"iter"
	"sort"
)

// nameTable holds the names of a listing, in its order, and the sizes of the objects. Of a name it keeps what differs from the one before: WAL has hundreds of
// thousands of names that differ in a few digits.
type nameTable struct {
	data  []byte   // for each: bytes that it shares with the one before, how many follow, these, the size
	heads []uint32 // where every nameStride-th begins; it shares nothing
	last  []byte
	count int
}

const nameStride = 16

// add appends a name that comes after all others.
func (t *nameTable) add(name string, size int64) {
	shared := 0
	if t.count%nameStride == 0 {
		t.heads = append(t.heads, uint32(len(t.data)))
	} else {
		for shared < len(name) && shared < len(t.last) && name[shared] == t.last[shared] {
			shared++
		}
	}
	t.data = binary.AppendUvarint(t.data, uint64(shared))
	t.data = binary.AppendUvarint(t.data, uint64(len(name)-shared))
	t.data = append(t.data, name[shared:]...)
	t.data = binary.AppendVarint(t.data, size)
	t.last = append(t.last[:0], name...)
	t.count++
}

// from gives the names and sizes from a head on. A name is valid until the next one.
func (t *nameTable) from(head int) iter.Seq2[[]byte, int64] {
	return func(yield func([]byte, int64) bool) {
		if head >= len(t.heads) {
			return
		}
		var name []byte
		for b := t.data[t.heads[head]:]; len(b) > 0; {
			shared, n := binary.Uvarint(b)
			rest, m := binary.Uvarint(b[n:])
			b = b[n+m:]
			name = append(name[:shared], b[:rest]...)
			size, n := binary.Varint(b[rest:])
			b = b[int(rest)+n:]
			if !yield(name, size) {
				return
			}
		}
	}
}

// all gives the names and sizes in order.
func (t *nameTable) all() iter.Seq2[string, int64] {
	return func(yield func(string, int64) bool) {
		for name, size := range t.from(0) {
			if !yield(string(name), size) {
				return
			}
		}
	}
}

// get is the size of the object of a name, if it is listed.
func (t *nameTable) get(name string) (int64, bool) {
	_, size, ok := t.find(name)
	return size, ok
}

func (t *nameTable) has(name string) bool {
	_, ok := t.get(name)
	return ok
}

func (t *nameTable) find(name string) (place int, size int64, ok bool) {
	head := t.headBefore(name)
	place = head * nameStride
	for found, size := range t.from(head) {
		if string(found) >= name {
			return place, size, string(found) == name
		}
		place++
	}
	return place, 0, false
}

// unlisted is the place of a name that is not listed.
const unlisted = -1

// place is where a name is, counted from 0, or unlisted.
func (t *nameTable) place(name string) int32 {
	place, _, ok := t.find(name)
	if !ok {
		return unlisted
	}
	return int32(place)
}

// at is the name at a place, and the size of its object.
func (t *nameTable) at(place int32) (string, int64) {
	no := place - place%nameStride
	for name, size := range t.from(int(place / nameStride)) {
		if no == place {
			return string(name), size
		}
		no++
	}
	return "", 0
}

// under gives the names that begin so.
func (t *nameTable) under(prefix string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for name := range t.from(t.headBefore(prefix)) {
			if string(name) < prefix {
				continue
			}
			if !bytes.HasPrefix(name, []byte(prefix)) || !yield(string(name)) {
				return
			}
		}
	}
}

// headBefore is the head from which on a name is to be looked for.
func (t *nameTable) headBefore(name string) int {
	after := sort.Search(len(t.heads), func(i int) bool {
		for head := range t.from(i) {
			return string(head) > name
		}
		return true
	})
	return max(after-1, 0)
}
