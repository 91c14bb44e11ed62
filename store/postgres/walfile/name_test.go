package walfile_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/store/postgres/walfile"
)

func TestSegmentNamesAreTheServers(t *testing.T) {
	t.Parallel()
	cases := []struct {
		tl   relight.TimelineID
		lsn  relight.LSN
		size int64
		name string
	}{
		{1, 0x16B374D848, 16 << 20, "0000000100000016000000B3"},
		{1, 0x800000, 1 << 20, "000000010000000000000008"},
		{0x1A, 0x1_FFF0_0000, 1 << 20, "0000001A0000000100000FFF"},
		{2, 0x2_4000_0000, 1 << 30, "000000020000000200000001"},
	}
	for _, c := range cases {
		if got := walfile.SegmentName(c.tl, c.lsn, c.size); got != c.name {
			t.Errorf("SegmentName(%d, %s, %d) = %s, want %s", c.tl, c.lsn, c.size, got, c.name)
		}
	}
}

func TestSegmentNamesRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		size := int64(1) << rapid.IntRange(20, 30).Draw(t, "bits")
		lsn := walfile.SegmentStart(relight.LSN(rapid.Uint64Max(1<<62).Draw(t, "lsn")), size)
		tl := relight.TimelineID(rapid.Uint32Min(1).Draw(t, "tl"))
		gotTL, got, err := walfile.ParseSegmentName(walfile.SegmentName(tl, lsn, size), size)
		if err != nil || gotTL != tl || got != lsn {
			t.Fatalf("%d %s of %d comes back as %d %s, %v", tl, lsn, size, gotTL, got, err)
		}
	})
}

func TestBadNamesAreRefused(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"", "00000001000000000000000", "00000001000000000000000g", "000000010000000000000100", "000000000000000000000001", "00000001000000000000000a"} {
		if _, _, err := walfile.ParseSegmentName(name, 16<<20); err == nil {
			t.Errorf("accepted %q", name)
		}
	}
	for _, name := range []string{"00000002", "2.history", "0000000g.history"} {
		if _, err := walfile.ParseHistoryName(name); err == nil {
			t.Errorf("accepted %q", name)
		}
	}
}

func TestTrimStepsBackOverAnEmptyPagesHeader(t *testing.T) {
	t.Parallel()
	cases := map[relight.LSN]relight.LSN{0x100028: 0x100000, 0x102018: 0x102000, 0x102028: 0x102028, 0x100018: 0x100018, 0x102000: 0x102000}
	for in, want := range cases {
		if got := walfile.Trim(in, 1<<20); got != want {
			t.Errorf("Trim(%s) = %s, want %s", in, got, want)
		}
	}
}

func TestParseHistory(t *testing.T) {
	t.Parallel()
	path, err := walfile.ParseHistory(4, "1\t0/3000148\tno recovery target specified\n\n# comment\n3\t0/5000000\tbefore 2000-01-01\n")
	if err != nil {
		t.Fatal(err)
	}
	want := []walfile.Branch{{1, 0, 0x3000148}, {3, 0x3000148, 0x5000000}, {4, 0x5000000, walfile.MaxLSN}}
	if len(path) != 3 || path[0] != want[0] || path[1] != want[1] || path[2] != want[2] {
		t.Fatalf("path %v, want %v", path, want)
	}
	if b, ok := walfile.At(path, 0x4000000); !ok || b.Timeline != 3 {
		t.Errorf("0/4000000 is on %v", b)
	}
	if _, ok := walfile.Find(path, 2); ok {
		t.Error("timeline 2 is no ancestor")
	}
	for _, bad := range []string{"x 0/1", "1", "1 12", "2 0/1\n1 0/2", "4 0/1"} {
		if _, err := walfile.ParseHistory(4, bad); err == nil {
			t.Errorf("accepted %q", bad)
		}
	}
}
