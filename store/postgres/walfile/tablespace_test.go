package walfile_test

import (
	"encoding/binary"
	"hash/crc32"
	"testing"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/store/postgres/walfile"
)

// logWriter writes records into pages, as a server does.
type logWriter struct {
	begin relight.LSN
	b     []byte
	prev  relight.LSN
}

func (w *logWriter) at() relight.LSN { return w.begin + relight.LSN(len(w.b)) }

func (w *logWriter) page(left int) {
	h := make([]byte, 24)
	binary.LittleEndian.PutUint16(h, 0xD110) // version 15
	binary.LittleEndian.PutUint32(h[4:], 1)
	binary.LittleEndian.PutUint64(h[8:], uint64(w.at()))
	flags := uint16(0)
	if left > 0 {
		flags |= 1
		binary.LittleEndian.PutUint32(h[16:], uint32(left))
	}
	if w.at()%mib == 0 {
		flags |= 2
		long := make([]byte, 16)
		binary.LittleEndian.PutUint64(long, 7)
		binary.LittleEndian.PutUint32(long[8:], mib)
		binary.LittleEndian.PutUint32(long[12:], walfile.PageSize)
		h = append(h, long...)
	}
	binary.LittleEndian.PutUint16(h[2:], flags)
	w.b = append(w.b, h...)
}

// record writes one with main data only, and gives where it begins.
func (w *logWriter) record(rm, info byte, data []byte) relight.LSN {
	for len(w.b)%8 != 0 {
		w.b = append(w.b, 0)
	}
	if w.at()%walfile.PageSize == 0 {
		w.page(0)
	}
	start := w.at()
	body := []byte{254, 0, 0, 0, 0}
	binary.LittleEndian.PutUint32(body[1:], uint32(len(data)))
	body = append(body, data...)
	r := make([]byte, 24, 24+len(body))
	binary.LittleEndian.PutUint32(r, uint32(24+len(body)))
	binary.LittleEndian.PutUint64(r[8:], uint64(w.prev))
	r[16], r[17] = info, rm
	table := crc32.MakeTable(crc32.Castagnoli)
	binary.LittleEndian.PutUint32(r[20:], crc32.Update(crc32.Checksum(body, table), table, r[:20]))
	r = append(r, body...)
	for len(r) > 0 {
		if w.at()%walfile.PageSize == 0 {
			w.page(len(r))
		}
		n := min(len(r), walfile.PageSize-int(w.at()%walfile.PageSize))
		w.b, r = append(w.b, r[:n]...), r[n:]
	}
	w.prev = start
	return start
}

// A record of CREATE TABLESPACE is found and emptied wherever it lies, across pages and segments too, and what is left is valid.
func TestCreateTablespaceIsEmptiedWhereverItLies(t *testing.T) {
	t.Parallel()
	const place = "/srv/fast"
	data := append(binary.LittleEndian.AppendUint32(nil, 16400), place+"\x00"...)
	for _, begin := range []relight.LSN{mib, 2*mib - walfile.PageSize} { // a page ends inside a segment, or with it
		for pad := range 80 {
			w := &logWriter{begin: begin, prev: 0x100}
			w.page(0)
			w.record(0, 0x20, make([]byte, walfile.PageSize-len(w.b)-29-8*pad))
			start := w.record(5, 0, data)
			last := w.record(0, 0x20, []byte("after"))
			o := walfile.Options{Start: begin, Check: true}
			events, end, err := scan(t, o, w.b, 100)
			if err != nil || end < last || len(events) != 1 {
				t.Fatalf("%s with %d: %v, valid to %s, %+v", begin, pad, err, end, events)
			}
			e := events[0]
			if e.Kind != walfile.CreateTablespace || e.Start != start || e.Tablespace != 16400 || e.Name != place {
				t.Fatalf("%s with %d: %+v", begin, pad, e)
			}
			patch, err := e.WithoutDirectory(mib)
			if err != nil || len(patch) != 5 {
				t.Fatalf("%v, %v", patch, err)
			}
			for at, b := range patch {
				w.b[at-begin] = b
			}
			events, same, err := scan(t, o, w.b, len(w.b))
			if err != nil || same != end || len(events) != 1 || events[0].Name != "" || events[0].Tablespace != 16400 {
				t.Fatalf("%s with %d, emptied: %v, valid to %s of %s, %+v", begin, pad, err, same, end, events)
			}
		}
	}
}
