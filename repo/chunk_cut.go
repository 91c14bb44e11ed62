package repo

import "encoding/binary"

// cutter finds the content-defined ends of chunks. Its table is derived from the chunk-id key, so that the
// lengths of stored frames do not tell an observer of the bucket which known file lies there.
type cutter struct{ gear [256]uint64 }

// Until the average length a cut must match more bits than after it: lengths gather round the average.
const (
	hardMask = uint64(1)<<63 - uint64(1)<<43 // 20 bits
	easyMask = uint64(1)<<63 - uint64(1)<<47 // 16 bits
)

func newCutter(h *chunkHash) *cutter {
	c := &cutter{}
	seed := []byte("relight/1 content-defined cut 000")
	for i := range c.gear {
		seed[len(seed)-1] = byte(i)
		id := h.id(seed)
		c.gear[i] = binary.LittleEndian.Uint64(id[:])
	}
	return c
}

// cut is the length of the first chunk of p. p must hold at least maxChunk bytes, or all that is left of the file.
func (c *cutter) cut(p []byte) int {
	if len(p) <= minChunk {
		return len(p)
	}
	end := min(len(p), maxChunk)
	// The hash remembers 64 bytes: begin that far before the first place where a cut may fall.
	i, h := minChunk-64, uint64(0)
	for ; i < minChunk; i++ {
		h = h<<1 + c.gear[p[i]]
	}
	for mid := min(end, avgChunk); i < mid; i++ {
		if h = h<<1 + c.gear[p[i]]; h&hardMask == 0 {
			return i + 1
		}
	}
	for ; i < end; i++ {
		if h = h<<1 + c.gear[p[i]]; h&easyMask == 0 {
			return i + 1
		}
	}
	return end
}
