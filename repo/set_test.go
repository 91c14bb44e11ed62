package repo

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob"
	"github.com/toolboxai/relight/blob/mem"
)

func testSet(name string, until time.Time, stores ...string) Set {
	s := Set{Name: name, At: testTime, Spread: 2 * time.Millisecond, Until: until}
	for i, store := range stores {
		s.Members = append(s.Members, SetMember{Store: store, System: relight.SystemID(7 + i), Point: relight.Point{Timeline: 1, LSN: 0x3000148, Time: testTime}})
	}
	return s
}

func TestSetIsARecordLikeOthers(t *testing.T) {
	t.Parallel()
	s := stocked(t)
	m := s.writer(s.s)
	set := testSet("before-release", testTime.Add(30*day), "main", "orders")
	ok(t, m.PutSet(t.Context(), set))
	ok(t, m.PutSet(t.Context(), set))
	other := testSet("before-release", time.Time{}, "main")
	if err := m.PutSet(t.Context(), other); !errors.Is(err, blob.ErrExists) {
		t.Fatalf("another set under the same name: %v", err)
	}
	got, found, err := m.Set(t.Context(), "before-release")
	if ok(t, err); !found || len(got.Members) != 2 || got.Spread != 2*time.Millisecond || got.Mark() != "set:before-release" || !got.Until.Equal(set.Until) {
		t.Fatalf("%+v", got)
	}
	if _, found, err := m.Set(t.Context(), "no-such"); err != nil || found {
		t.Fatal(found, err)
	}
	for _, name := range []string{"", "two words", "a/b", strings.Repeat("x", 60)} {
		if err := m.PutSet(t.Context(), testSet(name, time.Time{}, "main")); relight.CodeOf(err) != relight.CodeUsage {
			t.Errorf("%q: %v", name, err)
		}
	}
	s.clean()
	// A mirror has it, and it opens there.
	mirror := mem.New()
	copied, err := s.mirror(s.s, mirror)
	ok(t, err)
	if len(copied.Damaged) > 0 {
		t.Fatal(copied.Damaged)
	}
	if all := must(s.writer(mirror).Sets(t.Context()))(t); len(all) != 1 {
		t.Fatalf("%d sets in the mirror", len(all))
	}
	// Damaged, it does not count, and a check names it.
	flip(t, s.s, setPrefix+"before-release")
	if _, _, err := m.Set(t.Context(), "before-release"); err == nil {
		t.Fatal("a damaged record was read")
	}
	if all := must(s.writer(s.s).Sets(t.Context()))(t); len(all) != 0 {
		t.Fatalf("%+v", all)
	}
	var named bool
	r := s.recovery(s.s)
	must(r.Check(t.Context(), must(r.Reader())(t), func(f Finding) { named = named || f.Object == setPrefix+"before-release" }))(t)
	if !named {
		t.Fatal("the check does not name the damaged set")
	}
}

// Members are kept while the set is wanted, whatever the store's rules say; then the rules decide, and the record goes.
func TestRetainKeepsSets(t *testing.T) {
	t.Parallel()
	mark := func(h *Holdings, segment int, name string) {
		h.WAL[segment].Marks = append(h.WAL[segment].Marks, relight.NamedMark{Name: name, Point: relight.Point{Timeline: 1, LSN: h.WAL[segment].Start + 100, Time: h.WAL[segment].Until}})
	}
	const at = 10*24 + 5
	for name, c := range map[string]struct {
		until time.Duration // from now
		held  string
		keeps bool
	}{
		"wanted":                    {day, "set:x", true},
		"over":                      {-day, "set:x", false},
		"of another name":           {day, "set:y", false},
		"a mark that only looks so": {day, "x", false},
	} {
		h := oneLine(30)
		mark(&h, at, c.held)
		mark(&h, 29*24, "newest") // the newest is kept anyway
		w := h.WAL[at]
		h.Sets = []HeldSet{{Mark: "set:x", System: w.System, Timeline: w.Timeline, LSN: w.Start + 100, Until: retained.Add(c.until)}}
		r := Retain([]Policy{{Every: time.Hour, For: time.Hour}}, h, retained)
		i := slices.IndexFunc(r.Keep, func(k Kept) bool { return k.Mark == c.held })
		if (i >= 0) != c.keeps || r.Wants(w) != c.keeps || slices.Contains(keptIDs(r), h.Snapshots[10].ID) != c.keeps {
			t.Errorf("%s: kept %v, its log %v", name, i >= 0, r.Wants(w))
		}
		if c.keeps && !strings.Contains(strings.Join(r.Keep[i].Why, " "), "recovery set x until") {
			t.Errorf("%s: %v", name, r.Keep[i].Why)
		}
	}
}

func TestSetRecordGoesWhenItIsOver(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.mustTake(packEach(), 1)
	m := s.writer(s.s)
	ok(t, m.PutSet(t.Context(), testSet("short", s.clock.now().Add(time.Hour), "main")))
	ok(t, m.PutSet(t.Context(), testSet("long", s.clock.now().Add(1000*day), "main")))
	ok(t, m.PutSet(t.Context(), testSet("unbounded", time.Time{}, "main")))
	ok(t, m.PutSet(t.Context(), testSet("foreign", s.clock.now().Add(time.Hour), "main", "of-another-repository")))
	s.mustTake(packEach(), 1, 2)
	s.mustPrune(1)
	if got := objectNames(t, s.s, setPrefix); len(got) != 4 {
		t.Fatalf("only marked, and gone: %v", got)
	}
	s.mustPrune(1)
	if got := objectNames(t, s.s, setPrefix); !slices.Equal(got, []string{"set/foreign", "set/long", "set/unbounded"}) {
		t.Fatal(got)
	}
	s.clean()
}
