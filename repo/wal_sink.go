package repo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob"
)

// Sink takes a store's WAL into this repository.
func (m *Meta) Sink(store string) Sink { return &sink{m: m, store: store} }

type sink struct {
	m     *Meta
	store string

	mu     sync.Mutex
	system relight.SystemID // the cluster that the store is known to belong to

	coverWitness sync.Once // of the record that is replaced
}

// Name implements Sink.
func (s *sink) Name() string { return s.m.name }

// PutSegment implements Sink.
func (s *sink) PutSegment(ctx context.Context, k WALKey, sc Sidecar, body io.ReadSeeker) error {
	return s.put(ctx, walName{WALKey: k, class: walSegment, name: sc.Name}, sc, body)
}

// PutLive implements Sink.
func (s *sink) PutLive(ctx context.Context, k WALKey, sc Sidecar, body io.ReadSeeker) error {
	return s.put(ctx, walName{WALKey: k, class: walLive, name: sc.Name, start: sc.Start, end: sc.End}, sc, body)
}

// PutHistory implements Sink.
func (s *sink) PutHistory(ctx context.Context, k WALKey, sc Sidecar, body io.ReadSeeker) error {
	return s.put(ctx, walName{WALKey: k, class: walHistory, name: sc.Name}, sc, body)
}

// put stores a body under a name of its own and then the sidecar, whose create-only name decides: until it is
// there nothing counts, and what an interrupted put left is never looked at.
func (s *sink) put(ctx context.Context, w walName, sc Sidecar, body io.ReadSeeker) error {
	if err := s.check(ctx, w, &sc); err != nil {
		return err
	}
	if w.class == walSegment && sc.Digest != "" { // spare the upload of megabytes that are there
		_, done, err := s.already(ctx, w, sc)
		if err != nil || done {
			return err
		}
	}
	kind := sealedData
	if w.class == walHistory {
		kind = sealedMeta
	}
	p, err := s.m.prepareBody(io.LimitReader(body, max(sc.Size, 0)+1), sc.Size, kind)
	if err != nil {
		return fmt.Errorf("put %s: %w", w.base(), err)
	}
	err = s.store2(ctx, w, sc, p)
	return errors.Join(err, p.close())
}

// check validates what is about to be written before anything is.
func (s *sink) check(ctx context.Context, w walName, sc *Sidecar) error {
	if w.Store != s.store {
		return fmt.Errorf("put %s: this sink takes the WAL of store %q", w.base(), s.store)
	}
	if err := validElement("store", w.Store); err != nil {
		return err
	}
	if sc.System != w.System {
		return fmt.Errorf("put %s: %w: its sidecar is of the cluster with system id %s", w.base(), ErrConflict, sc.System)
	}
	sc.Format, sc.Host, sc.Epoch = Format, s.m.keys.host, s.m.keys.current
	trial := *sc
	trial.Body, trial.Stored = w.base()+".x", 1
	if _, ok := parseSidecarName(w.sidecar()); !ok {
		return fmt.Errorf("put %s: not the name of a WAL object of timeline %d", w.base(), w.Timeline)
	}
	if err := w.checkSidecar(trial); err != nil {
		return fmt.Errorf("put %s: its sidecar does not fit: %w", w.base(), err)
	}
	if err := s.m.maySign(ctx, w.sidecar()); err != nil { // before the body, which nobody signs
		return err
	}
	return s.checkCluster(ctx, w.WALKey)
}

// store2 stores a prepared body and commits it with its sidecar.
func (s *sink) store2(ctx context.Context, w walName, sc Sidecar, p *preparedBody) error {
	if p.plain != sc.Size || (sc.Digest != "" && p.digest != sc.Digest) {
		return fmt.Errorf("put %s: the body has %d bytes with digest %.16s, its sidecar says %d and %.16s", w.base(), p.plain, p.digest, sc.Size, sc.Digest)
	}
	suffix, err := randomHex(s.m.rand, 8)
	if err != nil {
		return fmt.Errorf("put %s: %w", w.base(), err)
	}
	sc.Digest, sc.Stored, sc.Sealed, sc.Body = p.digest, p.stored, p.sealed, w.base()+"."+suffix
	if w.class == walLive {
		defer s.m.live.begin(w.base())()
	}
	err = s.m.storage.Put(ctx, sc.Body, p, blob.PutOptions{})
	if err != nil && !errors.Is(err, blob.ErrExists) { // the name is ours alone: it exists when a retried request had succeeded
		return fmt.Errorf("put %s: %w", sc.Body, err)
	}
	err = s.m.putSigned(ctx, "sidecar", w.sidecar(), sc, sealedMeta)
	if !errors.Is(err, blob.ErrExists) {
		return err
	}
	there, done, err := s.already(ctx, w, sc)
	if err == nil && !done {
		err = fmt.Errorf("put %s: its sidecar was there and then was not", w.base())
	}
	if err == nil && there.Body != sc.Body {
		s.m.removeQuietly(ctx, sc.Body)
	}
	return err
}

