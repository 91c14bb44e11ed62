package postgres

import (
	"cmp"
	"context"
	"slices"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/repo"
)

// Window says what a repository can restore of the store. It reads metadata only.
func (s *Store) Window(ctx context.Context, m *repo.Meta) (relight.Window, error) {
	a, err := loadArchive(ctx, m, s.c.Name)
	if err != nil {
		return relight.Window{}, err
	}
	return a.window(), nil
}

// window lists one span for every stretch of WAL that begins at a base backup. A timeline that another continues has its own
// span only where it goes on past the fork.
func (a *archive) window() relight.Window {
	w := relight.Window{Store: a.store}
	for _, l := range a.ordered() {
		if a.continued(l) {
			continue
		}
		w.Spans = append(w.Spans, a.spans(l)...)
	}
	w.Gaps, w.Names = a.allGaps(), a.names()
	return w
}

func (a *archive) ordered() []*line {
	var out []*line
	for _, l := range a.lines {
		out = append(out, l)
	}
	slices.SortFunc(out, func(x, y *line) int {
		if c := cmp.Compare(x.key.System, y.key.System); c != 0 {
			return c
		}
		return cmp.Compare(x.key.Timeline, y.key.Timeline)
	})
	return out
}

// continued tells whether a descendant's path holds all of l's WAL.
func (a *archive) continued(l *line) bool {
	var end relight.LSN
	if n := len(l.pieces); n > 0 {
		end = slices.MaxFunc(l.pieces, func(x, y piece) int { return cmp.Compare(x.End, y.End) }).End
	}
	for _, other := range a.lines {
		if other.key.System != l.key.System || other == l {
			continue
		}
		for _, br := range other.path {
			if br.Timeline == l.key.Timeline && br.End >= end {
				return true
			}
		}
	}
	return false
}

// spans are the stretches of one path. A base inside the stretch of an older one adds nothing.
func (a *archive) spans(l *line) []relight.Span {
	var out []relight.Span
	for _, b := range a.bases {
		if b.Facts.System != l.key.System || !usable(b, l.path) {
			continue
		}
		r := a.reach(b, l)
		if r.End < b.Facts.StopLSN {
			continue // its own WAL is incomplete
		}
		if n := len(out); n > 0 && out[n-1].To.LSN >= b.Facts.StopLSN {
			continue
		}
		out = append(out, r.span())
	}
	return out
}

func (r reach) span() relight.Span {
	f := r.base.Facts
	to := relight.Point{Timeline: r.Timeline, LSN: r.End, Time: r.CoveredAt}
	if to.Time.IsZero() {
		to.Time = r.LastCommit
	}
	return relight.Span{
		Snapshot: r.base.ID, From: relight.Point{Timeline: f.Timeline, LSN: f.StopLSN, Time: f.StopTime}, To: to,
		LastCommit: r.LastCommit, LastXID: r.LastXID, CoveredAt: r.CoveredAt,
	}
}

// allGaps are those on record, and the holes between pieces that nobody recorded.
func (a *archive) allGaps() []relight.Gap {
	var out []relight.Gap
	for _, l := range a.ordered() {
		out = append(out, l.gaps...)
		var end relight.LSN
		for _, p := range l.pieces {
			if end != 0 && p.Start > end && !recorded(l.gaps, end) {
				out = append(out, relight.Gap{Timeline: l.key.Timeline, From: end, To: p.Start, Why: "not in the repository"})
			}
			end = max(end, p.End)
		}
	}
	return out
}

func recorded(gaps []relight.Gap, from relight.LSN) bool {
	return slices.ContainsFunc(gaps, func(g relight.Gap) bool { return g.From <= from && from < g.To })
}

// names are the named restore points, oldest first, each once though a live range and its segment both hold it.
func (a *archive) names() []relight.NamedMark {
	var out []relight.NamedMark
	for _, l := range a.ordered() {
		for _, p := range l.pieces {
			out = append(out, p.Marks...)
		}
	}
	slices.SortFunc(out, func(x, y relight.NamedMark) int {
		return cmp.Or(cmp.Compare(x.Point.Timeline, y.Point.Timeline), cmp.Compare(x.Point.LSN, y.Point.LSN), cmp.Compare(x.Name, y.Name))
	})
	return slices.CompactFunc(out, func(x, y relight.NamedMark) bool {
		return x.Name == y.Name && x.Point.LSN == y.Point.LSN && x.Point.Timeline == y.Point.Timeline
	})
}
