package repo

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob"
)

// A backup under way is registered in pending/ before it looks at anything, and unregistered when it has ended, and so is a copy into a mirror. Retention
// deletes nothing that a registered one may refer to. One that is given up, because its writer died or lost its lease, is
// fenced: from then on its manifest does not count, should the writer come back and store one.

const (
	pendingPrefix = "pending/"
	fenceSuffix   = ".fenced"
)

type pendingRecord struct {
	Snapshot relight.SnapshotID `json:"snapshot"`
	Store    string             `json:"store"`
	Host     string             `json:"host"`
	Started  time.Time          `json:"started"`
	Parent   relight.SnapshotID `json:"parent,omitempty"`
	Lease    int64              `json:"lease,omitempty"`  // epoch of the lease backup/<store> under which it runs
	Fenced   string             `json:"fenced,omitempty"` // in a fence: why
	Copy     bool               `json:"copy,omitempty"`   // no backup, but a copy into this mirror; it has no store and commits nothing
}

func pendingName(id relight.SnapshotID) string { return pendingPrefix + string(id) }
func fenceName(id relight.SnapshotID) string   { return pendingName(id) + fenceSuffix }

// pendingOne is a registration and when the storage received it.
type pendingOne struct {
	pendingRecord
	received time.Time // zero where the storage does not tell
}

