package repo

import (
	"context"
	"fmt"
	"slices"
)

// collect notes the place of every chunk. Trees and maps are read, and so verified, on the way.
func (v *verification) collect(ctx context.Context, places *places, sorter *rowSorter) error {
	c := collector{v: v, places: places, sorter: sorter, later: newLookups(places.x)}
	defer c.later.close()
	err := v.eachFile(ctx, c.addFile)
	if err != nil {
		if err = v.blame("(every file whose entry cannot be read)", err); err != nil {
			return err
		}
	}
	err = c.settle()
	v.total = places.bytes
	return err
}

// collector finds the places of a snapshot's chunks: those of paged files, whose lengths are known beforehand, all at once.
type collector struct {
	v      *verification
	places *places
	sorter *rowSorter
	later  *lookups
	file   uint64 // number of the present one, as files are walked

	last  ChunkID // whose place was noted last
	noted bool
}

func (c *collector) addFile(e Entry, next func() (mapped, bool, error)) error {
	c.file++
	size := int64(0)
	for {
		s, ok, err := next()
		if err != nil {
			return c.v.blame(e.Path, err)
		}
		if !ok {
			break
		}
		n, err := c.slot(e, s, size)
		if err != nil {
			return err
		}
		size += n
	}
	if size != e.Size && !c.v.files[e.Path] {
		return c.v.blame(e.Path, fmt.Errorf("%w: its chunks have %d bytes instead of %d", errMap, size, e.Size))
	}
	return nil
}

// slot asks for the chunks of the slot at an offset of a file, and gives its length.
func (c *collector) slot(e Entry, s mapped, at int64) (size int64, err error) {
	switch page := int64(c.v.r.meta.desc.Chunk); {
	case s.isMosaic():
		c.v.mosaics = true
		size = int64(mosaic{pieces: s.pieces}.size())
	case !e.Paged:
		return c.now(e, s.id)
	default:
		if size = min(page, e.Size-at); size <= 0 {
			size = page // one too many: the sum tells
		}
	}
	err = s.chunks(func(id ChunkID, least int) error {
		if least == 0 {
			return c.later.add(id, c.file<<lengthBits|wholeSlot|uint64(size))
		}
		return c.later.add(id, c.file<<lengthBits|uint64(least))
	})
	return size, err
}

// What a lookup of a slot's chunk notes: the number of the file, whether the chunk is the whole slot, and its length, or the least that it must have.
const (
	lengthBits = 24
	wholeSlot  = 1 << (lengthBits - 1)
	lengthMask = wholeSlot - 1
)

// now looks a chunk up at once, for its length.
func (c *collector) now(e Entry, id ChunkID) (size int64, err error) {
	at, err := c.places.x.find(id)
	if isAbsent(err) {
		c.v.lose(id, e.Path, missing(id, at, err))
		return int64(c.v.r.meta.desc.Chunk), nil
	}
	if err != nil {
		return 0, err
	}
	return int64(at.plain), c.sorter.add(c.places.row(id, at))
}

// settle looks up what was asked for.
func (c *collector) settle() error {
	return c.later.each(func(id ChunkID, note uint64, all []spot) error {
		file, length := note>>lengthBits, uint32(note&lengthMask)
		i := slices.IndexFunc(all, func(s spot) bool { return s.there })
		switch {
		case len(all) == 0:
			c.v.miss(file, missing(id, location{}, errNoChunk))
			return nil
		case i < 0:
			c.v.miss(file, missing(id, all[len(all)-1].location(), errPackGone))
			return nil
		}
		if at := all[i]; at.plain < length || note&wholeSlot != 0 && at.plain != length {
			c.v.miss(file, fmt.Errorf("%w: chunk %s has %d bytes instead of %d", errMap, id, at.plain, length))
		}
		if c.noted && c.last == id {
			return nil
		}
		c.last, c.noted = id, true
		return c.sorter.add(c.places.row(id, all[i].location()))
	})
}
