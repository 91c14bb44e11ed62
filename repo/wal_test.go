package repo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob"
	"github.com/toolboxai/relight/blob/fault"
	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"
)

func (st *stand) reader(s blob.Storage) *Reader {
	st.t.Helper()
	return must(st.recovery(s).Reader())(st.t)
}

func readSegment(ctx context.Context, r *Reader, tli, no int) ([]byte, error) {
	var b bytes.Buffer
	err := r.WALSegment(ctx, testKey, segmentName(tli, no), &b)
	return b.Bytes(), err
}

func TestSameSegmentTwiceIsNoError(t *testing.T) {
	t.Parallel()
	st := newStand(t)
	s := st.writer(st.s).Sink("main")
	for range 2 {
		ok(t, putSegment(t.Context(), s, testKey, 3))
		ok(t, putLive(t.Context(), s, testKey, 4, 0, 1000))
		ok(t, putHistory(t.Context(), s, onTimeline(2), "1\t0/400000\tno recovery target specified\n"))
		ok(t, s.Gap(t.Context(), testKey, relight.Gap{Timeline: 1, From: 1, To: 2, Why: "slot lost"}))
	}
	// Each object is there once: a sidecar and a body; what a repetition uploaded is gone again.
	if got := objectNames(t, st.s, testKey.prefix()+segmentName(1, 3)); len(got) != 2 {
		t.Fatalf("objects %v", got)
	}
	if got := objectNames(t, st.s, testKey.livePrefix(segmentName(1, 4))); len(got) != 2 {
		t.Fatalf("objects %v", got)
	}
	if g := must(st.writer(st.s).Gaps(t.Context(), "main"))(t); len(g) != 1 || g[0].Why != "slot lost" {
		t.Fatalf("gaps %v", g)
	}
}

func TestAnotherDigestIsAHardStop(t *testing.T) {
	t.Parallel()
	st := newStand(t)
	s := st.writer(st.s).Sink("main")
	ok(t, putSegment(t.Context(), s, testKey, 3))
	ok(t, putLive(t.Context(), s, testKey, 4, 0, 1000))
	other := walBytes(1, 99)
	car := segmentCar(testKey, 3, other)
	err := s.PutSegment(t.Context(), testKey, car, bytes.NewReader(other))
	wantError(t, err, segmentName(1, 3), hexDigest(walBytes(1, 3))[:16], hexDigest(other)[:16])
	if !errors.Is(err, ErrConflict) {
		t.Fatal(err)
	}
	part := segmentCar(testKey, 4, other[:1000])
	part.End = part.Start + 1000
	if err := s.PutLive(t.Context(), testKey, part, bytes.NewReader(other[:1000])); !errors.Is(err, ErrConflict) {
		t.Fatal(err)
	}
	if got := must(readSegment(t.Context(), st.reader(st.s), 1, 3))(t); !bytes.Equal(got, walBytes(1, 3)) {
		t.Fatal("the conflict changed what was there")
	}
}

func TestAnotherClusterIsAHardStopUntilAdopted(t *testing.T) {
	t.Parallel()
	st := newStand(t)
	m := st.writer(st.s)
	ok(t, putSegment(t.Context(), m.Sink("main"), testKey, 3))
	second := testKey
	second.System = 999
	err := putSegment(t.Context(), m.Sink("main"), second, 3)
	wantError(t, err, testKey.System.String(), "999")
	if !errors.Is(err, ErrConflict) || relight.HintOf(err) == "" {
		t.Fatal(err)
	}
	ok(t, m.AdoptCluster(t.Context(), "main", 999, "initdb after the loss"))
	ok(t, putSegment(t.Context(), m.Sink("main"), second, 3))
	if err := putSegment(t.Context(), m.Sink("main"), testKey, 4); !errors.Is(err, ErrConflict) {
		t.Fatalf("the former cluster still writes: %v", err)
	}
	// A sidecar of one cluster under the key of another.
	b := walBytes(1, 5)
	car := segmentCar(second, 5, b)
	car.System = testKey.System
	if err := m.Sink("main").PutSegment(t.Context(), second, car, bytes.NewReader(b)); !errors.Is(err, ErrConflict) {
		t.Fatal(err)
	}
}

