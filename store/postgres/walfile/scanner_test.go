package walfile_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/store/postgres/walfile"
)

const mib = 1 << 20

// sample reads a recorded piece of a PostgreSQL 15 server's log (1 MiB segments).
func sample(t testing.TB, name string) []byte {
	t.Helper()
	f, err := os.Open("testdata/" + name + ".zst")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d, err := zstd.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	b, err := io.ReadAll(d)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// scan feeds b in pieces of at most n bytes.
func scan(t testing.TB, o walfile.Options, b []byte, n int) ([]walfile.Event, relight.LSN, error) {
	t.Helper()
	if o.SegmentSize == 0 {
		o.SegmentSize = mib
	}
	s, err := walfile.NewScanner(o)
	if err != nil {
		t.Fatal(err)
	}
	var list []walfile.Event
	for len(b) > 0 && err == nil {
		p := b[:min(n, len(b))]
		b = b[len(p):]
		err = s.Feed(p, func(e walfile.Event) error {
			list = append(list, e)
			return nil
		})
	}
	return list, s.ValidEnd(), err
}

// golden lists what pg_waldump says about the sample that begins at 0/800000.
const golden = `checkpoint 0/834450
checkpoint 0/834530
checkpoint 0/840F30
checkpoint 0/841010
shutdown checkpoint 0/841568
segment switch 0/841618
restore point 0/95A998 before the drop
abort 0/95ABB0 xid 728 2026-11-23 14:24:03.682810
commit 0/95AD50 xid 729 2026-11-23 14:24:03.682926
abort 0/95AEF8 xid 730 2026-11-23 14:24:03.683048
commit 0/99F9F8 xid 733 2026-11-23 14:24:03.685751 1663/5/16391 1663/5/16394 1663/5/16395 1663/5/16396
truncate 0/9B4138 1663/5/16384
commit 0/9B4B90 xid 736 2026-11-23 14:24:03.687967 1663/5/16388 1663/5/16389 1663/5/16387 1663/5/16384
`

func TestEventsMatchWhatTheServersOwnToolSays(t *testing.T) {
	t.Parallel()
	b := sample(t, "v15-switch-and-commits")
	events, end, err := scan(t, walfile.Options{Start: 0x800000, Check: true}, b, len(b))
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	commits := 0
	for _, e := range events {
		if e.Kind == walfile.Commit {
			commits++
		}
		if e.Kind == walfile.Commit && len(e.Dropped) == 0 && e.XID != 729 {
			continue
		}
		describe(&got, e)
	}
	if got.String() != golden {
		t.Errorf("got\n%swant\n%s", got.String(), golden)
	}
	if commits != 18 {
		t.Errorf("%d commits, pg_waldump counts 18", commits)
	}
	if end != 0x9FF111 { // the next record, at 0/9FF118, goes on in the next segment
		t.Errorf("valid end %s, want 0/9FF111", end)
	}
}

func describe(w io.Writer, e walfile.Event) {
	fmt.Fprintf(w, "%s %s", e.Kind, e.Start)
	if e.Name != "" {
		fmt.Fprintf(w, " %s", e.Name)
	}
	if e.Kind == walfile.Commit || e.Kind == walfile.Abort {
		fmt.Fprintf(w, " xid %d %s", e.XID, e.Time.Format("2006-01-02 15:04:05.000000"))
	}
	for _, r := range e.Dropped {
		fmt.Fprintf(w, " %s", r)
	}
	fmt.Fprintln(w)
}

func TestEndOfLogIsWhereTheServersOwnToolStops(t *testing.T) {
	t.Parallel()
	b := sample(t, "v15-end-of-log")
	events, end, err := scan(t, walfile.Options{Start: 0x1000000, Check: true}, b, len(b))
	if !errors.Is(err, walfile.ErrInvalid) {
		t.Fatalf("error %v, want the end of the log", err)
	}
	if end != 0x105C61A { // the last record at 0/105C5A8 is 114 bytes long
		t.Errorf("valid end %s, want 0/105C61A", end)
	}
	last := events[len(events)-1]
	if last.Kind != walfile.CheckpointShutdown || last.Redo != 0x105C5A8 || last.Timeline != 1 || last.Time.Year() != 2026 {
		t.Errorf("last event %+v is not the shutdown checkpoint", last)
	}
	mark := events[len(events)-2]
	if mark.Kind != walfile.RestorePoint || mark.Name != "the end" {
		t.Errorf("event before %+v is not the restore point", mark)
	}
}

func TestAnyPiecewiseFeedGivesTheSame(t *testing.T) {
	t.Parallel()
	b := sample(t, "v15-switch-and-commits")
	for _, check := range []bool{false, true} {
		o := walfile.Options{Start: 0x800000, Check: check}
		want, wantEnd, err := scan(t, o, b, len(b))
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range []int{1, 7, 24, 8191, 8192, 100_000} {
			got, end, err := scan(t, o, b, n)
			if err != nil || end != wantEnd || fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("pieces of %d (check %v): %d events to %s, %v; want %d to %s", n, check, len(got), end, err, len(want), wantEnd)
			}
		}
	}
}

