package repo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob"
)

// What a run of retention takes for granted unless told otherwise.
const (
	DefaultGrace     = 24 * time.Hour
	DefaultAbandoned = 7 * 24 * time.Hour
	pruneLease       = "prune"
	pruneTTL         = 2 * time.Minute
)

// PruneOptions of Prune and PlanPrune.
type PruneOptions struct {
	Policies    map[string][]Policy // by store; nothing of another store is removed
	Grace       time.Duration       // what was marked is deleted after that; 0: DefaultGrace
	Abandoned   time.Duration       // a backup registered that long ago is taken for dead; 0: DefaultAbandoned
	DropRefused bool                // remove snapshots whose manifests are refused or damaged, instead of stopping at them
	Waiting     Waiting             // for the lease of another run
	Progress    func(relight.Progress)
}

func (o PruneOptions) filled() PruneOptions {
	o.Grace, o.Abandoned = cmp.Or(o.Grace, DefaultGrace), cmp.Or(o.Abandoned, DefaultAbandoned)
	if o.Progress == nil {
		o.Progress = func(relight.Progress) {}
	}
	return o
}

// Pruned is what a run of retention decided and did, or would do.
type Pruned struct {
	Stores   []PrunedStore        `json:"stores"`
	Marked   Amount               `json:"marked"`            // found to be unneeded now; deleted by a run after the grace
	Deleted  Amount               `json:"deleted"`           // marked a full grace ago, and still unneeded
	Waiting  Amount               `json:"waiting"`           // marked by former runs, whose grace is not over
	Thin     int                  `json:"thin"`              // packs under half used: the next backup stores anew what it needs of them
	Blocked  []relight.SnapshotID `json:"blocked,omitempty"` // backups under way for whose end deletion waits
	GivenUp  []relight.SnapshotID `json:"given_up,omitempty"`
	Damaged  []string             `json:"damaged,omitempty"` // kept snapshots that lack something; nothing of theirs is removed
	Refused  []string             `json:"refused,omitempty"` // manifests that do not count
	RipeFrom time.Time            `json:"ripe_from,omitzero"`
}

// PrunedStore is what is decided about one store.
type PrunedStore struct {
	Store     string `json:"store"`
	Retention        // what stays, what goes, which WAL is wanted
	WALGoes   Amount `json:"wal_goes"`
}

// Amount of objects.
type Amount struct {
	Objects int   `json:"objects"`
	Bytes   int64 `json:"bytes"`
}

func (a *Amount) add(bytes int64) { a.Objects, a.Bytes = a.Objects+1, a.Bytes+bytes }

// PlanPrune says what Prune would do now, and changes nothing.
func (m *Meta) PlanPrune(ctx context.Context, o PruneOptions) (Pruned, error) {
	p := &pruner{m: m, o: o.filled(), now: m.now()}
	if err := p.look(ctx); err != nil {
		return Pruned{}, fmt.Errorf("plan retention of %s: %w", m.name, err)
	}
	return p.out, nil
}

// Prune removes what no policy wants, in two steps. What is found to be unneeded is marked, and the manifests of expired snapshots go
// to the trash; no new backup refers to what is marked. A later run, a full grace afterwards and when every backup has
// ended that may not have seen the marks, looks again, and deletes what is still unneeded. So a backup, a restore and a copy
// that run at the same time lose nothing. It needs keys that can read: a copy of a chunk counts only once it was read.
func (m *Meta) Prune(ctx context.Context, o PruneOptions) (Pruned, error) {
	if !m.keys.CanRead() || !m.keys.CanWrite() || !m.keys.CanEnrol() && !m.desc.SingleHost {
		return Pruned{}, usage("prune", m.name, "run it on the recovery side with --identity FILE; a protected host needs no right to delete",
			"the keys at hand may not remove anything from this repository")
	}
	var out Pruned
	err := m.Hold(ctx, pruneLease, pruneTTL, o.Waiting, func(ctx context.Context, l *Lease) error {
		p := &pruner{m: m, o: o.filled(), now: m.now(), lease: l}
		err := p.run(ctx)
		out = p.out
		return err
	})
	if err != nil {
		return out, fmt.Errorf("prune %s: %w", m.name, err)
	}
	return out, nil
}

