package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob"
)

// mark marks what nobody needs and no former run has marked, and takes the manifests of expired snapshots away. The order is
// what backups rely upon: marks, then manifests, then the list of backups under way, which seals the epoch.
func (p *pruner) mark(ctx context.Context) error {
	known := p.marked(p.marks)
	superseded, err := p.rewriteIndexes(ctx, known)
	if err != nil {
		return err
	}
	fresh := func(yield func(string) bool) {
		for name := range p.garbage.all() {
			if !known.has(name) && !p.young[name] && !yield(name) {
				return
			}
		}
		for _, name := range superseded {
			if !yield(name) {
				return
			}
		}
	}
	epoch := p.lease.Epoch()
	parts, err := p.m.putMarks(ctx, epoch, fresh)
	if err != nil {
		return err
	}
	thin := p.thin()
	if parts == 0 && len(thin) == 0 && len(p.expiring) == 0 {
		return nil
	}
	if err := p.m.putThin(ctx, epoch, thin); err != nil {
		return err
	}
	for _, man := range p.expiring {
		if err := p.toTrash(ctx, epoch, man); err != nil {
			return err
		}
	}
	waits, err := p.m.seal(ctx, epoch, parts)
	if parts > 0 {
		p.out.Blocked = waits
	}
	return err
}

// marked is what epochs marked.
func (p *pruner) marked(epochs trashEpochs) *objectSet {
	set := p.garbage.another()
	for _, e := range epochs {
		for name := range e.marks.all() {
			set.add(name, 0)
		}
	}
	return set
}

// thin lists packs under half used that are not so marked already: what a backup needs of them it stores anew, and in time they are empty.
func (p *pruner) thin() []string {
	avoid := p.marks.packs()
	var out []string
	for i, u := range p.packs {
		if p.x.there[i] && u.live > 0 && u.live*2 < u.all && !avoid[u.id] {
			out = append(out, u.name())
		}
	}
	return out
}

// toTrash moves a manifest away: from now on nobody begins to restore from it. Its copy stays in the trash for the grace; put back
// under its name, it brings the snapshot back.
func (p *pruner) toTrash(ctx context.Context, epoch int64, man Manifest) error {
	name := snapName(man.Store, man.ID)
	if err := p.lease.Check(); err != nil {
		return err
	}
	b, err := getAll(ctx, p.m.storage, name, maxSigned+maxSigned/8)
	if errors.Is(err, blob.ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("expire snapshot %s: %w", man.ID, err)
	}
	copied := trashDir(epoch) + name
	if err := p.m.storage.Put(ctx, copied, bytes.NewReader(b), blob.PutOptions{}); err != nil && !errors.Is(err, blob.ErrExists) {
		return fmt.Errorf("expire snapshot %s: %w", man.ID, err)
	}
	if err := p.m.storage.Delete(ctx, name); err != nil {
		return fmt.Errorf("expire snapshot %s: %w", man.ID, err)
	}
	return nil
}

// Indexes are rewritten when many are small, so that their number does not grow with that of the snapshots.
const (
	smallIndex   = flushPacks / 4
	smallIndexes = 32
)

// rewriteIndexes stores indexes without the packs that are to go, and gives the names of those that they supersede. Both are there
// until the grace is over: whoever lists sees one or the other.
func (p *pruner) rewriteIndexes(ctx context.Context, known *objectSet) ([]string, error) {
	tables, err := p.packTables(ctx)
	if err != nil {
		return nil, err
	}
	small := 0
	for name, packs := range tables {
		if len(packs) < smallIndex && !known.has(name) {
			small++
		}
	}
	stays := func(i packInfo) bool {
		return p.listed(i) && (!p.garbage.has(i.name()) || p.young[i.name()])
	}
	var superseded []string
	covered := map[packID]bool{} // by indexes that stay
	for name, packs := range tables {
		old := known.has(name) || slices.ContainsFunc(packs, func(i packInfo) bool { return !stays(i) }) || small > smallIndexes && len(packs) < smallIndex
		if old {
			superseded = append(superseded, name)
			continue
		}
		for _, i := range packs {
			covered[i.id] = true
		}
	}
	slices.Sort(superseded)
	if err := p.copyRecords(ctx, superseded, func(i packInfo) bool { return stays(i) && !covered[i.id] }, covered); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(superseded, known.has), nil
}

// copyRecords writes new indexes with what old ones say of the packs that are wanted, each once.
func (p *pruner) copyRecords(ctx context.Context, from []string, want func(packInfo) bool, covered map[packID]bool) error {
	var f flushState
	put := func(packs []packInfo, recs []record) error {
		if len(packs) == 0 {
			return nil
		}
		sortRecords(recs)
		_, _, err := p.m.putIndex(ctx, packs, recs)
		return err
	}
	for _, name := range from {
		byPack := map[uint32][]record{}
		var table []packInfo
		err := p.readIndex(ctx, name, func(packs []packInfo) error { table = packs; return nil }, func(r record) error {
			if want(table[r.pack]) {
				byPack[r.pack] = append(byPack[r.pack], r)
			}
			return nil
		})
		if err != nil {
			return err
		}
		for _, row := range slices.Sorted(maps.Keys(byPack)) {
			covered[table[row].id] = true
			if err := put(f.take(table[row], byPack[row], flushPacks, flushRecords)); err != nil {
				return err
			}
		}
	}
	return put(f.take(packInfo{}, nil, 0, 0))
}

// Lines says for people what goes and why, and what stays because of what.
func (o Pruned) Lines() []string {
	var out []string
	say := func(format string, a ...any) { out = append(out, fmt.Sprintf(format, a...)) }
	for _, s := range o.Stores {
		for _, id := range s.Remove {
			say("snapshot %s goes: no policy wants it", id)
		}
		why := map[string]int{}
		for _, k := range s.Keep {
			for _, w := range k.Why {
				why[w]++
			}
		}
		say("store %s: %d snapshots go, %d points stay", s.Store, len(s.Remove), len(s.Keep))
		for _, w := range slices.Sorted(maps.Keys(why)) {
			say("  %d because of: %s", why[w], w)
		}
		if s.AllWAL != "" {
			say("  all WAL stays: %s", s.AllWAL)
		} else {
			say("  %d WAL objects go (%d bytes): no point that stays needs them", s.WALGoes.Objects, s.WALGoes.Bytes)
		}
	}
	say("%d objects (%d bytes) were marked a grace ago, are still unneeded, and are deleted now", o.Deleted.Objects, o.Deleted.Bytes)
	say("%d objects (%d bytes) are unneeded as of now; they are marked, and deleted after the grace", o.Marked.Objects, o.Marked.Bytes)
	if o.Waiting.Objects > 0 {
		say("%d objects (%d bytes) are marked and wait, until %s at the earliest", o.Waiting.Objects, o.Waiting.Bytes, o.RipeFrom.Format("2006-01-02 15:04:05Z07:00"))
	}
	if o.Thin > 0 {
		say("%d packs are under half used: the next backup stores anew what it needs of them", o.Thin)
	}
	for _, id := range o.Blocked {
		say("deletion waits for backup or copy %s, which is under way", id)
	}
	for _, id := range o.GivenUp {
		say("backup or copy %s is taken for dead: it can no longer be committed", id)
	}
	for _, d := range o.Damaged {
		say("damaged, and kept: %s", d)
	}
	for _, r := range o.Refused {
		say("refused: %s", r)
	}
	return out
}

// Expired says whether anything expires.
func (o Pruned) Expired() []relight.SnapshotID {
	var out []relight.SnapshotID
	for _, s := range o.Stores {
		out = append(out, s.Remove...)
	}
	return out
}