func TestSinkRefusesWhatDoesNotFit(t *testing.T) {
	t.Parallel()
	st := newStand(t)
	s := st.writer(st.s).Sink("main")
	b := walBytes(1, 3)
	for say, spoil := range map[string]func(*Sidecar){
		"segment size": func(c *Sidecar) { c.SegmentSize = 12345 },
		"describes":    func(c *Sidecar) { c.Start++ },
		"bytes for":    func(c *Sidecar) { c.Size-- },
		"not the name": func(c *Sidecar) { c.Name = "00000001000000000000000g" },
		"of timeline":  func(c *Sidecar) { c.Timeline = 2 },
		"digest":       func(c *Sidecar) { c.Digest = strings.Repeat("0", 64) },
	} {
		car := segmentCar(testKey, 3, b)
		spoil(&car)
		wantError(t, s.PutSegment(t.Context(), testKey, car, bytes.NewReader(b)), say)
	}
	car := segmentCar(testKey, 3, b)
	wantError(t, s.PutSegment(t.Context(), testKey, car, bytes.NewReader(b[:100])), "100")
	wantError(t, s.PutSegment(t.Context(), testKey, car, bytes.NewReader(append(b, 1))), "bytes")
	if n := objectNames(t, st.s, testKey.prefix()); len(n) != 0 {
		t.Fatalf("something was written: %v", n)
	}
	if _, err := readSegment(t.Context(), st.reader(st.s), 1, 3); !errors.Is(err, blob.ErrNotFound) {
		t.Fatal(err)
	}
}

// A process that dies at any operation leaves something that the next attempt completes, and what was
// acknowledged is readable.
func TestPutSurvivesAFaultAtEveryOperation(t *testing.T) {
	t.Parallel()
	st := newStand(t)
	base := st.s.Clone()
	var acknowledged atomic.Int64
	work := func(s blob.Storage) error {
		acknowledged.Store(0)
		k := must(st.init.Credential.Keyring())(t)
		o := st.options()
		o.Rand = zeros{} // the names of bodies repeat, so that operations do
		m, err := Open(t.Context(), s, k, o)
		if err != nil {
			return err
		}
		sink := m.Sink("main")
		for i, step := range []func() error{
			func() error { return putLive(t.Context(), sink, testKey, 3, 0, 1000) },
			func() error { return putLive(t.Context(), sink, testKey, 3, 1000, testSegment) },
			func() error { return putSegment(t.Context(), sink, testKey, 3) },
			func() error { return putLive(t.Context(), sink, testKey, 4, 0, 500) },
			func() error { return putHistory(t.Context(), sink, onTimeline(2), "1\t0/400100\twhy\n") },
		} {
			if err := step(); err != nil {
				return err
			}
			acknowledged.Store(int64(i + 1))
		}
		return nil
	}
	cases := 0
	err := fault.Each(func() blob.Storage { return base.Clone() }, []fault.Fault{{Effect: fault.Refuse}, {Effect: fault.Die}, {Effect: fault.DieLate}, {Effect: fault.Lose}}, work, func(c fault.Case) error {
		cases++
		r := st.reader(c.Storage)
		n := acknowledged.Load()
		check := func(need int64, no, size int) error {
			if n < need {
				return nil
			}
			got, err := readSegment(t.Context(), r, 1, no)
			if err != nil || !bytes.Equal(got[:size], walBytes(1, no)[:size]) {
				return fmt.Errorf("%s: acknowledged WAL of segment %d is lost: %w", c, no, err)
			}
			return nil
		}
		if err := errors.Join(check(1, 3, 1000), check(2, 3, testSegment), check(4, 4, 500)); err != nil {
			return err
		}
		if err := retry(st, c.Storage); err != nil {
			return fmt.Errorf("%s: the next attempt: %w", c, err)
		}
		n = 5
		return errors.Join(check(1, 3, testSegment), check(4, 4, 500))
	})
	ok(t, err)
	if cases < 40 {
		t.Fatalf("only %d cases", cases)
	}
}

