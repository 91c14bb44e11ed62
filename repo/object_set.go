package repo

import (
	"iter"
	"maps"
	"slices"
)

// objectSet is a set of objects by name, with their sizes. Those of WAL may be a million: of one that is in a listing at hand it keeps a bit there.
type objectSet struct {
	lists  []*nameTable // shared with the sets that were made of it
	listed [][]bool     // by list, at each place
	others map[string]int64
}

func newObjectSet() *objectSet { return &objectSet{others: map[string]int64{}} }

// know takes a listing, so that names in it are kept as places. It comes before them, and before sets are made of this one.
func (s *objectSet) know(list *nameTable) {
	s.lists, s.listed = append(s.lists, list), append(s.listed, make([]bool, list.count))
}

// another is an empty set that knows the same listings.
func (s *objectSet) another() *objectSet {
	out := newObjectSet()
	for _, list := range s.lists {
		out.know(list)
	}
	return out
}

// bit is where a name is kept when a listing has it, or nil.
func (s *objectSet) bit(name string) (*bool, int64) {
	for i, list := range s.lists {
		if place, size, ok := list.find(name); ok {
			return &s.listed[i][place], size
		}
	}
	return nil, 0
}

// addListed adds an object that a listing has, and no other.
func (s *objectSet) addListed(name string) {
	if bit, _ := s.bit(name); bit != nil {
		*bit = true
	}
}

// count is how many objects there are.
func (s *objectSet) count() int {
	n := len(s.others)
	for _, listed := range s.listed {
		for _, is := range listed {
			if is {
				n++
			}
		}
	}
	return n
}

func (s *objectSet) add(name string, size int64) {
	if bit, _ := s.bit(name); bit != nil {
		*bit = true
		return
	}
	s.others[name] = size
}

func (s *objectSet) drop(name string) {
	if bit, _ := s.bit(name); bit != nil {
		*bit = false
	}
	delete(s.others, name)
}

// get is the size of an object of the set.
func (s *objectSet) get(name string) (int64, bool) {
	if bit, size := s.bit(name); bit != nil {
		return size, *bit
	}
	size, ok := s.others[name]
	return size, ok
}

func (s *objectSet) has(name string) bool {
	_, ok := s.get(name)
	return ok
}

// all gives the objects and their sizes: those of no listing first, in order; then each listing's, in its order. Any of them may be dropped meanwhile.
func (s *objectSet) all() iter.Seq2[string, int64] {
	return func(yield func(string, int64) bool) {
		for _, name := range slices.Sorted(maps.Keys(s.others)) {
			if size, ok := s.others[name]; ok && !yield(name, size) {
				return
			}
		}
		for i, list := range s.lists {
			place := 0
			for name, size := range list.all() {
				if s.listed[i][place] && !yield(name, size) {
					return
				}
				place++
			}
		}
	}
}
