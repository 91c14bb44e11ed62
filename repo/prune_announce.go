package repo

import (
	"context"
	"fmt"
	"slices"

	"github.com/toolboxai/relight"
)

// announce says, before anything is deleted, what may be from now on. A copy that registers later keeps away from it; one that is registered is waited for, and
// nothing is announced meanwhile, unless copies have followed upon one another for too long. It says whether backups under way must be listed anew.
func (p *pruner) announce(ctx context.Context) (announced bool, err error) {
	if p.lease == nil {
		return false, nil
	}
	copies := slices.ContainsFunc(p.alive, func(b pendingOne) bool { return b.Copy })
	for _, e := range p.marks {
		if e.due || !p.elapsed(e) || len(p.backups(e)) > 0 || copies && p.now.Sub(e.sealed.At) < p.o.Grace+p.o.Abandoned {
			continue
		}
		name := trashDir(e.epoch) + dueMark
		if err := p.m.putSigned(ctx, "trash", name, trashRecord{Epoch: e.epoch}, sealedMeta); err != nil {
			return announced, fmt.Errorf("announce what is to go: %w", err)
		}
		e.due, e.names, announced = true, append(e.names, name), true
	}
	return announced, nil
}

// copies are those under way that may not have seen the announcement of an epoch.
func (p *pruner) copies(e *trashEpoch) []relight.SnapshotID {
	var out []relight.SnapshotID
	for _, b := range p.alive {
		aware := !e.dueAt.IsZero() && b.received.After(e.dueAt)
		if b.Copy && !aware {
			out = append(out, b.Snapshot)
		}
	}
	return out
}
