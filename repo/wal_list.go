package repo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob"
)

// walListing is what lies under a prefix of the WAL.
type walListing struct {
	sidecars []walName  // in the order of byWAL
	objects  *nameTable // every object
}

func (m *Meta) listWAL(ctx context.Context, prefix string) (walListing, error) {
	l := walListing{objects: &nameTable{}}
	store := ""
	err := m.storage.List(ctx, prefix, func(i blob.Info) error {
		l.objects.add(i.Name, i.Size)
		if w, ok := parseSidecarName(i.Name); ok {
			if w.Store != store {
				store = strings.Clone(w.Store)
			}
			w.Store, w.name = store, strings.Clone(w.name) // they would keep the whole name, or the listing's page
			l.sidecars = append(l.sidecars, w)
		}
		return nil
	})
	if err != nil {
		return walListing{}, fmt.Errorf("list %s: %w", prefix, notAbsent(err))
	}
	slices.SortFunc(l.sidecars, byWAL)
	return l, nil
}

// byWAL orders by class, cluster, timeline and position. The names of segments sort by position.
func byWAL(a, b walName) int {
	for _, c := range []int{
		int(a.class) - int(b.class), compare(a.System, b.System), compare(a.Timeline, b.Timeline),
		strings.Compare(a.name, b.name), compare(a.start, b.start), compare(a.end, b.end),
	} {
		if c != 0 {
			return c
		}
	}
	return 0
}

func compare[T ~uint32 | ~uint64](a, b T) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func (l walListing) has(w walName) bool {
	_, ok := slices.BinarySearchFunc(l.sidecars, w, byWAL)
	return ok
}

func (l walListing) liveSegments() []string {
	var out []string
	for _, w := range l.sidecars {
		if w.class == walLive {
			out = append(out, w.name)
		}
	}
	return slices.Compact(out)
}

// sidecar reads one sidecar from the storage and verifies it; blob.ErrNotFound when it is proven absent.
func (m *Meta) sidecar(ctx context.Context, w walName) (Sidecar, error) {
	var sc Sidecar
	s, err := m.getSigned(ctx, "sidecar", w.sidecar(), &sc)
	if err != nil {
		return Sidecar{}, err
	}
	sc.signed = s.At
	return sc, w.checkSidecar(sc)
}

// statBody verifies that a sidecar's body is there, as far as can be seen without reading it.
func (m *Meta) statBody(ctx context.Context, sc Sidecar) error {
	info, err := m.storage.Stat(ctx, sc.Body)
	if errors.Is(err, blob.ErrNotFound) {
		return corrupt(sc.Body, "it is missing although its sidecar is there")
	}
	if err != nil {
		return fmt.Errorf("stat %s: %w", sc.Body, err)
	}
	if info.Size != sc.Stored {
		return corrupt(sc.Body, "it has %d bytes and its sidecar signed %d", info.Size, sc.Stored)
	}
	return nil
}

// wholeSegment reads a sidecar and sees to it that its body is there.
func (m *Meta) wholeSegment(ctx context.Context, w walName) (Sidecar, error) {
	sc, err := m.sidecar(ctx, w)
	if err != nil {
		return Sidecar{}, err
	}
	return sc, m.statBody(ctx, sc)
}

// walResult is one sidecar of a listing, or why it does not count.
type walResult struct {
	w   walName
	sc  Sidecar
	err error // wraps ErrRefused or ErrCorrupt, or blob.ErrNotFound when it vanished since it was listed
}

// fetch reads sidecars in parallel and reports them in the order given. An error of the storage ends it.
func (m *Meta) fetch(ctx context.Context, l walListing, which []walName, fn func(walResult) error) error {
	one := func(ctx context.Context, w walName) (walResult, error) { return m.fetchOne(ctx, l, w) }
	return inOrder(ctx, m.o.Workers, which, one, fn)
}

// fetchOne gives a sidecar from the cache or the storage. Its body must be in the listing.
func (m *Meta) fetchOne(ctx context.Context, l walListing, w walName) (walResult, error) {
	r := walResult{w: w}
	r.sc, r.err = m.cachedSidecar(ctx, w)
	if r.err == nil {
		if size, ok := l.objects.get(r.sc.Body); !ok {
			r.err = m.statBody(ctx, r.sc) // written while the listing went on, or gone
		} else if size != r.sc.Stored {
			r.err = corrupt(r.sc.Body, "it has %d bytes and its sidecar signed %d", size, r.sc.Stored)
		}
	}
	for _, known := range []error{nil, ErrRefused, ErrCorrupt, blob.ErrNotFound} {
		if errors.Is(r.err, known) {
			return r, nil
		}
	}
	return walResult{}, r.err
}

// Sidecars reports the sidecars of a store's WAL that count: all segments, then live ranges, then history
// files, each by cluster, timeline and position. What is refused or damaged is logged and left out, so that
// it shows as the gap that it is; WALProblems names it.
func (m *Meta) Sidecars(ctx context.Context, store string, fn func(k WALKey, s Sidecar, live bool) error) error {
	return m.walkWAL(ctx, store, func(r walResult) error {
		if r.err != nil {
			m.log.WarnContext(ctx, "a WAL object does not count", "repository", m.name, "err", r.err)
			return nil
		}
		return fn(r.w.WALKey, r.sc, r.w.class == walLive)
	})
}

// WALProblems names the WAL objects that are refused or damaged, as far as can be seen without reading bodies.
func (m *Meta) WALProblems(ctx context.Context, store string) ([]error, error) {
	var out []error
	err := m.walkWAL(ctx, store, func(r walResult) error {
		if r.err != nil {
			out = append(out, r.err)
		}
		return nil
	})
	return out, err
}