// pendings lists the registrations that are not fenced, and the fences. One that cannot be read still counts: something
// registered it.
func (m *Meta) pendings(ctx context.Context) (alive []pendingOne, fenced map[relight.SnapshotID]pendingRecord, err error) {
	var names []blob.Info
	fenced = map[relight.SnapshotID]pendingRecord{}
	err = m.storage.List(ctx, pendingPrefix, func(i blob.Info) error {
		names = append(names, i)
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("list backups under way: %w", notAbsent(err))
	}
	for _, i := range names {
		p := pendingOne{pendingRecord: pendingRecord{Snapshot: relight.SnapshotID(strings.TrimPrefix(i.Name, pendingPrefix))}, received: i.Modified}
		id, fence := strings.CutSuffix(string(p.Snapshot), fenceSuffix)
		_, err := m.getSigned(ctx, "pending", i.Name, &p.pendingRecord)
		switch {
		case errors.Is(err, blob.ErrNotFound): // it ended meanwhile
		case err != nil && !errors.Is(err, ErrRefused) && !errors.Is(err, ErrCorrupt):
			return nil, nil, err
		case fence && err == nil && p.Fenced != "":
			fenced[relight.SnapshotID(id)] = p.pendingRecord
		case fence:
			m.log.WarnContext(ctx, "a fence does not count", "object", i.Name, "err", err)
		default:
			alive = append(alive, p)
		}
	}
	return slices.DeleteFunc(alive, func(p pendingOne) bool {
		_, ended := fenced[p.Snapshot]
		return ended
	}), fenced, nil
}

// fences gives the snapshots of which a fence exists; isFenced says whether it counts.
func (m *Meta) fences(ctx context.Context) (map[relight.SnapshotID]bool, error) {
	out := map[relight.SnapshotID]bool{}
	err := m.storage.List(ctx, pendingPrefix, func(i blob.Info) error {
		if id, ok := strings.CutSuffix(strings.TrimPrefix(i.Name, pendingPrefix), fenceSuffix); ok {
			out[relight.SnapshotID(id)] = true
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list fenced backups: %w", notAbsent(err))
	}
	return out, nil
}

// isFenced says whether a snapshot was given up. Only what the storage received at or after its fence does not count: a thief of a
// writer's key cannot take back what is committed. A fence that nobody enrolled signed fences nothing.
func (m *Meta) isFenced(ctx context.Context, store string, id relight.SnapshotID) (bool, error) {
	var p pendingRecord
	_, err := m.getSigned(ctx, "pending", fenceName(id), &p)
	switch {
	case errors.Is(err, blob.ErrNotFound):
		return false, nil
	case errors.Is(err, ErrRefused), errors.Is(err, ErrCorrupt):
		m.log.WarnContext(ctx, "a fence does not count", "err", err)
		return false, nil
	case err != nil:
		return false, err
	case p.Fenced == "" || p.Snapshot != id || p.Store != store:
		return false, nil
	}
	fence, err := m.storage.Stat(ctx, fenceName(id))
	if errors.Is(err, blob.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look at the fence of %s: %w", id, err)
	}
	man, err := m.storage.Stat(ctx, snapName(store, id))
	if errors.Is(err, blob.ErrNotFound) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("look at the fence of %s: %w", id, err)
	}
	return !man.Modified.IsZero() && !man.Modified.Before(fence.Modified), nil
}

// giveUp fences a backup and removes its registration. If it had been committed before, it counts as it did; counts says
// so. After giveUp nothing can change that any more.
func (m *Meta) giveUp(ctx context.Context, p pendingRecord, why string) (counts bool, err error) {
	if counts, err = m.committed(ctx, p); err != nil {
		return false, err
	}
	if !counts {
		p.Fenced = why
		if err := m.putSigned(ctx, "pending", fenceName(p.Snapshot), p, sealedMeta); err != nil && !errors.Is(err, blob.ErrExists) {
			return false, fmt.Errorf("give up backup %s: %w", p.Snapshot, err)
		}
		if counts, err = m.committed(ctx, p); err != nil { // it may have been faster than the fence
			return false, err
		}
		if counts {
			if err := m.remove(ctx, fenceName(p.Snapshot)); err != nil {
				return false, fmt.Errorf("give up backup %s: %w", p.Snapshot, err)
			}
		}
	}
	m.removeQuietly(ctx, pendingName(p.Snapshot))
	return counts, nil
}

func (m *Meta) committed(ctx context.Context, p pendingRecord) (bool, error) {
	if p.Store == "" {
		return false, nil
	}
	_, err := m.storage.Stat(ctx, snapName(p.Store, p.Snapshot))
	if errors.Is(err, blob.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for snapshot %s: %w", p.Snapshot, err)
	}
	return true, nil
}

// register announces the backup before it looks at anything.
func (w *Writer) register(ctx context.Context) error {
	p := w.pending()
	if err := w.m.putSigned(ctx, "pending", pendingName(w.id), p, sealedMeta); err != nil {
		return fmt.Errorf("register backup: %w", err)
	}
	return nil
}

func (w *Writer) pending() pendingRecord {
	p := pendingRecord{Snapshot: w.id, Store: w.store, Host: w.m.keys.Host(), Started: w.started}
	if w.o.Parent != nil {
		p.Parent = w.o.Parent.ID
	}
	if w.o.Lease != nil {
		p.Lease = w.o.Lease.Epoch()
	}
	return p
}

// look takes in what is there, in an order that retention relies upon: the marks before the packs. A pack whose marks were
// cleared away before they could be seen is then seen to be gone. So is one whose record of damage was cleared away.
func (w *Writer) look(ctx context.Context) error {
	if err := w.endFormer(ctx); err != nil {
		return err
	}
	marks, err := w.m.readTrash(ctx)
	if err != nil {
		return err
	}
	if w.damaged, err = w.m.readDamaged(ctx); err != nil {
		return err
	}
	w.avoid, w.swept = marks.packs(), marks.newest()
	maps.Copy(w.avoid, w.damaged)
	if w.o.Parent != nil {
		gone, err := w.m.committed(ctx, pendingRecord{Store: w.o.Parent.Store, Snapshot: w.o.Parent.ID})
		if err != nil {
			return err
		}
		if !gone {
			return &relight.Error{Op: "back up", Subject: "store " + w.store, Code: relight.CodeFailed,
				Err: fmt.Errorf("the parent snapshot %s is not there any more", w.o.Parent.ID), Hint: "begin again with a newer parent, or with a full backup"}
		}
	}
	if w.x, err = w.m.freshIndex(ctx); err != nil {
		return err
	}
	w.whole = w.x.whole() && len(w.damaged) == 0
	return nil
}

// endFormer gives up backups of the store that ran under a former holder of the lease: it was taken over from them.
func (w *Writer) endFormer(ctx context.Context) error {
	if w.o.Lease == nil {
		return nil
	}
	alive, _, err := w.m.pendings(ctx)
	if err != nil {
		return err
	}
	for _, p := range alive {
		if p.Store == w.store && p.Snapshot != w.id && p.Lease > 0 && p.Lease < w.o.Lease.Epoch() {
			if _, err := w.m.giveUp(ctx, p.pendingRecord, "backup "+string(w.id)+" took its lease over"); err != nil {
				return err
			}
		}
	}
	return nil
}

// mayCommit asks, last before the manifest, whether the backup still counts: whether its lease holds, and whether retention has
// taken it into account.
func (w *Writer) mayCommit(ctx context.Context) error {
	if w.o.Lease != nil && !w.o.Lease.Valid() {
		return w.givenUp("its lease was lost")
	}
	fenced, err := w.m.isFenced(ctx, w.store, w.id)
	if err != nil {
		return err
	}
	if fenced {
		return w.givenUp("it was taken for dead")
	}
	if _, err := w.m.storage.Stat(ctx, pendingName(w.id)); errors.Is(err, blob.ErrNotFound) {
		return w.givenUp("its registration " + pendingName(w.id) + " is gone")
	} else if err != nil {
		return fmt.Errorf("look for the registration: %w", err)
	}
	marks, err := w.m.readTrash(ctx)
	if err != nil {
		return err
	}
	for _, e := range marks {
		if e.sealed != nil && e.epoch > w.swept && !slices.Contains(e.sealed.Pending, w.id) {
			return w.givenUp(fmt.Sprintf("retention (epoch %d) did not see it", e.epoch))
		}
	}
	return nil
}

func (w *Writer) givenUp(why string) error {
	return &relight.Error{Op: "commit", Subject: "backup " + string(w.id), Code: relight.CodeFailed,
		Err: fmt.Errorf("the backup was given up meanwhile: %s", why), Hint: "take it again; what it stored is found and not stored twice"}
}

// unregister ends the registration. Of a backup that was committed the manifest says so, where it cannot be deleted.
func (w *Writer) unregister(ctx context.Context, committed bool) {
	why := "it was aborted"
	var before []string
	if committed {
		why = ""
	} else if w.attested {
		before = append(before, witnessName(snapName(w.store, w.id)))
	}
	w.m.endPending(ctx, w.pending(), why, before...)
}

// endPending removes a registration, and something before it. Who may not delete says instead why it does not count any more, if he has a reason.
func (m *Meta) endPending(ctx context.Context, p pendingRecord, why string, before ...string) {
	var err error
	for _, name := range append(before, pendingName(p.Snapshot)) {
		if err == nil {
			err = m.storage.Delete(ctx, name)
		}
	}
	if err != nil && why != "" {
		p.Fenced = why
		err = m.putSigned(ctx, "pending", fenceName(p.Snapshot), p, sealedMeta)
	}
	if err != nil {
		m.log.WarnContext(ctx, "a registration stays", "object", pendingName(p.Snapshot), "err", err)
	}
}
