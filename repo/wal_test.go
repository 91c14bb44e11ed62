package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob"
	"github.com/toolboxai/relight/blob/fault"
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

func TestTrap18SameSegmentTwiceIsNoError(t *testing.T) {
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
	if g := must(st.writer(st.s).Gaps(t.Context(), "main", testKey.System))(t); len(g) != 1 || g[0].Why != "slot lost" {
		t.Fatalf("gaps %v", g)
	}
}

func TestTrap18AnotherDigestIsAHardStop(t *testing.T) {
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

func TestTrap18AnotherClusterIsAHardStopUntilAdopted(t *testing.T) {
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

// Any operation fails in any way, or is the last one of its process: what was acknowledged is readable, and the next attempt completes what is left. What the storage
// itself tore or flipped is never taken for WAL, but named; once it is deleted, with what goes with it, the next attempt completes.
func TestPutSurvivesAFaultAtEveryOperation(t *testing.T) {
	t.Parallel()
	much(t)
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
	effects := []fault.Effect{fault.Refuse, fault.Lose, fault.Tear, fault.Flip, fault.Die, fault.DieLate}
	var faults []fault.Fault
	for _, e := range effects {
		faults = append(faults, fault.Fault{Effect: e})
	}
	cases, spoiled := 0, 0
	err := fault.Each(everyCase, func() blob.Storage { return base.Clone() }, faults, work, func(c fault.Case) error {
		cases++
		if err := readable(t.Context(), st.reader(c.Storage), acknowledged.Load()); err != nil && !named(c, err) {
			return fmt.Errorf("acknowledged WAL: %w", err)
		}
		err := retry(st, c.Storage)
		if err == nil {
			err = readable(t.Context(), st.reader(c.Storage), 5)
		}
		if named(c, err) {
			spoiled++
			err = errors.Join(discard(t.Context(), c.Storage, c.Op.Name), retry(st, c.Storage), readable(t.Context(), st.reader(c.Storage), 5))
		}
		if err != nil {
			return fmt.Errorf("the next attempt: %w", err)
		}
		return nil
	})
	ok(t, err)
	if cases < 60/everyCase || everyCase == 1 && spoiled < 10 {
		t.Fatalf("only %d cases, in %d the storage spoiled what was stored", cases, spoiled)
	}
}

// named tells whether an error is about nothing but what the storage itself spoiled: it names the object, or the segment whose body it is.
func named(c fault.Case, err error) bool {
	if err == nil || c.Op.Kind != fault.Put || c.Fault.Effect != fault.Tear && c.Fault.Effect != fault.Flip {
		return false
	}
	for _, part := range strings.Split(c.Op.Name, "/") {
		segment, _, _ := strings.Cut(part, ".")
		if len(segment) == 24 && strings.Contains(err.Error(), segment) {
			return true
		}
	}
	return strings.Contains(err.Error(), c.Op.Name)
}

// discard deletes an object and what goes with it: of a sidecar and its body neither is of use alone.
func discard(ctx context.Context, s blob.Storage, name string) error {
	dir, file := path.Split(name)
	stem, _, _ := strings.Cut(file, ".")
	return s.List(ctx, dir+stem, func(i blob.Info) error { return s.Delete(ctx, i.Name) })
}

// readable reads what was acknowledged after so many steps.
func readable(ctx context.Context, r *Reader, steps int64) error {
	var errs []error
	for _, w := range []struct {
		after    int64
		no, size int
	}{{1, 3, 1000}, {2, 3, testSegment}, {4, 4, 500}} {
		if steps < w.after {
			continue
		}
		got, err := readSegment(ctx, r, 1, w.no)
		if err == nil && !bytes.Equal(got[:w.size], walBytes(1, w.no)[:w.size]) {
			return fmt.Errorf("segment %d is read without an error, and is not what was stored", w.no)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
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

func TestLiveKeys(t *testing.T) {
	t.Parallel()
	st := newStand(t)
	m := st.writer(st.s)
	ok(t, putSegment(t.Context(), m.Sink("main"), testKey, 3))
	if keys := must(m.LiveKeys(t.Context(), "main"))(t); len(keys) != 0 {
		t.Fatalf("a whole segment is not live: %v", keys)
	}
	two := onTimeline(2)
	for _, k := range []WALKey{two, testKey} {
		ok(t, putLive(t.Context(), m.Sink("main"), k, 4, 0, 1000))
		ok(t, putLive(t.Context(), m.Sink("main"), k, 4, 1000, 2000))
	}
	if keys := must(m.LiveKeys(t.Context(), "main"))(t); !slices.Equal(keys, []WALKey{testKey, two}) {
		t.Fatalf("%v", keys)
	}
	if keys := must(m.LiveKeys(t.Context(), "other"))(t); len(keys) != 0 {
		t.Fatalf("%v", keys)
	}
	_, err := m.LiveKeys(t.Context(), "../main")
	wantError(t, err, "cannot be part")
}

func TestLargeSegmentIsPreparedOnDisk(t *testing.T) {
	t.Parallel()
	much(t)
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
				if err := m.PutAnchor(ctx, Anchor{JournalID: JournalID{Host: "db1", Journal: "a1"}, Seq: int64(i*100 + no), Hash: "x"}); err != nil {
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
