package repo

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/toolboxai/relight"
)

// Policy is one rule of retention. A store may have several; a point is kept while any of them wants it.
type Policy struct {
	Every       time.Duration // one point of each stretch of this length is kept; 0: every point
	Months      int           // instead of Every: of each so many calendar months, in UTC
	For         time.Duration // how far back it reaches
	PointInTime bool          // every instant of it can be recovered: the WAL is kept, and the base that it starts from
}

// String is for plans: "hourly for 7d".
func (p Policy) String() string {
	every := "every point"
	switch {
	case p.Months == 1:
		every = "monthly"
	case p.Months > 0:
		every = fmt.Sprintf("every %d months", p.Months)
	case p.Every > 0:
		every = "every " + printSpan(p.Every)
	}
	if p.PointInTime {
		return every + " for " + printSpan(p.For) + ", point in time"
	}
	return every + " for " + printSpan(p.For)
}

func printSpan(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d > 0 && d%day == 0:
		return fmt.Sprintf("%dd", d/day)
	case d > 0 && d%time.Hour == 0:
		return fmt.Sprintf("%dh", d/time.Hour)
	case d > 0 && d%time.Minute == 0:
		return fmt.Sprintf("%dm", d/time.Minute)
	}
	return d.String()
}

// slot is the stretch that t lies in, and where it ends.
func (p Policy) slot(t time.Time) (from, to time.Time) {
	t = t.UTC()
	switch {
	case p.Months > 0:
		n := t.Year()*12 + int(t.Month()) - 1
		n -= n % p.Months
		return time.Date(n/12, time.Month(n%12+1), 1, 0, 0, 0, 0, time.UTC), time.Date((n+p.Months)/12, time.Month((n+p.Months)%12+1), 1, 0, 0, 0, 0, time.UTC)
	case p.Every > 0:
		from = t.Truncate(p.Every) // weeks begin on Monday: the zero time is one
		return from, from.Add(p.Every)
	}
	return t, t
}

// HeldSnapshot is what retention knows of a snapshot.
type HeldSnapshot struct {
	ID       relight.SnapshotID
	Time     time.Time // the instant to which it restores by itself
	Received time.Time // by the storage's clock, which no writer can set; zero where it does not tell
	Kind     string
	Proven   bool
	Damaged  bool  // a reading found it damaged, and none since found it whole: nothing is built upon it
	Unclear  error // why it cannot be judged; such a one is kept, and with it all of its store's WAL

	WAL      bool // it needs WAL; what follows is set
	System   relight.SystemID
	Timeline relight.TimelineID
	Start    relight.LSN // replay begins here
	Stop     relight.LSN // consistent from here on
}

// HeldWAL is a segment or a live range.
type HeldWAL struct {
	System      relight.SystemID
	Timeline    relight.TimelineID
	Start, End  relight.LSN
	SegmentSize int64
	Until       time.Time // nothing in it happened later than this
	Marks       []relight.NamedMark
}

// HeldSet is a restore point that belongs to a recovery set.
type HeldSet struct {
	Mark     string
	System   relight.SystemID
	Timeline relight.TimelineID
	LSN      relight.LSN
	Until    time.Time // the members of the set are kept together until then
}

// HeldLine is a timeline whose history file is there.
type HeldLine struct {
	System   relight.SystemID
	Timeline relight.TimelineID
	Left     map[relight.TimelineID]relight.LSN // where each ancestor was left
}

// Holdings is what a repository holds of one store.
type Holdings struct {
	Snapshots []HeldSnapshot
	WAL       []HeldWAL
	Lines     []HeldLine
	Sets      []HeldSet
	Parents   []relight.SnapshotID // that backups under way build upon
}

// Kept is a point and why it is kept.
type Kept struct {
	Snapshot relight.SnapshotID `json:"snapshot,omitempty"`
	Mark     string             `json:"mark,omitempty"`
	At       time.Time          `json:"at"`
	Why      []string           `json:"why"`
}