// walkWAL walks a store's sidecars. A live range that was swept meanwhile is replaced by its segment.
func (m *Meta) walkWAL(ctx context.Context, store string, fn func(walResult) error) error {
	if err := validElement("store", store); err != nil {
		return err
	}
	l, err := m.listWAL(ctx, walPrefix(store))
	if err != nil {
		return err
	}
	replaced := map[walName]bool{}
	err = m.fetch(ctx, l, l.sidecars, func(r walResult) error {
		if !errors.Is(r.err, blob.ErrNotFound) {
			return fn(r)
		}
		segment := walName{WALKey: r.w.WALKey, class: walSegment, name: r.w.name}
		if r.w.class != walLive || replaced[segment] || l.has(segment) {
			return nil
		}
		replaced[segment] = true
		sc, err := m.wholeSegment(ctx, segment)
		if errors.Is(err, blob.ErrNotFound) {
			return nil
		}
		if err != nil && !errors.Is(err, ErrRefused) && !errors.Is(err, ErrCorrupt) {
			return err
		}
		return fn(walResult{w: segment, sc: sc, err: err})
	})
	if err != nil {
		return fmt.Errorf("read the WAL's sidecars of store %s: %w", store, err)
	}
	return m.saveCache(store, l)
}

// History is a timeline's history file.
type History struct {
	WALKey
	Sidecar Sidecar
	Data    []byte
}

// Histories gives the timeline history files of a store. One that is refused or damaged is an error: without
// it recovery would follow the wrong line.
func (m *Meta) Histories(ctx context.Context, store string) ([]History, error) {
	l, err := m.listWAL(ctx, walPrefix(store))
	if err != nil {
		return nil, err
	}
	which := slices.DeleteFunc(slices.Clone(l.sidecars), func(w walName) bool { return w.class != walHistory })
	var out []History
	err = m.fetch(ctx, l, which, func(r walResult) error {
		if r.err != nil {
			return notAbsent(r.err)
		}
		var b strings.Builder
		if err := m.copyBody(ctx, r.sc, sealedMeta, &b); err != nil {
			return err
		}
		out = append(out, History{WALKey: r.w.WALKey, Sidecar: r.sc, Data: []byte(b.String())})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the timeline histories of store %s: %w", store, err)
	}
	return out, nil
}

// GapOf is an announced gap of one cluster.
type GapOf struct {
	WALKey
	relight.Gap
}

// Gaps lists the announced gaps of one cluster of a store: positions of another cluster, which the store may have had before, mean something else.
func (m *Meta) Gaps(ctx context.Context, store string, system relight.SystemID) ([]relight.Gap, error) {
	gs, err := m.GapsOf(ctx, store)
	var out []relight.Gap
	for _, g := range gs {
		if g.System == system {
			out = append(out, g.Gap)
		}
	}
	return out, err
}

// GapsOf lists the announced gaps of a store with the cluster and timeline of each.
func (m *Meta) GapsOf(ctx context.Context, store string) ([]GapOf, error) {
	l, err := m.listWAL(ctx, walPrefix(store))
	if err != nil {
		return nil, err
	}
	var names []string
	for n := range l.objects.all() {
		if kindOfWAL(n) == "gap" {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	var out []GapOf
	for _, n := range names {
		g, err := m.gapOf(ctx, n)
		if errors.Is(err, blob.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read the announced gaps of store %s: %w", store, err)
		}
		out = append(out, g)
	}
	return out, nil
}

// gapOf reads one gap record. One that is refused or damaged still says in its name what is missing; that it cannot be believed must
// neither hide a gap nor stop a recovery that needs nothing of it, so the reason tells.
func (m *Meta) gapOf(ctx context.Context, name string) (GapOf, error) {
	k, from, to, ok := parseRangeName(name)
	if !ok {
		return GapOf{}, refused(name, "no gap record has such a name")
	}
	g := GapOf{WALKey: k}
	_, err := m.getSigned(ctx, "gap", name, &g.Gap)
	if err == nil && (g.Gap.Timeline != k.Timeline || g.From != from || g.To != to) {
		err = refused(name, "it describes %s to %s of timeline %d", g.From, g.To, g.Gap.Timeline)
	}
	if errors.Is(err, ErrRefused) || errors.Is(err, ErrCorrupt) {
		m.log.WarnContext(ctx, "an announced gap is known by its name only", "repository", m.name, "err", err)
		g.Gap, err = relight.Gap{Timeline: k.Timeline, From: from, To: to, Why: "its record cannot be read: " + err.Error()}, nil
	}
	return g, err
}

// parseRangeName reads the name of a gap record or of one of expired WAL.
func parseRangeName(name string) (k WALKey, from, to relight.LSN, ok bool) {
	e := strings.Split(name, "/")
	if len(e) != 6 || e[0] != "wal" {
		return k, 0, 0, false
	}
	system, err := strconv.ParseUint(e[2], 10, 64)
	tli, ok1 := parseUpperHex(e[3], 8)
	begin, end, _ := strings.Cut(e[5], "-")
	a, ok2 := parseUpperHex(begin, 16)
	b, ok3 := parseUpperHex(end, 16)
	k = WALKey{Store: e[1], System: relight.SystemID(system), Timeline: relight.TimelineID(tli)}
	return k, relight.LSN(a), relight.LSN(b), err == nil && ok1 && ok2 && ok3 && a < b
}
