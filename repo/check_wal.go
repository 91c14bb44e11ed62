package repo

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob"
)

// stretch is WAL that the repository holds without a break.
type stretch struct{ from, to relight.LSN }

// wal verifies sidecars, reads every body, and looks for holes.
func (c *checking) wal(ctx context.Context) error {
	stores, err := c.m.Stores(ctx)
	if err != nil {
		return err
	}
	for _, store := range stores {
		if err := c.storeWAL(ctx, store); err != nil {
			return fmt.Errorf("WAL of store %s: %w", store, err)
		}
	}
	return nil
}

func (c *checking) storeWAL(ctx context.Context, store string) error {
	before, err := c.walNames(ctx, store)
	if err != nil {
		return err
	}
	problems, err := c.m.WALProblems(ctx, store)
	if err != nil {
		return err
	}
	const remains = "what needs WAL only up to there, from the base backups before it"
	for _, p := range problems {
		c.find(Finding{Severity: SeverityError, Object: objectOf(p), What: p.Error(), Remains: remains})
	}
	held := map[WALKey][]stretch{}
	found := make([]bool, before.bodies.count)
	lines := map[WALKey]bool{} // whose history is there
	err = c.m.Sidecars(ctx, store, func(k WALKey, s Sidecar, live bool) error {
		c.rep.WAL++
		c.rep.WALBytes += s.Stored
		if place := before.bodies.place(s.Body); place != unlisted {
			found[place] = true
		}
		if s.End > s.Start {
			held[k] = append(held[k], stretch{s.Start, s.End})
		} else {
			lines[k] = true
		}
		err := c.body(ctx, s)
		if live && errors.Is(err, ErrCorrupt) && c.swept(ctx, k, s) {
			return nil
		}
		if errors.Is(err, ErrCorrupt) || errors.Is(err, ErrRefused) {
			c.find(Finding{Severity: SeverityError, Object: s.Body, What: err.Error(), Remains: remains})
			return nil
		}
		return err
	})
	if err != nil {
		return err
	}
	c.loose(ctx, before, found, problems)
	c.lines(before, held, lines, problems)
	c.ends(before, held)
	return c.holes(ctx, store, held)
}

// walSeen is what lay in a store's WAL before its sidecars were read.
type walSeen struct {
	bodies  *nameTable // and, in the place of sizes, when the storage received them, in nanoseconds since 1970
	newest  time.Time
	covered map[WALKey]relight.LSN
	cluster bool // a record says which cluster the store belongs to
}

func (c *checking) walNames(ctx context.Context, store string) (walSeen, error) {
	s := walSeen{bodies: &nameTable{}, covered: map[WALKey]relight.LSN{}}
	var systems []relight.SystemID
	err := c.m.storage.List(ctx, walPrefix(store), func(i blob.Info) error {
		switch kindOfWAL(i.Name) {
		case "body":
			s.bodies.add(i.Name, i.Modified.UnixNano())
		case "cluster":
			s.cluster = true
		case "coverage":
			if n, err := strconv.ParseUint(strings.Split(i.Name, "/")[2], 10, 64); err == nil {
				systems = append(systems, relight.SystemID(n))
			}
		}
		s.newest = later(s.newest, i.Modified)
		return nil
	})
	if err != nil {
		return s, fmt.Errorf("list: %w", notAbsent(err))
	}
	for _, system := range systems {
		p, err := c.m.Coverage(ctx, store, system)
		if err != nil {
			return s, err
		}
		s.covered[WALKey{Store: store, System: system, Timeline: p.Timeline}] = p.LSN
	}
	return s, nil
}

// looseAfter is how long a body may wait for its sidecar, by the storage's clock, before that is worth a word.
const looseAfter = time.Minute

// loose finds bodies without a sidecar: of a writer that died, or of a sidecar that was removed.
func (c *checking) loose(ctx context.Context, before walSeen, found []bool, problems []error) {
	bad := map[string]bool{}
	for _, p := range problems {
		bad[strings.TrimSuffix(objectOf(p), metaSuffix)] = true
	}
	place := -1
	for name, received := range before.bodies.all() {
		place++
		base := strings.TrimSuffix(name, "."+lastElement(name, "."))
		if found[place] || bad[base] || bad[name] || before.newest.Sub(time.Unix(0, received)) < looseAfter {
			continue
		}
		if _, err := c.m.storage.Stat(ctx, name); errors.Is(err, blob.ErrNotFound) {
			continue // swept since
		}
		c.find(Finding{Severity: SeverityWarning, Object: name, What: "a WAL body without its sidecar " + base + metaSuffix + ": a writer died before it could store it, or somebody removed it",
			Remains: "all WAL that has its sidecars; what is missing without this one is reported as a hole. Put back from a mirror, the sidecar makes the body count"})
	}
}

