package repo

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/toolboxai/relight"
	"pgregory.net/rapid"
)

const (
	day     = 24 * time.Hour
	testSeg = 1 << 20
)

var retained = time.Date(2025, 10, 31, 12, 0, 0, 0, time.UTC)

// plainSnapshot needs no WAL.
func plainSnapshot(at time.Time) HeldSnapshot {
	return HeldSnapshot{ID: relight.SnapshotID(at.Format("20060102T150405Z")), Time: at}
}

// walBase is a base backup that lasted for one segment.
func walBase(system relight.SystemID, t relight.TimelineID, at time.Time, segment int) HeldSnapshot {
	return HeldSnapshot{ID: relight.SnapshotID(fmt.Sprintf("%s-%d-%d-%d", at.Format("20060102T150405Z"), system, t, segment)), Time: at, Kind: "full", WAL: true, System: system,
		Timeline: t, Start: relight.LSN(segment*testSeg + 40), Stop: relight.LSN((segment+1)*testSeg + 80)}
}

func walPiece(system relight.SystemID, t relight.TimelineID, segment int, until time.Time) HeldWAL {
	return HeldWAL{System: system, Timeline: t, Start: relight.LSN(segment * testSeg), End: relight.LSN((segment + 1) * testSeg), SegmentSize: testSeg, Until: until}
}

func keptIDs(r Retention) []relight.SnapshotID {
	var out []relight.SnapshotID
	for _, k := range r.Keep {
		if k.Snapshot != "" {
			out = append(out, k.Snapshot)
		}
	}
	return out
}

func wantedWAL(r Retention, all []HeldWAL) []HeldWAL {
	return slices.DeleteFunc(slices.Clone(all), func(w HeldWAL) bool { return !r.Wants(w) })
}

// 2,880 snapshots, one every 15 minutes for 30 days, under two policies: all are kept by the one; with the hourly one alone
// one an hour, the first; and the two together keep what either keeps.
func TestRetainThirtyDaysOfQuarterHours(t *testing.T) {
	t.Parallel()
	var h Holdings
	begin := retained.Add(-30 * day)
	for i := range 2880 {
		h.Snapshots = append(h.Snapshots, plainSnapshot(begin.Add(time.Duration(i)*15*time.Minute)))
	}
	quarter, hourly := Policy{Every: 15 * time.Minute, For: 30 * day}, Policy{Every: time.Hour, For: 7 * day}
	if r := Retain([]Policy{quarter, hourly}, h, retained); len(r.Keep) != 2880 || len(r.Remove) != 0 {
		t.Fatalf("%d kept, %d removed", len(r.Keep), len(r.Remove))
	}
	r := Retain([]Policy{hourly}, h, retained)
	// Of 7 days 168 hours, the one that is cut at its beginning, and the newest snapshot.
	if len(r.Keep) < 168 || len(r.Keep) > 170 || len(r.Keep)+len(r.Remove) != 2880 {
		t.Fatalf("%d kept, %d removed", len(r.Keep), len(r.Remove))
	}
	for _, k := range r.Keep[:len(r.Keep)-1] {
		if k.At.Minute() != 0 {
			t.Fatalf("%s is not the first of its hour", k.At)
		}
	}
	week := Policy{Every: 15 * time.Minute, For: 2 * day}
	both := Retain([]Policy{week, hourly}, h, retained)
	one := Retain([]Policy{week}, h, retained)
	want := map[relight.SnapshotID]bool{}
	for _, id := range append(keptIDs(one), keptIDs(r)...) {
		want[id] = true
	}
	if got := keptIDs(both); len(got) != len(want) {
		t.Fatalf("together %d, either %d", len(got), len(want))
	}
	for _, k := range both.Keep {
		if k.At.Minute() == 0 && k.At.After(retained.Add(-2*day)) && len(k.Why) < 2 {
			t.Fatalf("%s serves only %q", k.At, k.Why)
		}
	}
}