func retry(st *stand, s blob.Storage) error {
	ctx := context.Background()
	sink := st.writer(s).Sink("main")
	return errors.Join(
		putLive(ctx, sink, testKey, 3, 0, 1000), putLive(ctx, sink, testKey, 3, 1000, testSegment), putSegment(ctx, sink, testKey, 3),
		putLive(ctx, sink, testKey, 4, 0, 500), putHistory(ctx, sink, onTimeline(2), "1\t0/400100\twhy\n"),
	)
}

func TestDurable(t *testing.T) {
	t.Parallel()
	st := newStand(t)
	s := st.writer(st.s).Sink("main")
	at := func(no, off int) relight.LSN { return segmentStart(no) + relight.LSN(off) }
	want := func(from, end relight.LSN) {
		t.Helper()
		if got := must(s.Durable(t.Context(), testKey, from))(t); got != end {
			t.Fatalf("from %s: durable to %s, want %s", from, got, end)
		}
	}
	want(at(3, 77), at(3, 77)) // nothing is there
	ok(t, putSegment(t.Context(), s, testKey, 3))
	ok(t, putSegment(t.Context(), s, testKey, 4))
	want(at(3, 0), at(5, 0))
	want(at(3, 500), at(5, 0)) // from the middle of a segment
	want(at(4, 1), at(5, 0))
	want(at(2, 10), at(2, 10)) // what is there begins later
	ok(t, putLive(t.Context(), s, testKey, 5, 0, 1000))
	ok(t, putLive(t.Context(), s, testKey, 5, 1000, 2000))
	want(at(3, 0), at(5, 2000))
	want(at(5, 1500), at(5, 2000))
	want(at(5, 2000), at(5, 2000))
	ok(t, putLive(t.Context(), s, testKey, 5, 3000, 4000)) // a hole
	want(at(3, 0), at(5, 2000))
	want(at(5, 3500), at(5, 4000))
	ok(t, putLive(t.Context(), s, testKey, 5, 1500, 3500)) // a restarted writer overlaps
	want(at(3, 0), at(5, 4000))
	ok(t, putSegment(t.Context(), s, testKey, 7))
	want(at(3, 0), at(5, 4000))
	want(at(7, 5), at(8, 0))
	// Another timeline is another line.
	if got := must(s.Durable(t.Context(), onTimeline(2), at(3, 0)))(t); got != at(3, 0) {
		t.Fatalf("timeline 2: %s", got)
	}
	// A body that is gone does not count, though its sidecar is there.
	removeBody(t, st.s, testKey.prefix()+segmentName(1, 4))
	want(at(3, 0), at(4, 0))
}

func removeBody(t *testing.T, s blob.Storage, base string) {
	t.Helper()
	ok(t, s.Delete(t.Context(), bodyOf(t, s, base)))
}

func bodyOf(t *testing.T, s blob.Storage, base string) string {
	t.Helper()
	for _, n := range objectNames(t, s, base+".") {
		if !strings.HasSuffix(n, metaSuffix) {
			return n
		}
	}
	t.Fatalf("no body of %s", base)
	return ""
}

func TestSegmentFromLiveRanges(t *testing.T) {
	t.Parallel()
	st := newStand(t)
	s := st.writer(st.s).Sink("main")
	r := st.reader(st.s)
	ok(t, putSegment(t.Context(), s, testKey, 3))
	ok(t, putLive(t.Context(), s, testKey, 4, 0, 1000))
	ok(t, putLive(t.Context(), s, testKey, 4, 1000, 5000))
	ok(t, putLive(t.Context(), s, testKey, 4, 3000, 9000)) // a restarted writer overlaps
	got := must(readSegment(t.Context(), r, 1, 4))(t)
	if len(got) != testSegment || !bytes.Equal(got[:9000], walBytes(1, 4)[:9000]) || !bytes.Equal(got[9000:], make([]byte, testSegment-9000)) {
		t.Fatal("the assembled segment is wrong")
	}
	if _, err := readSegment(t.Context(), r, 1, 5); !errors.Is(err, blob.ErrNotFound) {
		t.Fatalf("the segment after the end: %v", err)
	}
	ok(t, putSegment(t.Context(), s, testKey, 4))
	ok(t, s.SweepLive(t.Context(), testKey))
	if n := objectNames(t, st.s, testKey.prefix()+"live/"); len(n) != 0 {
		t.Fatalf("not swept: %v", n)
	}
	if got := must(readSegment(t.Context(), r, 1, 4))(t); !bytes.Equal(got, walBytes(1, 4)) {
		t.Fatal("the complete segment is wrong")
	}
}

