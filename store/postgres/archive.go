package postgres

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/repo"
	"github.com/toolboxai/relight/store/postgres/walfile"
)

// archive is what one repository holds of a store, reduced to what targets ask: base backups, and per timeline
// which WAL there is. It is made from metadata alone.
type archive struct {
	store string
	bases []base // oldest first
	lines map[lineKey]*line
	// covered is the newest moment, per cluster, at which an idle server is known to have written nothing beyond a position.
	covered map[relight.SystemID]relight.Point
}

// lineKey names one timeline of one cluster.
type lineKey struct {
	System   relight.SystemID
	Timeline relight.TimelineID
}

// base is one base backup.
type base struct {
	ID    relight.SnapshotID
	Facts Facts
	State relight.SnapshotState
}

// line is one timeline.
type line struct {
	key     lineKey
	path    []walfile.Branch // its ancestors, oldest first, and itself
	related bool             // its history is known: a first timeline has none
	pieces  []piece          // by start
	gaps    []relight.Gap
}

// piece is one stretch of WAL in the repository: a segment or a live range. There may be hundreds of thousands.
type piece struct {
	Timeline    relight.TimelineID
	LastXID     uint32
	Start, End  relight.LSN
	Segment     int64 // segment size
	Commits     int
	LastCommit  instant
	LastEnd     relight.LSN
	CoveredAt   instant
	Marks       []relight.NamedMark
	Tablespaces *int // that it creates; nil: nobody has looked
	cut         bool // by a timeline switch: what it says of commits may lie beyond
}

// instant is a time in little memory: nanoseconds since 1970, 0 for none.
type instant int64

func instantOf(t time.Time) instant {
	if t.IsZero() {
		return 0
	}
	return instant(t.UnixNano())
}

func (m instant) time() time.Time {
	if m == 0 {
		return time.Time{}
	}
	return time.Unix(0, int64(m)).UTC()
}

// loadArchive reads the metadata of a store.
func loadArchive(ctx context.Context, m *repo.Meta, store string) (*archive, error) {
	a := &archive{store: store, lines: map[lineKey]*line{}}
	if err := a.loadBases(ctx, m); err != nil {
		return nil, err
	}
	if err := m.Sidecars(ctx, store, a.addSidecar); err != nil {
		return nil, fmt.Errorf("list the WAL of store %s: %w", store, err)
	}
	histories, err := m.Histories(ctx, store)
	if err != nil {
		return nil, fmt.Errorf("list the timelines of store %s: %w", store, err)
	}
	for _, h := range histories {
		if err := a.addHistory(lineKey{h.System, h.Timeline}, string(h.Data)); err != nil {
			return nil, err
		}
	}
	gaps, err := m.GapsOf(ctx, store)
	if err != nil {
		return nil, fmt.Errorf("list the gaps of store %s: %w", store, err)
	}
	a.addGaps(gaps)
	a.arrange()
	return a, a.loadCoverage(ctx, m)
}

func (a *archive) loadCoverage(ctx context.Context, m *repo.Meta) error {
	a.covered = map[relight.SystemID]relight.Point{}
	for k := range a.lines {
		if _, asked := a.covered[k.System]; asked {
			continue
		}
		p, err := m.Coverage(ctx, a.store, k.System)
		if err != nil {
			return fmt.Errorf("read how far store %s is covered: %w", a.store, err)
		}
		a.covered[k.System] = p
	}
	return nil
}

func (a *archive) loadBases(ctx context.Context, m *repo.Meta) error {
	snaps, err := m.Snapshots(ctx, a.store)
	if err != nil {
		return fmt.Errorf("list the snapshots of store %s: %w", a.store, err)
	}
	for _, man := range snaps {
		if man.Kind == "restore-point" {
			continue
		}
		f, err := FactsOf(man.Snapshot)
		if err != nil {
			return err
		}
		a.bases = append(a.bases, base{ID: man.ID, Facts: f, State: man.State})
	}
	return nil
}

func (a *archive) line(k lineKey) *line {
	l := a.lines[k]
	if l == nil {
		l = &line{key: k, path: []walfile.Branch{{Timeline: k.Timeline, End: walfile.MaxLSN}}, related: k.Timeline == 1}
		a.lines[k] = l
	}
	return l
}

func (a *archive) addSidecar(k repo.WALKey, s repo.Sidecar, _ bool) error {
	if s.End <= s.Start { // a history file
		return nil
	}
	l := a.line(lineKey{k.System, k.Timeline})
	l.pieces = append(l.pieces, piece{
		Timeline: k.Timeline, Start: s.Start, End: s.End, Segment: s.SegmentSize, Commits: s.Commits, LastCommit: instantOf(s.LastCommit),
		LastXID: s.LastXID, LastEnd: s.LastEnd, CoveredAt: instantOf(s.CoveredAt), Marks: s.Marks, Tablespaces: s.Tablespaces,
	})
	return nil
}

func (a *archive) addHistory(k lineKey, text string) error {
	path, err := walfile.ParseHistory(k.Timeline, text)
	if err != nil {
		return fmt.Errorf("history of timeline %d: %w", k.Timeline, err)
	}
	l := a.line(k)
	l.path, l.related = path, true
	return nil
}

