package zframe

import "math/bits"

const (
	maxSymbols = 53
	tableLog   = 8 // of tables that are made for a block; the format allows as much for all three kinds
	minLog     = 5
)

// distribution says how many cells of a table each symbol gets; -1 is one cell at the end of the table.
type distribution struct {
	log   int
	cells []int16
}

// transform is how a symbol moves the state of the coder.
type transform struct {
	bits  uint32 // (state + bits) >> 16 is how many bits leave the state
	state int32  // where the symbol's next states begin, less the number of its cells
}

// coder is a finite-state-entropy coder (RFC 8878, 4.1) of one kind of symbol.
type coder struct {
	log    int
	states [1 << tableLog]uint16
	moves  [maxSymbols + 11]transform // 64, so that no index needs a check
	cells  [maxSymbols]int16
}

// build makes the coder for a distribution.
//
//go:norace
func (c *coder) build(d distribution) {
	c.log = d.log
	size := 1 << d.log
	var symbols [1 << tableLog]uint8
	var next [maxSymbols]int
	high, sum := size, 0
	for s, n := range d.cells {
		next[s] = sum
		switch {
		case n < 0:
			high--
			symbols[high] = uint8(s)
			sum++
			c.moves[s] = move(d.log, 1, sum)
		case n > 0:
			sum += int(n)
			c.moves[s] = move(d.log, int(n), sum)
		}
	}
	spread(symbols[:size], d.cells, high)
	for i, s := range symbols[:size] {
		c.states[next[s]] = uint16(size + i)
		next[s]++
	}
}

// move is the transform of a symbol with n cells that end at the sum-th.
func move(log, n, sum int) transform {
	most := log
	if n > 1 {
		most = log + 1 - bits.Len(uint(n-1))
	}
	return transform{uint32(most<<16 - n<<most), int32(sum - 2*n)}
}

// spread puts the symbols into the cells below high, as the format demands.
func spread(symbols []uint8, cells []int16, high int) {
	size := len(symbols)
	step, mask, at := size>>1+size>>3+3, size-1, 0
	for s, n := range cells {
		for ; n > 0; n-- {
			symbols[at] = uint8(s)
			for at = (at + step) & mask; at >= high; at = (at + step) & mask { //nolint:revive // cells at the end are taken
			}
		}
	}
}

// first is the state that stands for the last symbol of a stream, which is coded first.
func (c *coder) first(symbol uint8) uint32 {
	t := c.moves[symbol&63]
	n := (t.bits + 1<<15) >> 16
	return uint32(c.states[int32((n<<16-t.bits)>>n)+t.state])
}

// normalize shares the cells of a table of 1<<log among symbols in proportion to their counts, each that occurs getting at least one.
func normalize(cells []int16, counts []uint32, total uint32, log int) {
	size := 1 << log
	left, largest := size, 0
	for s, n := range counts {
		cells[s] = 0
		if n == 0 {
			continue
		}
		cells[s] = int16(max(1, (uint64(n)<<log+uint64(total)/2)/uint64(total)))
		left -= int(cells[s])
		if cells[s] > cells[largest] {
			largest = s
		}
	}
	for cells[largest] += int16(max(left, 0)); left < 0; left++ { // rounding gave too many: the largest gives back
		for s := range cells {
			if cells[s] > cells[largest] {
				largest = s
			}
		}
		cells[largest]--
	}
}

// appendDistribution writes a distribution without cells at the end as a decoder expects it.
func appendDistribution(dst []byte, d distribution) []byte {
	var w bitWriter
	w.start(dst)
	w.add(uint64(d.log-minLog), 4)
	left := 1<<d.log + 1
	for s := 0; left > 1; {
		v := int(d.cells[s]) + 1
		s++
		width := bits.Len(uint(left))
		half := 1 << (width - 1)
		short := 2*half - 1 - left // values below it need a bit less
		left -= v - 1
		switch {
		case v < short:
			width--
		case v >= half:
			v += short
		}
		w.add(uint64(v), width)
		w.flush()
		if d.cells[s-1] != 0 {
			continue
		}
		zeros := 0
		for d.cells[s+zeros] == 0 {
			zeros++
		}
		s += zeros
		for ; zeros >= 3; zeros -= 3 {
			w.add(3, 2)
			w.flush()
		}
		w.add(uint64(zeros), 2)
	}
	return w.end()
}