func TestSweepKeepsLiveRangesWithoutTheirSegment(t *testing.T) {
	t.Parallel()
	st := newStand(t)
	s := st.writer(st.s).Sink("main")
	ok(t, putLive(t.Context(), s, testKey, 3, 0, 1000))
	ok(t, putLive(t.Context(), s, testKey, 4, 0, 1000))
	ok(t, putSegment(t.Context(), s, testKey, 4))
	removeBody(t, st.s, testKey.prefix()+segmentName(1, 4))
	before := objectNames(t, st.s, "wal/")
	wantError(t, s.SweepLive(t.Context(), testKey), segmentName(1, 4), "missing although its sidecar is there")
	if after := objectNames(t, st.s, "wal/"); !slices.Equal(before, after) {
		t.Fatal("live ranges were swept although the segment's body is gone")
	}
}

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

func TestTamperedWALIsRefusedByName(t *testing.T) {
	t.Parallel()
	base := testKey.prefix() + segmentName(1, 3)
	for name, c := range map[string]struct {
		spoil func(t *testing.T, st *stand)
		say   []string
	}{
		"body deleted": {func(t *testing.T, st *stand) { removeBody(t, st.s, base) }, []string{base, "missing although its sidecar is there"}},
		"body flipped": {func(t *testing.T, st *stand) { flip(t, st.s, bodyOf(t, st.s, base)) }, []string{base, "damaged"}},
		"body cut": {func(t *testing.T, st *stand) {
			n := bodyOf(t, st.s, base)
			overwrite(t, st.s, n, raw(t, st.s, n)[:1000])
		}, []string{base, "damaged"}},
		"body extended": {func(t *testing.T, st *stand) {
			n := bodyOf(t, st.s, base)
			overwrite(t, st.s, n, append(raw(t, st.s, n), 1))
		}, []string{base, "damaged"}},
		"body swapped": {func(t *testing.T, st *stand) {
			overwrite(t, st.s, bodyOf(t, st.s, base), raw(t, st.s, bodyOf(t, st.s, testKey.prefix()+segmentName(1, 4))))
		}, []string{base, "damaged"}},
		"sidecar flipped": {func(t *testing.T, st *stand) { flip(t, st.s, base+metaSuffix) }, []string{base + metaSuffix, "damaged"}},
		"sidecar renamed": {func(t *testing.T, st *stand) {
			overwrite(t, st.s, base+metaSuffix, raw(t, st.s, testKey.prefix()+segmentName(1, 4)+metaSuffix))
		}, []string{base + metaSuffix, "refused", "signed as"}},
		"sidecar unsigned": {func(t *testing.T, st *stand) {
			reseal(t, st, base+metaSuffix, func(s *Signed) { s.Sig = nil })
		}, []string{base + metaSuffix, "not signed"}},
		"sidecar edited": {func(t *testing.T, st *stand) {
			reseal(t, st, base+metaSuffix, func(s *Signed) {
				s.Payload = bytes.Replace(s.Payload, []byte(`"server_version":15`), []byte(`"server_version":16`), 1)
			})
		}, []string{base + metaSuffix, "not that of host"}},
		"sidecar of another kind": {func(t *testing.T, st *stand) {
			reseal(t, st, base+metaSuffix, func(s *Signed) { s.Kind = "gap" })
		}, []string{base + metaSuffix, "should be a sidecar"}},
		"sidecar by a stranger": {func(t *testing.T, st *stand) {
			other := newStand(t)
			b := must(other.writer(other.s).keys.sign("sidecar", base+metaSuffix, st.clock.now(), Sidecar{}))(t)
			overwrite(t, st.s, base+metaSuffix, must(st.writer(st.s).sealBytes(b, sealedMeta))(t))
		}, []string{base + metaSuffix, "not that of host"}},
		"sidecar by an unknown host": {func(t *testing.T, st *stand) {
			reseal(t, st, base+metaSuffix, func(s *Signed) { s.Signer = "db9" })
		}, []string{base + metaSuffix, `"db9" is not enrolled`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			st := newStand(t)
			s := st.writer(st.s).Sink("main")
			ok(t, putSegment(t.Context(), s, testKey, 3))
			ok(t, putSegment(t.Context(), s, testKey, 4))
			c.spoil(t, st)
			_, err := readSegment(t.Context(), st.reader(st.s), 1, 3)
			wantError(t, err, c.say...)
			if errors.Is(err, blob.ErrNotFound) {
				t.Fatalf("it passes for absent: %v", err)
			}
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrRefused) {
				t.Fatalf("neither damaged nor refused: %v", err)
			}
			seen := 0
			ok(t, st.writer(st.s).Sidecars(t.Context(), "main", func(WALKey, Sidecar, bool) error { seen++; return nil }))
			problems := must(st.writer(st.s).WALProblems(t.Context(), "main"))(t)
			if strings.HasPrefix(name, "sidecar") && (seen != 1 || len(problems) != 1) {
				t.Fatalf("%d sidecars count, problems %v", seen, problems)
			}
		})
	}
}