func (a *archive) addGaps(gaps []repo.GapOf) {
	for _, g := range gaps {
		l := a.line(lineKey{g.System, g.WALKey.Timeline})
		l.gaps = append(l.gaps, g.Gap)
	}
}

// arrange sorts, and makes a line for every base.
func (a *archive) arrange() {
	for _, b := range a.bases {
		a.line(lineKey{b.Facts.System, b.Facts.Timeline})
	}
	slices.SortFunc(a.bases, func(x, y base) int {
		if c := x.Facts.StopTime.Compare(y.Facts.StopTime); c != 0 {
			return c
		}
		return cmp.Compare(x.ID, y.ID)
	})
	for _, l := range a.lines {
		slices.SortFunc(l.pieces, func(x, y piece) int {
			if c := cmp.Compare(x.Start, y.Start); c != 0 {
				return c
			}
			return cmp.Compare(y.End, x.End)
		})
	}
}

// newestSystem is the cluster of the newest base backup.
func (a *archive) newestSystem() relight.SystemID {
	if len(a.bases) == 0 {
		return 0
	}
	return a.bases[len(a.bases)-1].Facts.System
}

// usable tells whether recovery can start from b and follow path: b lies on it, before the path leaves b's timeline.
func usable(b base, path []walfile.Branch) bool {
	br, ok := walfile.Find(path, b.Facts.Timeline)
	return ok && b.Facts.StopLSN >= br.Begin && b.Facts.StopLSN <= br.End
}

// descendants are the timelines that recovery from b can follow, newest first.
func (a *archive) descendants(b base) []*line {
	var out []*line
	for k, l := range a.lines {
		if k.System == b.Facts.System && usable(b, l.path) {
			out = append(out, l)
		}
	}
	slices.SortFunc(out, func(x, y *line) int { return cmp.Compare(y.key.Timeline, x.key.Timeline) })
	return out
}

// reach is how far the WAL of a path leads from a base backup without interruption.
type reach struct {
	archive    *archive
	base       base
	line       *line
	End        relight.LSN
	Timeline   relight.TimelineID // of the last byte before End
	LastCommit time.Time
	LastXID    uint32
	LastEnd    relight.LSN
	CoveredAt  time.Time
	beyond     bool // there is WAL on the path after End: End is the edge of a gap
}

// reach joins the WAL from b along the path of l.
func (a *archive) reach(b base, l *line) reach { return a.join(b, l, func(*piece) {}) }

// pieces are those that were joined, by start; an old timeline's end where the path leaves it.
func (r reach) pieces() []*piece {
	var out []*piece
	r.archive.join(r.base, r.line, func(p *piece) { out = append(out, p) })
	return out
}

// join joins the WAL from b along the path of l, and tells of each piece that leads on.
func (a *archive) join(b base, l *line, use func(*piece)) reach {
	r := reach{archive: a, base: b, line: l, End: b.Facts.StartLSN, Timeline: b.Facts.Timeline}
	for p := range a.along(b, l) {
		if p.End <= r.End {
			if p.End > b.Facts.StartLSN { // a live range inside a segment
				r.take(p)
			}
			continue
		}
		if p.Start > r.End {
			r.beyond = true
			break
		}
		use(p)
		r.End = p.End
		r.take(p)
	}
	if br, ok := walfile.At(l.path, max(r.End, 1)-1); ok {
		r.Timeline = br.Timeline
	}
	if p := a.covered[l.key.System]; p.Timeline == r.Timeline && p.LSN <= r.End && p.LSN >= r.LastEnd && p.Time.After(r.CoveredAt) {
		r.CoveredAt = p.Time
	}
	return r
}

// take accounts for what a piece says of itself.
func (r *reach) take(p *piece) {
	if at := p.CoveredAt.time(); at.After(r.CoveredAt) && !p.cut {
		r.CoveredAt = at
	}
	if p.Commits == 0 || p.cut {
		return
	}
	if at := p.LastCommit.time(); at.After(r.LastCommit) {
		r.LastCommit, r.LastXID = at, p.LastXID
	}
	r.LastEnd = max(r.LastEnd, p.LastEnd)
}

// along gives the pieces of a path by start, each cut where the path leaves its timeline. A new timeline's first segment
// repeats the old one's bytes, so overlaps are natural.
func (a *archive) along(b base, l *line) iter.Seq[*piece] {
	type branch struct {
		walfile.Branch
		rest []piece
	}
	var all []branch
	for _, br := range l.path {
		if own := a.lines[lineKey{l.key.System, br.Timeline}]; own != nil && br.Timeline >= b.Facts.Timeline {
			all = append(all, branch{br, own.pieces})
		}
	}
	return func(yield func(*piece) bool) {
		rest := slices.Clone(all)
		for {
			var next *branch
			for i := range rest {
				br := &rest[i]
				for len(br.rest) > 0 && (br.rest[0].Start >= br.End || br.rest[0].End <= b.Facts.StartLSN) {
					br.rest = br.rest[1:]
				}
				if len(br.rest) > 0 && (next == nil || br.rest[0].Start < next.rest[0].Start) {
					next = br
				}
			}
			if next == nil {
				return
			}
			p := &next.rest[0]
			next.rest = next.rest[1:]
			if p.End > next.End {
				cut := *p
				cut.End, cut.cut = next.End, p.LastEnd > next.End || p.Commits == 0
				p = &cut
			}
			if !yield(p) {
				return
			}
		}
	}
}
