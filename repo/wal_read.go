package repo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob"
)

// walAttempts is how often a reading is begun anew when the writer moved on meanwhile.
const walAttempts = 3

// WALSegment writes a segment, or a timeline's history file, to w: the complete object, or what live ranges
// hold of it from its beginning on, padded with zeros. What w got counts only when the error is nil.
//
// An error that wraps blob.ErrNotFound says that the repository is proven not to hold it and that nothing
// later follows: recovery may end there. A hole, a missing body and a failing storage are other errors.
func (r *Reader) WALSegment(ctx context.Context, k WALKey, segment string, w io.Writer) error {
	m := r.Meta()
	if strings.HasSuffix(segment, ".history") {
		return m.readHistory(ctx, k, segment, w)
	}
	tli, _, ok := parseSegment(segment)
	if !ok {
		return fmt.Errorf("%s: %w: no repository holds files of such a name", segment, blob.ErrNotFound)
	}
	k.Timeline = tli
	q := walQuery{m: m, WALKey: k, segment: segment}
	var err error
	for range walAttempts {
		var done bool
		if done, err = q.whole(ctx, w); done || err != nil {
			return err
		}
		if done, err = q.fromLive(ctx, w); done || !errors.Is(err, errMoved) {
			return err
		}
	}
	return err
}

// fromLive serves the segment from live ranges, by way of a spool: while they are read, the writer may
// complete the segment and sweep them, and w cannot be taken back.
func (q walQuery) fromLive(ctx context.Context, w io.Writer) (done bool, err error) {
	plan, err := q.live(ctx)
	if err != nil {
		return false, err
	}
	spool, err := q.m.newSpool(plan.size)
	if err != nil {
		return false, err
	}
	defer spool.close() //nolint:errcheck // it is temporary
	err = q.assemble(ctx, plan, spool)
	if errors.Is(err, ErrCorrupt) {
		return false, &movedError{err}
	}
	if err != nil {
		return false, err
	}
	if err := spool.copyTo(w); err != nil {
		return false, fmt.Errorf("write what %s holds: %w", q.segment, err)
	}
	return true, nil
}

// errMoved marks what may look wrong only because the writer moved on meanwhile; it is worth another look.
var errMoved = errors.New("the writer moved on")

type movedError struct{ err error }

// Error is the error as it stands if it persists.
func (e *movedError) Error() string { return e.err.Error() }

// Unwrap gives the cause.
func (e *movedError) Unwrap() error { return e.err }

// Is makes it found as errMoved.
func (e *movedError) Is(target error) bool { return target == errMoved }

// walQuery is one request for a segment.
type walQuery struct {
	m *Meta
	WALKey
	segment string
}

func (q walQuery) name() walName {
	return walName{WALKey: q.WALKey, class: walSegment, name: q.segment}
}

