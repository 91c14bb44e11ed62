package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob"
	"github.com/toolboxai/relight/blob/fault"
)

// Each case is what PostgreSQL asks for while it recovers, and whether recovery may end there.
func TestAbsentMeansProvenAbsent(t *testing.T) {
	t.Parallel()
	tli2 := onTimeline(2)
	type put func(ctx context.Context, s Sink) error
	seg := func(tli, no int) put {
		return func(ctx context.Context, s Sink) error { return putSegment(ctx, s, onTimeline(tli), no) }
	}
	live := func(tli, no, from, to int) put {
		return func(ctx context.Context, s Sink) error { return putLive(ctx, s, onTimeline(tli), no, from, to) }
	}
	branch := func(lsn relight.LSN) put {
		return func(ctx context.Context, s Sink) error {
			return putHistory(ctx, s, tli2, fmt.Sprintf("1\t%s\twhy\n", lsn))
		}
	}
	for name, c := range map[string]struct {
		puts   []put
		ask    string
		absent bool
	}{
		"empty repository":                       {nil, segmentName(1, 3), true},
		"beyond the end":                         {[]put{seg(1, 3)}, segmentName(1, 4), true},
		"hole before a segment":                  {[]put{seg(1, 3), seg(1, 5)}, segmentName(1, 4), false},
		"hole before a live range":               {[]put{seg(1, 3), live(1, 5, 0, 10)}, segmentName(1, 4), false},
		"missing first segment":                  {[]put{seg(1, 5)}, segmentName(1, 4), false},
		"live range without the beginning":       {[]put{seg(1, 3), live(1, 4, 10, 20)}, segmentName(1, 4), false},
		"hole between live ranges":               {[]put{live(1, 4, 0, 10), live(1, 4, 20, 30)}, segmentName(1, 4), false},
		"half a segment and a later one":         {[]put{live(1, 4, 0, 10), seg(1, 5)}, segmentName(1, 4), false},
		"next history":                           {[]put{seg(1, 3)}, "00000002.history", true},
		"history lost, its WAL is there":         {[]put{seg(1, 3), seg(2, 4)}, "00000002.history", false},
		"partial and backup files":               {[]put{seg(1, 3)}, segmentName(1, 3) + ".partial", true},
		"before the timeline began":              {[]put{seg(1, 3), branch(segmentStart(4) + 9), seg(2, 4)}, segmentName(2, 3), true},
		"new timeline's first segment is lost":   {[]put{seg(1, 3), branch(segmentStart(4) + 9), seg(2, 5)}, segmentName(2, 4), false},
		"old timeline ends where it was left":    {[]put{seg(1, 3), branch(segmentStart(4) + 9), seg(2, 4), seg(2, 5)}, segmentName(1, 4), true},
		"old timeline ends before it was left":   {[]put{seg(1, 3), branch(segmentStart(6) + 9), seg(2, 6)}, segmentName(1, 4), false},
		"left exactly at the segment's end":      {[]put{seg(1, 3), branch(segmentStart(5)), seg(2, 5)}, segmentName(1, 4), false},
		"neither line has the branching":         {[]put{seg(1, 3), branch(segmentStart(4) + 9), seg(2, 5)}, segmentName(1, 4), false},
		"new timeline without any WAL yet":       {[]put{seg(1, 3), branch(segmentStart(4) + 9)}, segmentName(2, 4), true},
		"another store's later WAL is no reason": {[]put{seg(1, 3)}, segmentName(1, 4), true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			st := newStand(t)
			s := st.writer(st.s).Sink("main")
			for _, p := range c.puts {
				ok(t, p(t.Context(), s))
			}
			err := st.reader(st.s).WALSegment(t.Context(), testKey, c.ask, io.Discard)
			if err == nil || errors.Is(err, blob.ErrNotFound) != c.absent {
				t.Fatalf("absent is %v, want %v: %v", errors.Is(err, blob.ErrNotFound), c.absent, err)
			}
		})
	}
}

func TestHoleNamesTheAnnouncedGap(t *testing.T) {
	t.Parallel()
	st := newStand(t)
	s := st.writer(st.s).Sink("main")
	ok(t, putSegment(t.Context(), s, testKey, 3))
	ok(t, putSegment(t.Context(), s, testKey, 5))
	ok(t, s.Gap(t.Context(), testKey, relight.Gap{Timeline: 1, From: segmentStart(4), To: segmentStart(5), Why: "the slot was lost"}))
	_, err := readSegment(t.Context(), st.reader(st.s), 1, 4)
	wantError(t, err, segmentName(1, 4), "the slot was lost", segmentStart(4).String())
}

