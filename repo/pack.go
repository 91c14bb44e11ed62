package repo

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/toolboxai/relight/zframe"
	"github.com/zeebo/blake3"
)

// A pack closes when its opened body reaches packTarget, or holds packRecords chunks: the second bound keeps
// the memory for the records of tiny chunks in proportion.
const (
	packTarget  = 16 << 20
	packRecords = 1 << 16
	// packStart is the memory that a pack begins with: the only pack of a small snapshot needs no more.
	packStart = 128 << 10
)

// packKind says which identity opens a pack.
type packKind byte

const (
	dataPack packKind = 'd'
	metaPack packKind = 'm'
)

func (k packKind) prefix() string {
	if k == metaPack {
		return "pack/meta/"
	}
	return "pack/data/"
}

// packID is the BLAKE3 of a pack's sealed bytes.
type packID [32]byte

// String prints lower-case hex.
func (id packID) String() string { return hex.EncodeToString(id[:]) }

// packInfo is one line of a pack table.
type packInfo struct {
	id   packID
	kind packKind
	size int64 // sealed
}

func (p packInfo) name() string { return p.kind.prefix() + p.id.String() }

// sealFunc opens an age writer to a recipient.
type sealFunc func(io.Writer) (io.WriteCloser, error)

// framer turns plain chunks into zstd frames. It belongs to one goroutine and does not allocate per chunk.
type framer struct {
	short *zframe.Encoder
	long  *zstd.Encoder // of chunks that are cut by content and longer than zframe takes
	buf   []byte
}

func newFramer() (*framer, error) {
	// Without checksum: the chunk id covers the plain bytes.
	long, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithEncoderCRC(false), zstd.WithWindowSize(maxChunk), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, fmt.Errorf("prepare zstd: %w", err)
	}
	return &framer{short: zframe.NewEncoder(), long: long}, nil
}

// frame is valid until the next call.
func (f *framer) frame(plain []byte) []byte {
	if len(plain) <= zframe.Max {
		f.buf = f.short.Encode(f.buf[:0], plain)
	} else {
		f.buf = f.long.EncodeAll(plain, f.buf[:0])
	}
	return f.buf
}

// packBuilder seals frames into a buffer as they come.
type packBuilder struct {
	kind packKind
	buf  *bytes.Buffer
	age  io.WriteCloser
	size int // of the opened body so far
	recs []record
}

func newPackBuilder(kind packKind, seal sealFunc, buf *bytes.Buffer, recs []record) (*packBuilder, error) {
	buf.Reset()
	w, err := seal(buf)
	if err != nil {
		return nil, fmt.Errorf("seal pack: %w", err)
	}
	return &packBuilder{kind: kind, buf: buf, age: w, recs: recs[:0]}, nil
}

func (b *packBuilder) add(id ChunkID, frame []byte, plain int) error {
	if _, err := b.age.Write(frame); err != nil {
		return fmt.Errorf("seal chunk %s: %w", id, err)
	}
	b.recs = append(b.recs, record{id: id, off: uint32(b.size), frame: uint32(len(frame)), plain: uint32(plain)})
	b.size += len(frame)
	return nil
}

func (b *packBuilder) full(target int) bool { return b.size >= target || len(b.recs) >= packRecords }

// finish ends the seal; the pack's bytes are then in buf.
func (b *packBuilder) finish() (packInfo, error) {
	if err := b.age.Close(); err != nil {
		return packInfo{}, fmt.Errorf("seal pack: %w", err)
	}
	sealed := b.buf.Bytes()
	return packInfo{id: blake3.Sum256(sealed), kind: b.kind, size: int64(len(sealed))}, nil
}
