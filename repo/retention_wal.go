package repo

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/toolboxai/relight"
)

type lineKey struct {
	system   relight.SystemID
	timeline relight.TimelineID
}

// line is a timeline with the way that leads to it.
type line struct {
	lineKey
	path    []stretchOf // from the first ancestor to itself
	until   time.Time   // nothing on it happened later
	segment int64       // size of WAL segments; 0 where none is known
	orphan  bool        // its history file is missing
	held    []stretch   // what is there of the way, in order; between two of them WAL is missing
}

// stretchOf is a part of a path.
type stretchOf struct {
	timeline relight.TimelineID
	stretch
}

// linesOf finds the timelines of all clusters.
func linesOf(h Holdings) map[lineKey]*line {
	lines := map[lineKey]*line{}
	at := func(s relight.SystemID, t relight.TimelineID) *line {
		k := lineKey{s, t}
		if lines[k] == nil {
			lines[k] = &line{lineKey: k, orphan: t > 1, path: []stretchOf{{t, stretch{0, endless}}}}
		}
		return lines[k]
	}
	for _, w := range h.WAL {
		l := at(w.System, w.Timeline)
		l.until = later(l.until, w.Until)
		l.segment = max(l.segment, w.SegmentSize)
	}
	for _, s := range h.Snapshots {
		if s.WAL {
			l := at(s.System, s.Timeline)
			l.until = later(l.until, s.Time)
		}
	}
	for _, x := range h.Lines {
		l := at(x.System, x.Timeline)
		l.orphan, l.path = false, pathOf(x)
	}
	for _, l := range lines { // the size is the cluster's
		for k, other := range lines {
			if k.system == l.system {
				l.segment = max(l.segment, other.segment)
			}
		}
		l.held = l.gather(h.WAL)
	}
	return lines
}

// gather joins the pieces that lie on the way.
func (l *line) gather(wal []HeldWAL) []stretch {
	var all []stretch
	for _, s := range l.path {
		for _, w := range wal {
			if w.System == l.system && w.Timeline == s.timeline && w.Start < s.to && s.from < w.End {
				all = append(all, stretch{max(w.Start, s.from), min(w.End, s.to)})
			}
		}
	}
	return joined(all)
}

// end is how far recovery gets that begins to replay at a position.
func (l *line) end(from relight.LSN) relight.LSN {
	for _, s := range l.held {
		if s.from <= from && from < s.to {
			return s.to
		}
	}
	return from
}

// pathOf follows a history: each ancestor from where its own parent was left to where it was left itself.
func pathOf(x HeldLine) []stretchOf {
	var path []stretchOf
	for t, left := range x.Left {
		path = append(path, stretchOf{t, stretch{0, left}})
	}
	slices.SortFunc(path, func(a, b stretchOf) int { return cmp.Or(cmp.Compare(a.to, b.to), cmp.Compare(a.timeline, b.timeline)) })
	path = append(path, stretchOf{x.Timeline, stretch{0, endless}})
	for i := range path[1:] {
		path[i+1].from = path[i].to
	}
	return path
}

// holds says whether a position of a timeline lies on the way.
func (l *line) holds(t relight.TimelineID, at relight.LSN) bool {
	return slices.ContainsFunc(l.path, func(s stretchOf) bool { return s.timeline == t && s.from <= at && at <= s.to })
}

// touches says whether part of a piece of WAL lies on the way.
func (l *line) touches(w HeldWAL) bool {
	return slices.ContainsFunc(l.path, func(s stretchOf) bool { return s.timeline == w.Timeline && w.Start < s.to && s.from < w.End })
}

// reaches says whether recovery from a base can follow the line to a position.
func (l *line) reaches(b point, to relight.LSN) bool {
	return b.System == l.system && b.Stop <= to && l.holds(b.Timeline, b.Stop)
}

// baseFor is the last base on the way to a position of a line; -1 if there is none. On one line positions tell the order, and
// no clock is asked.
func (k *keeper) baseFor(l *line, to relight.LSN, usable func(point) bool) int {
	best := -1
	for i, p := range k.points {
		if p.base() && p.whole && l.reaches(p, to) && usable(p) && (best < 0 || p.Stop >= k.points[best].Stop) {
			best = i
		}
	}
	return best
}

func anyBase(point) bool { return true }

// firstSince is the position from which on the line may hold what happened since begin. It is looked for in the WAL: where a
// server's clock stepped back, a base may be old by its time and yet lie behind what is wanted.
func (k *keeper) firstSince(l *line, begin time.Time) relight.LSN {
	first := endless
	for _, w := range k.h.WAL {
		if w.System == l.system && w.Start < first && !w.Until.Before(begin) && l.touches(w) {
			first = w.Start
		}
	}
	return first
}