// lines finds timelines whose history is lost: recovery could not tell which way leads to them.
func (c *checking) lines(before walSeen, held map[WALKey][]stretch, lines map[WALKey]bool, problems []error) {
	for k := range held {
		if !before.cluster {
			before.cluster = true // once is enough
			c.find(Finding{Severity: SeverityWarning, Object: clusterPrefix(k.Store) + "1", What: "there is WAL, and no record of the cluster that it belongs to",
				Remains: "every point; the next writer decides which cluster's WAL is taken"})
		}
		name := walName{WALKey: k, class: walHistory, name: historyName(k.Timeline)}.sidecar()
		known := slices.ContainsFunc(problems, func(p error) bool { return strings.Contains(p.Error(), k.prefix()+historyName(k.Timeline)) })
		if k.Timeline > 1 && !lines[k] && !known {
			c.find(Finding{Severity: SeverityError, Object: name, What: fmt.Sprintf("the history of timeline %d is missing although its WAL is there", k.Timeline),
				Remains: "points on the timelines before it; put back from a mirror, or from a server's pg_wal, the history opens this one"})
		}
	}
}

// ends finds WAL that was there, as its writer recorded, and is not any more.
func (c *checking) ends(before walSeen, held map[WALKey][]stretch) {
	for k, upTo := range before.covered {
		var end relight.LSN
		for _, s := range held[k] {
			end = max(end, s.to)
		}
		if end < upTo {
			c.find(Finding{Severity: SeverityError, Object: k.prefix(), What: fmt.Sprintf("WAL was held here up to %s, as its writer recorded, and it ends at %s", upTo, end),
				Remains: fmt.Sprintf("points up to %s", end)})
		}
	}
}

// swept says that a live range was superseded while it was looked at: its sidecar goes first.
func (c *checking) swept(ctx context.Context, k WALKey, s Sidecar) bool {
	name := walName{WALKey: k, class: walLive, name: s.Name, start: s.Start, end: s.End}
	_, err := c.m.storage.Stat(ctx, name.sidecar())
	return errors.Is(err, blob.ErrNotFound)
}

// body reads one body: opened where the keys allow it, else against the digest of its sealed bytes.
func (c *checking) body(ctx context.Context, s Sidecar) error {
	history := s.End <= s.Start
	if c.r != nil || history {
		kind := sealedData
		if history {
			kind = sealedMeta
		}
		return c.m.copyBody(ctx, s, kind, io.Discard)
	}
	sum, err := c.digest(ctx, s.Body)
	if errors.Is(err, blob.ErrNotFound) {
		return nil // a live range that was swept since it was listed; WALProblems looks for missing bodies
	}
	if err != nil {
		return err
	}
	if hex.EncodeToString(sum[:]) != s.Sealed {
		return corrupt(s.Body, "its bytes do not match the digest that its sidecar signed")
	}
	return nil
}

func (c *checking) holes(ctx context.Context, store string, held map[WALKey][]stretch) error {
	gaps, err := c.m.GapsOf(ctx, store)
	if err != nil {
		return err
	}
	for k, all := range held {
		removed, _, err := c.m.expired(ctx, k)
		if err != nil {
			return err
		}
		all = append(all, removed...) // what retention took is no hole
		slices.SortFunc(all, func(a, b stretch) int { return cmp.Compare(a.from, b.from) })
		end := all[0].to
		for _, s := range all[1:] {
			if s.from > end {
				c.hole(k, stretch{end, s.from}, gaps)
			}
			end = max(end, s.to)
		}
	}
	return nil
}

func (c *checking) hole(k WALKey, h stretch, gaps []GapOf) {
	f := Finding{
		Severity: SeverityError, Object: k.prefix(),
		What:    fmt.Sprintf("WAL from %s to %s is not there", h.from, h.to),
		Remains: fmt.Sprintf("points up to %s, and points after the first base backup behind %s", h.from, h.to),
	}
	for _, g := range gaps {
		if g.WALKey == k && g.From <= h.from && g.To >= h.to {
			f.Severity, f.What = SeverityWarning, f.What+" (announced: "+g.Why+")"
		}
	}
	c.find(f)
}