// already says whether the very same bytes are committed under the name; other bytes are a conflict.
func (s *sink) already(ctx context.Context, w walName, sc Sidecar) (Sidecar, bool, error) {
	there, err := s.m.sidecar(ctx, w)
	if errors.Is(err, blob.ErrNotFound) {
		return Sidecar{}, false, nil
	}
	if err != nil {
		return Sidecar{}, false, fmt.Errorf("put %s: %w", w.base(), err)
	}
	if there.Digest != sc.Digest {
		return Sidecar{}, false, &relight.Error{
			Op: "put", Subject: w.base(), Code: relight.CodeVerification,
			Err:  fmt.Errorf("%w: the repository holds it with digest %.16s and now it has %.16s", ErrConflict, there.Digest, sc.Digest),
			Hint: "two servers write the WAL of one store, or the spool is damaged: stop, and find out which of them is right",
		}
	}
	if err := s.m.statBody(ctx, there); err != nil {
		return Sidecar{}, false, fmt.Errorf("put %s: %w", w.base(), err)
	}
	return there, true, nil
}

// Gap implements Sink.
func (s *sink) Gap(ctx context.Context, k WALKey, g relight.Gap) error {
	if g.From >= g.To || g.Timeline != k.Timeline {
		return fmt.Errorf("record a gap of %s: %s to %s on timeline %d is none", k.prefix(), g.From, g.To, g.Timeline)
	}
	if err := s.checkCluster(ctx, k); err != nil {
		return err
	}
	name := fmt.Sprintf("%sgap/%016X-%016X", k.prefix(), uint64(g.From), uint64(g.To))
	err := s.m.putSigned(ctx, "gap", name, g, sealedMeta)
	if errors.Is(err, blob.ErrExists) {
		var there relight.Gap
		if _, gerr := s.m.getSigned(ctx, "gap", name, &there); gerr == nil {
			return nil // announced already, in other words
		}
	}
	return err
}

// SweepLive implements Sink.
func (s *sink) SweepLive(ctx context.Context, k WALKey) error {
	if err := s.m.maySign(ctx, k.prefix()+"live/"); err != nil {
		return err
	}
	underWay, end := s.m.live.sweep()
	defer end()
	l, err := s.m.listWAL(ctx, k.prefix()+"live/")
	if err != nil {
		return err
	}
	whole := map[string]bool{}
	for _, segment := range l.liveSegments() {
		_, err := s.m.wholeSegment(ctx, walName{WALKey: k, class: walSegment, name: segment})
		if err != nil && !errors.Is(err, blob.ErrNotFound) {
			return fmt.Errorf("sweep live WAL: %w", err)
		}
		whole[segment] = err == nil
	}
	return s.sweep(ctx, k, l, func(name, segment string) bool { return whole[segment] && !underWay(name) }) // what is under way is left to the next sweep
}

// LiveKeys names the clusters and timelines of a store that have live ranges. It reads names only.
func (m *Meta) LiveKeys(ctx context.Context, store string) ([]WALKey, error) {
	if err := validElement("store", store); err != nil {
		return nil, err
	}
	l, err := m.listWAL(ctx, walPrefix(store))
	if err != nil {
		return nil, err
	}
	var out []WALKey
	for _, w := range l.sidecars { // ordered by cluster and timeline
		if w.class == walLive && !slices.Contains(out, w.WALKey) {
			out = append(out, w.WALKey)
		}
	}
	return out, nil
}

// sweep deletes sidecars before bodies, so that no sidecar is ever seen without its body.
func (s *sink) sweep(ctx context.Context, k WALKey, l walListing, goes func(name, segment string) bool) error {
	var metas, bodies []string
	for name := range l.objects.all() {
		segment, _, _ := strings.Cut(strings.TrimPrefix(name, k.prefix()+"live/"), "/")
		switch {
		case !goes(name, segment):
		case strings.HasSuffix(name, metaSuffix):
			metas = append(metas, name)
		default:
			bodies = append(bodies, name)
		}
	}
	for _, name := range append(metas, bodies...) {
		if err := s.m.storage.Delete(ctx, name); err != nil {
			return fmt.Errorf("sweep live WAL: delete %s: %w", name, err)
		}
	}
	return nil
}
