package main

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"
)

const testSegment = 16 << 20

func testWatcher(dir string, end int64) *watcher {
	return &watcher{dir: dir, segment: testSegment, seen: map[string]bool{}, ahead: map[int64]int64{}, marks: []mark{{time.Unix(1, 0), end}}}
}

func TestSpan(t *testing.T) {
	t.Parallel()
	w := testWatcher("", 0)
	for name, want := range map[string][2]int64{
		"000000010000000000000003":          {3 * testSegment, 4 * testSegment},
		"0000000200000001000000FF":          {1<<32 + 255*testSegment, 2 << 32},
		"0000000003000000-0000000003000100": {3 * testSegment, 3*testSegment + 256},
	} {
		if from, to, ok := w.span(name); !ok || from != want[0] || to != want[1] {
			t.Errorf("%s: %d to %d, %v", name, from, to, ok)
		}
	}
	for _, name := range []string{"00000002.history", "system.1", "x-y", "00000001000000000000000G"} {
		if from, to, ok := w.span(name); ok {
			t.Errorf("%s passes for WAL from %d to %d", name, from, to)
		}
	}
}

// TestNothingBehindAHoleCounts is the watcher's promise.
func TestNothingBehindAHoleCounts(t *testing.T) {
	t.Parallel()
	w := testWatcher("", 100)
	step := func(at, want int64, ranges ...[2]int64) {
		t.Helper()
		for _, r := range ranges {
			w.ahead[r[0]] = max(w.ahead[r[0]], r[1])
		}
		w.advance(time.Unix(at, 0))
		if got := w.marks[len(w.marks)-1].end; got != want {
			t.Errorf("at %d the end is %d, want %d", at, got, want)
		}
	}
	step(2, 100, [2]int64{150, 200})                     // a hole from 100 to 150
	step(3, 120, [2]int64{100, 120})                     // still one
	step(4, 200, [2]int64{110, 160})                     // overlaps both sides
	step(5, 200, [2]int64{0, 50}, [2]int64{200, 200})    // old, and empty
	step(6, 400, [2]int64{300, 400}, [2]int64{190, 300}) // in the wrong order
	for lsn, want := range map[int64]int64{90: 1, 100: 1, 101: 3, 120: 3, 121: 4, 200: 4, 201: 6, 400: 6} {
		if at, ok := w.when(lsn); !ok || at.Unix() != want {
			t.Errorf("%d was reached at %v, %v, want %d", lsn, at, ok, want)
		}
	}
	if at, ok := w.when(401); ok {
		t.Errorf("401 was reached at %v", at)
	}
	for at, want := range map[int64]int64{1: 100, 2: 100, 3: 120, 5: 200, 9: 400} {
		if got := w.endAt(time.Unix(at, 0)); got != want {
			t.Errorf("at %d the end was %d, want %d", at, got, want)
		}
	}
}

// TestLookCountsSidecars: a body alone is no WAL in the repository.
func TestLookCountsSidecars(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	put := func(name string) {
		t.Helper()
		path := filepath.Join(dir, "7", "00000001", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w := testWatcher(dir, testSegment)
	put("000000010000000000000001.0123456789abcdef") // the body of a segment
	put("live/0000000001000000-0000000001000010.meta")
	w.look()
	w.advance(time.Unix(2, 0))
	if _, ok := w.when(testSegment + 17); ok || w.err != nil {
		t.Errorf("a body counts: %+v, %v", w.marks, w.err)
	}
	if _, ok := w.when(testSegment + 16); !ok {
		t.Errorf("a live range does not count: %+v", w.marks)
	}
	put("000000010000000000000001.meta")
	w.look()
	w.advance(time.Unix(3, 0))
	if at, err := w.reach(context.Background(), 2*testSegment, time.Second); err != nil || at.Unix() != 3 {
		t.Errorf("%v, %v", at, err)
	}
	if _, err := w.reach(context.Background(), 2*testSegment+1, 0); err == nil {
		t.Error("more than there is was reached")
	}
}

func TestWatchNeedsWAL(t *testing.T) {
	t.Parallel()
	if _, err := watchRepository(t.TempDir(), testSegment); err == nil {
		t.Error("an empty repository is watched")
	}
}
