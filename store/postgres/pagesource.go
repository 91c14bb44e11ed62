package postgres

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"path"
	"strconv"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/repo"
)

// ancestor is the snapshot that unchanged pages are taken from.
type ancestor struct {
	start     relight.LSN // every page changed after it has a position beyond it
	first     relight.LSN // the least position that a server can have given: below are initdb's and those of pages without WAL
	databases map[uint32]bool
}

// holds tells whether the pages of a main fork at p may be judged by their positions.
func (a *ancestor) holds(p string, rel relation) bool {
	if a == nil || rel.Fork != "" {
		return false
	}
	dir := path.Dir(p)
	if dir == "global" {
		return true
	}
	n, err := strconv.ParseUint(path.Base(dir), 10, 32)
	return err == nil && a.databases[uint32(n)]
}

// pageSource reads a relation's main fork, every page of it, and tells the writer which pages the parent has.
type pageSource struct {
	*relationReader
	old    *ancestor
	parent repo.Entry // no page of it is taken where Paged is false
	count  func(int64)
	hurts  int
	taken  int64 // chunks of which every page was the parent's
	fresh  []repo.Stretch
}

func newPageSource(r *relationReader, old *ancestor, parent repo.Entry, count func(int64)) *pageSource {
	s := &pageSource{relationReader: r, old: old, parent: parent, count: count}
	hurt := r.hurt
	r.hurt = func(d Damage) {
		s.hurts++
		hurt(d)
	}
	return s
}

// Chunk implements repo.PageSource.
func (s *pageSource) Chunk(ctx context.Context, i int64, buf []byte) (n int, fresh []repo.Stretch, err error) {
	s.ctx, s.next = ctx, i*int64(len(buf))
	want := min(int64(len(buf)), s.size-s.next)
	if want <= 0 {
		return 0, nil, io.EOF
	}
	n, err = s.f.ReadAt(buf[:want], s.next)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, nil, err
	}
	n -= n % s.rules.block
	if n < int(want) {
		s.size = s.next + int64(n) // truncated meanwhile
	}
	if n == 0 {
		return 0, nil, io.EOF
	}
	if err := s.compare(buf[:n]); err != nil {
		return 0, nil, err
	}
	s.count(int64(n))
	if len(s.fresh) == 0 {
		s.taken++
	}
	return n, s.fresh, nil
}

// compare judges each page and notes those that the parent may not have.
func (s *pageSource) compare(b []byte) error {
	s.fresh = s.fresh[:0]
	for at := 0; at < len(b); at += s.rules.block {
		end, before := at+s.rules.block, s.hurts
		page := b[at:end]
		if s.rules.checksum {
			if err := s.judge(page, s.next+int64(at)); err != nil {
				return err
			}
		}
		if s.hurts == before && s.parent.Paged && s.next+int64(end) <= s.parent.Size && s.unchanged(page) {
			continue
		}
		if last := len(s.fresh) - 1; last >= 0 && s.fresh[last].To == at {
			s.fresh[last].To = end
		} else {
			s.fresh = append(s.fresh, repo.Stretch{From: at, To: end})
		}
	}
	return nil
}

// unchanged tells whether a page is a sound one with a position from before the parent began. An empty page proves nothing: its
// place may have been cut off and grown again.
func (s *pageSource) unchanged(page []byte) bool {
	lsn := pageLSN(page)
	return lsn >= s.old.first && lsn < s.old.start && soundHeader(page)
}

// soundHeader is the server's own test of a page's header (PageIsVerified), stricter in that the layout version must be the only one there is.
func soundHeader(page []byte) bool {
	const layout, flags = 4, 7
	u16 := func(at int) int { return int(binary.LittleEndian.Uint16(page[at:])) }
	lower, upper, special, size := u16(12), u16(14), u16(16), u16(18)
	return size == len(page)&0xFF00|layout && u16(10)&^flags == 0 &&
		lower >= pageHeader && lower <= upper && upper <= special && special <= len(page) && special%8 == 0
}
