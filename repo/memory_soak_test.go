//go:build slow && soak && !race

package repo

import (
	"os"
	"testing"
	"time"
)

// TestMemoryDoesNotGrowWithTheLog looks through a month of WAL, half a million segments: a check, a retention that keeps all of it, and one that removes nearly all.
func TestMemoryDoesNotGrowWithTheLog(t *testing.T) {
	t.Parallel()
	for _, phase := range []string{"check", "prune", "cut"} {
		peak(t, "^TestLongLogChild$", "RELIGHT_TEST_PHASE="+phase)
	}
}

// TestLongLogChild does one phase when the test above starts it.
func TestLongLogChild(t *testing.T) {
	phase := os.Getenv("RELIGHT_TEST_PHASE")
	if phase == "" {
		t.Skip("run by TestMemoryDoesNotGrowWithTheLog")
	}
	const segments, last = 500_000, 10
	s := newShop(t)
	o := s.options()
	o.CacheDir = t.TempDir()
	m := must(Open(t.Context(), newLongLog(s.stand, segments), s.recoveryKeys(), o))(t)
	keep := func(p Policy) Pruned {
		return must(m.Prune(t.Context(), PruneOptions{Grace: testGrace, Policies: map[string][]Policy{"main": {p}}}))(t)
	}
	switch phase {
	case "check":
		rep, err := m.Check(t.Context(), nil, func(f Finding) { t.Logf("finding %+v", f) })
		if err != nil || rep.WAL != segments {
			t.Errorf("%+v, %v", rep, err)
		}
	case "prune":
		if out := keep(Policy{Every: 15 * time.Minute, For: 30 * day, PointInTime: true}); out.Marked.Objects != 0 {
			t.Errorf("%+v", out.Marked)
		}
	case "cut":
		s.base(s.writer(s.s), segments-last)
		if out := keep(lastOnly); out.Marked.Objects != 2*(segments-last) {
			t.Errorf("%+v", out)
		}
		s.clock.add(2 * testGrace)
		if out := keep(lastOnly); out.Deleted.Objects != 2*(segments-last) {
			t.Errorf("%+v", out)
		}
		if left := objectNames(t, m.storage, testKey.prefix()+"0"); len(left) != 2*last {
			t.Errorf("%d objects are left", len(left))
		}
	}
	tellPeak(t)
}
