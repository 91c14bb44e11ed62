package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/repo"
	"github.com/toolboxai/relight/store/postgres/walfile"
)

// walFinder looks for records in the WAL of a repository.
type walFinder struct {
	r     *repo.Reader
	store string
}

var errFound = errors.New("found")

// FindXID reads the WAL of a stretch from its base backup on until the transaction ends.
func (f *walFinder) FindXID(ctx context.Context, r reach, xid uint32) (walfile.Event, bool, error) {
	pl := plan{Base: r.base, Timeline: r.line.key.Timeline, Path: r.line.path, Pieces: r.pieces(), End: r.End, reach: r,
		Server: relight.RecoveryTarget{Kind: relight.TargetLatest}}
	source := newPlannedWAL(f.r, f.store, pl)
	var found walfile.Event
	err := source.scan(ctx, func(e walfile.Event) error {
		if (e.Kind == walfile.Commit || e.Kind == walfile.Abort) && e.XID == xid {
			found = e
			return errFound
		}
		return nil
	})
	if errors.Is(err, errFound) {
		return found, true, nil
	}
	return found, false, err
}

// scan reads the records of the plan's WAL in order. Where WAL ends is its end, not an error.
func (w *plannedWAL) scan(ctx context.Context, fn func(walfile.Event) error) error {
	f := w.plan.Base.Facts
	scan, err := walfile.NewScanner(walfile.Options{
		Start: f.StartLSN, AtRecord: true, SegmentSize: f.SegmentSize, System: f.System, Timeline: w.plan.Timeline,
	})
	if err != nil {
		return err
	}
	err = w.feed(ctx, scan, w.names(), fn)
	if errors.Is(err, walfile.ErrInvalid) {
		return nil
	}
	return err
}

// feed gives a scanner the segments from its position on. Where WAL stops being valid the error is walfile.ErrInvalid.
func (w *plannedWAL) feed(ctx context.Context, scan *walfile.Scanner, names []string, fn func(walfile.Event) error) error {
	for _, name := range names {
		_, start, err := walfile.ParseSegmentName(name, w.plan.Base.Facts.SegmentSize)
		if err != nil {
			return err
		}
		feed := &scanWriter{scan: scan, fn: fn, at: start}
		err = w.read(ctx, name, feed)
		if feed.err != nil {
			err = feed.err
		}
		if err != nil {
			return fmt.Errorf("WAL segment %s: %w", name, err)
		}
	}
	return nil
}

// scanWriter feeds a scanner with the bytes from its position on.
type scanWriter struct {
	scan *walfile.Scanner
	fn   func(walfile.Event) error
	at   relight.LSN
	err  error
}

func (w *scanWriter) Write(p []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	n := len(p)
	if behind := int64(w.scan.Pos()) - int64(w.at); behind > 0 {
		p = p[min(behind, int64(n)):]
	}
	w.at += relight.LSN(n)
	if len(p) > 0 {
		if w.err = w.scan.Feed(p, w.fn); w.err != nil {
			return 0, w.err
		}
	}
	return n, nil
}