func flip(t *testing.T, s blob.Storage, name string) {
	t.Helper()
	b := bytes.Clone(raw(t, s, name))
	b[len(b)/2] ^= 1
	overwrite(t, s, name, b)
}

// reseal plays a thief of the metadata identity, who can open and seal but not sign.
func reseal(t *testing.T, st *stand, name string, change func(*Signed)) {
	t.Helper()
	m := st.writer(st.s)
	plain := must(m.openBytes(name, raw(t, st.s, name), sealedMeta))(t)
	var s Signed
	ok(t, json.Unmarshal(plain, &s))
	change(&s)
	overwrite(t, st.s, name, must(m.sealBytes(must(json.Marshal(s))(t), sealedMeta))(t))
}

func TestRevokedHost(t *testing.T) {
	t.Parallel()
	st := newStand(t)
	s := st.writer(st.s).Sink("main")
	ok(t, putSegment(t.Context(), s, testKey, 3))
	info := must(st.s.Stat(t.Context(), testKey.prefix()+segmentName(1, 3)+metaSuffix))(t)
	early := st.s.Clone()

	// Nothing of it counts any more.
	ok(t, RevokeHost(t.Context(), st.recovery(st.s), "db1", time.Time{}, "stolen"))
	_, err := readSegment(t.Context(), st.reader(st.s), 1, 3)
	wantError(t, err, segmentName(1, 3)+metaSuffix, "db1 is revoked", "stolen")
	wantError(t, putSegment(t.Context(), st.writer(st.s).Sink("main"), testKey, 4), "host db1 is revoked")
	ok(t, RevokeHost(t.Context(), st.recovery(st.s), "db1", time.Time{}, "again")) // nothing left to do
	wantError(t, RevokeHost(t.Context(), st.recovery(st.s), "db7", time.Time{}, ""), "db7")
	wantError(t, RevokeHost(t.Context(), st.writer(early), "db1", time.Time{}, ""), "only the recovery side")

	// What the storage received before the theft stays; the thief's backdating does not help him. The memory
	// storage's clock runs far behind the signer's, so the signed time is what limits here.
	st.s = early
	keep := st.clock.now().Add(time.Second)
	ok(t, RevokeHost(t.Context(), st.recovery(early), "db1", keep, "stolen"))
	if info.Modified.After(keep) {
		t.Fatal("the test's clocks are not as assumed")
	}
	must(readSegment(t.Context(), st.reader(early), 1, 3))(t)

	// A new enrolment writes on.
	c := must(EnrolHost(t.Context(), st.recovery(early), "db1", RoleWriter))(t)
	st.init.Credential = c
	ok(t, putSegment(t.Context(), st.writer(early).Sink("main"), testKey, 4))
	must(readSegment(t.Context(), st.reader(early), 1, 4))(t)
}

