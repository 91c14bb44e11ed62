package repo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob"
	"golang.org/x/sync/errgroup"
)

const (
	manifestKind = "manifest"
	snapPrefix   = "snap/"
)

// Manifest reads and verifies one manifest.
func (m *Meta) Manifest(ctx context.Context, store string, id relight.SnapshotID) (Manifest, error) {
	if err := errors.Join(validElement("store", store), validElement("snapshot", string(id))); err != nil {
		return Manifest{}, err
	}
	s, err := m.getVerified(ctx, manifestKind, snapName(store, id))
	if errors.Is(err, blob.ErrNotFound) {
		return Manifest{}, &relight.Error{
			Op: "find", Subject: "snapshot " + string(id), Code: relight.CodeNotFound, Err: err,
			Hint: "relight backup list shows what there is of store " + store,
		}
	}
	if err != nil {
		return Manifest{}, err
	}
	man, err := decodeManifest(s)
	if err != nil {
		return Manifest{}, err
	}
	if fenced, err := m.isFenced(ctx, store, id); err != nil || fenced {
		return Manifest{}, cmp.Or(err, errFenced(s.Name))
	}
	states, err := m.states(ctx, store, string(id)+"/")
	if err != nil {
		return Manifest{}, err
	}
	man.State, man.Damaged = states.of(id), states.damaged(id)
	return man, nil
}

// errFenced refuses the manifest of a backup that was given up before it was there: what it refers to may be gone.
func errFenced(name string) error {
	return refused(name, "its backup was taken for dead before it was committed (%s)", fenceSuffix)
}

// counts refuses a manifest that came after its fence.
func (m *Meta) counts(ctx context.Context, man Manifest) error {
	fenced, err := m.isFenced(ctx, man.Store, man.ID)
	if err == nil && fenced {
		err = errFenced(snapName(man.Store, man.ID))
	}
	return err
}

// decodeManifest reads a verified envelope's payload, and refuses a manifest that does not belong to its name.
func decodeManifest(s Signed) (Manifest, error) {
	var man Manifest
	if err := s.decode(&man); err != nil {
		return Manifest{}, err
	}
	switch {
	case man.Format > Format || man.Format < 1:
		return Manifest{}, fmt.Errorf("manifest %s has format %d and this program reads up to %d", s.Name, man.Format, Format)
	case snapName(man.Store, man.ID) != s.Name:
		return Manifest{}, refused(s.Name, "it describes snapshot %s of store %s", man.ID, man.Store)
	case man.Host != s.Signer:
		return Manifest{}, refused(s.Name, "it says to come from host %q and is signed by %q", man.Host, s.Signer)
	case man.Entries < 0 || man.Files < 0 || man.Size < 0:
		return Manifest{}, corrupt(s.Name, "negative counts")
	}
	man.State = relight.Complete // whatever the writer claimed: a state is earned by later evidence
	return man, nil
}

// Snapshots lists the snapshots of a store, newest last. One whose manifest is refused or damaged is left out
// with a warning in the log; Check reports it as a finding.
func (m *Meta) Snapshots(ctx context.Context, store string) ([]Manifest, error) {
	if err := validElement("store", store); err != nil {
		return nil, err
	}
	signed, problems, err := m.listSigned(ctx, manifestKind, snapPrefix+store+"/")
	if err != nil {
		return nil, fmt.Errorf("list snapshots of store %s: %w", store, err)
	}
	states, err := m.states(ctx, store, "")
	if err != nil {
		return nil, fmt.Errorf("list snapshots of store %s: %w", store, err)
	}
	fenced, err := m.fences(ctx)
	if err != nil {
		return nil, fmt.Errorf("list snapshots of store %s: %w", store, err)
	}
	var all []Manifest
	for _, s := range signed {
		man, err := decodeManifest(s)
		if err == nil && fenced[man.ID] {
			err = m.counts(ctx, man)
		}
		if err != nil {
			problems = append(problems, err)
			continue
		}
		man.State, man.Damaged = states.of(man.ID), states.damaged(man.ID)
		all = append(all, man)
	}
	for _, p := range problems {
		m.log.WarnContext(ctx, "a snapshot is left out", "repository", m.name, "store", store, "err", p)
	}
	slices.SortFunc(all, func(a, b Manifest) int {
		return cmp.Or(a.Started.Compare(b.Started), cmp.Compare(a.ID, b.ID))
	})
	return all, nil
}

