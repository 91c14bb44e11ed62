package repo

import (
	"context"
	"fmt"
	"slices"

	"github.com/toolboxai/relight"
)

// Durable implements Sink. It counts only what is signed and whose body is there: on its word the server
// forgets WAL.
func (s *sink) Durable(ctx context.Context, k WALKey, from relight.LSN) (relight.LSN, error) {
	l, err := s.m.listWAL(ctx, k.prefix())
	if err != nil {
		return 0, err
	}
	which, err := s.m.after(ctx, l, from)
	if err != nil {
		return 0, err
	}
	var held []Sidecar
	err = s.m.fetch(ctx, l, which, func(r walResult) error {
		if r.err != nil {
			s.m.log.WarnContext(ctx, "a WAL object does not count as durable", "repository", s.m.name, "err", r.err)
			return nil
		}
		held = append(held, r.sc)
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("find the durable end of %s: %w", k.prefix(), err)
	}
	end, _ := contiguous(held, from)
	return end, nil
}

// after leaves out segments that end before from. A segment's name tells its place once the size of segments
// is known, so one sidecar is read for it.
func (m *Meta) after(ctx context.Context, l walListing, from relight.LSN) ([]walName, error) {
	var which []walName
	var size int64
	for _, w := range slices.Backward(l.sidecars) {
		switch w.class {
		case walHistory:
			continue
		case walLive:
			if w.end > from {
				which = append(which, w)
			}
			continue
		}
		if size == 0 {
			r, err := m.fetchOne(ctx, l, w)
			if err != nil {
				return nil, err
			}
			size = r.sc.SegmentSize // 0 when it does not count: the next one tells
		}
		_, no, _ := parseSegment(w.name)
		start, ok := no.start(size)
		if !ok || start+relight.LSN(size) > from {
			which = append(which, w)
		}
	}
	return which, nil
}

// contiguous follows ranges from a position on and gives the end of what is held without a hole, and whether
// something is held behind a hole. Ranges may overlap.
func contiguous(held []Sidecar, from relight.LSN) (end relight.LSN, hole bool) {
	held = slices.Clone(held)
	slices.SortFunc(held, func(a, b Sidecar) int { return compare(a.Start, b.Start) })
	end = from
	for _, s := range held {
		if s.Start > end {
			return end, true
		}
		end = max(end, s.End)
	}
	return end, false
}
