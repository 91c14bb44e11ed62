package walfile

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/toolboxai/relight"
)

// Resource managers of interest, numbered as in rmgrlist.h.
const (
	rmXlog       = 0
	rmXact       = 1
	rmSmgr       = 2
	rmDatabase   = 4
	rmTablespace = 5
	rmMaxCore    = 21  // logical messages; the last one of the server itself
	rmMinExt     = 128 // extensions' resource managers
)

// Kinds of record (high half of xl_info).
const (
	xlogCheckpointShutdown = 0x00
	xlogCheckpointOnline   = 0x10
	xlogSwitch             = 0x40
	xlogBackupEnd          = 0x50
	xlogRestorePoint       = 0x70
	xlogEndOfRecovery      = 0x90

	xactCommit         = 0x00
	xactAbort          = 0x20
	xactCommitPrepared = 0x30
	xactAbortPrepared  = 0x40
	xactMask           = 0x70
	xactHasInfo        = 0x80

	smgrTruncate = 0x20
	databaseDrop = 0x20

	tablespaceCreate = 0x00
)

// header is a decoded XLogRecord.
type header struct {
	total uint32
	xid   uint32
	prev  relight.LSN
	info  uint8
	rm    uint8
	crc   uint32
}

func parseHeader(b []byte) header {
	return header{
		total: binary.LittleEndian.Uint32(b),
		xid:   binary.LittleEndian.Uint32(b[4:]),
		prev:  relight.LSN(binary.LittleEndian.Uint64(b[8:])),
		info:  b[16],
		rm:    b[17],
		crc:   binary.LittleEndian.Uint32(b[20:]),
	}
}

func (h header) isSwitch() bool { return h.rm == rmXlog && h.info&0xf0 == xlogSwitch }

// interesting tells whether the body of the record is needed.
func (h header) interesting() bool {
	kind := h.info & 0xf0
	switch h.rm {
	case rmXlog:
		switch kind {
		case xlogCheckpointShutdown, xlogCheckpointOnline, xlogSwitch, xlogBackupEnd, xlogRestorePoint, xlogEndOfRecovery:
			return true
		}
	case rmXact:
		switch h.info & xactMask {
		case xactCommit, xactAbort, xactCommitPrepared, xactAbortPrepared:
			return true
		}
	case rmSmgr:
		return kind == smgrTruncate
	case rmDatabase:
		return kind == databaseDrop
	case rmTablespace:
		return kind == tablespaceCreate
	}
	return false
}

// decode turns a whole record's body into an event; ok is false for a record that carries none.
func decode(h header, body []byte) (e Event, ok bool, err error) {
	data, err := mainData(body)
	if err != nil {
		return e, false, err
	}
	e.XID = h.xid
	switch h.rm {
	case rmXlog:
		err = decodeXlog(&e, h.info&0xf0, data)
	case rmXact:
		err = decodeXact(&e, h.info, data)
	case rmSmgr:
		err = decodeTruncate(&e, data)
	case rmDatabase:
		err = decodeDropDatabase(&e, data)
	case rmTablespace:
		err = decodeTablespace(&e, h, body, data)
	}
	return e, e.Kind != 0, err
}

// mainData finds a record's main data behind the headers of blocks, origin and top-level transaction.
func mainData(b []byte) ([]byte, error) {
	all := b
	for len(b) > 0 {
		id := b[0]
		switch {
		case id == 255: // short main data
			if len(b) < 2 {
				return nil, errShort
			}
			return tail(all, int(b[1]))
		case id == 254: // long main data
			if len(b) < 5 {
				return nil, errShort
			}
			return tail(all, int(binary.LittleEndian.Uint32(b[1:])))
		case id == 253: // replication origin
			b = skip(b, 3)
		case id == 252: // top-level transaction
			b = skip(b, 5)
		case id <= 32:
			rest, err := skipBlock(b)
			if err != nil {
				return nil, err
			}
			b = rest
		default:
			return nil, fmt.Errorf("unknown block id %d", id)
		}
	}
	return nil, nil
}

var errShort = fmt.Errorf("record is shorter than its contents")

func tail(b []byte, n int) ([]byte, error) {
	if n < 0 || n > len(b) {
		return nil, errShort
	}
	return b[len(b)-n:], nil
}

func skip(b []byte, n int) []byte { return b[min(n, len(b)):] }

// skipBlock passes one block reference.
func skipBlock(b []byte) ([]byte, error) {
	if len(b) < 4 {
		return nil, errShort
	}
	flags := b[1]
	b = b[4:]
	if flags&0x10 != 0 { // an image
		if len(b) < 5 {
			return nil, errShort
		}
		info := b[4]
		b = b[5:]
		if info&0x01 != 0 && info&0x1c != 0 { // compressed and with a hole
			b = skip(b, 2)
		}
	}
	if flags&0x80 == 0 { // names its relation
		b = skip(b, 12)
	}
	return skip(b, 4), nil
}

func decodeXlog(e *Event, kind uint8, d []byte) error {
	switch kind {
	case xlogSwitch:
		e.Kind = Switch
		return nil
	case xlogCheckpointShutdown, xlogCheckpointOnline:
		return decodeCheckpoint(e, kind, d)
	case xlogBackupEnd:
		if len(d) < 8 {
			return errShort
		}
		e.Kind, e.Redo = BackupEnd, relight.LSN(binary.LittleEndian.Uint64(d))
	case xlogRestorePoint:
		if len(d) < 9 {
			return errShort
		}
		name, _, _ := bytes.Cut(d[8:], []byte{0})
		e.Kind, e.Time, e.Name = RestorePoint, Time(int64(binary.LittleEndian.Uint64(d))), string(name)
	case xlogEndOfRecovery:
		if len(d) < 16 {
			return errShort
		}
		e.Kind, e.Time = EndOfRecovery, Time(int64(binary.LittleEndian.Uint64(d)))
		e.Timeline = relight.TimelineID(binary.LittleEndian.Uint32(d[8:]))
		e.Previous = relight.TimelineID(binary.LittleEndian.Uint32(d[12:]))
	}
	return nil
}

func decodeCheckpoint(e *Event, kind uint8, d []byte) error {
	if len(d) < 72 {
		return errShort
	}
	e.Kind = CheckpointOnline
	if kind == xlogCheckpointShutdown {
		e.Kind = CheckpointShutdown
	}
	e.Redo = relight.LSN(binary.LittleEndian.Uint64(d))
	e.Timeline = relight.TimelineID(binary.LittleEndian.Uint32(d[8:]))
	e.Previous = relight.TimelineID(binary.LittleEndian.Uint32(d[12:]))
	sec := int64(binary.LittleEndian.Uint64(d[64:]))
	if sec < 0 || sec > 1<<40 {
		return fmt.Errorf("checkpoint time %d is absurd", sec)
	}
	e.Time = Time((sec - pgEpoch) * 1_000_000)
	return nil
}