func TestBackdatedObjectsOfARevokedHostAreRefused(t *testing.T) {
	t.Parallel()
	st := newStand(t)
	st.clock.t = time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC) // the thief's clock is set back; the storage's is not
	ok(t, putSegment(t.Context(), st.writer(st.s).Sink("main"), testKey, 3))
	ok(t, RevokeHost(t.Context(), st.recovery(st.s), "db1", time.Date(2024, 6, 1, 0, 0, 0, 0, time.UTC), "stolen"))
	_, err := readSegment(t.Context(), st.reader(st.s), 1, 3)
	wantError(t, err, "the storage received the object at or after")
}

func TestSpoiledRevocationStillRevokes(t *testing.T) {
	t.Parallel()
	st := newStand(t)
	ok(t, putSegment(t.Context(), st.writer(st.s).Sink("main"), testKey, 3))
	ok(t, RevokeHost(t.Context(), st.recovery(st.s), "db1", time.Time{}, "stolen"))
	flip(t, st.s, objectNames(t, st.s, revokedPrefix)[0])
	_, err := readSegment(t.Context(), st.reader(st.s), 1, 3)
	wantError(t, err, segmentName(1, 3)+metaSuffix, "cannot be verified")
}

func TestForgedEnrolmentEnrolsNobody(t *testing.T) {
	t.Parallel()
	st, attacker := newStand(t), newStand(t)
	for _, n := range objectNames(t, attacker.s, hostPrefix) {
		overwrite(t, st.s, n, raw(t, attacker.s, n))
	}
	hosts, problems := st.recovery(st.s).Hosts()
	if len(hosts) != 1 || len(problems) != 1 {
		t.Fatalf("hosts %v, problems %v", hosts, problems)
	}
	wantError(t, problems[0], hostPrefix, "authority did not sign")
}

func TestSidecarsInOrderAndFromTheCache(t *testing.T) {
	t.Parallel()
	st := newStand(t)
	s := st.writer(st.s).Sink("main")
	for _, no := range []int{4097, 3, 4096, 4} {
		ok(t, putSegment(t.Context(), s, testKey, no))
	}
	ok(t, putLive(t.Context(), s, testKey, 5, 1000, 2000))
	ok(t, putLive(t.Context(), s, testKey, 5, 0, 1000))
	ok(t, putHistory(t.Context(), s, onTimeline(2), "1\t0/501000\twhy\n"))
	ok(t, putSegment(t.Context(), s, onTimeline(2), 5))
	want := []string{segmentName(1, 3), segmentName(1, 4), segmentName(1, 4096), segmentName(1, 4097), segmentName(2, 5), "live 0/500000", "live 0/5003E8", "00000002.history"}
	dir := t.TempDir()
	walk := func(storage blob.Storage) []string {
		o := st.options()
		o.CacheDir = dir
		m := must(Open(t.Context(), storage, must(st.init.Credential.Keyring())(t), o))(t)
		defer m.Close() //nolint:errcheck // a test
		var got []string
		for range 2 {
			got = nil
			ok(t, m.Sidecars(t.Context(), "main", func(_ WALKey, c Sidecar, live bool) error {
				if live {
					got = append(got, "live "+c.Start.String())
				} else {
					got = append(got, c.Name)
				}
				return nil
			}))
		}
		return got
	}
	if got := walk(st.s); !slices.Equal(got, want) {
		t.Fatalf("got %v", got)
	}
	counting := fault.New(st.s, nil)
	if got := walk(counting); !slices.Equal(got, want) {
		t.Fatalf("from the cache: %v", got)
	}
	for _, op := range counting.Ops() {
		if op.Kind == fault.Get && strings.HasPrefix(op.Name, "wal/") {
			t.Fatalf("the cache did not spare %s", op)
		}
	}
	// The cache is not trusted: an edited line is refused.
	path := must(filepath.Glob(filepath.Join(dir, "*", "sidecars-main.jsonl")))(t)[0]
	b := must(os.ReadFile(path))(t)
	ok(t, os.WriteFile(path, bytes.ReplaceAll(b, []byte(`"server_version":150004`), []byte(`"server_version":160004`)), 0o600))
	if got := walk(st.s); len(got) >= len(want) {
		t.Fatalf("edited lines were believed: %v", got)
	}
	// A torn or foreign file does not stand in the way.
	ok(t, os.WriteFile(path, append([]byte("{torn\x00\n"), b[:len(b)/2]...), 0o600))
	if got := walk(st.s); !slices.Equal(got, want) {
		t.Fatalf("with a torn cache: %v", got)
	}
}

