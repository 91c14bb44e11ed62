package repo

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// Sizes of a leaf; docs/format.md "Leaves" is the authority.
const (
	leafHeader = 6
	unit       = 512      // pieces are measured in it
	maxPage    = 64 << 10 // the longest slot that may be a mosaic
	maxSources = 1<<16 - 1
	pieceSize  = 4
	mosaicSize = 3 // without its pieces
)

// piece is bytes of a slot that lie in a stored chunk.
type piece struct {
	source int // row of the leaf's table
	off, n int // bytes
}

// mosaic is a slot that is joined from pieces of chunks.
type mosaic struct {
	slot   int
	pieces []piece
}

// size is the bytes of the whole slot.
func (m mosaic) size() (n int) {
	for _, p := range m.pieces {
		n += p.n
	}
	return n
}

// leaf is a part of a block map as it is stored. It never changes.
type leaf struct {
	ids     []byte // one id a slot: of its bytes, whether they are stored as one chunk or not
	sources []byte // ids of the chunks that mosaics take from, in the order in which they are first taken from
	mosaics []mosaic
}

func (l *leaf) slots() int { return len(l.ids) / idSize }

func (l *leaf) id(slot int) ChunkID { return ChunkID(l.ids[slot*idSize:]) }

func (l *leaf) source(i int) ChunkID { return ChunkID(l.sources[i*idSize:]) }

// decodeLeaf checks and opens the body of a leaf. What is accepted has no other form. It keeps nothing of b.
func decodeLeaf(b []byte) (*leaf, error) {
	if len(b) < leafHeader || len(b) > maxChunk {
		return nil, fmt.Errorf("%w: a leaf of %d bytes", errMap, len(b))
	}
	le := binary.LittleEndian
	slots, sources, mosaics := int(le.Uint16(b)), int(le.Uint16(b[2:])), int(le.Uint16(b[4:]))
	if slots == 0 || slots > leafIDs || mosaics > slots || len(b) < leafHeader+(slots+sources)*idSize {
		return nil, fmt.Errorf("%w: a leaf of %d slots, %d sources and %d mosaics in %d bytes", errMap, slots, sources, mosaics, len(b))
	}
	b = slices.Clone(b[leafHeader:])
	l := &leaf{ids: b[:slots*idSize], sources: b[slots*idSize : (slots+sources)*idSize]}
	b = b[(slots+sources)*idSize:]
	if mosaics > 0 {
		l.mosaics = make([]mosaic, 0, mosaics)
	}
	used, last := 0, -1
	for range mosaics {
		var err error
		if b, used, err = l.decodeMosaic(b, used, last); err != nil {
			return nil, err
		}
		last = l.mosaics[len(l.mosaics)-1].slot
	}
	if len(b) > 0 || used != sources {
		return nil, fmt.Errorf("%w: a leaf has %d bytes too many, and uses %d of %d sources", errMap, len(b), used, sources)
	}
	return l, nil
}

// decodeMosaic takes one mosaic from b; used sources were taken from by those before it, the last of which is of slot last.
func (l *leaf) decodeMosaic(b []byte, used, last int) ([]byte, int, error) {
	if len(b) < mosaicSize || len(b) < mosaicSize+int(b[2])*pieceSize {
		return nil, 0, fmt.Errorf("%w: a leaf ends inside a mosaic", errMap)
	}
	m := mosaic{slot: int(binary.LittleEndian.Uint16(b)), pieces: make([]piece, b[2])}
	b = b[mosaicSize:]
	if m.slot <= last || m.slot >= l.slots() || len(m.pieces) == 0 {
		return nil, 0, fmt.Errorf("%w: a mosaic of slot %d after %d", errMap, m.slot, last)
	}
	for i := range m.pieces {
		p := piece{source: int(binary.LittleEndian.Uint16(b)), off: int(b[2]) * unit, n: int(b[3]) * unit}
		b = b[pieceSize:]
		if p.source > used || p.source*idSize >= len(l.sources) || p.n == 0 || p.off+p.n > maxPage {
			return nil, 0, fmt.Errorf("%w: slot %d takes %d bytes at %d of source %d", errMap, m.slot, p.n, p.off, p.source)
		}
		used = max(used, p.source+1)
		m.pieces[i] = p
	}
	if m.size() > maxPage {
		return nil, 0, fmt.Errorf("%w: slot %d has %d bytes", errMap, m.slot, m.size())
	}
	l.mosaics = append(l.mosaics, m)
	return b, used, nil
}

// tile is a piece on its way into a leaf. Its chunk may get its id later: when it is stored.
type tile struct {
	from   *ChunkID
	off, n int
}

// tiled is a mosaic on its way into a leaf.
type tiled struct {
	slot  int
	tiles []tile
}

// encodeLeaf appends a leaf to b.
func encodeLeaf(b, ids []byte, mosaics []tiled) ([]byte, error) {
	rows := map[ChunkID]int{}
	var sources, list []byte
	le := binary.LittleEndian
	for _, m := range mosaics {
		list = append(le.AppendUint16(list, uint16(m.slot)), byte(len(m.tiles)))
		for _, t := range m.tiles {
			row, ok := rows[*t.from]
			if !ok {
				row = len(rows)
				rows[*t.from] = row
				sources = append(sources, t.from[:]...)
			}
			list = append(le.AppendUint16(list, uint16(row)), byte(t.off/unit), byte(t.n/unit))
		}
	}
	if len(rows) > maxSources {
		return nil, fmt.Errorf("a leaf takes from %d chunks", len(rows))
	}
	b = le.AppendUint16(b, uint16(len(ids)/idSize))
	b = le.AppendUint16(b, uint16(len(rows)))
	b = le.AppendUint16(b, uint16(len(mosaics)))
	return append(append(append(b, ids...), sources...), list...), nil
}

// mapped is one slot of a file as its map has it.
type mapped struct {
	id     ChunkID // of its bytes
	pieces []piece // nil where the slot is stored as one chunk
	leaf   *leaf   // to whose table the pieces refer
}

// isMosaic tells whether the slot is joined from pieces; its id is then of no stored chunk.
func (s mapped) isMosaic() bool { return len(s.pieces) > 0 }

// chunks calls fn for each chunk that the slot needs, with the bytes that must be in it at least; 0 where the slot is all of it.
func (s mapped) chunks(fn func(id ChunkID, least int) error) error {
	if !s.isMosaic() {
		return fn(s.id, 0)
	}
	for i, p := range s.pieces {
		least, before := 0, false
		for j, q := range s.pieces {
			if q.source == p.source {
				least, before = max(least, q.off+q.n), before || j < i
			}
		}
		if before {
			continue
		}
		if err := fn(s.leaf.source(p.source), least); err != nil {
			return err
		}
	}
	return nil
}

// primary is the source of which the slot has most.
func (s mapped) primary() (source int) {
	most := 0
	for _, p := range s.pieces {
		n := 0
		for _, q := range s.pieces {
			if q.source == p.source {
				n += q.n
			}
		}
		if n > most {
			source, most = p.source, n
		}
	}
	return source
}

// leads is the chunk that a reader asks for when it comes to the slot: the slot itself, or the chunk of which a mosaic has most.
func (s mapped) leads() ChunkID {
	if !s.isMosaic() {
		return s.id
	}
	return s.leaf.source(s.primary())
}
