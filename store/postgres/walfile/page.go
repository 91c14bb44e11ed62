package walfile

import (
	"encoding/binary"
	"fmt"

	"github.com/toolboxai/relight"
)

// Page flags, as in xlog_internal.h.
const (
	flagContinued   = 0x0001 // the page begins with the rest of a record
	flagLong        = 0x0002 // the page begins a segment and has a long header
	flagOverwritten = 0x0008 // the record that was under way was given up after a crash
	flagsKnown      = 0x000f
)

// Page is a decoded page header.
type Page struct {
	Magic       uint16
	Flags       uint16
	Timeline    relight.TimelineID
	Address     relight.LSN
	Remaining   uint32           // bytes of the record that continues from the page before
	System      relight.SystemID // first page of a segment only
	SegmentSize uint32           // first page of a segment only
	BlockSize   uint32           // first page of a segment only
}

// Major is the server major version of a page magic, 0 if unknown to this package.
func Major(magic uint16) int {
	switch magic {
	case 0xD110:
		return 15
	case 0xD113:
		return 16
	case 0xD116:
		return 17
	}
	return 0
}

// Long tells whether the header is the long form that begins a segment.
func (p Page) Long() bool { return p.Flags&flagLong != 0 }

// ParsePage decodes a page header: 24 bytes, or 40 at the beginning of a segment.
func ParsePage(b []byte) (Page, error) {
	if len(b) < shortHeader {
		return Page{}, fmt.Errorf("WAL page header needs %d bytes, has %d", shortHeader, len(b))
	}
	p := Page{
		Magic:     binary.LittleEndian.Uint16(b),
		Flags:     binary.LittleEndian.Uint16(b[2:]),
		Timeline:  relight.TimelineID(binary.LittleEndian.Uint32(b[4:])),
		Address:   relight.LSN(binary.LittleEndian.Uint64(b[8:])),
		Remaining: binary.LittleEndian.Uint32(b[16:]),
	}
	if Major(p.Magic) == 0 {
		return p, fmt.Errorf("page magic %04X is not PostgreSQL 15, 16 or 17", p.Magic)
	}
	if p.Flags&^flagsKnown != 0 {
		return p, fmt.Errorf("page flags %04X are unknown", p.Flags)
	}
	if !p.Long() {
		return p, nil
	}
	if len(b) < longHeader {
		return p, fmt.Errorf("long WAL page header needs %d bytes, has %d", longHeader, len(b))
	}
	p.System = relight.SystemID(binary.LittleEndian.Uint64(b[24:]))
	p.SegmentSize = binary.LittleEndian.Uint32(b[32:])
	p.BlockSize = binary.LittleEndian.Uint32(b[36:])
	return p, nil
}

// headerSize is the length of the page header at lsn.
func headerSize(lsn relight.LSN, segment int64) int {
	if uint64(lsn)%uint64(segment) == 0 {
		return longHeader
	}
	return shortHeader
}

// Trim turns an insert position into the end of the WAL before it: a server that has just filled a page reports
// the place after the next page's header, which holds no record yet.
func Trim(lsn relight.LSN, segment int64) relight.LSN {
	in := uint64(lsn) % PageSize
	start := lsn - relight.LSN(in)
	if in != 0 && int(in) == headerSize(start, segment) {
		return start
	}
	return lsn
}
