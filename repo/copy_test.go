package repo

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob"
	"github.com/toolboxai/relight/blob/fault"
	"github.com/toolboxai/relight/blob/mem"
)

// stocked is a repository with something of every kind.
func stocked(t testing.TB) *shop { return stock(newShop(t)) }

func stock(s *shop) *shop {
	t := s.t
	m := s.writer(s.s)
	sink := m.Sink("main")
	ok(t, putHistory(t.Context(), sink, onTimeline(2), "1\t0/400000\tno recovery target specified\n"))
	for no := 1; no <= 3; no++ {
		ok(t, putSegment(t.Context(), sink, testKey, no))
	}
	ok(t, putLive(t.Context(), sink, testKey, 4, 0, 5000))
	s.mustTake(packEach(), 1, 2)
	s.mustTake(packEach(), 2, 3)
	must(m.PutEstate(t.Context(), []byte("estate: demo")))(t)
	ok(t, m.PutChecked(t.Context(), Checked{Store: "main", Snapshot: must(m.Snapshots(t.Context(), "main"))(t)[0].ID, At: s.clock.now(), OK: true}))
	return s
}

// lastPlace is the same shop, of which nothing but the mirror is left.
func (s *shop) lastPlace(mirror *mem.Storage) *shop {
	st := *s.stand
	st.s = mirror
	return &shop{stand: &st, want: s.want}
}

func (s *shop) mirror(from, to blob.Storage) (Copied, error) {
	return s.writer(from).Mirror(context.Background(), to, nil) // a writer's keys: they read no content
}

// recovered checks that everything comes back from a mirror alone.
func (s *shop) recovered(mirror *mem.Storage) {
	s.t.Helper()
	left := s.lastPlace(mirror)
	ids := left.restoreAll("main")
	if want := s.restoreAll("main"); !slices.Equal(ids, want) {
		s.t.Fatalf("the mirror has %v, the repository %v", ids, want)
	}
	r := must(left.recovery(mirror).Reader())(s.t)
	for no := 1; no <= 4; no++ {
		var b bytes.Buffer
		ok(s.t, r.WALSegment(s.t.Context(), testKey, segmentName(1, no), &b))
		want := walBytes(1, no)
		if no == 4 {
			clear(want[5000:])
		}
		if !bytes.Equal(b.Bytes(), want) {
			s.t.Fatalf("segment %d has other bytes", no)
		}
	}
	if b := must(r.Meta().LatestEstate(s.t.Context(), r))(s.t); string(b.Data) != "estate: demo" {
		s.t.Fatalf("estate %q", b.Data)
	}
	left.clean()
}

func TestMirrorRecoversAlone(t *testing.T) {
	t.Parallel()
	s, to := stocked(t), mem.New()
	out := must(s.mirror(s.s, to))(t)
	if out.Snapshots != 2 || len(out.Damaged)+len(out.Withheld) > 0 {
		t.Fatalf("%+v", out)
	}
	s.recovered(to)
	for _, name := range objectNames(t, to, "") {
		if !strings.HasPrefix(name, witnessPrefix) && !bytes.Equal(raw(t, to, name), raw(t, s.s, name)) {
			t.Errorf("%s is not the same", name)
		}
		if strings.HasPrefix(name, "lease/") || strings.HasPrefix(name, pendingPrefix) || strings.HasPrefix(name, trashPrefix) {
			t.Errorf("%s belongs to the repository's own affairs", name)
		}
	}
	states := must(s.lastPlace(to).recovery(to).Snapshots(t.Context(), "main"))(t)
	if states[0].State != relight.Intact {
		t.Errorf("evidence is left behind: %s", states[0].State)
	}
	counted := fault.New(to, nil)
	if again := must(s.mirror(s.s, counted))(t); again.Objects != 0 || writes(counted) > 3 { // the registration, and the coverage, if any
		t.Fatalf("a second copy brings %+v", again)
	}
	s.mustTake(packEach(), 3, 9)
	if next := must(s.mirror(s.s, to))(t); next.Snapshots != 1 {
		t.Fatalf("%+v", next)
	}
	s.recovered(to)
}

