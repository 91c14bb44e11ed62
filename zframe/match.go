package zframe

import (
	"encoding/binary"
	"math/bits"
)

const (
	hashBits  = 13 // 16 KiB of positions: half of the nearest cache
	hashBytes = 6
	minMatch  = 4
	minInput  = 16 // shorter pieces are stored as they are
	skipShift = 3  // after 1<<skipShift bytes without a match the steps become longer
)

// sequence is some literals and a match that follows them.
type sequence struct {
	lits   uint16 // how many literals
	length uint16 // of the match, less 3
	offset uint32 // as the format counts it: 1 to 3 are the last ones, else the distance and 3
}

// load8 reads eight bytes at i. That i has 16 bits spares the check of bounds.
func load8(b *[Max + pad]byte, i uint16) uint64 {
	return binary.LittleEndian.Uint64(b[int(i) : int(i)+8])
}

func hash(v uint64) uint32 {
	const prime = 889523592379
	return uint32(v << (64 - 8*hashBytes) * prime >> (64 - hashBits))
}

// common counts the equal bytes at a and at b, a before b, up to end.
//
//go:norace
func common(p *[Max + pad]byte, a, b, end int) int {
	start := b
	for b+8 <= end {
		if x := load8(p, uint16(a)) ^ load8(p, uint16(b)); x != 0 {
			return b - start + bits.TrailingZeros64(x)>>3
		}
		a, b = a+8, b+8
	}
	for b < end && p[a] == p[b] {
		a, b = a+1, b+1
	}
	return b - start
}

// match finds the sequences of the piece of n bytes, and collects its literals; it gives their number. What stands in the table is a hint
// only: a match counts when its bytes are equal, and lies before the place where it is used.
//
//go:norace
func (e *Encoder) match(n int) int {
	clear(e.table[:])
	e.seqs = e.seqs[:0]
	var (
		p     = &e.src
		limit = n - 12 // no match begins behind it: eight bytes can be read from two places behind it
		s     = 1
		emit  = 0 // literals from here on are not written yet
		nlits = 0
		rep   = recent{1, 4, 8}
	)
	for s < limit {
		v := load8(p, uint16(s))
		h := hash(v)
		c := int(e.table[h])
		e.table[h] = uint16(s)
		at, from := s, c
		if r := s + 1 - int(rep[0]); r >= 0 && uint32(load8(p, uint16(r))) == uint32(v>>8) {
			at, from = s+1, r
		} else if uint32(load8(p, uint16(c))) != uint32(v) || c >= s {
			s += 1 + (s-emit)>>skipShift
			continue
		}
		length := 4 + common(p, from+4, at+4, n)
		for at > emit && from > 0 && p[at-1] == p[from-1] {
			at, from, length = at-1, from-1, length+1
		}
		nlits = e.copyLits(nlits, emit, at)
		e.seqs = append(e.seqs, sequence{uint16(at - emit), uint16(length - 3), rep.code(uint32(at-from), at == emit)})
		s = at + length
		emit = s
		back := load8(p, uint16(s-2))
		e.table[hash(back)] = uint16(s - 2)
	}
	return e.copyLits(nlits, emit, n)
}

// copyLits copies eight bytes at a time; what is written too far is overwritten by the next run.
//
//go:norace
func (e *Encoder) copyLits(to, from, end int) int {
	size := end - from
	if size > 16 {
		return to + copy(e.lits[to:], e.src[from:end])
	}
	binary.LittleEndian.PutUint64(e.lits[int(uint16(to)):int(uint16(to))+8], load8(&e.src, uint16(from)))
	binary.LittleEndian.PutUint64(e.lits[int(uint16(to))+8:int(uint16(to))+16], load8(&e.src, uint16(from)+8))
	return to + size
}

// recent is the last three distances, as a decoder keeps them.
type recent [3]uint32

// code gives the number under which the format knows a distance, and moves it to the front. Right after another match, without literals
// between, the first three numbers mean something else.
func (r *recent) code(d uint32, bare bool) uint32 {
	if bare {
		switch d {
		case r[1]:
			r[0], r[1] = r[1], r[0]
			return 1
		case r[2]:
			r[0], r[1], r[2] = r[2], r[0], r[1]
			return 2
		}
	} else {
		switch d {
		case r[0]:
			return 1
		case r[1]:
			r[0], r[1] = r[1], r[0]
			return 2
		case r[2]:
			r[0], r[1], r[2] = r[2], r[0], r[1]
			return 3
		}
	}
	r[0], r[1], r[2] = d, r[0], r[1]
	return d + 3
}
