package zframe

import (
	"encoding/binary"
	"math/bits"
	"slices"
)

// Bits that follow a code, for literal lengths and match lengths; an offset's code is its number of bits.
var (
	litBits = [64]uint8{16: 1, 1, 1, 1, 2, 2, 3, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}
	lenBits = [64]uint8{32: 1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}
)

const (
	litCodes = 36
	lenCodes = 53
	offCodes = 18 // of distances in a piece
	allOff   = 29 // in the distribution that every decoder knows

	fewSequences = 40 // so few do not pay for tables of their own
)

// How the table of one kind of code is described.
const (
	modeKnown = 0 // the distribution that every decoder knows
	modeOne   = 1 // one symbol only
	modeOwn   = 2 // a description follows
)

// coded is a sequence's three codes.
type coded struct{ lit, off, len uint8 }

// sequenceCoder writes the sequences section of a block.
type sequenceCoder struct {
	lit, off, len kind
	litCode       [64]uint8  // of short literal runs
	lenCode       [128]uint8 // of short matches
	codes         []coded
}

// kind is one of the three kinds of code.
type kind struct {
	known  distribution
	counts [64]uint32
	coder  coder
}

func newSequenceCoder() *sequenceCoder {
	c := &sequenceCoder{codes: make([]coded, Max/minMatch+1)}
	c.lit.known = distribution{6, []int16{
		4, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 2, 1, 1, 1, 1, 1, -1, -1, -1, -1,
	}}
	c.off.known = distribution{5, []int16{1, 1, 1, 1, 1, 1, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1}}
	c.len.known = distribution{6, []int16{
		1, 4, 3, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
		1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1,
	}}
	fill(c.litCode[:], litBits[:litCodes])
	fill(c.lenCode[:], lenBits[:lenCodes])
	return c
}

// fill says for each value which code it has: code k stands for 1<<width[k] values.
func fill(code, width []uint8) {
	at := 0
	for k, w := range width {
		for n := 1 << w; n > 0 && at < len(code); n-- {
			code[at] = uint8(k)
			at++
		}
	}
}

// append writes the sequences section.
func (c *sequenceCoder) append(dst []byte, seqs []sequence) []byte {
	switch n := len(seqs); {
	case n == 0:
		return append(dst, 0)
	case n < 128:
		dst = append(dst, byte(n))
	default:
		dst = append(dst, byte(n>>8+128), byte(n))
	}
	c.count(seqs)
	at := len(dst)
	dst = append(dst, 0)
	dst, lit := c.lit.prepare(dst, len(seqs))
	dst, off := c.off.prepare(dst, len(seqs))
	dst, length := c.len.prepare(dst, len(seqs))
	dst[at] = byte(lit<<6 | off<<4 | length<<2)
	return c.write(dst, seqs)
}

// count gives each sequence its codes.
//
//go:norace
func (c *sequenceCoder) count(seqs []sequence) {
	clear(c.lit.counts[:])
	clear(c.off.counts[:])
	clear(c.len.counts[:])
	codes := c.codes[:len(seqs)]
	for i, s := range seqs {
		k := coded{off: uint8(bits.Len32(s.offset) - 1)}
		if s.lits < 64 {
			k.lit = c.litCode[s.lits]
		} else {
			k.lit = uint8(bits.Len16(s.lits) + 18)
		}
		if s.length < 128 {
			k.len = c.lenCode[s.length]
		} else {
			k.len = uint8(bits.Len16(s.length) + 35)
		}
		codes[i] = k
		c.lit.counts[k.lit&63]++
		c.off.counts[k.off&63]++
		c.len.counts[k.len&63]++
	}
}

// prepare makes the coder for what was counted, and writes the table's description.
func (k *kind) prepare(dst []byte, n int) ([]byte, int) {
	last, only := 0, 0
	for s, c := range k.counts {
		if c > 0 {
			last, only = s, only+1
		}
	}
	if only == 1 {
		cells := k.coder.cells[:last+1]
		clear(cells)
		cells[last] = 1
		k.coder.build(distribution{0, cells})
		return append(dst, byte(last)), modeOne
	}
	if n < fewSequences {
		k.coder.build(k.known)
		return dst, modeKnown
	}
	d := distribution{min(tableLog, max(minLog+1, bits.Len(uint(n))-1)), k.coder.cells[:last+1]}
	normalize(d.cells, k.counts[:last+1], uint32(n), d.log)
	k.coder.build(d)
	return appendDistribution(dst, d), modeOwn
}

// write codes the sequences, the last one first, since a decoder reads the bits from their end.
//
//go:norace
func (c *sequenceCoder) write(dst []byte, seqs []sequence) []byte {
	const most = 10 // bytes of a sequence: 26 bits of states and 48 of values
	start := len(dst)
	dst = slices.Grow(dst, len(seqs)*most+32)
	out := dst[start:cap(dst)]
	codes := c.codes[:len(seqs)]
	last := codes[len(seqs)-1]
	lit, off, length := c.lit.coder.first(last.lit), c.off.coder.first(last.off), c.len.coder.first(last.len)
	litC, offC, lenC := &c.lit.coder, &c.off.coder, &c.len.coder
	var held uint64
	var n uint32
	at := 0
	for i := len(seqs) - 1; ; {
		s, k := &seqs[i], codes[i]
		lb, mb, ob := uint32(litBits[k.lit&63]), uint32(lenBits[k.len&63]), uint32(k.off)&31
		values := uint64(s.offset&(1<<ob-1))<<(lb+mb&63) | uint64(uint32(s.length)&(1<<(mb&31)-1))<<(lb&63) | uint64(uint32(s.lits)&(1<<(lb&31)-1))
		if n+lb+mb+ob > 63 {
			binary.LittleEndian.PutUint64(out[at:], held)
			at += int(n >> 3)
			held >>= n &^ 7 & 63
			n &= 7
		}
		held |= values << (n & 63)
		n += lb + mb + ob
		binary.LittleEndian.PutUint64(out[at:], held)
		at += int(n >> 3)
		held >>= n &^ 7 & 63
		n &= 7
		if i--; i < 0 {
			break
		}
		k = codes[i]
		t := offC.moves[k.off&63]
		b := (off + t.bits) >> 16 & 31
		held |= uint64(off&(1<<b-1)) << n
		n += b
		off = uint32(offC.states[uint8(int32(off>>b)+t.state)])
		t = lenC.moves[k.len&63]
		b = (length + t.bits) >> 16 & 31
		held |= uint64(length&(1<<b-1)) << (n & 63)
		n += b
		length = uint32(lenC.states[uint8(int32(length>>b)+t.state)])
		t = litC.moves[k.lit&63]
		b = (lit + t.bits) >> 16 & 31
		held |= uint64(lit&(1<<b-1)) << (n & 63)
		n += b
		lit = uint32(litC.states[uint8(int32(lit>>b)+t.state)])
	}
	var w bitWriter
	w.start(dst[:start+at])
	w.held, w.n = held, int(n)
	for _, f := range [...]struct {
		c     *coder
		state uint32
	}{{lenC, length}, {offC, off}, {litC, lit}} {
		w.add(uint64(f.state&(1<<f.c.log-1)), f.c.log)
	}
	w.add(1, 1) // marks the end
	return w.end()
}
