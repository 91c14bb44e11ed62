package postgres

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/store/postgres/walfile"
)

// walPatches are bytes to change in WAL, by position.
//
// CREATE TABLESPACE replays the absolute path that the source used. In a sandbox, perhaps on the source's own host, that would be the live
// server's directory. So the record is served with an empty path, which makes the server create the tablespace inside its
// own data directory, and with the checksum that belongs to it.
type walPatches map[relight.LSN]byte

func (p walPatches) touch(from, to relight.LSN) bool {
	for at := range p {
		if at >= from && at < to {
			return true
		}
	}
	return false
}

func (p walPatches) apply(from relight.LSN, b []byte) {
	for at, v := range p {
		if at >= from && at < from+relight.LSN(len(b)) {
			b[at-from] = v
		}
	}
}

const (
	recordHeader      = 24 // XLogRecord
	recordCRC         = 20 // its position in it
	rmTablespace      = 5
	tablespaceCreate  = 0x00
	walSwitch         = 0x40
	rmXLOG            = 0
	pageOverwritten   = 0x08 // XLP_FIRST_IS_OVERWRITE_CONTRECORD
	longPageHeader    = 40
	shortPageHeader   = 24
	maxTablespaceBody = 8192
)

// findTablespaceCreations reads the WAL of a plan and makes the patches for every tablespace that it creates.
func findTablespaceCreations(ctx context.Context, w *plannedWAL, p plan) (walPatches, error) {
	f := &tablespaceFinder{patches: walPatches{}, at: p.Base.Facts.StartLSN, size: p.Base.Facts.SegmentSize}
	for _, name := range w.names() {
		_, start, err := walfile.ParseSegmentName(name, f.size)
		if err != nil {
			return nil, err
		}
		feed := &pageFeeder{f: f, at: start, page: make([]byte, 0, walfile.PageSize)}
		err = w.read(ctx, name, feed)
		if feed.err != nil {
			err = feed.err
		}
		if err != nil {
			return nil, fmt.Errorf("WAL segment %s: %w", name, err)
		}
	}
	return f.patches, nil
}

// pageFeeder cuts a stream into pages.
type pageFeeder struct {
	f    *tablespaceFinder
	at   relight.LSN
	page []byte
	err  error
}

func (w *pageFeeder) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		k := min(len(p), walfile.PageSize-len(w.page))
		w.page, p = append(w.page, p[:k]...), p[k:]
		if len(w.page) == walfile.PageSize {
			if w.err = w.f.take(w.at, w.page); w.err != nil {
				return 0, w.err
			}
			w.at += walfile.PageSize
			w.page = w.page[:0]
		}
	}
	return n, nil
}

// tablespaceFinder walks records page by page. It trusts lengths, as checksums are verified where WAL enters the repository
// and where the server replays it.
type tablespaceFinder struct {
	patches walPatches
	at      relight.LSN // of the next byte that matters
	size    int64
	head    []byte        // of the record under way
	where   []relight.LSN // position of each byte of head
	left    int           // bytes of the record that are still to come
	total   int
	ended   bool
}

func (f *tablespaceFinder) take(at relight.LSN, page []byte) error {
	if f.ended || at+walfile.PageSize <= f.at {
		return nil
	}
	h, err := walfile.ParsePage(page)
	if err != nil || h.Address != at {
		f.ended = true // zeros or an older life of the file: WAL ends here
		return nil
	}
	size := shortPageHeader
	if h.Long() {
		size = longPageHeader
	}
	pos := size
	switch {
	case h.Flags&pageOverwritten != 0:
		f.reset() // the record that was under way was given up
	case f.at > at+relight.LSN(size): // begins or goes on inside this page
		pos = int(f.at - at)
	case f.left > 0 && int(h.Remaining) != f.left || f.left == 0 && h.Remaining != 0:
		return fmt.Errorf("page %s continues a record of %d bytes instead of %d", at, h.Remaining, f.left)
	}
	return f.records(at, page, pos)
}

func (f *tablespaceFinder) reset() { f.head, f.where, f.left, f.total = f.head[:0], f.where[:0], 0, 0 }

func (f *tablespaceFinder) records(at relight.LSN, page []byte, pos int) error {
	for pos < len(page) {
		if f.left == 0 {
			pos = (pos + 7) &^ 7
			if pos >= len(page) {
				break
			}
			f.reset()
			f.total = int(binary.LittleEndian.Uint32(page[pos:]))
			if f.total < recordHeader {
				f.ended = true // the end of WAL
				return nil
			}
			f.left = f.total
		}
		n := min(f.left, len(page)-pos)
		f.keep(at+relight.LSN(pos), page[pos:pos+n])
		f.left -= n
		pos += n
		if f.left > 0 {
			break
		}
		if f.isSwitch() {
			f.reset()
			end := at + relight.LSN(pos)
			f.at = walfile.SegmentStart(end-1, f.size) + relight.LSN(f.size)
			return nil
		}
		if err := f.record(); err != nil {
			return err
		}
		f.reset()
	}
	f.at = at + walfile.PageSize
	return nil
}

// keep collects the header of every record, and the whole of one about tablespaces.
func (f *tablespaceFinder) keep(at relight.LSN, b []byte) {
	for i := range b {
		if len(f.head) >= recordHeader && (f.head[17] != rmTablespace || len(f.head) >= maxTablespaceBody) {
			return
		}
		f.head, f.where = append(f.head, b[i]), append(f.where, at+relight.LSN(i))
	}
}

func (f *tablespaceFinder) isSwitch() bool {
	return f.head[17] == rmXLOG && f.head[16]&0xf0 == walSwitch
}

// record patches a record that creates a tablespace.
func (f *tablespaceFinder) record() error {
	b := f.head
	if b[17] != rmTablespace || b[16]&0xf0 != tablespaceCreate {
		return nil
	}
	if len(b) != f.total {
		return fmt.Errorf("record of a tablespace at %s has %d bytes", f.where[0], f.total)
	}
	path, err := tablespacePath(b)
	if err != nil {
		return fmt.Errorf("record of a tablespace at %s: %w", f.where[0], err)
	}
	b[path] = 0
	crc := crc32.Checksum(b[recordHeader:], castagnoli)
	crc = crc32.Update(crc, castagnoli, b[:recordCRC])
	binary.LittleEndian.PutUint32(b[recordCRC:], crc)
	for _, i := range []int{path, recordCRC, recordCRC + 1, recordCRC + 2, recordCRC + 3} {
		f.patches[f.where[i]] = b[i]
	}
	return nil
}

// tablespacePath finds the path in a record: after the headers of the record's parts, its main data is the tablespace's oid and the
// path.
func tablespacePath(b []byte) (int, error) {
	pos := recordHeader
	for pos < len(b) {
		switch b[pos] {
		case 253: // origin
			pos += 3
		case 252: // top-level transaction
			pos += 5
		case 255, 254:
			n := 0
			if b[pos] == 255 && pos+2 <= len(b) {
				n = int(b[pos+1])
			} else if pos+5 <= len(b) {
				n = int(binary.LittleEndian.Uint32(b[pos+1:]))
			}
			path := len(b) - n + 4
			if n < 5 || n > len(b)-pos || bytes.IndexByte(b[path:], 0) < 0 {
				return 0, fmt.Errorf("main data of %d bytes", n)
			}
			return path, nil
		default:
			return 0, fmt.Errorf("unexpected part %d", b[pos])
		}
	}
	return 0, fmt.Errorf("no main data")
}