// pruner is one run. look fills it; the rest acts on what it saw.
type pruner struct {
	m     *Meta
	o     PruneOptions
	now   time.Time
	lease *Lease // nil for a plan
	out   Pruned

	marks    trashEpochs
	alive    []pendingOne
	horizon  time.Time // by the storage's clock: what came later may belong to a backup under way
	today    time.Time // the storage's clock; zero where it does not tell
	x        *chunkIndex
	packs    []packUse
	garbage  *objectSet           // unneeded objects, but for indexes
	young    map[string]bool      // of these, too young to be marked
	blind    bool                 // the tree or a map of a kept snapshot cannot be read
	received map[string]time.Time // manifests, by the storage's clock
	expiring []Manifest
	logs     map[string]*nameTable // of each store
	gone     map[WALKey][]gonePiece
}

// gonePiece is a piece of WAL that is not wanted, and where its objects are in its store's listing.
type gonePiece struct {
	stretch
	walObjects
}

func (p *pruner) run(ctx context.Context) error {
	if err := p.giveUpDead(ctx); err != nil {
		return err
	}
	if err := p.look(ctx); err != nil {
		return err
	}
	if err := p.sweep(ctx); err != nil {
		return err
	}
	return p.mark(ctx)
}

// giveUpDead fences backups that were registered too long ago, and clears away what committed ones could not delete.
func (p *pruner) giveUpDead(ctx context.Context) error {
	alive, fenced, err := p.m.pendings(ctx)
	if err != nil {
		return err
	}
	for id, f := range fenced {
		if err := p.m.storage.Delete(ctx, pendingName(id)); err == nil && f.Copy {
			p.m.removeQuietly(ctx, fenceName(id)) // a copy ends with its registration; a backup's manifest may still come
		}
	}
	for _, b := range alive {
		done, err := p.m.committed(ctx, b.pendingRecord)
		if err != nil {
			return err
		}
		if done {
			p.m.removeQuietly(ctx, pendingName(b.Snapshot))
			continue
		}
		if p.now.Sub(b.Started) < p.o.Abandoned {
			continue
		}
		if b.Copy { // it looks for its registration before it relies upon anything
			p.m.removeQuietly(ctx, pendingName(b.Snapshot))
			p.out.GivenUp = append(p.out.GivenUp, b.Snapshot)
			continue
		}
		counts, err := p.m.giveUp(ctx, b.pendingRecord, "it was registered at "+b.Started.UTC().Format(time.RFC3339)+" and never ended")
		if err != nil {
			return err
		}
		if !counts {
			p.out.GivenUp = append(p.out.GivenUp, b.Snapshot)
		}
	}
	return nil
}

// look reads what there is and decides. The order matters: marks, then what is announced, then backups and copies under way, then snapshots, then packs. One that
// is not seen to be under way any more is seen by its snapshots, and what a snapshot needs was there before it.
func (p *pruner) look(ctx context.Context) error {
	var err error
	p.garbage, p.young, p.logs, p.gone = newObjectSet(), map[string]bool{}, map[string]*nameTable{}, map[WALKey][]gonePiece{}
	if p.marks, err = p.m.readTrash(ctx); err != nil {
		return err
	}
	if p.alive, _, err = p.m.pendings(ctx); err != nil {
		return err
	}
	if err := p.clocks(ctx); err != nil {
		return err
	}
	announced, err := p.announce(ctx)
	if err == nil && announced {
		p.alive, _, err = p.m.pendings(ctx)
	}
	if err != nil {
		return err
	}
	keep, err := p.snapshots(ctx)
	if err != nil {
		return err
	}
	if err := p.content(ctx, keep); err != nil {
		return err
	}
	p.count()
	return nil
}

// clocks asks the storage for its time, by the lease that was just taken, so that no clock is compared with another.
func (p *pruner) clocks(ctx context.Context) error {
	if p.lease == nil {
		return nil
	}
	i, err := p.m.storage.Stat(ctx, leaseName(pruneLease, p.lease.Epoch()))
	if err != nil {
		return fmt.Errorf("ask the storage for its time: %w", err)
	}
	p.today, p.horizon = i.Modified, i.Modified
	for _, b := range p.alive {
		if !b.received.IsZero() && b.received.Before(p.horizon) {
			p.horizon = b.received
		}
	}
	return nil
}