func TestRetainByCalendar(t *testing.T) {
	t.Parallel()
	var h Holdings
	for i := range 400 {
		h.Snapshots = append(h.Snapshots, plainSnapshot(time.Date(2024, 9, 26+i, 3, 0, 0, 0, time.UTC)))
	}
	for _, c := range []struct {
		p    Policy
		most int
		is   func(time.Time) bool
	}{
		{Policy{Months: 1, For: 365 * day}, 15, func(t time.Time) bool { return t.Day() == 1 }},
		{Policy{Months: 12, For: 3650 * day}, 3, func(t time.Time) bool { return t.YearDay() == 1 || t.Year() == 2024 }},
		{Policy{Every: 7 * day, For: 70 * day}, 12, func(t time.Time) bool { return t.Weekday() == time.Monday }},
	} {
		r := Retain([]Policy{c.p}, h, retained)
		if n := len(r.Keep); n > c.most || n < 2 {
			t.Errorf("%s keeps %d", c.p, n)
		}
		for _, k := range r.Keep[:len(r.Keep)-1] {
			if !c.is(k.At) {
				t.Errorf("%s keeps %s", c.p, k.At)
			}
		}
	}
}

// Trap: a cluster made anew starts with low LSNs and timeline 1. Its snapshots are the newer ones all the same.
func TestTrap30RetainNeverPrefersTheOlderClusterForItsHigherLSN(t *testing.T) {
	t.Parallel()
	old, fresh := relight.SystemID(9_000_000_000_000_000_000), relight.SystemID(1)
	var h Holdings
	for i := range 10 {
		at := retained.Add(-time.Duration(20-i) * day)
		h.Snapshots = append(h.Snapshots, walBase(old, 3, at, 5000+i*10))
		for j := range 10 {
			h.WAL = append(h.WAL, walPiece(old, 3, 5000+i*10+j, at.Add(time.Duration(j)*time.Hour)))
		}
	}
	h.Lines = []HeldLine{{System: old, Timeline: 3, Left: map[relight.TimelineID]relight.LSN{1: 10 * testSeg, 2: 4000 * testSeg}}}
	for i := range 3 {
		at := retained.Add(-time.Duration(3-i) * day)
		h.Snapshots = append(h.Snapshots, walBase(fresh, 1, at, 1+i*10))
		for j := range 10 {
			h.WAL = append(h.WAL, walPiece(fresh, 1, 1+i*10+j, at.Add(time.Duration(j)*time.Hour)))
		}
	}
	r := Retain([]Policy{{Every: day, For: 2 * day, PointInTime: true}}, h, retained)
	got := keptIDs(r)
	for _, s := range h.Snapshots {
		if kept := slices.Contains(got, s.ID); s.System == fresh != kept {
			t.Errorf("snapshot %s: kept %v", s.ID, kept)
		}
	}
	for _, w := range h.WAL {
		if w.System == fresh && !r.Wants(w) {
			t.Errorf("WAL of the newer cluster at %s would be removed", w.Start)
		}
		if w.System == old && r.Wants(w) {
			t.Errorf("WAL of the former cluster at %s is kept for nothing", w.Start)
		}
	}
}

// Point in time begins at the newest base at or before the window's begin, not at the oldest inside it.
func TestRetainKeepsTheBaseBeforeTheWindow(t *testing.T) {
	t.Parallel()
	h := oneLine(10)
	r := Retain([]Policy{{Every: day, For: 3*day + time.Hour, PointInTime: true}}, h, retained)
	// A base each day at noon; the window begins at 11 o'clock of the seventh day.
	if ids := keptIDs(r); len(ids) == 0 || !slices.Contains(ids, h.Snapshots[5].ID) || slices.Contains(ids, h.Snapshots[4].ID) {
		t.Fatalf("kept %v", ids)
	}
	wal := wantedWAL(r, h.WAL)
	if first := wal[0].Start; first > h.Snapshots[5].Start || first+testSeg <= h.Snapshots[5].Start {
		t.Fatalf("WAL begins at %s and the base at %s", first, h.Snapshots[5].Start)
	}
	if len(wal) != len(h.WAL)-int(wal[0].Start/testSeg) {
		t.Fatalf("%d pieces of %d", len(wal), len(h.WAL))
	}
}

// oneLine is a base a day at noon and a segment an hour.
func oneLine(days int) Holdings {
	var h Holdings
	begin := retained.Add(-time.Duration(days-1) * day)
	for i := range days {
		h.Snapshots = append(h.Snapshots, walBase(7, 1, begin.Add(time.Duration(i)*day), i*24))
		for j := range 24 {
			at := begin.Add(time.Duration(i)*day + time.Duration(j+1)*time.Hour)
			if i == days-1 && j > 1 {
				break
			}
			h.WAL = append(h.WAL, walPiece(7, 1, i*24+j, at))
		}
	}
	return h
}