// nextBase is the first base of a line that is consistent only behind a position; -1 if there is none.
func (k *keeper) nextBase(l *line, behind relight.LSN) int {
	best := -1
	for i, p := range k.points {
		if p.base() && p.whole && l.reaches(p, endless) && p.Stop > behind && (best < 0 || p.Stop < k.points[best].Stop) {
			best = i
		}
	}
	return best
}

// reachable says whether a restore point can be restored at all: from the last base before it, without a hole.
func (k *keeper) reachable(p point) bool {
	if p.Kind != restorePoint {
		return true
	}
	l := k.lines[lineKey{p.System, p.Timeline}]
	if l == nil {
		return false
	}
	b := k.baseFor(l, p.Stop, anyBase)
	return b >= 0 && l.end(k.points[b].Start) >= p.Stop
}

// window keeps what recovery to any instant since begin needs, on every timeline that goes on after it. The newest line of
// all always counts: an idle server writes nothing, and is no less alive.
func (k *keeper) window(begin time.Time, why string) {
	var newest *line
	for _, l := range k.lines {
		if newest == nil || l.until.After(newest.until) || l.until.Equal(newest.until) && l.timeline > newest.timeline {
			newest = l
		}
	}
	for _, l := range k.lines {
		if l.until.Before(begin) && l != newest {
			continue
		}
		if l.orphan && k.all == "" {
			k.all = fmt.Sprintf("the history of timeline %d of cluster %s is missing, so that what leads to it is not known", l.timeline, l.system)
		}
		k.along(l, begin, why)
	}
}

// along keeps a line's base for a window's begin, and behind each hole in its WAL the first base from which recovery goes on.
func (k *keeper) along(l *line, begin time.Time, why string) {
	i := k.baseFor(l, k.firstSince(l, begin), func(b point) bool {
		return !later(b.Time, b.Received).After(begin) // one that came later may be dated back
	})
	if i < 0 {
		i = k.nextBase(l, 0)
	}
	if i < 0 { // a base backup may be under way
		k.want(l, l.timeline, 0, endless, why)
		return
	}
	k.follow(l, i, endless, why)
	for ; i >= 0; i = k.nextBase(l, l.end(k.points[i].Start)) {
		k.keep(i, why)
	}
}

// follow wants the WAL of a line from a base to a position.
func (k *keeper) follow(l *line, base int, to relight.LSN, why string) {
	from := k.points[base].Start
	for _, s := range l.path {
		if s.from < to && from < s.to {
			k.want(l, s.timeline, max(s.from, from), min(s.to, to), why)
		}
	}
}

// want notes a range, widened to whole segments: a live range is served from its segment's first byte on.
func (k *keeper) want(l *line, t relight.TimelineID, from, to relight.LSN, why string) {
	if n := relight.LSN(l.segment); n > 0 {
		from -= from % n
		if to < endless-n {
			to = (to + n - 1) / n * n
		}
	}
	k.ranges = append(k.ranges, WALRange{System: l.system, Timeline: t, From: from, To: max(to, from+1), Why: why})
}

// needs keeps what the kept points cannot be restored without: a base its WAL up to consistency, a restore point the
// base before it and the way from there.
func (k *keeper) needs() {
	for i := len(k.points) - 1; i >= 0; i-- { // newest first: what a restore point needs lies before it
		p := k.points[i]
		if len(p.why) == 0 || !p.WAL {
			continue
		}
		l := k.lines[lineKey{p.System, p.Timeline}]
		if p.base() {
			k.follow(l, i, max(p.Stop, p.Start+1), "snapshot "+string(p.ID)+" needs it")
			continue
		}
		what := "restore point " + string(p.ID) + p.mark
		if b := k.baseFor(l, p.Stop, anyBase); b >= 0 {
			k.keep(b, what+" needs it")
			k.follow(l, b, p.Stop, what+" needs it")
		}
	}
}

// mergeRanges sorts ranges and joins what overlaps or touches.
func mergeRanges(all []WALRange) []WALRange {
	slices.SortFunc(all, func(a, b WALRange) int {
		return cmp.Or(cmp.Compare(a.System, b.System), cmp.Compare(a.Timeline, b.Timeline), cmp.Compare(a.From, b.From), cmp.Compare(b.To, a.To), cmp.Compare(a.Why, b.Why))
	})
	var out []WALRange
	for _, r := range all {
		n := len(out) - 1
		if n < 0 || out[n].System != r.System || out[n].Timeline != r.Timeline || out[n].To < r.From {
			out = append(out, r)
			continue
		}
		out[n].To = max(out[n].To, r.To)
	}
	return out
}
