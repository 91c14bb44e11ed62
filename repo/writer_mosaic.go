package repo

import (
	"context"
	"fmt"
	"slices"
)

// maxTiled bounds the chunks that a mosaic takes from: what is changed again and again, here and there, is stored whole in the end.
const maxTiled = 5

// renew stores a chunk that differs from the parent's, which has some bytes: as a mosaic where that is worth it, else whole.
func (p *pager) renew(ctx context.Context, old mapped, has int, plain []byte, fresh []Stretch) error {
	if err := checkFresh(fresh, has, len(plain)); err != nil {
		return err
	}
	id := p.s.hash.id(plain)
	known, err := p.w.known(id)
	if err != nil {
		return err
	}
	if known {
		return p.s.maps.add(ctx, id)
	}
	whole := !p.worthwhile(old, len(plain), fresh)
	if !whole {
		held, err := p.held(ctx, old)
		if err != nil {
			return err
		}
		whole = !held
	}
	if whole {
		return p.w.addChunk(ctx, p.s, plain)
	}
	var tiles []tile
	at := 0
	for _, f := range fresh {
		tiles = cutTiles(tiles, old, at, f.From)
		if tiles, err = p.gather.add(ctx, tiles, plain[f.From:f.To]); err != nil {
			return err
		}
		at = f.To
	}
	return p.s.maps.addMosaic(ctx, id, cutTiles(tiles, old, at, len(plain)))
}

// checkFresh refuses what no page source may say.
func checkFresh(fresh []Stretch, has, n int) error {
	at := 0
	old := func(to int) error {
		if at < to && to > has {
			return fmt.Errorf("the parent has no bytes %d to %d of this chunk to take over", max(at, has), to)
		}
		return nil
	}
	for _, f := range fresh {
		if f.From < at || f.To <= f.From || f.To > n {
			return fmt.Errorf("page source says that bytes %d to %d of %d are new, after byte %d", f.From, f.To, n, at)
		}
		if err := old(f.From); err != nil {
			return err
		}
		at = f.To
	}
	return old(n)
}

// worthwhile tells whether a chunk can be a mosaic and is to be one: less than half of it is new, and it takes from few chunks.
func (p *pager) worthwhile(old mapped, n int, fresh []Stretch) bool {
	if n%unit != 0 {
		return false
	}
	var sources []ChunkID
	count := func(from, to int) {
		for _, t := range cutTiles(nil, old, from, to) {
			if !slices.Contains(sources, *t.from) {
				sources = append(sources, *t.from)
			}
		}
	}
	sum, at := 0, 0
	for _, f := range fresh {
		if f.From%unit != 0 || f.To%unit != 0 {
			return false
		}
		count(at, f.From)
		sum, at = sum+f.To-f.From, f.To
	}
	count(at, n)
	return 2*sum < n && len(sources)+p.gather.chunks(sum) <= maxTiled
}

// cutTiles appends the tiles of the bytes from up to to of a slot.
func cutTiles(tiles []tile, s mapped, from, to int) []tile {
	if from >= to {
		return tiles
	}
	if !s.isMosaic() {
		return append(tiles, tile{from: &s.id, off: from, n: to - from})
	}
	at := 0
	for _, p := range s.pieces {
		lo, hi := max(from, at), min(to, at+p.n)
		if lo < hi {
			id := s.leaf.source(p.source)
			tiles = append(tiles, tile{from: &id, off: p.off + lo - at, n: hi - lo})
		}
		at += p.n
	}
	return tiles
}

// gatherer joins what is new of neighbouring chunks of a file into chunks of their own.
type gatherer struct {
	w   *Writer
	s   *slot
	buf []byte
	id  *ChunkID // of the chunk that is being filled; set when it is stored
}

// chunks is how many chunks the next n bytes come to lie in.
func (g *gatherer) chunks(n int) int {
	return (len(g.buf) + n + g.w.page - 1) / g.w.page
}

// add takes bytes in, and appends the tiles that they become.
func (g *gatherer) add(ctx context.Context, tiles []tile, plain []byte) ([]tile, error) {
	for len(plain) > 0 {
		if g.id == nil {
			g.id = new(ChunkID)
		}
		if g.buf == nil {
			g.buf = make([]byte, 0, g.w.page)
		}
		n := min(len(plain), g.w.page-len(g.buf))
		tiles = append(tiles, tile{from: g.id, off: len(g.buf), n: n})
		g.buf, plain = append(g.buf, plain[:n]...), plain[n:]
		if len(g.buf) < g.w.page {
			break
		}
		if err := g.flush(ctx); err != nil {
			return nil, err
		}
	}
	return tiles, nil
}

// flush stores what was gathered.
func (g *gatherer) flush(ctx context.Context) error {
	if len(g.buf) == 0 {
		return nil
	}
	id, err := g.w.put(ctx, g.s, g.buf)
	*g.id, g.id, g.buf = id, nil, g.buf[:0]
	return err
}