// Stores lists the stores that have a snapshot or WAL.
func (m *Meta) Stores(ctx context.Context) ([]string, error) {
	found := map[string]bool{}
	for _, prefix := range []string{snapPrefix, "wal/"} {
		err := m.storage.List(ctx, prefix, func(i blob.Info) error {
			if store, _, ok := strings.Cut(strings.TrimPrefix(i.Name, prefix), "/"); ok {
				found[store] = true
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("list stores of %s: %w", m.name, err)
		}
	}
	var stores []string
	for s := range found {
		stores = append(stores, s)
	}
	slices.Sort(stores)
	return stores, nil
}

// evidence is the newest records about each snapshot.
type evidence map[relight.SnapshotID]struct{ intact, damaged, proven time.Time }

// of is the strongest state that no later reading has refuted.
func (v evidence) of(id relight.SnapshotID) relight.SnapshotState {
	e := v[id]
	switch {
	case e.proven.After(e.damaged):
		return relight.Proven
	case e.intact.After(e.damaged):
		return relight.Intact
	}
	return relight.Complete
}

// damaged says that the last reading found damage.
func (v evidence) damaged(id relight.SnapshotID) bool {
	return !v[id].damaged.IsZero() && v.of(id) == relight.Complete
}

// states reads the records of verification. One that cannot be verified proves nothing.
func (m *Meta) states(ctx context.Context, store, prefix string) (evidence, error) {
	found := evidence{}
	checked, problems, err := m.listSigned(ctx, checkedKind, checkedPrefix+store+"/"+prefix)
	if err != nil {
		return nil, err
	}
	for _, s := range checked { // in name order, so oldest first for each snapshot
		var c Checked
		if err := s.decode(&c); err != nil || s.Name != checkedName(c.Store, c.Snapshot, c.At) {
			continue
		}
		e := found[c.Snapshot]
		if c.OK {
			e.intact = c.At
		} else {
			e.damaged = c.At
		}
		found[c.Snapshot] = e
	}
	proofs, more, err := m.listSigned(ctx, "proof", "proof/"+store+"/"+prefix)
	if err != nil {
		return nil, err
	}
	for _, s := range proofs {
		var p relight.Proof
		if err := s.decode(&p); err != nil || s.Name != proofName(p) || !p.OK {
			continue
		}
		e := found[p.Snapshot]
		e.proven = p.At
		found[p.Snapshot] = e
	}
	for _, p := range append(problems, more...) {
		m.log.WarnContext(ctx, "a record of verification does not count", "repository", m.name, "err", p)
	}
	return found, nil
}

// listSigned reads all verified records under a prefix, several at a time, in name order. Records that are
// refused or damaged are given as problems; anything else that goes wrong is an error.
func (m *Meta) listSigned(ctx context.Context, kind, prefix string) ([]Signed, []error, error) {
	var names []blob.Info
	if err := m.storage.List(ctx, prefix, func(i blob.Info) error { names = append(names, i); return nil }); err != nil {
		return nil, nil, fmt.Errorf("list %s: %w", prefix, err)
	}
	cache := m.openSignedCache(kind, prefix)
	all := make([]Signed, len(names))
	var mu sync.Mutex
	var problems []error
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(m.o.Workers)
	for i, n := range names {
		g.Go(func() error {
			s, err := cache.get(gctx, n)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				all[i] = s
			case errors.Is(err, ErrRefused) || errors.Is(err, ErrCorrupt):
				problems = append(problems, err)
			case errors.Is(err, blob.ErrNotFound): // deleted since it was listed
			default:
				return err
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, nil, err
	}
	cache.save(ctx)
	return slices.DeleteFunc(all, func(s Signed) bool { return s.Name == "" }), problems, nil
}
