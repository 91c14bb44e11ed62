package zframe

import (
	"encoding/binary"

	"github.com/klauspost/compress/huff0"
)

const (
	// Max is the longest piece that Encode takes.
	Max = 1 << 16
	// Overhead is the most that a frame is longer than its piece: magic, header, size and the header of a raw block.
	Overhead = 4 + 1 + 2 + 3

	magic         = 0xFD2FB528
	singleSegment = 1 << 5
	pad           = 16 // bytes that may be read, or written, behind the end
)

// What a block holds.
const (
	blockRaw        = 0
	blockRLE        = 1
	blockCompressed = 2
)

// Encoder holds the memory for encoding one piece after the other. It belongs to one goroutine.
type Encoder struct {
	src   [Max + pad]byte // the piece
	lits  [Max + pad]byte // its literals, one run after the other
	table [1 << hashBits]uint16
	seqs  []sequence
	huff  huff0.Scratch
	codes *sequenceCoder
}

// NewEncoder makes an encoder; it takes about 300 KB.
func NewEncoder() *Encoder {
	return &Encoder{seqs: make([]sequence, 0, Max/minMatch+1), huff: huff0.Scratch{Reuse: huff0.ReusePolicyNone}, codes: newSequenceCoder()}
}

// Encode appends the frame of src to dst. It panics when src is longer than Max: the caller chooses another encoder then.
func (e *Encoder) Encode(dst, src []byte) []byte {
	if len(src) > Max {
		panic("zframe: the piece is too long")
	}
	dst = appendHeader(dst, len(src))
	if len(src) > 1 && allSame(src) {
		return append(appendBlockHeader(dst, blockRLE, len(src)), src[0])
	}
	body := len(dst)
	if len(src) > minInput {
		dst = append(dst, 0, 0, 0) // the block's header, when its length is known
		if out, ok := e.compress(dst, src); ok && len(out)-len(dst) < len(src) {
			appendBlockHeader(out[:body], blockCompressed, len(out)-len(dst))
			return out
		}
		dst = dst[:body]
	}
	return append(appendBlockHeader(dst, blockRaw, len(src)), src...)
}

// appendHeader writes the magic and a header that says the content's size.
func appendHeader(dst []byte, size int) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, magic)
	if size < 256 {
		return append(dst, singleSegment, byte(size))
	}
	return binary.LittleEndian.AppendUint16(append(dst, singleSegment|1<<6), uint16(size-256))
}

// appendBlockHeader writes the header of the only block.
func appendBlockHeader(dst []byte, kind, size int) []byte {
	v := 1 | kind<<1 | size<<3
	return append(dst, byte(v), byte(v>>8), byte(v>>16))
}

//go:norace
func allSame(b []byte) bool {
	first := uint64(b[0]) * 0x0101010101010101
	for ; len(b) >= 8; b = b[8:] {
		if binary.LittleEndian.Uint64(b) != first {
			return false
		}
	}
	for _, c := range b {
		if c != byte(first) {
			return false
		}
	}
	return true
}

// compress appends the body of a compressed block; false when there is nothing to gain.
func (e *Encoder) compress(dst, src []byte) ([]byte, bool) {
	clear(e.src[copy(e.src[:], src):][:pad])
	n := e.match(len(src))
	dst, ok := e.appendLiterals(dst, e.lits[:n])
	if !ok {
		return dst, false
	}
	return e.codes.append(dst, e.seqs), true
}