// The copy dies at each operation on the mirror; what is there is whole at any time, and the next copy finishes.
func TestMirrorDiesAnywhere(t *testing.T) {
	t.Parallel()
	shop := stock(newTokenShop(t))
	for n, last := 1, 2; n <= last; n += everyNth {
		s, to := shop.again(t), mem.New()
		f := fault.New(to, fault.At(n, fault.Fault{Effect: fault.DieLate}))
		_, err := s.mirror(s.s, f)
		ops := f.Ops()
		if last = len(ops) + 1; err == nil && f.Dead() && ops[len(ops)-1].Kind != fault.Delete { // the last one takes the registration back
			t.Fatalf("operation %d: no error", n)
		}
		if _, derr := ReadDescriptor(t.Context(), to); derr == nil {
			s.lastPlace(to).restoreAll("main")
		}
		must(s.mirror(s.s, to))(t)
		s.recovered(to)
		if !f.Dead() {
			break
		}
	}
}

// The copy is paused at each operation on the source, and meanwhile a backup is taken, snapshots expire, and are swept.
func TestMirrorRacesBackupAndPrune(t *testing.T) {
	t.Parallel()
	shop := stock(newTokenShop(t))
	for n, last := 1, 2; n <= last; n += everyNth {
		s, to := shop.again(t), mem.New()
		last = interleave(s.s, n, func() {
			s.mustTake(packEach(), 1, 7)
			s.mustPrune(3)
		}, func(f blob.Storage) { must(s.mirror(f, to))(t) })
		left := s.lastPlace(to)
		left.restoreAll("main") // whatever is there restores
		must(s.mirror(s.s, to))(t)
		for _, id := range s.restoreAll("main") {
			if !slices.Contains(left.restoreAll("main"), id) {
				t.Fatalf("paused at operation %d: %s is not in the mirror", n, id)
			}
		}
		left.clean()
	}
}

func TestMirrorRefusesWhatIsNone(t *testing.T) {
	t.Parallel()
	s := stocked(t)
	other := newShop(t)
	before := objectNames(t, other.s, "")
	_, err := s.mirror(s.s, other.s)
	if wantError(t, err, "another repository"); !slices.Equal(before, objectNames(t, other.s, "")) {
		t.Fatal("it was written to")
	}
	to := mem.New()
	ok(t, to.Put(t.Context(), "holiday.jpg", strings.NewReader("x"), blob.PutOptions{}))
	_, err = s.mirror(s.s, to)
	wantError(t, err, "not empty", "holiday.jpg")
}

// What is damaged in the repository does not reach the mirror, and is named; the rest does.
func TestMirrorLeavesDamageBehind(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		prefix   string
		withheld int
	}{{"pack/data/", 1}, {"pack/meta/", 1}, {testKey.prefix() + segmentName(1, 2) + ".", 0}, {"snap/main/", 0}} {
		s, to := stocked(t), mem.New()
		name := slices.DeleteFunc(objectNames(t, s.s, c.prefix), func(n string) bool { return strings.HasSuffix(n, metaSuffix) })[0]
		ok(t, s.s.Corrupt(name, func(b []byte) []byte { b[len(b)/2] ^= 1; return b }))
		out := must(s.mirror(s.s, to))(t)
		if len(out.Damaged) != 1 || !strings.HasPrefix(out.Damaged[0], name) || len(out.Withheld) < c.withheld {
			t.Fatalf("%s: %+v", name, out)
		}
		if _, err := to.Stat(t.Context(), name); !errors.Is(err, blob.ErrNotFound) {
			t.Fatalf("%s reached the mirror: %v", name, err)
		}
		s.lastPlace(to).restoreAll("main")
	}
}

// A mirror has its own retention, which leaves the repository alone.
func TestMirrorIsPrunedByItself(t *testing.T) {
	t.Parallel()
	s, to := stocked(t), mem.New()
	must(s.mirror(s.s, to))(t)
	left := s.lastPlace(to)
	left.clock.add(time.Hour)
	left.mustPrune(3)
	if ids := left.restoreAll("main"); len(ids) != 1 {
		t.Fatalf("%v", ids)
	}
	if ids := s.restoreAll("main"); len(ids) != 2 {
		t.Fatalf("%v", ids)
	}
	left.clean()
}