// whole serves the complete segment, if it is there.
func (q walQuery) whole(ctx context.Context, w io.Writer) (bool, error) {
	sc, err := q.m.sidecar(ctx, q.name())
	if errors.Is(err, blob.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, q.m.copyBody(ctx, sc, sealedData, w)
}

// livePlan is how a segment is put together.
type livePlan struct {
	parts []Sidecar // in order; each begins at or before the end of what is written so far
	start relight.LSN
	size  int64
}

// live finds the live ranges of the segment, or proves that it is absent.
func (q walQuery) live(ctx context.Context) (livePlan, error) {
	l, err := q.m.listWAL(ctx, q.prefix())
	if err != nil {
		return livePlan{}, err
	}
	which := slices.DeleteFunc(slices.Clone(l.sidecars), func(w walName) bool { return w.class != walLive || w.name != q.segment })
	var held []Sidecar
	err = q.m.fetch(ctx, l, which, func(r walResult) error {
		if errors.Is(r.err, blob.ErrNotFound) || errors.Is(r.err, ErrCorrupt) {
			return &movedError{notAbsent(r.err)}
		}
		held = append(held, r.sc)
		return r.err
	})
	if err != nil {
		return livePlan{}, err
	}
	if len(held) == 0 {
		return livePlan{}, q.absent(ctx, l)
	}
	return q.plan(ctx, l, held)
}

// plan orders live ranges. It refuses to end a segment early while anything later is known.
func (q walQuery) plan(ctx context.Context, l walListing, held []Sidecar) (livePlan, error) {
	slices.SortFunc(held, func(a, b Sidecar) int { return compare(a.Start, b.Start) })
	_, no, _ := parseSegment(q.segment)
	start, _ := no.start(held[0].SegmentSize)
	p := livePlan{parts: held, start: start, size: held[0].SegmentSize}
	end, hole := contiguous(held, start)
	for _, s := range held {
		if s.SegmentSize != p.size {
			return livePlan{}, refused(s.Body, "it belongs to segments of %d bytes, others of %s to segments of %d", s.SegmentSize, q.segment, p.size)
		}
	}
	if hole {
		return livePlan{}, q.holeError(ctx, end, "the live range from "+held[len(held)-1].Start.String())
	}
	if end < start+relight.LSN(p.size) {
		if err := q.nothingLater(ctx, l, p.size); err != nil {
			return livePlan{}, err
		}
	}
	return p, nil
}

// assemble writes the parts one after the other and pads with zeros. Where ranges overlap they must agree.
func (q walQuery) assemble(ctx context.Context, p livePlan, w io.Writer) error {
	at := p.start
	for _, s := range p.parts {
		if s.End <= at {
			continue // an overlap written before the writer was restarted
		}
		cut := &skipWriter{w: w, skip: int64(at - s.Start)}
		if err := q.m.copyBody(ctx, s, sealedData, cut); err != nil {
			return err
		}
		at = s.End
	}
	pad := p.size - int64(at-p.start)
	if _, err := io.CopyN(w, zeros{}, pad); err != nil {
		return fmt.Errorf("write what %s holds: %w", q.segment, err)
	}
	return nil
}

// absent proves that the segment is not in the repository and that recovery may end before it.
func (q walQuery) absent(ctx context.Context, l walListing) error {
	size, err := q.segmentSize(ctx, l)
	if err != nil {
		return err
	}
	if size > 0 {
		if err := q.nothingLater(ctx, l, size); err != nil {
			return err
		}
	}
	return fmt.Errorf("segment %s of store %s: %w in repository %s", q.segment, q.Store, blob.ErrNotFound, q.m.name)
}

// segmentSize learns the size of segments from any sidecar of the cluster; 0 when there is none at all.
func (q walQuery) segmentSize(ctx context.Context, l walListing) (int64, error) {
	all := l
	if !slices.ContainsFunc(l.sidecars, func(w walName) bool { return w.class != walHistory }) {
		var err error
		if all, err = q.m.listWAL(ctx, fmt.Sprintf("%s%s/", walPrefix(q.Store), q.System)); err != nil {
			return 0, err
		}
	}
	var last error
	for _, w := range slices.Backward(all.sidecars) {
		if w.class == walHistory {
			continue
		}
		r, err := q.m.fetchOne(ctx, all, w)
		if err != nil {
			return 0, notAbsent(err)
		}
		if r.err == nil {
			return r.sc.SegmentSize, nil
		}
		last = r.err
	}
	if last != nil {
		return 0, notAbsent(last) // there is WAL and none of it can be believed
	}
	return 0, nil
}

// nothingLater fails when the repository knows of WAL behind the segment: on its own timeline, or on one that
// branched off behind it.
func (q walQuery) nothingLater(ctx context.Context, l walListing, size int64) error {
	_, no, _ := parseSegment(q.segment)
	start, ok := no.start(size)
	if !ok {
		return fmt.Errorf("segment %s: %w: with segments of %d bytes there is none of this name", q.segment, blob.ErrNotFound, size)
	}
	histories, err := q.histories(ctx)
	if err != nil {
		return err
	}
	if from, known := histories.begin(q.Timeline); known && start+relight.LSN(size) <= from {
		return nil // the timeline begins later: its ancestors hold the segment
	}
	for _, w := range l.sidecars {
		if w.class != walHistory && w.name > q.segment {
			return q.holeError(ctx, start, w.sidecar())
		}
	}
	return q.nothingBranched(ctx, histories, start, size)
}

// nothingBranched looks at the timelines that descend from this one.
func (q walQuery) nothingBranched(ctx context.Context, hs timelineHistories, start relight.LSN, size int64) error {
	for _, h := range hs {
		at, ok := h.left[q.Timeline]
		switch {
		case !ok || h.timeline == q.Timeline || at <= start:
			continue
		case at >= start+relight.LSN(size):
			return q.holeError(ctx, start, h.object)
		}
		// It branched off inside this segment, and its own copy of the segment holds what came before.
		child := walQuery{m: q.m, WALKey: WALKey{Store: q.Store, System: q.System, Timeline: h.timeline}}
		child.segment = fmt.Sprintf("%08X", uint32(h.timeline)) + q.segment[8:]
		l, err := q.m.listWAL(ctx, child.prefix())
		if err != nil {
			return err
		}
		held := slices.ContainsFunc(l.sidecars, func(w walName) bool { return w.class != walHistory && w.name == child.segment })
		later := slices.IndexFunc(l.sidecars, func(w walName) bool { return w.class != walHistory && w.name > child.segment })
		if !held && later >= 0 {
			return q.holeError(ctx, start, l.sidecars[later].sidecar())
		}
	}
	return nil
}

// holeError says that WAL is missing in the middle, with the reason where one was announced.
func (q walQuery) holeError(ctx context.Context, at relight.LSN, later string) error {
	why := ""
	gaps, err := q.m.GapsOf(ctx, q.Store)
	if err != nil {
		why = "; the announced gaps cannot be read: " + err.Error()
	}
	for _, g := range gaps {
		if g.WALKey == q.WALKey && g.From <= at && at < g.To {
			why = "; announced gap: " + g.Why
		}
	}
	return &movedError{&relight.Error{
		Op: "read WAL", Subject: "segment " + q.segment, Code: relight.CodeVerification,
		Err:  fmt.Errorf("%w: the WAL of timeline %d is missing from %s on although later WAL is there (%s)%s", ErrCorrupt, q.Timeline, at, later, why),
		Hint: "recover to a point before the gap, or from another repository; `relight postgres window` lists both",
	}}
}

// skipWriter leaves out the first bytes.
type skipWriter struct {
	w    io.Writer
	skip int64
}

// Write implements io.Writer.
func (s *skipWriter) Write(p []byte) (int, error) {
	drop := min(s.skip, int64(len(p)))
	s.skip -= drop
	if int(drop) == len(p) {
		return len(p), nil
	}
	n, err := s.w.Write(p[drop:])
	return n + int(drop), err
}

// zeros reads as zeros without end.
type zeros struct{}

// Read implements io.Reader.
func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