// A clock that runs years ahead, and backups that stopped years ago, look the same; neither may empty the repository.
func TestRetainCountsFromTheNewestDataNotFromTheClock(t *testing.T) {
	t.Parallel()
	h := oneLine(10)
	policies := []Policy{{Every: day, For: 5 * day, PointInTime: true}}
	right := Retain(policies, h, retained.Add(2*time.Hour))
	ahead := Retain(policies, h, retained.AddDate(5, 0, 0))
	if !slices.Equal(keptIDs(right), keptIDs(ahead)) || len(wantedWAL(right, h.WAL)) != len(wantedWAL(ahead, h.WAL)) {
		t.Fatalf("right %v, ahead %v", keptIDs(right), keptIDs(ahead))
	}
	back := Retain(policies, h, retained.AddDate(-1, 0, 0))
	if len(back.Remove) != 0 || len(wantedWAL(back, h.WAL)) != len(h.WAL) {
		t.Fatalf("a clock that stepped back removes %v", back.Remove)
	}
}

// The server's clock stepped back by hours: a base taken then is old by its time, and lies behind what is wanted.
func TestRetainAfterTheServersClockSteppedBack(t *testing.T) {
	t.Parallel()
	noon := retained
	h := Holdings{Snapshots: []HeldSnapshot{walBase(7, 1, noon.Add(-3*time.Hour), 0), walBase(7, 1, noon.Add(-100*time.Minute), 10)}}
	for i := range 10 { // up to noon, then the clock steps back by two hours
		h.WAL = append(h.WAL, walPiece(7, 1, i, noon.Add(-time.Duration(10-i)*15*time.Minute)))
	}
	for i := range 10 {
		h.WAL = append(h.WAL, walPiece(7, 1, 10+i, noon.Add(time.Duration(i-8)*15*time.Minute)))
	}
	r := Retain([]Policy{{Every: day, For: time.Hour, PointInTime: true}}, h, noon.Add(time.Hour))
	if got := keptIDs(r); !slices.Contains(got, h.Snapshots[0].ID) {
		t.Fatalf("what was committed at a quarter to noon, before the step, needs the first base; kept: %v", got)
	}
}

func TestRetainKeepsAlways(t *testing.T) {
	t.Parallel()
	h := oneLine(30)
	h.Snapshots[2].Proven = true
	h.Snapshots[29].Damaged = true
	h.WAL[10*24+5].Marks = []relight.NamedMark{{Name: "before-migration", Point: relight.Point{Timeline: 1, LSN: relight.LSN((10*24 + 5) * testSeg), Time: h.WAL[10*24+5].Until}}}
	h.Parents = []relight.SnapshotID{h.Snapshots[20].ID}
	r := Retain([]Policy{{Every: time.Hour, For: time.Hour}}, h, retained)
	got := keptIDs(r)
	for i, why := range map[int]string{2: "proven", 29: "newest", 28: "newest whole", 20: "a backup builds upon it", 10: "the mark needs it"} {
		if !slices.Contains(got, h.Snapshots[i].ID) {
			t.Errorf("snapshot %d is removed: %s", i, why)
		}
	}
	if len(got) != 5 {
		t.Errorf("kept %v", got)
	}
	for i := 10 * 24; i <= 10*24+4; i++ {
		if !r.Wants(h.WAL[i]) {
			t.Errorf("segment %d leads from the base to the mark and is removed", i)
		}
	}
	if r.Wants(h.WAL[10*24+8]) || r.Wants(h.WAL[9*24]) {
		t.Error("WAL is kept for nothing")
	}
	// Damage found in the newest base: recovery to the present must not depend on it.
	if !r.Wants(h.WAL[28*24+10]) {
		t.Error("WAL behind the newest whole base is removed")
	}
}

func TestRetainKeepsAllWALWhereItCannotJudge(t *testing.T) {
	t.Parallel()
	h := oneLine(10)
	h.Snapshots[3].Unclear, h.Snapshots[3].WAL = errors.New("its facts cannot be read"), false
	r := Retain([]Policy{{Every: day, For: day}}, h, retained)
	if r.AllWAL == "" || len(wantedWAL(r, h.WAL)) != len(h.WAL) || !slices.Contains(keptIDs(r), h.Snapshots[3].ID) {
		t.Fatalf("%+v", r)
	}
	h = oneLine(10)
	h.WAL = append(h.WAL, walPiece(7, 2, 300, retained.Add(time.Hour))) // timeline 2 without a history
	if r := Retain([]Policy{{Every: day, For: day}}, h, retained.Add(time.Hour)); r.AllWAL == "" {
		t.Fatal("a timeline without history was judged")
	}
	if r := Retain(nil, oneLine(3), retained); len(r.Remove) != 0 || r.AllWAL == "" {
		t.Fatal("no policy means that nothing is removed")
	}
}

