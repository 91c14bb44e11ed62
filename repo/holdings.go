package repo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob"
)

// walFacts are the members of a manifest's facts that say which WAL a snapshot needs, whatever its store. A store that has no WAL
// has none of them.
type walFacts struct {
	System   relight.SystemID   `json:"system"`
	Timeline relight.TimelineID `json:"timeline"`
	Start    relight.LSN        `json:"start_lsn"`
	Stop     relight.LSN        `json:"stop_lsn"`
	StopTime time.Time          `json:"stop_time"`
}

// heldSnapshot is a manifest as retention sees it.
func heldSnapshot(man Manifest, damaged bool, received time.Time) HeldSnapshot {
	h := HeldSnapshot{ID: man.ID, Time: man.Finished, Received: received, Kind: man.Kind, Proven: man.State == relight.Proven, Damaged: damaged}
	if len(man.Facts) == 0 {
		return h
	}
	var f walFacts
	switch err := json.Unmarshal(man.Facts, &f); {
	case err != nil:
		h.Unclear = fmt.Errorf("its facts cannot be read: %w", err)
		return h
	case f.System == 0 && f.Timeline == 0 && f.Stop == 0:
		return h
	case f.System == 0 || f.Timeline == 0 || f.Stop == 0 || f.Start > f.Stop:
		h.Unclear = fmt.Errorf("its facts contradict one another: cluster %s, timeline %d, %s to %s", f.System, f.Timeline, f.Start, f.Stop)
		return h
	}
	h.WAL, h.System, h.Timeline, h.Start, h.Stop = true, f.System, f.Timeline, f.Start, f.Stop
	if man.Kind == restorePoint {
		h.Start = f.Stop
	}
	if !f.StopTime.IsZero() {
		h.Time = f.StopTime
	}
	return h
}

// storeHoldings is what a repository holds of one store, with its objects.
type storeHoldings struct {
	Holdings
	pieces  []walObjects // the objects of each piece of WAL
	orphans []int32      // where bodies are that no sidecar refers to
	objects *nameTable
}

// walObjects says where in the listing the objects of a piece of WAL are. There are too many to keep their names.
type walObjects struct{ sidecar, body int32 }

// listed gives the places, the sidecar first: no sidecar may ever be seen without its body. A sidecar whose body is missing goes alone.
func (o walObjects) listed() []int32 {
	if o.body == unlisted {
		return []int32{o.sidecar}
	}
	return []int32{o.sidecar, o.body}
}

