package zframe

import (
	"errors"

	"github.com/klauspost/compress/huff0"
)

// How literals are stored.
const (
	litRaw        = 0
	litRLE        = 1
	litCompressed = 2
)

// minHuff is the fewest literals for which a Huffman table may pay.
const minHuff = 64

// appendLiterals writes the literals section.
func (e *Encoder) appendLiterals(dst, lits []byte) ([]byte, bool) {
	if len(lits) < minHuff {
		return append(appendPlainHeader(dst, litRaw, len(lits)), lits...), true
	}
	streams := huff0.Compress4X
	if len(lits) < 256 {
		streams = huff0.Compress1X
	}
	out, _, err := streams(lits, &e.huff)
	switch {
	case errors.Is(err, huff0.ErrUseRLE):
		return append(appendPlainHeader(dst, litRLE, len(lits)), lits[0]), true
	case errors.Is(err, huff0.ErrIncompressible), err == nil && len(out)+5 >= len(lits):
		return append(appendPlainHeader(dst, litRaw, len(lits)), lits...), true
	case err != nil:
		return dst, false
	}
	return append(appendHuffHeader(dst, len(lits), len(out)), out...), true
}

func appendPlainHeader(dst []byte, kind, size int) []byte {
	switch {
	case size < 1<<5:
		return append(dst, byte(kind|size<<3))
	case size < 1<<12:
		v := kind | 1<<2 | size<<4
		return append(dst, byte(v), byte(v>>8))
	}
	v := kind | 3<<2 | size<<4
	return append(dst, byte(v), byte(v>>8), byte(v>>16))
}

// appendHuffHeader writes the header of literals that are Huffman-coded, in one stream when there are few.
func appendHuffHeader(dst []byte, plain, coded int) []byte {
	format, bits, size := 3, 18, 5
	switch {
	case plain < 256:
		format, bits, size = 0, 10, 3
	case plain < 1<<10 && coded < 1<<10:
		format, bits, size = 1, 10, 3
	case plain < 1<<14:
		format, bits, size = 2, 14, 4
	}
	v := uint64(litCompressed | format<<2 | plain<<4 | coded<<(4+bits))
	for range size {
		dst = append(dst, byte(v))
		v >>= 8
	}
	return dst
}