// snapshots decides about every store's snapshots and WAL, and gives the manifests that stay.
func (p *pruner) snapshots(ctx context.Context) ([]Manifest, error) {
	p.received = map[string]time.Time{}
	err := p.m.storage.List(ctx, snapPrefix, func(i blob.Info) error { p.received[i.Name] = i.Modified; return nil })
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", notAbsent(err))
	}
	signed, problems, err := p.m.listSigned(ctx, manifestKind, snapPrefix)
	if err != nil {
		return nil, err
	}
	fenced, err := p.m.fences(ctx)
	if err != nil {
		return nil, err
	}
	byStore := map[string][]Manifest{}
	for _, s := range signed {
		man, err := decodeManifest(s)
		if err == nil && fenced[man.ID] {
			if err = p.m.counts(ctx, man); errors.Is(err, ErrRefused) {
				p.goes(s.Name, 0)
				continue
			}
		}
		if err != nil {
			problems = append(problems, err)
			continue
		}
		byStore[man.Store] = append(byStore[man.Store], man)
	}
	lost, err := p.m.deletedManifests(ctx, p.received)
	if err != nil {
		return nil, err
	}
	if err := p.refused(append(problems, lost...)); err != nil {
		return nil, err
	}
	stores, err := p.m.Stores(ctx)
	if err != nil {
		return nil, err
	}
	sets, err := p.m.Sets(ctx)
	if err != nil {
		return nil, err
	}
	var keep []Manifest
	for _, store := range stores {
		stay, err := p.store(ctx, store, byStore[store], sets)
		if err != nil {
			return nil, err
		}
		keep = append(keep, stay...)
	}
	return keep, p.goneSets(ctx, sets)
}

// refused stops at manifests that do not count, or were deleted: what they refer to would look unneeded.
func (p *pruner) refused(problems []error) error {
	for _, err := range problems {
		p.out.Refused = append(p.out.Refused, err.Error())
	}
	if len(problems) == 0 || p.o.DropRefused {
		for _, err := range problems {
			if name := objectOf(err); strings.HasPrefix(name, snapPrefix) {
				p.goes(name, 0)
			}
		}
		return nil
	}
	return &relight.Error{Op: "judge", Subject: "snapshots", Code: relight.CodeVerification, Err: errors.Join(problems...),
		Hint: "what these snapshots need would be deleted; look at them with relight repo check, then give --drop-refused"}
}

func (p *pruner) goes(name string, bytes int64) { p.garbage.add(name, bytes) }

// store decides about one store.
func (p *pruner) store(ctx context.Context, store string, mans []Manifest, sets []Set) ([]Manifest, error) {
	states, err := p.m.states(ctx, store, "")
	if err != nil {
		return nil, err
	}
	var held []HeldSnapshot
	for i, man := range mans {
		mans[i].State = states.of(man.ID)
		held = append(held, heldSnapshot(mans[i], states.damaged(man.ID), p.received[snapName(store, man.ID)]))
	}
	var parents []relight.SnapshotID
	for _, b := range p.alive {
		parents = append(parents, b.Parent)
	}
	h, err := p.m.holdings(ctx, store, held, parents)
	if err != nil {
		return nil, err
	}
	h.Sets = heldSets(sets, store)
	p.garbage.know(h.objects)
	p.logs[store] = h.objects
	r := Retain(p.o.Policies[store], h.Holdings, p.now)
	if len(p.o.Policies[store]) > 0 || len(r.Remove) > 0 {
		p.out.Stores = append(p.out.Stores, PrunedStore{Store: store, Retention: r, WALGoes: p.wal(store, h, r)})
	}
	for _, place := range h.orphans {
		p.goes(h.objects.at(place))
	}
	stay := slices.DeleteFunc(mans, func(man Manifest) bool {
		if !slices.Contains(r.Remove, man.ID) {
			return false
		}
		p.expiring = append(p.expiring, man)
		return true
	})
	return stay, p.evidence(ctx, store, stay)
}

// wal notes the WAL that is not wanted.
func (p *pruner) wal(store string, h *storeHoldings, r Retention) (goes Amount) {
	for i, w := range h.WAL {
		if r.Wants(w) {
			continue
		}
		k := WALKey{Store: store, System: w.System, Timeline: w.Timeline}
		p.gone[k] = append(p.gone[k], gonePiece{stretch{w.Start, w.End}, h.pieces[i]})
		var stored int64
		for _, place := range h.pieces[i].listed() {
			name, size := h.objects.at(place)
			p.goes(name, size)
			stored = size
		}
		goes.add(stored)
	}
	return goes
}

