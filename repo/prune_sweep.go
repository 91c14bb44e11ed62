package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob"
)

// ripe says whether what an epoch marked may be deleted: a full grace has passed, every backup has ended that may not have seen the marks, it was announced
// that they are about to go, and every copy has ended that may not have seen that.
func (p *pruner) ripe(e *trashEpoch) bool {
	return p.elapsed(e) && (e.due || p.lease == nil) && len(p.blocking(e)) == 0
}

// elapsed says that a full grace has passed, by our clock and by the storage's.
func (p *pruner) elapsed(e *trashEpoch) bool {
	if e.sealed == nil || p.now.Sub(e.sealed.At) < p.o.Grace {
		return false
	}
	return p.today.IsZero() || e.received.IsZero() || p.today.Sub(e.received) >= p.o.Grace
}

// blocking are the backups and copies that an epoch waits for.
func (p *pruner) blocking(e *trashEpoch) []relight.SnapshotID {
	return append(p.backups(e), p.copies(e)...)
}

// backups are those under way that may not have seen the marks of an epoch.
func (p *pruner) backups(e *trashEpoch) []relight.SnapshotID {
	var out []relight.SnapshotID
	for _, b := range p.alive {
		if slices.Contains(e.sealed.Pending, b.Snapshot) {
			out = append(out, b.Snapshot)
		}
	}
	return out
}

// count sums up what the plan shows.
func (p *pruner) count() {
	marked := p.garbage.another()
	for _, e := range p.marks {
		if e.sealed == nil {
			continue
		}
		p.out.Blocked = append(p.out.Blocked, p.blocking(e)...)
		ripe := p.ripe(e)
		if at := e.sealed.At.Add(p.o.Grace); !ripe && (p.out.RipeFrom.IsZero() || at.Before(p.out.RipeFrom)) {
			p.out.RipeFrom = at
		}
		for name := range e.marks.all() {
			size, still := p.garbage.get(name)
			switch {
			case !still || marked.has(name):
			case ripe:
				p.out.Deleted.add(size)
			default:
				p.out.Waiting.add(size)
			}
			marked.add(name, 0)
		}
	}
	for name, size := range p.garbage.all() {
		if !marked.has(name) && !p.young[name] {
			p.out.Marked.add(size)
		}
	}
	for i, u := range p.packs {
		if p.x.there[i] && u.live > 0 && u.live*2 < u.all {
			p.out.Thin++
		}
	}
	slices.Sort(p.out.Blocked)
	p.out.Blocked = slices.Compact(p.out.Blocked)
}

// sweep deletes what ripe epochs marked and nobody needs. Indexes go before packs, sidecars before bodies.
func (p *pruner) sweep(ctx context.Context) error {
	ripe := slices.DeleteFunc(slices.Clone(p.marks), func(e *trashEpoch) bool { return !p.ripe(e) })
	going := p.marked(ripe)
	for name := range going.all() {
		if !p.garbage.has(name) && !strings.HasPrefix(name, indexPrefix) {
			going.drop(name)
		}
	}
	if err := p.keepNamed(ctx, going); err != nil {
		return err
	}
	if err := p.recordWAL(ctx, going); err != nil {
		return err
	}
	for name := range inDeletionOrder(going) {
		if err := p.lease.Check(); err != nil {
			return err
		}
		if err := p.m.remove(ctx, name); err != nil {
			return fmt.Errorf("delete %s: %w", name, err)
		}
		p.garbage.drop(name)
		if id, ok := packFromName(name); ok {
			if row, known := p.x.rows[id]; known {
				p.x.there[row] = false
			}
		}
	}
	// Unsealed epochs are those of runs that were interrupted: we hold the lease, so none is under way.
	for _, e := range p.marks {
		if slices.Contains(ripe, e) || e.sealed == nil {
			if err := p.m.clear(ctx, e); err != nil {
				return err
			}
		}
	}
	p.marks = slices.DeleteFunc(p.marks, func(e *trashEpoch) bool { return slices.Contains(ripe, e) || e.sealed == nil })
	return nil
}

// inDeletionOrder: what refers goes before what is referred to, so that a crash in between leaves garbage and never a hole.
func inDeletionOrder(going *objectSet) iter.Seq[string] {
	rank := func(name string) int {
		switch {
		case strings.HasPrefix(name, snapPrefix):
			return 0
		case strings.HasPrefix(name, indexPrefix), strings.HasSuffix(name, metaSuffix):
			return 1
		}
		return 2
	}
	return func(yield func(string) bool) {
		for turn := range 3 {
			for name := range going.all() {
				if rank(name) == turn && !yield(name) {
					return
				}
			}
		}
	}
}

// keepNamed takes back what must not go yet: an index that alone names a pack that stays, and a pack that an index that stays
// names.
func (p *pruner) keepNamed(ctx context.Context, going *objectSet) error {
	tables, err := p.packTables(ctx)
	if err != nil {
		return err
	}
	named := map[packID]int{} // by indexes that stay
	for name, packs := range tables {
		if !going.has(name) {
			for _, i := range packs {
				named[i.id]++
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(tables)) {
		alone := func(i packInfo) bool { return named[i.id] == 0 && !going.has(i.name()) && p.listed(i) }
		if going.has(name) && slices.ContainsFunc(tables[name], alone) {
			going.drop(name)
			for _, i := range tables[name] {
				named[i.id]++
			}
		}
	}
	for name := range going.all() {
		if id, ok := packFromName(name); ok && named[id] > 0 {
			going.drop(name)
		}
	}
	return nil
}

// listed says that a pack is there.
func (p *pruner) listed(i packInfo) bool {
	row, known := p.x.rows[i.id]
	return known && p.x.there[row]
}

// packTables reads which packs each index names.
func (p *pruner) packTables(ctx context.Context) (map[string][]packInfo, error) {
	out := map[string][]packInfo{}
	for name := range p.x.st.objects {
		err := p.readIndex(ctx, name, func(packs []packInfo) error { out[name] = packs; return errEnough }, nil)
		if err != nil && !errors.Is(err, errEnough) {
			return nil, err
		}
	}
	return out, nil
}

var errEnough = errors.New("enough was read")

func (p *pruner) readIndex(ctx context.Context, name string, table func([]packInfo) error, fn func(record) error) error {
	sealed, err := getAll(ctx, p.m.storage, name, indexMax)
	if errors.Is(err, blob.ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	plain, err := p.m.keys.openMeta(bytes.NewReader(sealed))
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	z, err := zstd.NewReader(plain, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(8<<20), zstd.WithDecoderLowmem(true))
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	defer z.Close()
	if err := decodeIndex(z, table, fn); err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	return nil
}

// recordWAL puts on record which WAL goes, before it goes.
func (p *pruner) recordWAL(ctx context.Context, going *objectSet) error {
	for k, all := range p.gone {
		goes := func(place int32) bool {
			name, _ := p.logs[k.Store].at(place)
			return going.has(name)
		}
		var gone []stretch
		for _, piece := range all {
			if slices.ContainsFunc(piece.listed(), goes) {
				gone = append(gone, piece.stretch)
			}
		}
		if len(gone) == 0 {
			continue
		}
		if err := p.m.expire(ctx, k, gone); err != nil {
			return err
		}
	}
	return nil
}
