package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/store/postgres/walfile"
)

// walPatches are bytes to change in WAL, by position.
//
// CREATE TABLESPACE replays the absolute path that the source used. Beside the source, perhaps on its own host, that would be the live server's directory. So where a
// tablespace is to lie elsewhere, its record is served without a path, which makes the server create it at pg_tblspc/<oid> of its own data directory; a link is laid
// there before, to the tablespace's new place.
type walPatches map[relight.LSN]byte

func (p walPatches) touch(from, to relight.LSN) bool {
	for at := range p {
		if at >= from && at < to {
			return true
		}
	}
	return false
}

func (p walPatches) apply(from relight.LSN, b []byte) {
	for at, v := range p {
		if at >= from && at < from+relight.LSN(len(b)) {
			b[at-from] = v
		}
	}
}

// creations are the records of CREATE TABLESPACE that replay may come upon, in order. Only WAL of which nobody has said that it holds none is read.
func (w *plannedWAL) creations(ctx context.Context) ([]walfile.Event, error) {
	var found []walfile.Event
	for _, run := range w.suspects() {
		events, end, err := w.creationsIn(ctx, run)
		if err != nil {
			return nil, err
		}
		found = append(found, events...)
		if end {
			break
		}
	}
	return found, nil
}

// suspects are runs of segments that may hold such a record, each with the segment before it: a record belongs to where it ends.
func (w *plannedWAL) suspects() [][]string {
	size := w.plan.Base.Facts.SegmentSize
	suspect := map[relight.LSN]bool{}
	for _, p := range w.plan.Pieces {
		if p.Tablespaces != nil && *p.Tablespaces == 0 {
			continue
		}
		first, last := walfile.SegmentStart(p.Start, size), walfile.SegmentStart(max(p.End, 1)-1, size)
		for at := first; at <= last; at += relight.LSN(size) {
			suspect[at] = true
		}
	}
	var runs [][]string
	joined := false
	for _, name := range w.names() {
		_, start, err := walfile.ParseSegmentName(name, size)
		if err != nil || !suspect[start] && !suspect[start+relight.LSN(size)] {
			joined = false
			continue
		}
		if !joined {
			runs, joined = append(runs, nil), true
		}
		runs[len(runs)-1] = append(runs[len(runs)-1], name)
	}
	return runs
}

// creationsIn reads a run of segments. end tells that WAL ends in it.
func (w *plannedWAL) creationsIn(ctx context.Context, names []string) (found []walfile.Event, end bool, err error) {
	f := w.plan.Base.Facts
	_, start, err := walfile.ParseSegmentName(names[0], f.SegmentSize)
	if err != nil {
		return nil, false, err
	}
	o := walfile.Options{Start: start, SegmentSize: f.SegmentSize, System: f.System, Timeline: w.plan.Timeline}
	if f.StartLSN > start {
		o.Start, o.AtRecord = f.StartLSN, true
	}
	scan, err := walfile.NewScanner(o)
	if err != nil {
		return nil, false, err
	}
	err = w.feed(ctx, scan, names, func(e walfile.Event) error {
		if e.Kind == walfile.CreateTablespace {
			found = append(found, e)
		}
		return nil
	})
	if !errors.Is(err, walfile.ErrInvalid) {
		return found, false, err
	}
	if aligned(scan.ValidEnd()) < w.plan.Required { // replay will come further than we can see
		return nil, true, fmt.Errorf("look for new tablespaces up to %s: %w", w.plan.Required, err)
	}
	return found, true, nil
}
