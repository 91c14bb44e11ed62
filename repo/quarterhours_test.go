package repo

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/toolboxai/relight"
)

// quarterHours is a store that sets a restore point every quarter of an hour, at the end of a segment, and takes a base backup four times a day.
func quarterHours(days int) Holdings {
	var h Holdings
	begin := retained.Add(-time.Duration(days) * day)
	for i := range days * 96 {
		at := begin.Add(time.Duration(i+1) * 15 * time.Minute)
		if i%24 == 0 {
			h.Snapshots = append(h.Snapshots, walBase(7, 1, at.Add(-5*time.Minute), i))
		}
		w := walPiece(7, 1, i, at)
		w.Marks = []relight.NamedMark{{Name: fmt.Sprintf("q%d", i), Point: relight.Point{Timeline: 1, LSN: w.End - 8, Time: at}}}
		h.WAL = append(h.WAL, w)
	}
	return h
}

func keptMarks(r Retention) []Kept {
	return slices.DeleteFunc(slices.Clone(r.Keep), func(k Kept) bool { return k.Mark == "" })
}

// Both policies of the runbook over one store, after 45 days: 2,880 restore points and every instant between them, the bases that these need, and
// nothing older.
func TestRetainQuarterHoursWithEveryInstant(t *testing.T) {
	t.Parallel()
	much(t)
	h := quarterHours(45)
	begin := retained.Add(-30 * day)
	quarter, hourly := Policy{Every: 15 * time.Minute, For: 30 * day, PointInTime: true}, Policy{Every: time.Hour, For: 7 * day}
	both := Retain([]Policy{quarter, hourly}, h, retained)
	marks := keptMarks(both)
	if n := len(marks); n < 2880 || n > 2882 { // the stretches that are cut by the ends count
		t.Errorf("%d restore points are kept", n)
	}
	if first := marks[0].At; first.Before(begin.Add(-15 * time.Minute)) {
		t.Errorf("one of %s is kept", first)
	}
	base := h.Snapshots[0]
	for _, s := range h.Snapshots {
		if !s.Time.After(begin.Add(-15 * time.Minute)) {
			base = s // the last from which the beginning can be reached
		}
	}
	for _, s := range h.Snapshots {
		if kept := slices.Contains(keptIDs(both), s.ID); kept != !s.Time.Before(base.Time) {
			t.Errorf("base of %s: kept %v", s.Time, kept)
		}
	}
	for _, w := range h.WAL {
		if wanted := both.Wants(w); wanted != (w.End > base.Start) {
			t.Errorf("log of %s: wanted %v", w.Until, wanted)
		}
	}
	for _, k := range marks {
		if young := k.At.After(retained.Add(-7 * day)); (len(k.Why) > 1) != (young && k.At.Minute() == 0) && k.At != marks[len(marks)-1].At && k.At.Sub(retained.Add(-7*day)).Abs() > time.Hour {
			t.Errorf("%s is kept because of %q", k.At, k.Why)
		}
	}
	if n := len(keptMarks(Retain([]Policy{hourly}, h, retained))); n < 168 || n > 170 {
		t.Errorf("the hourly policy alone keeps %d restore points", n)
	}
}