// A timeline that was left long ago expires; the ancestor's WAL that leads to the newer one does not.
func TestRetainFollowsTimelines(t *testing.T) {
	t.Parallel()
	h := oneLine(20)
	fork := relight.LSN(10*24*testSeg + testSeg/2)
	h.Snapshots = h.Snapshots[:10] // all on timeline 1, the last on day 9
	h.WAL = h.WAL[:12*24]          // timeline 1 went on for a day and a half after the fork
	h.Lines = []HeldLine{{System: 7, Timeline: 2, Left: map[relight.TimelineID]relight.LSN{1: fork}}}
	for i := 10 * 24; i < 20*24; i++ {
		h.WAL = append(h.WAL, walPiece(7, 2, i, retained.Add(time.Duration(i-20*24)*time.Hour)))
	}
	r := Retain([]Policy{{Every: day, For: 4 * day, PointInTime: true}}, h, retained)
	if got := keptIDs(r); !slices.Contains(got, h.Snapshots[9].ID) {
		t.Fatalf("the base on the ancestor is removed; kept %v", got)
	}
	for _, w := range h.WAL {
		lead := w.Timeline == 1 && w.End > h.Snapshots[9].Start && w.Start < fork
		if got := r.Wants(w); got != (w.Timeline == 2 || lead) {
			t.Errorf("timeline %d at %s: kept %v", w.Timeline, w.Start, got)
		}
	}
}

// restorable is the oracle, written from the definition: some whole base lies on the way, and every piece between is there.
func restorable(h Holdings, system relight.SystemID, t relight.TimelineID, to relight.LSN) bool {
	left := map[relight.TimelineID]relight.LSN{t: endless}
	for _, l := range h.Lines {
		if l.System == system && l.Timeline == t {
			maps.Copy(left, l.Left)
		}
	}
	for _, b := range h.Snapshots {
		end, on := left[b.Timeline]
		if b.System != system || b.Damaged || !on || b.Stop > end || b.Stop > to {
			continue
		}
		if connected(h, system, left, b.Start, to) {
			return true
		}
	}
	return false
}

// connected looks for the WAL of every segment on the timeline that is current there.
func connected(h Holdings, system relight.SystemID, left map[relight.TimelineID]relight.LSN, from, to relight.LSN) bool {
	for at := from - from%testSeg; at < to; at += testSeg {
		for p := max(at, from); p < min(at+testSeg, to); p += testSeg / 4 { // a fork may lie inside
			cur := relight.TimelineID(0)
			for t, end := range left {
				if p < end && (cur == 0 || t < cur) {
					cur = t
				}
			}
			if !slices.ContainsFunc(h.WAL, func(w HeldWAL) bool { return w.System == system && w.Timeline == cur && w.Start <= p && p < w.End }) {
				return false
			}
		}
	}
	return true
}

// drawHoldings makes clusters one after the other, each with timelines that leave one another, bases, marks, and at times holes.
func drawHoldings(t *rapid.T) Holdings {
	var h Holdings
	now := retained.Add(-time.Duration(rapid.IntRange(5, 60).Draw(t, "days")) * day)
	clusters := rapid.IntRange(1, 3).Draw(t, "clusters")
	for c := range clusters {
		system := relight.SystemID(100 - c*7)
		lines := rapid.IntRange(1, 3).Draw(t, "timelines")
		left := map[relight.TimelineID]relight.LSN{}
		segment := rapid.IntRange(0, 50).Draw(t, "first segment")
		for tl := 1; tl <= lines; tl++ {
			if tl > 1 {
				back := rapid.IntRange(0, 4).Draw(t, "back") // recovery to a point of the past
				parent := relight.TimelineID(tl - 1)
				fork := relight.LSN(max(segment-back, 0)*testSeg + testSeg/2)
				for a, end := range left {
					if end > fork {
						delete(left, a) // it was left before
						if a < parent {
							parent = a
						}
					}
				}
				left[parent] = fork
				h.Lines = append(h.Lines, HeldLine{System: system, Timeline: relight.TimelineID(tl), Left: maps.Clone(left)})
				segment = int(fork / testSeg)
			}
			for range rapid.IntRange(1, 12).Draw(t, "segments") {
				now = now.Add(time.Duration(rapid.IntRange(1, 40).Draw(t, "hours")) * time.Hour)
				w := walPiece(system, relight.TimelineID(tl), segment, now)
				if rapid.IntRange(0, 5).Draw(t, "mark") == 0 {
					w.Marks = []relight.NamedMark{{Name: fmt.Sprint("m", len(h.WAL)), Point: relight.Point{Timeline: w.Timeline, LSN: w.Start + testSeg*3/4, Time: now}}}
				}
				if rapid.IntRange(0, 12).Draw(t, "hole") != 0 {
					h.WAL = append(h.WAL, w)
				}
				if rapid.IntRange(0, 2).Draw(t, "base") == 0 {
					b := walBase(system, relight.TimelineID(tl), now, segment)
					b.Start, b.Stop = w.Start+testSeg*5/8, w.Start+testSeg*7/8
					b.Proven, b.Damaged = rapid.IntRange(0, 4).Draw(t, "proven") == 0, rapid.IntRange(0, 7).Draw(t, "damaged") == 0
					h.Snapshots = append(h.Snapshots, b)
				}
				segment++
			}
		}
	}
	return h
}