func TestReadingMayBeginInsideARecord(t *testing.T) {
	t.Parallel()
	b := sample(t, "v15-switch-and-commits")
	all, wantEnd, _ := scan(t, walfile.Options{Start: 0x800000, Check: true}, b, len(b))
	for off := 0; off < len(b); off += 13 * walfile.PageSize {
		if off > 0x41618 && off < mib {
			continue // zeros after the segment switch
		}
		start := relight.LSN(0x800000 + off)
		got, end, err := scan(t, walfile.Options{Start: start, Check: true}, b[off:], len(b))
		if err != nil || end != wantEnd {
			t.Fatalf("from %s: end %s, %v", start, end, err)
		}
		n := len(got)
		if n > 0 && fmt.Sprint(all[len(all)-n:]) != fmt.Sprint(got) {
			t.Errorf("from %s: other events", start)
		}
		for _, e := range all[:len(all)-n] {
			if e.Start >= start {
				t.Errorf("from %s: missed %s at %s", start, e.Kind, e.Start)
			}
		}
	}
}

func TestADamagedByteEndsTheLogThere(t *testing.T) {
	t.Parallel()
	seed := uint64(20261123)
	rnd := rand.New(rand.NewPCG(seed, 1))
	clean := sample(t, "v15-switch-and-commits")
	for range 200 {
		at := rnd.IntN(len(clean))
		if at > 0x41618 && at < mib || at%walfile.PageSize < 40 {
			continue // zeros that nothing reads; headers are tested apart
		}
		b := bytes.Clone(clean)
		b[at] ^= byte(1 + rnd.IntN(255))
		_, end, err := scan(t, walfile.Options{Start: 0x800000, Check: true}, b, len(b))
		if err == nil && at%8 != 0 && padding(clean, at) {
			continue
		}
		if !errors.Is(err, walfile.ErrInvalid) || end > relight.LSN(0x800000+at) {
			t.Errorf("seed %d: damage at %X: end %s, %v", seed, 0x800000+at, end, err)
		}
	}
}

// padding tells whether the byte may be one of the up to seven zeros between records.
func padding(b []byte, at int) bool { return b[at] == 0 }

func TestHeadersOfAnotherClusterAreRefused(t *testing.T) {
	t.Parallel()
	b := sample(t, "v15-switch-and-commits")
	cases := []struct {
		name string
		o    walfile.Options
		edit func([]byte)
		why  string
	}{
		{"system", walfile.Options{System: 42}, nil, "WAL of system 7711372586987857091, not 42"},
		{"segment size", walfile.Options{SegmentSize: 2 * mib}, nil, "segment size is 1048576"},
		{"magic", walfile.Options{}, func(b []byte) { b[0] = 0x18 }, "is not PostgreSQL 15, 16 or 17"},
		{"timeline", walfile.Options{Timeline: 1}, func(b []byte) { b[4] = 2 }, "page of timeline 2 on timeline 1"},
		{"address", walfile.Options{Start: 0x900000}, nil, "page says that it is 0/800000"},
		{"flags", walfile.Options{}, func(b []byte) { b[3] = 0xff }, "flags"},
		{"second page's magic", walfile.Options{}, func(b []byte) { b[8192] = 0x13 }, "page magic changes"},
		{"lost continuation", walfile.Options{}, func(b []byte) { b[8192+2] &^= 1 }, "does not continue"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := bytes.Clone(b)
			if c.edit != nil {
				c.edit(b)
			}
			if c.o.Start == 0 {
				c.o.Start = 0x800000
			}
			_, _, err := scan(t, c.o, b, len(b))
			if !errors.Is(err, walfile.ErrInvalid) || !strings.Contains(err.Error(), c.why) {
				t.Errorf("error %v, want %q", err, c.why)
			}
		})
	}
}

func TestNewScannerRefusesImpossibleOptions(t *testing.T) {
	t.Parallel()
	for _, o := range []walfile.Options{{SegmentSize: 3 * mib}, {SegmentSize: mib / 2}, {SegmentSize: mib, Start: 8}} {
		if _, err := walfile.NewScanner(o); err == nil {
			t.Errorf("accepted %+v", o)
		}
	}
}

func FuzzScanner(f *testing.F) {
	b := sample(f, "v15-switch-and-commits")
	f.Add(b[:3*walfile.PageSize], uint16(1000), true)
	f.Add(b[mib+0x5A000:mib+0x5A000+4*walfile.PageSize], uint16(37), false)
	end := sample(f, "v15-end-of-log")
	f.Add(end[0x5A000:0x5E000], uint16(8192), true)
	f.Fuzz(func(t *testing.T, b []byte, piece uint16, check bool) {
		start := relight.LSN(0x800000)
		if p, err := walfile.ParsePage(b); err == nil && p.Address%walfile.PageSize == 0 && p.Address < 1<<62 {
			start = p.Address
		}
		whole, end, err := scan(t, walfile.Options{Start: start, Check: check}, b, len(b)+1)
		parts, partEnd, partErr := scan(t, walfile.Options{Start: start, Check: check}, b, int(piece)+1)
		if end != partEnd || (err == nil) != (partErr == nil) || fmt.Sprint(whole) != fmt.Sprint(parts) {
			t.Fatalf("whole: %s %v; in pieces of %d: %s %v", end, err, int(piece)+1, partEnd, partErr)
		}
		if end < start {
			t.Fatalf("valid end %s is before the start %s", end, start)
		}
	})
}

func BenchmarkScanner(b *testing.B) {
	wal := sample(b, "v15-switch-and-commits")[mib:]
	for _, check := range []bool{false, true} {
		b.Run(fmt.Sprintf("check=%v", check), func(b *testing.B) {
			b.SetBytes(int64(len(wal)))
			for b.Loop() {
				s, _ := walfile.NewScanner(walfile.Options{Start: 0x900000, SegmentSize: mib, Check: check})
				if err := s.Feed(wal, func(walfile.Event) error { return nil }); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
