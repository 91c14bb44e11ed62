package zframe

import (
	"encoding/binary"
	"slices"
)

// bitWriter collects bits, the first ones lowest.
type bitWriter struct {
	out  []byte
	at   int
	held uint64
	n    int
}

// start begins behind dst.
func (w *bitWriter) start(dst []byte) {
	w.out, w.at, w.held, w.n = dst, len(dst), 0, 0
}

// add takes the low n bits of v; the others must be zero. After flush there is room for 57.
func (w *bitWriter) add(v uint64, n int) {
	w.held |= v << (w.n & 63)
	w.n += n
}

// flush moves whole bytes out.
//
//go:norace
func (w *bitWriter) flush() {
	w.out = slices.Grow(w.out[:w.at], 8)[:w.at+8]
	binary.LittleEndian.PutUint64(w.out[w.at:], w.held)
	w.at += w.n >> 3
	w.held >>= w.n &^ 7 & 63
	w.n &= 7
}

// end flushes, fills the last byte with zeros, and gives everything.
func (w *bitWriter) end() []byte {
	w.flush()
	if w.n > 0 {
		w.at++
	}
	return w.out[:w.at]
}
