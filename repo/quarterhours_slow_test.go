//go:build slow

package repo

import (
	"slices"
	"testing"
	"time"
)

// A repository of 2,880 snapshots, planned and pruned for real: what the plan says goes, what it keeps restores.
func TestPruneThirtyDaysOfQuarterHours(t *testing.T) {
	t.Parallel()
	const n = 2880
	s := newTokenShop(t)
	w := s.writer(s.s)
	for i := range n {
		s.clock.add(15 * time.Minute)
		must(s.take(t.Context(), w, "main", map[string][]byte{"same": goods(1)[:4000], "now and then": goods(uint64(i/16 + 2))[:2000]}, SnapshotOptions{Kind: "full", Workers: 1}))(t)
	}
	quarter, hourly := Policy{Every: 15 * time.Minute, For: 2 * day}, Policy{Every: time.Hour, For: 7 * day}
	m := s.recovery(s.s)
	plan := must(m.PlanPrune(t.Context(), PruneOptions{Policies: map[string][]Policy{"main": {quarter, hourly}}, Grace: testGrace}))(t)
	keep, remove := keptIDs(plan.Stores[0].Retention), plan.Stores[0].Remove
	if len(keep)+len(remove) != n || len(keep) < 192+120 || len(keep) > 192+120+4 { // 2 days of quarters, 5 more of hours, and what is cut by the ends
		t.Fatalf("%d kept, %d removed", len(keep), len(remove))
	}
	for range 2 {
		must(s.prune(s.s, quarter, hourly))(t)
	}
	slices.Sort(keep)
	left := s.restoreAll("main")
	if slices.Sort(left); !slices.Equal(left, keep) {
		t.Fatalf("%d are left, %d were to be kept", len(left), len(keep))
	}
	if rep := s.clean(); rep.Orphans != 0 {
		t.Fatalf("%d orphans", rep.Orphans)
	}
}