// holdings reads what a store has. A WAL object that is refused or damaged is no piece: it is left where it is.
func (m *Meta) holdings(ctx context.Context, store string, snapshots []HeldSnapshot, parents []relight.SnapshotID) (*storeHoldings, error) {
	h := &storeHoldings{Holdings: Holdings{Snapshots: snapshots, Parents: parents}}
	l, err := m.listWAL(ctx, walPrefix(store))
	if err != nil {
		return nil, err
	}
	h.objects = l.objects
	h.WAL, h.pieces = make([]HeldWAL, 0, len(l.sidecars)), make([]walObjects, 0, len(l.sidecars))
	held := make([]bool, l.objects.count)
	unread := map[string]bool{}
	err = m.fetch(ctx, l, l.sidecars, func(r walResult) error {
		if r.err != nil {
			unread[r.w.base()] = true
			return nil
		}
		piece := walObjects{sidecar: l.objects.place(r.w.sidecar()), body: l.objects.place(r.sc.Body)}
		if piece.body != unlisted {
			held[piece.body] = true
		}
		if r.w.class != walHistory {
			h.add(r, piece)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the WAL's sidecars of store %s: %w", store, err)
	}
	h.orphans = orphanBodies(l, held, unread)
	return h, m.heldLines(ctx, store, h)
}

func (h *storeHoldings) add(r walResult, piece walObjects) {
	sc := r.sc
	h.WAL = append(h.WAL, HeldWAL{System: r.w.System, Timeline: r.w.Timeline, Start: sc.Start, End: sc.End, SegmentSize: sc.SegmentSize,
		Until: later(later(sc.LastCommit, sc.CoveredAt), sc.signed), Marks: sc.Marks})
	h.pieces = append(h.pieces, piece)
}

// orphanBodies are bodies without a sidecar: of a writer that died, or that came second.
func orphanBodies(l walListing, held []bool, unread map[string]bool) []int32 {
	var out []int32
	place := int32(-1)
	for name := range l.objects.all() {
		place++
		base := strings.TrimSuffix(name, "."+lastElement(name, "."))
		named := strings.HasSuffix(name, metaSuffix) || strings.HasSuffix(name, ".beat") || strings.Contains(name, "/gap/") || strings.Contains(name, "/expired/")
		_, isBody := parseSidecarName(base + metaSuffix)
		if isBody && !named && !held[place] && !unread[base] {
			out = append(out, place)
		}
	}
	return out
}

func lastElement(s, sep string) string { return s[strings.LastIndex(s, sep)+1:] }

func (m *Meta) heldLines(ctx context.Context, store string, h *storeHoldings) error {
	all, err := m.Histories(ctx, store)
	if err != nil {
		return err
	}
	for _, x := range all {
		left, _, err := parseHistory(x.Data)
		if err != nil {
			return corrupt(x.Sidecar.Body, "%v", err)
		}
		h.Lines = append(h.Lines, HeldLine{System: x.System, Timeline: x.Timeline, Left: left})
	}
	return nil
}

// expiredPrefix is where it is on record which WAL of a timeline retention removed: it is then no hole.
func (k WALKey) expiredPrefix() string { return k.prefix() + "expired/" }

// expired lists which WAL of a timeline retention has removed, in order. A record that is refused or damaged does not count, and hides no other.
func (m *Meta) expired(ctx context.Context, k WALKey) ([]stretch, []string, error) {
	var found []string
	err := m.storage.List(ctx, k.expiredPrefix(), func(i blob.Info) error { found = append(found, i.Name); return nil })
	if err != nil {
		return nil, nil, fmt.Errorf("list expired WAL: %w", notAbsent(err))
	}
	var out []stretch
	var names []string
	for _, name := range found {
		g, err := m.expiredRecord(ctx, name)
		switch {
		case err == nil:
			out, names = append(out, stretch{g.From, g.To}), append(names, name)
		case errors.Is(err, ErrRefused), errors.Is(err, ErrCorrupt):
			m.log.WarnContext(ctx, "a record of expired WAL does not count", "err", err)
		case !errors.Is(err, blob.ErrNotFound): // joined into another since it was listed
			return nil, nil, fmt.Errorf("read expired WAL: %w", err)
		}
	}
	return out, names, nil
}

func (m *Meta) expiredRecord(ctx context.Context, name string) (g relight.Gap, err error) {
	s, err := m.getSigned(ctx, "expired", name, &g)
	if err == nil {
		err = m.mayRetain(s)
	}
	return g, err
}

// expire puts on record that retention removes WAL of a timeline, and joins the records of before.
func (m *Meta) expire(ctx context.Context, k WALKey, gone []stretch) error {
	before, names, err := m.expired(ctx, k)
	if err != nil {
		return err
	}
	keep := map[string]bool{}
	for _, s := range joined(append(before, gone...)) {
		name := fmt.Sprintf("%s%016X-%016X", k.expiredPrefix(), uint64(s.from), uint64(s.to))
		keep[name] = true
		if slices.Contains(names, name) {
			continue
		}
		g := relight.Gap{Timeline: k.Timeline, From: s.from, To: s.to, Why: "removed by retention"}
		if err := m.putSigned(ctx, "expired", name, g, sealedMeta); err != nil {
			return fmt.Errorf("record expired WAL: %w", err)
		}
	}
	for _, name := range names {
		if !keep[name] {
			if err := m.storage.Delete(ctx, name); err != nil {
				return fmt.Errorf("join records of expired WAL: %w", err)
			}
		}
	}
	return nil
}

// joined sorts stretches and joins what overlaps or touches.
func joined(all []stretch) []stretch {
	slices.SortFunc(all, func(a, b stretch) int { return compare(a.from, b.from) })
	var out []stretch
	for _, s := range all {
		if n := len(out); n > 0 && s.from <= out[n-1].to {
			out[n-1].to = max(out[n-1].to, s.to)
		} else {
			out = append(out, s)
		}
	}
	return out
}