// WALRange is WAL that is wanted. To is past any WAL where it has no end.
type WALRange struct {
	System   relight.SystemID   `json:"system"`
	Timeline relight.TimelineID `json:"timeline"`
	From     relight.LSN        `json:"from"`
	To       relight.LSN        `json:"to"`
	Why      string             `json:"why"`
}

// endless is past any WAL.
const endless = relight.LSN(1<<64 - 1)

// Retention is what policies decide about holdings.
type Retention struct {
	Keep   []Kept               `json:"keep"`   // oldest first
	Remove []relight.SnapshotID `json:"remove"` // oldest first
	WAL    []WALRange           `json:"wal"`    // wanted; sorted, without overlaps
	AllWAL string               `json:"all_wal,omitempty"`
}

// Wants says whether any byte of a piece of WAL is wanted.
func (r Retention) Wants(w HeldWAL) bool {
	return r.AllWAL != "" || slices.ContainsFunc(r.WAL, func(x WALRange) bool {
		return x.System == w.System && x.Timeline == w.Timeline && w.Start < x.To && x.From < w.End
	})
}

// Retain decides what is kept. It is a pure function, and safe against the mistakes of clocks: age is counted back
// from the newest thing that is held, or from now where that is earlier. So neither a clock that runs ahead nor
// backups that stopped make the last points expire. Order is by time alone: LSNs of different clusters are never
// compared, so that a new cluster, whose LSNs are low, is not taken for an old one.
//
// Whatever the policies say, these are kept: the newest snapshot, the newest whole one, the last proven one, the
// newest named restore point, the parents of backups under way, and all WAL from the newest base on. Without
// policies everything is.
func Retain(policies []Policy, h Holdings, now time.Time) Retention {
	k := newKeeper(h, now)
	if len(policies) == 0 {
		for i := range k.points {
			k.keep(i, "there is no policy")
		}
		k.all = "there is no policy"
		return k.result()
	}
	k.always()
	for _, p := range policies {
		k.slots(p)
		if p.PointInTime {
			k.window(k.now.Add(-p.For), p.String())
		}
	}
	k.sets()
	k.window(k.now, "the way from the newest base to the present")
	k.needs()
	return k.result()
}

// point is a snapshot or a named restore point.
type point struct {
	HeldSnapshot
	mark  string
	whole bool // it can be restored, as far as is known: no damage was found, and its WAL is there
	why   []string
}

// came is when the storage received it, as far as is known.
func (p point) came() time.Time {
	if p.Received.IsZero() {
		return p.Time
	}
	return p.Received
}

// base says whether recovery can start from it.
func (p point) base() bool { return p.mark == "" && p.WAL && p.Kind != restorePoint }

// restorePoint is the kind of a snapshot that stores nothing: it restores from the base before it, by WAL.
const restorePoint = "restore-point"

// keeper gathers what is kept.
type keeper struct {
	h      Holdings
	now    time.Time
	points []point // oldest first
	lines  map[lineKey]*line
	ranges []WALRange
	all    string // why all WAL is kept
}

func newKeeper(h Holdings, now time.Time) *keeper {
	k := &keeper{h: h, lines: linesOf(h)}
	seen := map[string]bool{}
	for _, s := range h.Snapshots {
		k.points = append(k.points, point{HeldSnapshot: s})
		if s.Unclear != nil {
			k.all = fmt.Sprintf("snapshot %s cannot be judged: %v", s.ID, s.Unclear)
		}
	}
	for _, w := range h.WAL {
		for _, m := range w.Marks {
			id := fmt.Sprint(w.System, w.Timeline, m.Point.LSN, m.Name)
			if seen[id] {
				continue // a live range and its segment both hold it
			}
			seen[id] = true
			k.points = append(k.points, point{mark: m.Name, HeldSnapshot: HeldSnapshot{Time: cmp.Or(m.Point.Time, w.Until), Kind: restorePoint, WAL: true,
				System: w.System, Timeline: w.Timeline, Start: m.Point.LSN, Stop: m.Point.LSN}})
		}
	}
	slices.SortStableFunc(k.points, func(a, b point) int {
		return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.ID, b.ID), cmp.Compare(a.mark, b.mark))
	})
	for i, p := range k.points {
		l := k.lines[lineKey{p.System, p.Timeline}]
		k.points[i].whole = !p.Damaged && (!p.base() || l.end(p.Start) >= p.Stop)
	}
	k.now = k.present(now)
	return k
}

