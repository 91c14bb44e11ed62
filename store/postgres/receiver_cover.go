package postgres

import (
	"context"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/repo"
)

// coverer is a sink that records how far an idle server is covered; repo's own can.
type coverer interface {
	Cover(ctx context.Context, k repo.WALKey, p relight.Point) error
}

// covering tells one repository, at most once in an interval, up to which moment nothing was missed. A server that is busy says so in the
// sidecars of its WAL; one that is idle writes none, and its last hours would count as lost.
func (s *shipper) covering(ctx context.Context) {
	c, ok := s.sink.(coverer)
	if !ok {
		return
	}
	var last relight.Point
	for {
		p := s.r.tape.point(s.n)
		if p.Time.After(last.Time) {
			err := c.Cover(ctx, s.r.key(s.spool, p.Timeline), p)
			switch {
			case err == nil:
				last = p
				s.r.well(s.source("coverage"))
			case ctx.Err() == nil:
				s.r.trouble(s.source("coverage"), err.Error(), s.r.o.AlarmAfter)
			}
		}
		if sleepFor(ctx, s.r.o.LiveInterval) != nil {
			return
		}
	}
}

// point is what a repository holds, and the clock up to which that is all there was.
func (t *tape) point(sink int) relight.Point {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.sinks[sink]
	if !s.known || s.dead {
		return relight.Point{}
	}
	return relight.Point{Timeline: s.current.tl, LSN: s.durable, Time: t.coveredAt(s.current.tl, s.durable)}
}
