package repo

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob"
	"golang.org/x/sync/errgroup"
)

// Copied is what a copy did.
type Copied struct {
	Objects   int      `json:"objects"` // that were brought over
	Bytes     int64    `json:"bytes"`
	Snapshots int      `json:"snapshots"`          // of these, manifests
	Damaged   []string `json:"damaged,omitempty"`  // objects of the source that are not what they should be, and were left out
	Withheld  []string `json:"withheld,omitempty"` // snapshots that were not brought over, because something they need is missing, or about to be
}

// copyRounds is how often a copy looks again, because the source changed under its hands.
const copyRounds = 5

// Mirror makes to a mirror of this repository: the same repository, byte for byte, under another address. It opens with the same keys
// and is restored from by itself. Only sealed objects are moved, so the metadata identity is enough. Everything is
// held against its digest or its signature on the way, comes after what it refers to, and a snapshot last, when all that it
// needs is seen to be in the mirror. The copy is registered there, so that the mirror's own retention waits for it; what that is deleting already is left for the
// next copy, and with it the snapshots. So what a mirror lists is whole at any moment, and a copy that was interrupted is continued by the next
// one. Nothing in the mirror is ever changed or removed: it has its own retention.
func (m *Meta) Mirror(ctx context.Context, to blob.Storage, progress func(relight.Progress)) (Copied, error) {
	if progress == nil {
		progress = func(relight.Progress) {}
	}
	c := &copier{m: m, to: to, progress: progress, off: newObjectSet()}
	if err := c.run(ctx); err != nil {
		return c.out, fmt.Errorf("copy %s to %s: %w", m.name, to, err)
	}
	slices.Sort(c.out.Damaged)
	return c.out, nil
}

type copier struct {
	m        *Meta
	to       blob.Storage
	mirror   *Meta // opened at to
	progress func(relight.Progress)

	id  relight.SnapshotID // under which the copy is registered
	off *objectSet         // what the mirror's retention is deleting

	mu       sync.Mutex
	out      Copied
	bad      map[string]bool // reported
	vanished bool            // something that was listed was gone when its turn came
}

func (c *copier) run(ctx context.Context) error {
	c.bad = map[string]bool{}
	if err := c.sameRepository(ctx); err != nil {
		return err
	}
	c.mirror = newMeta(c.to, c.m.keys, c.m.desc, c.m.o)
	c.mirror.trust = c.m.trusted()
	if err := c.all(ctx, "keys", "keys/", nil, nil); err != nil {
		return err
	}
	if err := c.one(ctx, blob.Info{Name: descriptorName}, nil); err != nil {
		return err
	}
	end, err := c.register(ctx)
	if err != nil {
		return err
	}
	defer end()
	if err := c.leave(ctx); err != nil {
		return err
	}
	if err := c.snapshots(ctx); err != nil {
		return err
	}
	for _, prefix := range []string{setPrefix, checkedPrefix, "proof/", estatePrefix, "journal/"} {
		if err := c.all(ctx, strings.TrimSuffix(prefix, "/"), prefix, nil, nil); err != nil {
			return err
		}
	}
	return nil
}

// sameRepository refuses a target that is anything else than this repository's mirror, or empty.
func (c *copier) sameRepository(ctx context.Context) error {
	if c.to.String() == c.m.storage.String() && c.to.String() != "mem:" {
		return usage("copy", c.to.String(), "name another place", "this is the repository itself")
	}
	b, err := getAll(ctx, c.to, descriptorName, 64<<10)
	if errors.Is(err, blob.ErrNotFound) {
		return c.empty(ctx)
	}
	if err != nil {
		return fmt.Errorf("read its descriptor: %w", err)
	}
	d, err := parseDescriptor(b)
	if err == nil && d.ID == c.m.desc.ID && d.Authority.Equal(c.m.desc.Authority) {
		return nil
	}
	return usage("copy", c.to.String(), "name an empty place, or a mirror that was made from this repository", "another repository is there (%.8s, and this is %.8s)", d.ID, c.m.desc.ID)
}

// empty allows what an interrupted first copy has left: keys come first.
func (c *copier) empty(ctx context.Context) error {
	var foreign string
	err := c.to.List(ctx, "", func(i blob.Info) error {
		if !strings.HasPrefix(strings.TrimPrefix(i.Name, witnessPrefix), "keys/") {
			foreign = i.Name
			return errEnough
		}
		return nil
	})
	if foreign != "" {
		return usage("copy", c.to.String(), "name an empty place", "it is not empty, and no repository: it holds %s", foreign)
	}
	return err
}

