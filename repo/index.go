package repo

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

const (
	indexMagic  = "RLIDX001"
	recordSize  = 48
	packRowSize = 41
	maxPackRows = 1 << 20 // of one index object; what it says beyond that is not believed
)

var errIndex = errors.New("index object is damaged")

// record says where a chunk lies. On disk and in index objects it has the same 48 bytes; pack is a row of the
// pack table that stands beside it.
type record struct {
	id    ChunkID
	pack  uint32
	off   uint32 // in the opened pack
	frame uint32 // length of the zstd frame
	plain uint32 // length of the chunk
}

func (r record) append(b []byte) []byte {
	b = append(b, r.id[:]...)
	b = binary.LittleEndian.AppendUint32(b, r.pack)
	b = binary.LittleEndian.AppendUint32(b, r.off)
	b = binary.LittleEndian.AppendUint32(b, r.frame)
	return binary.LittleEndian.AppendUint32(b, r.plain)
}

func decodeRecord(b []byte) (r record) {
	copy(r.id[:], b)
	r.pack = binary.LittleEndian.Uint32(b[32:])
	r.off = binary.LittleEndian.Uint32(b[36:])
	r.frame = binary.LittleEndian.Uint32(b[40:])
	r.plain = binary.LittleEndian.Uint32(b[44:])
	return r
}

// compareRecords orders by id, then by place: equal only when identical in both.
func compareRecords(a, b record) int {
	if c := bytes.Compare(a.id[:], b.id[:]); c != 0 {
		return c
	}
	if a.pack != b.pack {
		return cmpUint(a.pack, b.pack)
	}
	return cmpUint(a.off, b.off)
}

// sortRecords orders records as an index object has them. Ids differ in their first bytes already, as a rule.
func sortRecords(recs []record) {
	type key struct {
		head uint64
		row  uint32
	}
	order := make([]key, len(recs))
	for i, r := range recs {
		order[i] = key{binary.BigEndian.Uint64(r.id[:]), uint32(i)}
	}
	slices.SortFunc(order, func(a, b key) int {
		if a.head != b.head {
			return compare(a.head, b.head)
		}
		return compareRecords(recs[a.row], recs[b.row])
	})
	sorted := make([]record, len(recs))
	for i, k := range order {
		sorted[i] = recs[k.row]
	}
	copy(recs, sorted)
}

func cmpUint(a, b uint32) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// check refuses records that no writer writes.
func (r record) check(packs []packInfo) error {
	if int64(r.pack) >= int64(len(packs)) {
		return fmt.Errorf("%w: chunk %s lies in pack %d of %d", errIndex, r.id, r.pack, len(packs))
	}
	if r.plain == 0 || r.plain > maxChunk || r.frame == 0 || int64(r.off)+int64(r.frame) > packs[r.pack].size {
		return fmt.Errorf("%w: chunk %s has impossible lengths", errIndex, r.id)
	}
	return nil
}

// encodeIndex writes the plain form of an index object. recs must be sorted.
func encodeIndex(w io.Writer, packs []packInfo, recs []record) error {
	b := bufio.NewWriterSize(w, 64<<10)
	row := append(make([]byte, 0, recordSize), indexMagic...)
	row = binary.LittleEndian.AppendUint32(row, uint32(len(packs)))
	_, _ = b.Write(row) // bufio keeps the first error for Flush
	for _, p := range packs {
		row = append(append(row[:0], p.id[:]...), byte(p.kind))
		_, _ = b.Write(binary.LittleEndian.AppendUint64(row, uint64(p.size)))
	}
	_, _ = b.Write(binary.LittleEndian.AppendUint32(row[:0], uint32(len(recs))))
	for _, r := range recs {
		_, _ = b.Write(r.append(row[:0]))
	}
	return b.Flush()
}

// decodeIndex streams an index object: the pack table first, then each record in order.
func decodeIndex(src io.Reader, packed func([]packInfo) error, fn func(record) error) error {
	r := bufio.NewReaderSize(src, 8<<10)
	packs, err := decodePackTable(r)
	if err != nil {
		return err
	}
	if err := packed(packs); err != nil {
		return err
	}
	return decodeRecords(r, packs, fn)
}

func decodePackTable(r io.Reader) ([]packInfo, error) {
	var head [len(indexMagic) + 4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, fmt.Errorf("%w: %w", errIndex, err)
	}
	if string(head[:len(indexMagic)]) != indexMagic {
		return nil, fmt.Errorf("%w: it does not begin with %s", errIndex, indexMagic)
	}
	n := binary.LittleEndian.Uint32(head[len(indexMagic):])
	if n > maxPackRows {
		return nil, fmt.Errorf("%w: %d packs", errIndex, n)
	}
	var packs []packInfo // grows with what is really there, not with what is claimed
	var row [packRowSize]byte
	for range n {
		if _, err := io.ReadFull(r, row[:]); err != nil {
			return nil, fmt.Errorf("%w: pack table: %w", errIndex, err)
		}
		p := packInfo{kind: packKind(row[32]), size: int64(binary.LittleEndian.Uint64(row[33:]))}
		copy(p.id[:], row[:])
		if p.kind != dataPack && p.kind != metaPack || p.size < 0 {
			return nil, fmt.Errorf("%w: pack table", errIndex)
		}
		packs = append(packs, p)
	}
	return packs, nil
}

func decodeRecords(r io.Reader, packs []packInfo, fn func(record) error) error {
	var row [recordSize]byte
	if _, err := io.ReadFull(r, row[:4]); err != nil {
		return fmt.Errorf("%w: %w", errIndex, err)
	}
	n := binary.LittleEndian.Uint32(row[:])
	var last record
	for i := range n {
		if _, err := io.ReadFull(r, row[:]); err != nil {
			return fmt.Errorf("%w: record %d of %d: %w", errIndex, i, n, err)
		}
		rec := decodeRecord(row[:])
		if err := rec.check(packs); err != nil {
			return err
		}
		if i > 0 && compareRecords(last, rec) >= 0 {
			return fmt.Errorf("%w: records out of order", errIndex)
		}
		if err := fn(rec); err != nil {
			return err
		}
		last = rec
	}
	if _, err := io.ReadFull(r, row[:1]); err != io.EOF {
		return fmt.Errorf("%w: bytes after the last record", errIndex)
	}
	return nil
}
