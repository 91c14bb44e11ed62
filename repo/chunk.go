package repo

import (
	"encoding/hex"
	"fmt"

	"github.com/zeebo/blake3"
)

// Sizes of the format; docs/format.md "Chunks, packs, index" is the authority.
const (
	defaultPage = 64 << 10  // a chunk of a paged file
	minChunk    = 64 << 10  // bounds of a chunk that is cut by content
	avgChunk    = 256 << 10 //
	maxChunk    = 1 << 20   //
)

// String prints lower-case hex.
func (id ChunkID) String() string { return hex.EncodeToString(id[:]) }

// MarshalText makes ids short and legible in JSON.
func (id ChunkID) MarshalText() ([]byte, error) {
	return hex.AppendEncode(make([]byte, 0, 64), id[:]), nil
}

// UnmarshalText reads what MarshalText wrote.
func (id *ChunkID) UnmarshalText(b []byte) error {
	if len(b) != 64 {
		return fmt.Errorf("chunk id of %d characters, want 64", len(b))
	}
	_, err := hex.Decode(id[:], b)
	return err
}

// chunkHash computes chunk ids without allocating. It belongs to one goroutine.
type chunkHash struct{ h *blake3.Hasher }

func newChunkHash(key []byte) (*chunkHash, error) {
	h, err := blake3.NewKeyed(key)
	if err != nil {
		return nil, fmt.Errorf("chunk-id key: %w", err)
	}
	return &chunkHash{h: h}, nil
}

func (c *chunkHash) id(p []byte) (id ChunkID) {
	c.h.Reset()
	_, _ = c.h.Write(p) // a hash never fails
	c.h.Sum(id[:0])
	return id
}
