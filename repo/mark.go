package repo

import (
	"context"
	"errors"
	"fmt"

	"github.com/zeebo/blake3"
)

// marker finds which packs the snapshots of a repository need. It keeps one bit a record of the index, and walks what snapshots
// share once.
type marker struct {
	m     *Meta
	x     *chunkIndex // private: it does not change meanwhile
	avoid map[packID]bool
	c     *chunkReader
	later *lookups // of the snapshot that is walked

	live  [][]uint64 // one bit for each record of each run: its chunk is needed, from there
	roots [][]uint64 // walked as the root of a block map
	leafs [][]uint64 // walked as a leaf; a chunk of data may have the same bytes and leads nowhere
	used  []int64    // bytes of live frames in each pack
	lines map[[16]byte]bool
	trust map[ChunkID]bool // copies that were read and found right
	lost  int64            // chunks that no pack holds
	first error            // the first of them
}

const maxSeenLines = 1 << 20 // entries that are known to have been walked; beyond that some are walked again

func newMarker(m *Meta, x *chunkIndex, avoid map[packID]bool) (*marker, error) {
	c, err := newChunkReader(m.storage, m.keys, x)
	if err != nil {
		return nil, err
	}
	k := &marker{m: m, x: x, avoid: avoid, c: c, used: make([]int64, len(x.st.packs)), lines: map[[16]byte]bool{}, trust: map[ChunkID]bool{}}
	for _, r := range x.st.runs {
		words := (r.count + 63) / 64
		k.live, k.roots, k.leafs = append(k.live, make([]uint64, words)), append(k.roots, make([]uint64, words)), append(k.leafs, make([]uint64, words))
	}
	return k, nil
}

func testAndSet(bits [][]uint64, p spot) (was bool) {
	w, b := &bits[p.run][p.at/64], uint64(1)<<(p.at%64)
	was = *w&b != 0
	*w |= b
	return was
}

// take notes that a chunk is needed, and gives one of its copies.
func (k *marker) take(ctx context.Context, id ChunkID) (spot, error) {
	all, err := (&follower{x: k.x}).find(id, nil)
	if err != nil {
		return spot{}, err
	}
	return k.note(ctx, id, all, 0)
}

// note notes that a chunk is needed, and at least so many bytes of it. Of several copies one is: not in a pack that is to go. An index is not signed, so a copy
// counts only if it was read; who cannot read keeps all of them.
func (k *marker) note(ctx context.Context, id ChunkID, all []spot, least int) (spot, error) {
	var err error
	if len(all) > 1 {
		if all, err = k.choose(ctx, id, all); err != nil {
			return spot{}, err
		}
	}
	found, long := false, false
	for _, p := range all {
		found = found || p.there
		long = long || int(p.plain) >= least
		if !testAndSet(k.live, p) {
			k.used[p.pack] += int64(p.frame)
		}
	}
	switch {
	case !found:
		k.lack(&DamageError{Chunk: id, Err: errNoChunk})
	case !long:
		k.lack(fmt.Errorf("%w: a slot takes from byte %d of chunk %s, which is shorter", errMap, least, id))
	}
	if len(all) == 0 {
		return spot{}, errNoChunk
	}
	return all[0], nil
}

func (k *marker) lack(err error) {
	k.lost++
	if k.first == nil {
		k.first = err
	}
}

func (k *marker) choose(ctx context.Context, id ChunkID, all []spot) ([]spot, error) {
	for _, p := range all { // what was chosen before stays chosen
		if k.live[p.run][p.at/64]&(1<<(p.at%64)) != 0 && k.trust[id] {
			return []spot{p}, nil
		}
	}
	for _, spare := range []bool{false, true} { // first those that stay
		for _, p := range all {
			if !p.there || k.avoid[p.info.id] != spare {
				continue
			}
			good, err := k.readable(ctx, id, p)
			if err != nil {
				return nil, err
			}
			if good {
				k.trust[id] = true
				return []spot{p}, nil
			}
		}
	}
	return all, nil
}

// readable reads a copy and holds it against its id.
func (k *marker) readable(ctx context.Context, id ChunkID, p spot) (bool, error) {
	if len(k.m.keys.identities(p.info.kind == dataPack)) == 0 {
		return false, nil
	}
	frame, err := k.c.bytes(ctx, p.info, int64(p.off), int64(p.frame))
	if err == nil {
		_, err = k.c.decode(id, frame, p.plain)
	}
	if errors.Is(err, errDamaged) {
		return false, nil
	}
	return err == nil, err
}

