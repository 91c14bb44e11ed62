package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob"
)

// coverageName is the one object of a cluster's WAL that is replaced: an idle server writes no WAL, so no sidecar could say
// that nothing was missed since the last one.
func coverageName(store string, system relight.SystemID) string {
	return fmt.Sprintf("%s%s/coverage.beat", walPrefix(store), system)
}

// Cover records that at p.Time, by the server's clock, its WAL ended at or before p.LSN of p.Timeline, all of which this
// repository holds.
func (s *sink) Cover(ctx context.Context, k WALKey, p relight.Point) error {
	if err := s.checkCluster(ctx, k); err != nil {
		return err
	}
	name := coverageName(k.Store, k.System)
	b, err := s.m.keys.sign("beat", name, s.m.now(), p)
	if err != nil {
		return err
	}
	if err := s.m.maySign(ctx, name); err != nil {
		return err
	}
	body, err := s.m.keys.sealBytes(b, sealedMeta)
	if err != nil {
		return fmt.Errorf("seal %s: %w", name, err)
	}
	if err := s.m.storage.Put(ctx, name, bytes.NewReader(body), blob.PutOptions{Replace: true}); err != nil {
		return fmt.Errorf("put %s: %w", name, err)
	}
	s.coverWitness.Do(func() { s.m.witness(ctx, name, s.m.now()) })
	return nil
}

// Coverage is the newest record of Cover, the zero Point if there is none that counts: it only says more exactly how much was lost, so a
// damaged one must not stop a recovery. It counts for a recovery only if that reaches the record's position on its timeline.
func (m *Meta) Coverage(ctx context.Context, store string, system relight.SystemID) (relight.Point, error) {
	var p relight.Point
	_, err := m.getSigned(ctx, "beat", coverageName(store, system), &p)
	if errors.Is(err, ErrRefused) || errors.Is(err, ErrCorrupt) {
		m.log.WarnContext(ctx, "the record of how far the WAL is covered does not count", "repository", m.name, "err", err)
		return relight.Point{}, nil
	}
	if errors.Is(err, blob.ErrNotFound) {
		return relight.Point{}, nil
	}
	return p, err
}

// Tip is the end of the furthest WAL that this repository holds on k, 0 if it holds none. There may be holes before it.
func (s *sink) Tip(ctx context.Context, k WALKey) (relight.LSN, error) {
	l, err := s.m.listWAL(ctx, k.prefix())
	if err != nil {
		return 0, err
	}
	var tip relight.LSN
	whole := false
	for _, w := range slices.Backward(l.sidecars) {
		switch {
		case w.class == walLive:
			tip = max(tip, w.end)
		case w.class == walSegment && !whole: // names sort by position: the last one that counts is the furthest
			r, err := s.m.fetchOne(ctx, l, w)
			if err != nil {
				return 0, err
			}
			if whole = r.err == nil; whole {
				tip = max(tip, r.sc.End)
			}
		}
	}
	return tip, nil
}
