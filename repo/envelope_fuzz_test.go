package repo

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/toolboxai/relight"
)

// What is not an envelope is refused, and what is one verifies only as it was signed.
func FuzzEnvelope(f *testing.F) {
	st := newStand(f)
	good, err := st.init.Keyring.sign("gap", "wal/x", st.clock.now(), map[string]any{"a": 1})
	ok(f, err)
	f.Add(good)
	f.Add([]byte(`{}`))
	f.Add([]byte(`{"kind":"gap","name":"wal/x","signer":"recovery","at":"2025-10-02T14:30:00Z","payload":null,"sig":""}`))
	f.Add(append(bytes.Clone(good), good...))
	signed, err := parseEnvelope(good, "gap", "wal/x")
	ok(f, err)
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseEnvelope(b, "gap", "wal/x")
		if err != nil {
			if !errors.Is(err, ErrRefused) && !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "wal/x") {
				t.Fatalf("an error that neither refuses nor names: %v", err)
			}
			return
		}
		if s.verify(st.init.Descriptor.Authority) && !bytes.Equal(s.signedBytes(), signed.signedBytes()) {
			t.Fatal("bytes that were never signed verify")
		}
	})
}

// A name that parses is exactly the name that would be written.
func FuzzSidecarName(f *testing.F) {
	f.Add("wal/main/7412345678901234567/00000001/000000010000000000000003.meta")
	f.Add("wal/main/7/00000001/live/000000010000000000000003/0000000000300000-0000000000300010.meta")
	f.Add("wal/main/7/00000002/00000002.history.meta")
	f.Add("wal/main/07/00000001/000000010000000000000003.meta")
	f.Fuzz(func(t *testing.T, name string) {
		w, parsed := parseSidecarName(name)
		if parsed && (w.sidecar() != name || w.Timeline == 0 && w.class != walHistory) {
			t.Fatalf("%q reads as %+v and writes as %q", name, w, w.sidecar())
		}
	})
}

func FuzzDescriptor(f *testing.F) {
	st := newStand(f)
	good, err := json.Marshal(st.init.Descriptor)
	ok(f, err)
	f.Add(good)
	f.Add([]byte(`{"format":2}`))
	f.Add([]byte(`{"format":1,"id":"x","chunk":65536,"live_interval_ms":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := parseDescriptor(b)
		if err != nil {
			return
		}
		if d.Format != Format || len(d.Fingerprint()) != 16 || d.LiveEvery() <= 0 {
			t.Fatalf("believed %+v", d)
		}
	})
}

func FuzzHistory(f *testing.F) {
	f.Add([]byte("1\t0/3000000\tno recovery target specified\n\n2\t16/B374D848\tbefore 2025-10-02\n"))
	f.Add([]byte("# comment\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		left, begin, err := parseHistory(b)
		if err == nil && len(left) == 0 && begin != 0 {
			t.Fatal("a beginning without an ancestor")
		}
	})
}

// A sidecar fits its name, or is refused; it never makes the reader compute nonsense.
func FuzzSidecar(f *testing.F) {
	f.Add(uint64(3<<20), uint64(4<<20), int64(1<<20), int64(1<<20))
	f.Add(uint64(0), uint64(0), int64(0), int64(-1))
	f.Fuzz(func(t *testing.T, start, end uint64, segment, size int64) {
		w := walName{WALKey: testKey, class: walSegment, name: segmentName(1, 3)}
		s := Sidecar{
			System: testKey.System, Timeline: 1, Name: w.name, Start: relight.LSN(start), End: relight.LSN(end),
			SegmentSize: segment, Size: size, Stored: 1, Body: w.base() + ".x",
		}
		if w.checkSidecar(s) == nil && (!validSegmentSize(segment) || size != segment || start != 3*uint64(segment)) {
			t.Fatalf("believed %+v", s)
		}
	})
}