// snapshots brings over what snapshots need and then their manifests, those that were there when the round began. As long as
// the source changes meanwhile, another round is made.
func (c *copier) snapshots(ctx context.Context) error {
	for round := range copyRounds {
		c.vanished = false
		mans, err := c.missing(ctx)
		if err != nil {
			return err
		}
		skip, err := c.superfluous(ctx, round)
		if err != nil {
			return err
		}
		if err := c.wal(ctx); err != nil {
			return err
		}
		if err := c.all(ctx, "packs", "pack/", skip, c.matchesName("pack/data/", "pack/meta/")); err != nil {
			return err
		}
		if err := c.all(ctx, "indexes", indexPrefix, skip, c.matchesName(indexPrefix)); err != nil {
			return err
		}
		if err := c.manifests(ctx, mans); err != nil {
			return err
		}
		if len(c.out.Withheld) == 0 && !c.vanished || c.off.count() > 0 {
			return nil
		}
	}
	return nil
}

// missing lists the snapshots that the mirror lacks. One that is refused is not brought over.
func (c *copier) missing(ctx context.Context) ([]Manifest, error) {
	there, err := listNames(ctx, c.to, snapPrefix)
	if err != nil {
		return nil, err
	}
	signed, problems, err := c.m.listSigned(ctx, manifestKind, snapPrefix)
	if err != nil {
		return nil, err
	}
	var out []Manifest
	for _, s := range signed {
		man, err := decodeManifest(s)
		if err == nil {
			err = c.m.counts(ctx, man)
		}
		if err != nil {
			problems = append(problems, err)
		} else if !there.has(s.Name) {
			out = append(out, man)
		}
	}
	for _, p := range problems {
		if !errors.Is(p, ErrRefused) && !errors.Is(p, ErrCorrupt) {
			return nil, p
		}
		c.damaged(objectOf(p), p.Error())
	}
	return out, nil
}

// superfluous is which packs and indexes retention has marked: nobody needs them. Should a snapshot need one all the same, the next round brings it.
func (c *copier) superfluous(ctx context.Context, round int) (map[string]bool, error) {
	if round > 0 {
		return nil, nil
	}
	marks, err := c.m.readTrash(ctx)
	if err != nil {
		return nil, err
	}
	skip := map[string]bool{}
	for _, e := range marks {
		if e.sealed == nil {
			continue
		}
		for name := range e.marks.all() {
			if strings.HasPrefix(name, "pack/") || strings.HasPrefix(name, indexPrefix) {
				skip[name] = true
			}
		}
	}
	return skip, nil
}