func TestSidecarsEndsWithTheStoragesError(t *testing.T) {
	t.Parallel()
	st := newStand(t)
	s := st.writer(st.s).Sink("main")
	for no := range 30 {
		ok(t, putSegment(t.Context(), s, testKey, no))
	}
	broken := errors.New("connection reset")
	bad := fault.New(st.s, func(o fault.Op) fault.Fault {
		if o.Kind == fault.Get && strings.HasSuffix(o.Name, segmentName(1, 20)+metaSuffix) {
			return fault.Fault{Effect: fault.Refuse, Err: broken}
		}
		return fault.Fault{}
	})
	m := must(Open(t.Context(), bad, must(st.init.Credential.Keyring())(t), st.options()))(t)
	if err := m.Sidecars(t.Context(), "main", func(WALKey, Sidecar, bool) error { return nil }); !errors.Is(err, broken) {
		t.Fatalf("got %v", err)
	}
	stop := errors.New("enough")
	n := 0
	err := st.writer(st.s).Sidecars(t.Context(), "main", func(WALKey, Sidecar, bool) error {
		if n++; n == 5 {
			return stop
		}
		return nil
	})
	if !errors.Is(err, stop) || n != 5 {
		t.Fatalf("%d, %v", n, err)
	}
}

func TestLargeSegmentIsPreparedOnDisk(t *testing.T) {
	t.Parallel()
	st := newStand(t)
	o := st.options()
	o.CacheDir = t.TempDir()
	m := must(Open(t.Context(), st.s, must(st.init.Credential.Keyring())(t), o))(t)
	const size = 64 << 20
	body := bytes.Repeat(walBytes(1, 1), size/testSegment)
	car := Sidecar{System: testKey.System, Timeline: 1, Name: "000000010000000000000003", Start: 3 * size, End: 4 * size, SegmentSize: size, Size: size, Digest: hexDigest(body)}
	ok(t, m.Sink("main").PutSegment(t.Context(), testKey, car, bytes.NewReader(body)))
	if left := must(filepath.Glob(filepath.Join(o.CacheDir, "sealing-*")))(t); len(left) != 0 {
		t.Fatalf("left behind: %v", left)
	}
	var got bytes.Buffer
	ok(t, st.reader(st.s).WALSegment(t.Context(), testKey, car.Name, &got))
	if !bytes.Equal(got.Bytes(), body) {
		t.Fatal("other bytes")
	}
}

func TestMetaIsForSeveralGoroutines(t *testing.T) {
	t.Parallel()
	st := newStand(t)
	o := st.options()
	o.CacheDir = t.TempDir()
	m := must(Open(t.Context(), st.s, must(st.init.Credential.Keyring())(t), o))(t)
	defer m.Close() //nolint:errcheck // a test
	g, ctx := errgroup.WithContext(t.Context())
	for i := range 6 {
		g.Go(func() error {
			s := m.Sink("main")
			for no := range 8 {
				if err := putSegment(ctx, s, testKey, no); err != nil { // all put the same
					return err
				}
				if err := m.PutAnchor(ctx, Anchor{Host: "db1", Seq: int64(i*100 + no), Hash: "x"}); err != nil {
					return err
				}
				if err := m.Sidecars(ctx, "main", func(WALKey, Sidecar, bool) error { return nil }); err != nil {
					return err
				}
			}
			return nil
		})
	}
	ok(t, g.Wait())
	if got := objectNames(t, st.s, testKey.prefix()); len(got) != 16 {
		t.Fatalf("%d objects", len(got))
	}
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
