package repo

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"

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
	problems, err := c.m.WALProblems(ctx, store)
	if err != nil {
		return err
	}
	const remains = "what needs WAL only up to there, from the base backups before it"
	for _, p := range problems {
		c.find(Finding{Severity: SeverityError, Object: objectOf(p), What: p.Error(), Remains: remains})
	}
	held := map[WALKey][]stretch{}
	err = c.m.Sidecars(ctx, store, func(k WALKey, s Sidecar, live bool) error {
		c.rep.WAL++
		c.rep.WALBytes += s.Stored
		if s.End > s.Start {
			held[k] = append(held[k], stretch{s.Start, s.End})
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
	return c.holes(ctx, store, held)
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