// snapshot notes all that a snapshot needs. Where its own tree or maps are damaged the error says so, and what could be reached is
// noted.
func (k *marker) snapshot(ctx context.Context, man Manifest) error {
	k.later = newLookups(k.x)
	defer k.later.close()
	err := k.walk(ctx, man)
	if err != nil && !isDamage(err) {
		return err
	}
	settled := k.later.each(func(id ChunkID, least uint64, all []spot) error {
		_, err := k.note(ctx, id, all, int(least))
		if errors.Is(err, errNoChunk) {
			return nil
		}
		return err
	})
	if settled != nil {
		return settled
	}
	return err
}

// walk notes the chunks that lead to others, and asks for those that hold content.
func (k *marker) walk(ctx context.Context, man Manifest) error {
	for _, id := range man.Tree {
		if _, err := k.take(ctx, id); err != nil && !errors.Is(err, errNoChunk) {
			return err
		}
	}
	var damaged error
	n := int64(0)
	err := eachLine(&treeReader{ctx: ctx, load: k.c.load, ids: man.Tree}, func(e Entry, line []byte) error {
		n++
		if k.seen(line) {
			return nil
		}
		err := k.entry(ctx, e)
		if isDamage(err) && damaged == nil {
			damaged = fmt.Errorf("%s: %w", e.Path, err)
		}
		if isDamage(err) {
			return nil
		}
		return err
	})
	if err == nil && n != man.Entries {
		err = fmt.Errorf("%w: %d entries instead of %d", errEntry, n, man.Entries)
	}
	if err != nil {
		return err
	}
	return damaged
}

func isDamage(err error) bool {
	return errors.Is(err, ErrCorrupt) || errors.Is(err, errMap) || errors.Is(err, errEntry) || errors.Is(err, errNoChunk)
}

// seen tells whether a very entry was walked before, for another snapshot.
func (k *marker) seen(line []byte) bool {
	sum := blake3.Sum256(line)
	h := [16]byte(sum[:16])
	if k.lines[h] {
		return true
	}
	if len(k.lines) >= maxSeenLines {
		clear(k.lines)
	}
	k.lines[h] = true
	return false
}

func (k *marker) entry(ctx context.Context, e Entry) error {
	for _, id := range e.Chunks {
		if err := k.later.add(id, 0); err != nil {
			return err
		}
	}
	for _, id := range e.Maps {
		err := k.once(ctx, id, k.roots, func(b []byte) error {
			if err := decodeIDs(b); err != nil {
				return err
			}
			for b := append([]byte(nil), b...); len(b) > 0; b = b[idSize:] {
				if err := k.once(ctx, ChunkID(b), k.leafs, k.leaf); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// leaf asks for the chunks of a leaf: those of whole slots, and those that mosaics take from. The id of a mosaic itself is of no chunk.
func (k *marker) leaf(b []byte) error {
	l, err := decodeLeaf(b)
	if err != nil {
		return err
	}
	rest := l.mosaics
	for i := range l.slots() {
		s := mapped{id: l.id(i), leaf: l}
		if len(rest) > 0 && rest[0].slot == i {
			s.pieces, rest = rest[0].pieces, rest[1:]
		}
		if err := s.chunks(func(id ChunkID, least int) error { return k.later.add(id, uint64(least)) }); err != nil {
			return err
		}
	}
	return nil
}

// once walks a root or a leaf the first time that it is met. fn's bytes are valid until the next chunk is read.
func (k *marker) once(ctx context.Context, id ChunkID, walked [][]uint64, fn func(b []byte) error) error {
	p, err := k.take(ctx, id)
	if err != nil || testAndSet(walked, p) {
		return err
	}
	b, err := k.c.load(ctx, id)
	if err != nil {
		return err
	}
	return fn(b)
}

// packUse is how much of a pack is needed.
type packUse struct {
	packInfo
	live, all int64 // bytes of frames
}

// use sums the packs up.
func (k *marker) use() ([]packUse, error) {
	out := make([]packUse, len(k.x.st.packs))
	for i, p := range k.x.st.packs {
		out[i] = packUse{packInfo: p, live: k.used[i]}
	}
	for _, run := range k.x.st.runs {
		src := newRowSource(run.f, run.count*recordSize, recordSize)
		for {
			ok, err := src.next()
			if err != nil {
				return nil, err
			}
			if !ok {
				break
			}
			r := decodeRecord(src.row)
			out[r.pack].all += int64(r.frame)
		}
	}
	return out, nil
}
