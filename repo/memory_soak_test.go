//go:build slow && soak && !race

package repo

import (
	"os"
	"testing"
	"time"
)

// TestMemoryDoesNotGrowWithTheLog looks through a month of WAL, half a million segments: a check, and a retention that keeps all of it.
func TestMemoryDoesNotGrowWithTheLog(t *testing.T) {
	t.Parallel()
	for _, phase := range []string{"check", "prune"} {
		peak(t, "^TestLongLogChild$", "RELIGHT_TEST_PHASE="+phase)
	}
}

// TestLongLogChild does one phase when the test above starts it.
func TestLongLogChild(t *testing.T) {
	phase := os.Getenv("RELIGHT_TEST_PHASE")
	if phase == "" {
		t.Skip("run by TestMemoryDoesNotGrowWithTheLog")
	}
	const segments = 500_000
	st := newStand(t)
	o := st.options()
	o.CacheDir = t.TempDir()
	m := must(Open(t.Context(), newLongLog(st, segments), st.recoveryKeys(), o))(t)
	switch phase {
	case "check":
		rep, err := m.Check(t.Context(), nil, func(f Finding) { t.Logf("finding %+v", f) })
		if err != nil || rep.WAL != segments {
			t.Errorf("%+v, %v", rep, err)
		}
	case "prune":
		out, err := m.Prune(t.Context(), PruneOptions{Policies: map[string][]Policy{"main": {{Every: 15 * time.Minute, For: 30 * 24 * time.Hour, PointInTime: true}}}})
		if err != nil || out.Marked.Objects != 0 {
			t.Errorf("%+v, %v", out.Marked, err)
		}
	}
	tellPeak(t)
}