// evidence notes proofs and readings of snapshots that do not stay.
func (p *pruner) evidence(ctx context.Context, store string, stay []Manifest) error {
	stays := map[relight.SnapshotID]bool{}
	for _, man := range stay {
		stays[man.ID] = true
	}
	for _, prefix := range []string{checkedPrefix + store + "/", "proof/" + store + "/"} {
		err := p.m.storage.List(ctx, prefix, func(i blob.Info) error {
			id, _, _ := strings.Cut(strings.TrimPrefix(i.Name, prefix), "/")
			if !stays[relight.SnapshotID(id)] {
				p.goes(i.Name, i.Size)
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("list %s: %w", prefix, notAbsent(err))
		}
	}
	return nil
}

// content finds out which packs the snapshots that stay need.
func (p *pruner) content(ctx context.Context, keep []Manifest) error {
	p.x = newChunkIndex(p.m.storage, p.m.keys.openMeta, nil)
	if err := p.x.refresh(ctx); err != nil {
		return err
	}
	for name, err := range p.x.broken {
		return &relight.Error{Op: "read", Subject: name, Code: relight.CodeVerification, Err: err,
			Hint: "what it names would look unneeded; see relight repo check, and delete it by hand if the snapshots are whole without it"}
	}
	avoid := p.marks.packs()
	damaged, err := p.m.readDamaged(ctx)
	if err != nil {
		return err
	}
	maps.Copy(avoid, damaged) // of what was stored again, the new copy is the one that counts
	k, err := newMarker(p.m, p.x, avoid)
	if err != nil {
		return err
	}
	for i, man := range keep {
		p.o.Progress(relight.Progress{Phase: "look what snapshots need", Done: int64(i), Total: int64(len(keep)), Unit: "snapshots"})
		lost := k.lost
		err := k.snapshot(ctx, man)
		if err != nil && !isDamage(err) {
			return fmt.Errorf("snapshot %s: %w", man.ID, err)
		}
		p.blind = p.blind || err != nil
		if err != nil || k.lost > lost {
			p.m.log.LogAttrs(ctx, slog.LevelWarn, "a snapshot that is kept is damaged", slog.String("snapshot", string(man.ID)), slog.Any("err", cmp.Or(err, k.first)))
			p.out.Damaged = append(p.out.Damaged, fmt.Sprintf("%s: %v", man.ID, cmp.Or(err, k.first)))
		}
	}
	if p.packs, err = k.use(); err != nil {
		return err
	}
	if err := p.dead(ctx); err != nil {
		return err
	}
	return p.healed(ctx, damaged)
}

// healed notes records of damage whose packs are all gone.
func (p *pruner) healed(ctx context.Context, damaged map[packID]bool) error {
	if len(damaged) == 0 {
		return nil
	}
	there := map[packID]bool{}
	err := p.m.storage.List(ctx, "pack/", func(i blob.Info) error {
		if id, ok := packFromName(i.Name); ok {
			there[id] = true
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("list packs: %w", notAbsent(err))
	}
	return p.m.eachDamaged(ctx, func(name string, packs []packID) {
		if !slices.ContainsFunc(packs, func(id packID) bool { return there[id] }) {
			p.goes(name, 0)
		}
	})
}

// dead notes the packs that nothing needs, and those in no index. Where a tree or a map of a kept snapshot cannot be read, what it
// leads to is not known: then no pack goes.
func (p *pruner) dead(ctx context.Context) error {
	if p.blind {
		return nil
	}
	return p.m.storage.List(ctx, "pack/", func(i blob.Info) error {
		id, ok := packFromName(i.Name)
		if !ok {
			return nil
		}
		if row, indexed := p.x.rows[id]; indexed && p.packs[row].live > 0 {
			return nil
		}
		p.goes(i.Name, i.Size)
		if !p.horizon.IsZero() && !i.Modified.IsZero() && !i.Modified.Before(p.horizon) {
			p.young[i.Name] = true
		}
		return nil
	})
}