// present is now, or the newest thing that is held where that is earlier.
func (k *keeper) present(now time.Time) time.Time {
	var newest time.Time
	for _, p := range k.points {
		newest = later(newest, p.Time)
	}
	for _, l := range k.lines {
		newest = later(newest, l.until)
	}
	if newest.IsZero() || now.Before(newest) {
		return now
	}
	return newest
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

func (k *keeper) keep(i int, why string) {
	if !slices.Contains(k.points[i].why, why) {
		k.points[i].why = append(k.points[i].why, why)
	}
}

// last keeps the newest point that satisfies a condition.
func (k *keeper) last(why string, is func(point) bool) {
	for i, p := range slices.Backward(k.points) {
		if is(p) {
			k.keep(i, why)
			return
		}
	}
}

func (k *keeper) always() {
	k.last("the newest snapshot", func(p point) bool { return p.mark == "" })
	k.last("the newest whole snapshot", func(p point) bool { return p.mark == "" && p.whole && p.Kind != restorePoint })
	k.last("the last proven snapshot", func(p point) bool { return p.Proven && p.whole })
	k.last("the newest named restore point", func(p point) bool { return p.mark != "" })
	for i, p := range k.points {
		if slices.Contains(k.h.Parents, p.ID) && p.mark == "" {
			k.keep(i, "a backup under way builds upon it")
		}
		if p.Unclear != nil {
			k.keep(i, "it cannot be judged")
		}
	}
}

// slots keeps the first point of each stretch, one that is whole where there is one: what was once chosen stays
// chosen, whatever comes later. First is what the storage received first, so that a thief of a writer's key cannot push
// snapshots out by others that he dates back. A stretch counts while any part of it is young enough.
func (k *keeper) slots(p Policy) {
	begin := k.now.Add(-p.For)
	chosen := map[time.Time]int{}
	for i, x := range k.points {
		if !k.reachable(x) {
			continue
		}
		from, to := p.slot(x.Time)
		if to.Before(begin) {
			continue
		}
		if p.Every == 0 && p.Months == 0 {
			k.keep(i, p.String())
			continue
		}
		if j, ok := chosen[from]; !ok || !k.points[j].whole && x.whole || k.points[j].whole == x.whole && x.came().Before(k.points[j].came()) {
			chosen[from] = i
		}
	}
	for _, i := range chosen {
		k.keep(i, p.String())
	}
}

// sets keeps the members of recovery sets. Each store decides by the set's own record, so that all decide the same.
func (k *keeper) sets() {
	for _, s := range k.h.Sets {
		if s.Until.Before(k.now) {
			continue
		}
		for i, p := range k.points {
			if s.named(p) {
				k.keep(i, "recovery set "+strings.TrimPrefix(s.Mark, SetMark)+" until "+s.Until.UTC().Format(time.RFC3339))
			}
		}
	}
}

func (k *keeper) result() Retention {
	r := Retention{WAL: mergeRanges(k.ranges), AllWAL: k.all}
	for _, p := range k.points {
		if len(p.why) > 0 {
			r.Keep = append(r.Keep, Kept{Snapshot: p.ID, Mark: p.mark, At: p.Time, Why: p.why})
		} else if p.mark == "" {
			r.Remove = append(r.Remove, p.ID)
		}
	}
	return r
}