func drawPolicies(t *rapid.T) []Policy {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Policy {
		return Policy{
			Every: time.Duration(rapid.SampledFrom([]int{0, 1, 24, 168}).Draw(t, "every")) * time.Hour,
			For:   time.Duration(rapid.IntRange(0, 40).Draw(t, "for")) * day, PointInTime: rapid.Bool().Draw(t, "point in time"),
		}
	}), 1, 3).Draw(t, "policies")
}

// After pruning, every kept point's needs are present, every instant of every point-in-time window can be recovered as
// before.
func TestRetainProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		h, policies := drawHoldings(t), drawPolicies(t)
		for range 3 { // again and again with the same policies: nothing promised gets lost by and by
			r := Retain(policies, h, retained)
			after := Holdings{Lines: h.Lines, WAL: wantedWAL(r, h.WAL)}
			for _, s := range h.Snapshots {
				if !slices.Contains(r.Remove, s.ID) {
					after.Snapshots = append(after.Snapshots, s)
				}
			}
			checkPoints(t, r, h, after)
			checkWindows(t, policies, h, after)
			h = after
		}
	})
}

func checkPoints(t *rapid.T, r Retention, h, after Holdings) {
	for _, s := range after.Snapshots {
		one, all := after, h
		one.Snapshots, all.Snapshots = []HeldSnapshot{s}, []HeldSnapshot{s}
		if restorable(all, s.System, s.Timeline, s.Stop) && !restorable(one, s.System, s.Timeline, s.Stop) {
			t.Fatalf("snapshot %s is kept and its WAL is not", s.ID)
		}
	}
	for _, w := range h.WAL {
		for _, m := range w.Marks {
			kept := slices.ContainsFunc(r.Keep, func(k Kept) bool { return k.Mark == m.Name && k.At.Equal(m.Point.Time) })
			if kept && restorable(h, w.System, w.Timeline, m.Point.LSN) && !restorable(after, w.System, w.Timeline, m.Point.LSN) {
				t.Fatalf("restore point %s is kept and cannot be restored", m.Name)
			}
		}
	}
	newest := slices.MaxFunc(append([]HeldSnapshot{{}}, h.Snapshots...), func(a, b HeldSnapshot) int { return a.Time.Compare(b.Time) })
	if newest.ID != "" && slices.Contains(r.Remove, newest.ID) {
		t.Fatalf("the newest snapshot %s is removed", newest.ID)
	}
}

func checkWindows(t *rapid.T, policies []Policy, h, after Holdings) {
	var newest time.Time
	for _, w := range h.WAL {
		newest = later(newest, w.Until)
	}
	for _, s := range h.Snapshots {
		newest = later(newest, s.Time)
	}
	for _, p := range append(policies, Policy{PointInTime: true}) {
		for _, w := range h.WAL {
			if !p.PointInTime || w.Until.Before(newest.Add(-p.For)) || newest.After(retained) {
				continue
			}
			if restorable(h, w.System, w.Timeline, w.End) && !restorable(after, w.System, w.Timeline, w.End) {
				t.Fatalf("policy %s promises %s at %s of timeline %d (cluster %s), and it is gone", p, w.Until, w.End, w.Timeline, w.System)
			}
		}
	}
}
