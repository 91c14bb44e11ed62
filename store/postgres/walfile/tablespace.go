package walfile

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/toolboxai/relight"
)

const crcAt = 20 // where a record's checksum lies in its header

// decodeTablespace reads the record of CREATE TABLESPACE: the oid, and the directory as a string that ends with a zero.
func decodeTablespace(e *Event, h header, body, data []byte) error {
	if len(data) < 5 || bytes.IndexByte(data[4:], 0) < 0 {
		return errShort
	}
	place, _, _ := bytes.Cut(data[4:], []byte{0})
	e.Kind, e.Tablespace, e.Name = CreateTablespace, binary.LittleEndian.Uint32(data), string(place)
	e.record = append(h.bytes(), body...)
	return nil
}

// bytes is the header as it lies in WAL.
func (h header) bytes() []byte {
	b := make([]byte, recordHeader, recordHeader+256)
	binary.LittleEndian.PutUint32(b, h.total)
	binary.LittleEndian.PutUint32(b[4:], h.xid)
	binary.LittleEndian.PutUint64(b[8:], uint64(h.prev))
	b[16], b[17] = h.info, h.rm
	binary.LittleEndian.PutUint32(b[crcAt:], h.crc)
	return b
}

// WithoutDirectory gives the bytes, by position, that make of a CreateTablespace one that names no directory. The server that replays it creates the tablespace where
// pg_tblspc/<oid> of its own data directory is, or leads to.
func (e Event) WithoutDirectory(segmentSize int64) (map[relight.LSN]byte, error) {
	b := bytes.Clone(e.record)
	if e.Kind != CreateTablespace || checksum(b) != binary.LittleEndian.Uint32(b[crcAt:]) {
		return nil, fmt.Errorf("the record at %s is no whole record of a tablespace", e.Start)
	}
	data, err := mainData(b[recordHeader:])
	if err != nil {
		return nil, err
	}
	first := len(b) - len(data) + 4
	b[first] = 0
	binary.LittleEndian.PutUint32(b[crcAt:], checksum(b))
	out := map[relight.LSN]byte{}
	for _, i := range []int{first, crcAt, crcAt + 1, crcAt + 2, crcAt + 3} {
		out[placeOf(e.Start, i, segmentSize)] = b[i]
	}
	return out, nil
}

// checksum is that of a record's body and then of its header up to where it is kept.
func checksum(record []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	return crc32.Update(crc32.Checksum(record[recordHeader:], table), table, record[:crcAt])
}

// placeOf is where the i-th byte of the record that begins at start lies: page headers are in between.
func placeOf(start relight.LSN, i int, segmentSize int64) relight.LSN {
	for at := start; ; {
		if at%PageSize == 0 {
			at += relight.LSN(headerSize(at, segmentSize))
		}
		room := PageSize - int(at%PageSize)
		if i < room {
			return at + relight.LSN(i)
		}
		i -= room
		at += relight.LSN(room)
	}
}