// "A bucket that fails in the middle of WAL replay never ends in a promoted database with data missing": whatever
// fails, what is there is never reported absent, and nothing wrong is served.
func TestFaultsNeverLookLikeAbsence(t *testing.T) {
	exhaustive(t)
	t.Parallel()
	st := newStand(t)
	s := st.writer(st.s).Sink("main")
	ok(t, putSegment(t.Context(), s, testKey, 3))
	ok(t, putSegment(t.Context(), s, testKey, 4))
	ok(t, putLive(t.Context(), s, testKey, 5, 0, 1000))
	ok(t, putLive(t.Context(), s, testKey, 5, 1000, 3000))
	ok(t, putHistory(t.Context(), s, onTimeline(2), "1\t0/501000\twhy\n"))
	keys := must(Unlock(t.Context(), st.s, st.id))(t)
	for _, ask := range []string{segmentName(1, 3), segmentName(1, 5), segmentName(1, 6), segmentName(2, 5), "00000002.history", "00000003.history"} {
		there := ask != segmentName(1, 6) && ask != segmentName(2, 5) && ask != "00000003.history"
		run := func(s blob.Storage) ([]byte, error) {
			o := st.options()
			o.Workers = 1
			m, err := Open(t.Context(), s, keys, o)
			if err != nil {
				return nil, err
			}
			var b bytes.Buffer
			err = must(m.Reader())(t).WALSegment(t.Context(), testKey, ask, &b)
			return b.Bytes(), err
		}
		good, err := run(st.s)
		if there != (err == nil) {
			t.Fatalf("%s: %v", ask, err)
		}
		counting := fault.New(st.s, nil)
		_, _ = run(counting) //nolint:errcheck // only counted
		for seq := 1; seq <= len(counting.Ops()); seq++ {
			for _, e := range []fault.Effect{fault.Refuse, fault.Lose, fault.Tear, fault.Flip, fault.Die} {
				got, err := run(fault.New(st.s, fault.At(seq, fault.Fault{Effect: e})))
				if errors.Is(err, blob.ErrNotFound) && (there || e == fault.Refuse || e == fault.Die) {
					t.Fatalf("%s: fault %v at operation %s looks like absence: %v", ask, e, counting.Ops()[seq-1], err)
				}
				if err == nil && (!there || !bytes.Equal(got, good)) {
					t.Fatalf("%s: fault %v at operation %s served %d wrong bytes", ask, e, counting.Ops()[seq-1], len(got))
				}
			}
		}
	}
}

// movesOn is a storage whose writer completes the segment and sweeps its live ranges just as one is read.
type movesOn struct {
	blob.Storage
	once sync.Once
	then func()
}

func (m *movesOn) Get(ctx context.Context, name string, offset, length int64) (io.ReadCloser, error) {
	if strings.Contains(name, "/live/") && !strings.HasSuffix(name, metaSuffix) {
		m.once.Do(m.then)
	}
	return m.Storage.Get(ctx, name, offset, length)
}

func TestLiveRangesSweptWhileTheyAreRead(t *testing.T) {
	t.Parallel()
	st := newStand(t)
	s := st.writer(st.s).Sink("main")
	ok(t, putLive(t.Context(), s, testKey, 4, 0, 1000))
	ok(t, putLive(t.Context(), s, testKey, 4, 1000, 2000))
	moving := &movesOn{Storage: st.s, then: func() {
		ok(t, putSegment(t.Context(), s, testKey, 4))
		ok(t, s.SweepLive(t.Context(), testKey))
	}}
	got := must(readSegment(t.Context(), st.reader(moving), 1, 4))(t)
	if !bytes.Equal(got, walBytes(1, 4)) {
		t.Fatal("other bytes than the completed segment's")
	}
}

func TestDamagedLiveRangeIsNamed(t *testing.T) {
	t.Parallel()
	st := newStand(t)
	s := st.writer(st.s).Sink("main")
	ok(t, putLive(t.Context(), s, testKey, 4, 0, 1000))
	ok(t, putLive(t.Context(), s, testKey, 4, 1000, 2000))
	base := fmt.Sprintf("%s%016X-%016X", testKey.livePrefix(segmentName(1, 4)), uint64(segmentStart(4))+1000, uint64(segmentStart(4))+2000)
	flip(t, st.s, bodyOf(t, st.s, base))
	_, err := readSegment(t.Context(), st.reader(st.s), 1, 4)
	wantError(t, err, base, "damaged")
	removeBody(t, st.s, base)
	_, err = readSegment(t.Context(), st.reader(st.s), 1, 4)
	wantError(t, err, base, "missing although its sidecar is there")
	if errors.Is(err, blob.ErrNotFound) || !errors.Is(err, ErrCorrupt) {
		t.Fatal(err)
	}
}