// manifests brings over each snapshot of which all is seen to be in the mirror.
func (c *copier) manifests(ctx context.Context, mans []Manifest) error {
	c.out.Withheld = nil
	if c.off.count() > 0 {
		c.withhold(mans)
		return nil
	}
	if len(mans) == 0 {
		return nil
	}
	x := newChunkIndex(c.to, c.m.keys.openMeta, nil)
	if err := x.refresh(ctx); err != nil {
		return err
	}
	defer x.reset()
	k, err := newMarker(c.mirror, x, nil)
	if err != nil {
		return err
	}
	for i, man := range mans {
		c.progress(relight.Progress{Phase: "snapshots", Done: int64(i), Total: int64(len(mans)), Unit: "snapshots"})
		lost := k.lost
		if err := k.snapshot(ctx, man); err != nil && !isDamage(err) {
			return err
		} else if err != nil || k.lost > lost {
			c.out.Withheld = append(c.out.Withheld, fmt.Sprintf("%s: %v", man.ID, firstOf(err, k.first)))
			if k, err = newMarker(c.mirror, x, nil); err != nil { // it walks what is shared once: what this one lacks, others may too
				return err
			}
			continue
		}
		before := c.out.Objects
		if err := c.registered(ctx); err != nil {
			return err
		}
		if err := c.one(ctx, blob.Info{Name: snapName(man.Store, man.ID)}, nil); err != nil {
			return err
		}
		c.out.Snapshots += c.out.Objects - before
	}
	return c.registered(ctx)
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// wal brings over histories, then segments and live ranges, bodies before sidecars. A sidecar's signature is verified, and its body
// held against it.
func (c *copier) wal(ctx context.Context) error {
	l, err := c.m.listWAL(ctx, "wal/")
	if err != nil {
		return err
	}
	there, err := listNames(ctx, c.to, "wal/")
	if err != nil {
		return err
	}
	var todo []walName
	for _, w := range l.sidecars {
		if (!there.has(w.sidecar()) || !hasBody(there, w)) && !c.off.has(w.sidecar()) {
			todo = append(todo, w)
		}
	}
	slices.SortStableFunc(todo, func(a, b walName) int { // histories first
		return boolRank(a.class == walHistory) - boolRank(b.class == walHistory)
	})
	for name := range l.objects.all() {
		if strings.Contains(name, "/system.") || strings.Contains(name, "/gap/") {
			if !there.has(name) {
				if err := c.one(ctx, blob.Info{Name: name}, nil); err != nil {
					return err
				}
			}
		}
	}
	if err := c.pieces(ctx, todo); err != nil {
		return err
	}
	for name := range l.objects.all() { // only now: it says what the repository holds
		if strings.HasSuffix(name, "/coverage.beat") {
			if err := c.replace(ctx, name); err != nil {
				return err
			}
			if !there.has(name) {
				c.mirror.witness(ctx, name, c.mirror.now())
			}
		}
	}
	return nil
}

// hasBody says whether a listing has a body of a piece of WAL.
func hasBody(t *nameTable, w walName) bool {
	for name := range t.under(w.base() + ".") {
		if name != w.sidecar() {
			return true
		}
	}
	return false
}

func boolRank(first bool) int {
	if first {
		return 0
	}
	return 1
}

// pieces copies WAL in order, several bodies at a time and each sidecar when those before it are there: the mirror's WAL has
// no hole that the source has not.
func (c *copier) pieces(ctx context.Context, todo []walName) error {
	done := 0
	broken := map[WALKey]bool{} // a piece vanished: what follows waits for the next round
	body := func(ctx context.Context, w walName) (walName, error) {
		sc, err := c.m.sidecar(ctx, w)
		switch {
		case errors.Is(err, blob.ErrNotFound): // swept, for its segment is complete: the next round brings that
			c.gone()
			return walName{WALKey: w.WALKey}, nil
		case errors.Is(err, ErrRefused), errors.Is(err, ErrCorrupt):
			c.damaged(w.sidecar(), err.Error())
			return walName{}, nil // the source has the same hole
		case err != nil:
			return walName{}, err
		}
		if c.off.has(sc.Body) {
			return walName{WALKey: w.WALKey}, nil
		}
		good := false
		err = c.one(ctx, blob.Info{Name: sc.Body, Size: sc.Stored}, func(_ string, sum [32]byte) bool {
			good = hex.EncodeToString(sum[:]) == sc.Sealed
			return good
		})
		if err != nil || !good && !c.has(ctx, sc.Body) {
			return walName{}, err
		}
		return w, nil
	}
	return inOrder(ctx, c.m.o.Workers, todo, body, func(w walName) error {
		done++
		c.progress(relight.Progress{Phase: "write-ahead log", Done: int64(done), Total: int64(len(todo)), Unit: "objects"})
		if w.name == "" || broken[w.WALKey] {
			broken[w.WALKey] = true
			return nil
		}
		return c.one(ctx, blob.Info{Name: w.sidecar()}, nil)
	})
}

func (c *copier) has(ctx context.Context, name string) bool {
	_, err := c.to.Stat(ctx, name)
	return err == nil
}

// verify says whether an object's bytes are what its name, or its record, says.
type verify func(name string, sum [32]byte) bool

// matchesName holds bytes against a name that ends in their digest.
func (c *copier) matchesName(prefixes ...string) verify {
	return func(name string, sum [32]byte) bool {
		return slices.ContainsFunc(prefixes, func(p string) bool { return name == p+hex.EncodeToString(sum[:]) })
	}
}

// all copies what lies under a prefix and is not there yet.
func (c *copier) all(ctx context.Context, what, prefix string, skip map[string]bool, v verify) error {
	from, err := listNames(ctx, c.m.storage, prefix)
	if err != nil {
		return err
	}
	there, err := listNames(ctx, c.to, prefix)
	if err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(c.m.o.Workers)
	done, total := int64(0), int64(from.count)
	for name, size := range from.all() {
		done++
		copied, has := there.get(name)
		if has && copied != size && v != nil {
			return corrupt(name, "the mirror holds it with %d bytes, and the repository with %d", copied, size)
		}
		if has || skip[name] || c.off.has(name) || strings.HasSuffix(name, ".beat") {
			continue
		}
		c.progress(relight.Progress{Phase: what, Done: done, Total: total, Unit: "objects"})
		g.Go(func() error { return c.one(gctx, blob.Info{Name: name, Size: size}, v) })
	}
	return g.Wait()
}

// listNames lists what lies under a prefix.
func listNames(ctx context.Context, s blob.Storage, prefix string) (*nameTable, error) {
	out := &nameTable{}
	err := s.List(ctx, prefix, func(i blob.Info) error {
		out.add(i.Name, i.Size)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list %s of %s: %w", prefix, s, notAbsent(err))
	}
	return out, nil
}
