package postgres

import (
	"context"
	"errors"
	"io"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob"
	"github.com/toolboxai/relight/repo"
	"github.com/toolboxai/relight/store/postgres/walfile"
)

// plannedWAL shows a recovering server exactly the WAL that its plan was made with: what arrived in the repository later,
// what lies behind a gap, and other branches' segments do not exist for it. All histories do, so that a promotion
// takes a timeline number that is still free.
type plannedWAL struct {
	WALRepository
	plan    plan
	store   string
	patches walPatches // bytes to change on the way, for tablespaces that lie elsewhere
	bounded bool       // what comes after plan.End is zeros
}

var _ WALRepository = (*plannedWAL)(nil)

func newPlannedWAL(r *repo.Reader, store string, p plan) *plannedWAL {
	return &plannedWAL{WALRepository: RepositoryWAL(r), plan: p, store: store, bounded: p.Server.Kind == relight.TargetLatest}
}

func (w *plannedWAL) key() repo.WALKey {
	return repo.WALKey{Store: w.store, System: w.plan.Base.Facts.System, Timeline: w.plan.Timeline}
}

// names are the segments that replay may read, in order; where a path changes its timeline, the new one's.
func (w *plannedWAL) names() []string {
	size := w.plan.Base.Facts.SegmentSize
	byStart := map[relight.LSN]relight.TimelineID{}
	var order []relight.LSN
	for _, p := range w.plan.Pieces {
		start := walfile.SegmentStart(p.Start, size)
		if _, seen := byStart[start]; !seen {
			order = append(order, start)
		}
		byStart[start] = max(byStart[start], p.Timeline)
	}
	var out []string
	for _, start := range order {
		out = append(out, walfile.SegmentName(byStart[start], start, size))
	}
	return out
}

// Sidecars hides what the plan does not include.
func (w *plannedWAL) Sidecars(ctx context.Context, store string, fn func(repo.WALKey, repo.Sidecar, bool) error) error {
	return w.WALRepository.Sidecars(ctx, store, func(k repo.WALKey, s repo.Sidecar, live bool) error {
		if s.End > s.Start && (k.System != w.plan.Base.Facts.System || !w.within(k.Timeline, s.Start)) {
			return nil
		}
		return fn(k, s, live)
	})
}

// within tells whether WAL of a timeline that begins at start is part of the plan. A segment of the old timeline that
// contains a fork is.
func (w *plannedWAL) within(tl relight.TimelineID, start relight.LSN) bool {
	br, ok := walfile.Find(w.plan.Path, tl)
	return ok && start < min(br.End, w.last())
}

// last is the end of the last segment that may be read, or of the WAL where that is bounded.
func (w *plannedWAL) last() relight.LSN {
	if w.bounded || len(w.plan.Pieces) == 0 {
		return w.plan.End
	}
	return w.plan.reach.End
}

// Gaps hides those after the end, as they do not stand in the way.
func (w *plannedWAL) Gaps(ctx context.Context, store string, system relight.SystemID) ([]relight.Gap, error) {
	all, err := w.WALRepository.Gaps(ctx, store, system)
	var out []relight.Gap
	for _, g := range all {
		if w.within(g.Timeline, g.From) {
			out = append(out, g)
		}
	}
	return out, err
}

// Segment writes a segment; zeros follow the plan's end.
func (w *plannedWAL) Segment(ctx context.Context, k repo.WALKey, name string, out io.Writer) error {
	_, start, err := walfile.ParseSegmentName(name, w.plan.Base.Facts.SegmentSize)
	if err != nil {
		return w.WALRepository.Segment(ctx, k, name, out)
	}
	end := walfile.MaxLSN
	if w.bounded {
		end = w.plan.End
	}
	if start >= w.last() {
		return blob.ErrNotFound
	}
	f := &walFilter{out: out, at: start, end: end, patches: w.patches}
	err = w.WALRepository.Segment(ctx, k, name, f)
	if errors.Is(err, blob.ErrNotFound) && w.within(k.Timeline, start) {
		return &relight.Error{Op: "read", Subject: "WAL segment " + name, Code: relight.CodeFailed, Err: errors.New("it was there when the target was resolved and is absent now")}
	}
	return err
}

// walFilter zeroes what lies after end and applies patches, by position.
type walFilter struct {
	out     io.Writer
	at      relight.LSN
	end     relight.LSN
	patches walPatches
}

func (f *walFilter) Write(p []byte) (int, error) {
	stop := f.at + relight.LSN(len(p))
	b := p
	if stop > f.end || f.patches.touch(f.at, stop) {
		b = append([]byte(nil), p...)
		if stop > f.end {
			clear(b[max(f.end, f.at)-f.at:])
		}
		f.patches.apply(f.at, b)
	}
	n, err := f.out.Write(b)
	f.at += relight.LSN(n)
	return n, err
}

// read writes a segment that is named in full.
func (w *plannedWAL) read(ctx context.Context, name string, out io.Writer) error {
	tl, _, err := walfile.ParseSegmentName(name, w.plan.Base.Facts.SegmentSize)
	if err != nil {
		return err
	}
	k := w.key()
	k.Timeline = tl
	return w.Segment(ctx, k, name, out)
}
