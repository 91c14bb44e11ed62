package walfile

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/toolboxai/relight"
)

// Options of a Scanner.
type Options struct {
	Start       relight.LSN        // of the first byte fed; the beginning of a page, or of a record with AtRecord
	AtRecord    bool               // Start is the beginning of a record, so that reading may begin inside a page
	SegmentSize int64              // of the server
	Check       bool               // verify every record's CRC
	System      relight.SystemID   // refuse pages of another system; 0: any
	Timeline    relight.TimelineID // refuse pages of later timelines; 0: any
}

// Scanner reads consecutive WAL bytes. It is fed by one goroutine.
type Scanner struct {
	o     Options
	pos   relight.LSN // of the next byte to be fed
	valid relight.LSN // end of the last complete valid record
	page  []byte      // page header under way
	last  Page        // last page header
	seen  bool        // last is set
	first bool        // no record has been read yet

	passed relight.LSN // end of the foreign continuation
	skipTo relight.LSN // everything before it is passed over
	rest   uint32      // bytes of a foreign continuation to pass over
	head   []byte      // record header under way
	h      header      // of the record whose body is under way
	begin  relight.LSN // of the record under way
	left   uint32      // bytes of its body still to come
	in     bool        // a body is under way
	body   []byte      // its bytes, when of interest
	sum    uint32      // CRC of its bytes so far
	prev   relight.LSN // start of the last whole record, 0 unknown
	table  *crc32.Table
	fail   error
}

// NewScanner starts reading at o.Start.
func NewScanner(o Options) (*Scanner, error) {
	if !ValidSegmentSize(o.SegmentSize) {
		return nil, fmt.Errorf("WAL segment size %d is not a power of two from 1 MiB to 1 GiB", o.SegmentSize)
	}
	if !o.AtRecord && o.Start%PageSize != 0 {
		return nil, fmt.Errorf("reading WAL must begin at a page, not at %s", o.Start)
	}
	return &Scanner{o: o, pos: o.Start, valid: o.Start, first: true, table: crc32.MakeTable(crc32.Castagnoli)}, nil
}

// Pos is the position of the next byte to be fed.
func (s *Scanner) Pos() relight.LSN { return s.pos }

// ValidEnd is the end of the last complete valid record, Options.Start before the first. After a segment switch it is
// the beginning of the next segment.
func (s *Scanner) ValidEnd() relight.LSN { return s.valid }

// PassedOver is the end of the record in whose middle reading began, as far as that is known; 0 when there was none. Its events are not reported.
func (s *Scanner) PassedOver() relight.LSN { return s.passed }

// LastPage is the newest page header that was read.
func (s *Scanner) LastPage() (Page, bool) { return s.last, s.seen }

// Feed reads the bytes that follow those fed before, and calls fn with each event. Where WAL stops being valid it returns an
// *InvalidError, and so does every later call. Events keep no reference to p.
func (s *Scanner) Feed(p []byte, fn func(Event) error) error {
	for len(p) > 0 && s.fail == nil {
		n, err := s.step(p, fn)
		if err != nil {
			s.fail = err
			break
		}
		p = p[n:]
	}
	return s.fail
}

// step consumes some bytes of one page.
func (s *Scanner) step(p []byte, fn func(Event) error) (int, error) {
	if s.skipTo > s.pos {
		n := min(uint64(len(p)), uint64(s.skipTo-s.pos))
		s.pos += relight.LSN(n)
		return int(n), nil
	}
	in := int(uint64(s.pos) % PageSize)
	if len(s.page) > 0 || in == 0 {
		return s.pageHeader(p)
	}
	p = p[:min(len(p), PageSize-in)]
	n := 0
	for n < len(p) {
		m, err := s.record(p[n:], fn)
		n += m
		if err != nil {
			return n, err
		}
		if s.skipTo > s.pos {
			break
		}
	}
	return n, nil
}

func (s *Scanner) pageHeader(p []byte) (int, error) {
	start := s.pos - relight.LSN(len(s.page))
	size := headerSize(start, s.o.SegmentSize)
	n := min(len(p), size-len(s.page))
	s.page = append(s.page, p[:n]...)
	s.pos += relight.LSN(n)
	if len(s.page) < size {
		return n, nil
	}
	page, err := ParsePage(s.page)
	s.page = s.page[:0]
	if err == nil {
		err = s.checkPage(page, start)
	}
	if err != nil {
		return n, s.invalid(err.Error())
	}
	s.last, s.seen = page, true
	return n, s.continuation(page)
}

func (s *Scanner) checkPage(p Page, at relight.LSN) error {
	long := uint64(at)%uint64(s.o.SegmentSize) == 0
	switch {
	case p.Address != at:
		return fmt.Errorf("page says that it is %s", p.Address)
	case p.Long() != long:
		return fmt.Errorf("page header has the wrong length")
	case long && int64(p.SegmentSize) != s.o.SegmentSize:
		return fmt.Errorf("segment size is %d, not %d", p.SegmentSize, s.o.SegmentSize)
	case long && p.BlockSize != PageSize:
		return fmt.Errorf("WAL block size is %d, not %d", p.BlockSize, PageSize)
	case long && s.o.System != 0 && p.System != s.o.System:
		return fmt.Errorf("WAL of system %s, not %s", p.System, s.o.System)
	case s.o.Timeline != 0 && p.Timeline > s.o.Timeline:
		return fmt.Errorf("page of timeline %d on timeline %d", p.Timeline, s.o.Timeline)
	case s.seen && p.Timeline < s.last.Timeline:
		return fmt.Errorf("page of timeline %d after one of timeline %d", p.Timeline, s.last.Timeline)
	case s.seen && p.Magic != s.last.Magic:
		return fmt.Errorf("page magic changes from %04X to %04X", s.last.Magic, p.Magic)
	}
	return nil
}

// continuation reconciles the record under way with what a new page says about it.
func (s *Scanner) continuation(p Page) error {
	under := s.in || len(s.head) > 0
	if p.Flags&flagOverwritten != 0 {
		s.in, s.rest, s.head = false, 0, s.head[:0]
		return nil
	}
	continued := p.Flags&flagContinued != 0
	switch {
	case s.rest > 0 && (!continued || p.Remaining != s.rest):
		return s.invalid("the page does not continue the record before")
	case s.rest > 0 || !under && !continued:
		return nil
	case !under && s.first: // reading began inside this record
		s.rest = p.Remaining
		return nil
	case !under:
		return s.invalid("the page continues a record that never began")
	case !continued || p.Remaining != s.remaining():
		return s.invalid("the page does not continue the record before")
	}
	return nil
}

// remaining counts the bytes of the record under way that are still to come.
func (s *Scanner) remaining() uint32 {
	if s.in {
		return s.left
	}
	return binary.LittleEndian.Uint32(s.head) - uint32(len(s.head))
}

// record consumes bytes inside one page: padding, a header, a body or a foreign continuation.
func (s *Scanner) record(p []byte, fn func(Event) error) (int, error) {
	switch {
	case s.rest > 0:
		n := int(min(uint64(len(p)), uint64(s.rest)))
		s.rest -= uint32(n)
		s.pos += relight.LSN(n)
		s.passed = s.pos
		if s.rest == 0 {
			s.valid = s.pos
		}
		return n, nil
	case s.in:
		return s.take(p, fn)
	case len(s.head) > 0:
		return s.header(p, fn)
	}
	if pad := int(-uint64(s.pos) & 7); pad > 0 {
		n := min(pad, len(p))
		s.pos += relight.LSN(n)
		return n, nil
	}
	s.begin = s.pos
	return s.header(p, fn)
}

func (s *Scanner) header(p []byte, fn func(Event) error) (int, error) {
	var n int
	if len(s.head) == 0 && len(p) >= recordHeader {
		n = recordHeader
		s.h = parseHeader(p)
		if s.o.Check {
			s.head = append(s.head, p[:recordHeader]...)
		}
	} else {
		n = min(len(p), recordHeader-len(s.head))
		s.head = append(s.head, p[:n]...)
		if len(s.head) >= 4 && badLength(binary.LittleEndian.Uint32(s.head)) {
			return n, s.badLength(binary.LittleEndian.Uint32(s.head))
		}
		if len(s.head) < recordHeader {
			s.pos += relight.LSN(n)
			return n, nil
		}
		s.h = parseHeader(s.head)
	}
	s.pos += relight.LSN(n)
	if err := s.checkHeader(); err != nil {
		return n, err
	}
	s.in, s.left, s.sum, s.body = true, s.h.total-recordHeader, 0, s.body[:0]
	if s.left == 0 {
		return n, s.finish(nil, fn)
	}
	return n, nil
}

func badLength(n uint32) bool { return n < recordHeader || n > maxRecord }

func (s *Scanner) badLength(n uint32) error {
	if n == 0 {
		return s.invalid("end of log")
	}
	return s.invalid(fmt.Sprintf("record length %d", n))
}

func (s *Scanner) checkHeader() error {
	h := s.h
	switch {
	case badLength(h.total):
		return s.badLength(h.total)
	case h.rm > rmMaxCore && h.rm < rmMinExt:
		return s.invalid(fmt.Sprintf("resource manager %d", h.rm))
	case s.prev != 0 && h.prev != s.prev:
		return s.invalid(fmt.Sprintf("record follows %s, not %s", h.prev, s.prev))
	case h.prev >= s.begin:
		return s.invalid(fmt.Sprintf("record follows the later %s", h.prev))
	}
	return nil
}

// take consumes bytes of the body under way.
func (s *Scanner) take(p []byte, fn func(Event) error) (int, error) {
	n := int(min(uint64(len(p)), uint64(s.left)))
	p = p[:n]
	s.left -= uint32(n)
	s.pos += relight.LSN(n)
	if s.o.Check {
		s.sum = crc32.Update(s.sum, s.table, p)
	}
	if s.left == 0 && len(s.body) == 0 {
		return n, s.finish(p, fn) // whole in one piece: no copy
	}
	if s.h.interesting() {
		s.body = append(s.body, p...)
	}
	if s.left == 0 {
		return n, s.finish(s.body, fn)
	}
	return n, nil
}

// finish checks and reports the record that just became whole.
func (s *Scanner) finish(body []byte, fn func(Event) error) error {
	s.in = false
	if s.o.Check && crc32.Update(s.sum, s.table, s.head[:recordHeader-4]) != s.h.crc {
		return s.invalid("record checksum does not match")
	}
	s.head = s.head[:0]
	if err := s.report(body, fn); err != nil {
		return err
	}
	s.prev, s.valid, s.first = s.begin, s.pos, false
	if s.h.isSwitch() {
		s.skipTo = SegmentStart(s.pos-1, s.o.SegmentSize) + relight.LSN(s.o.SegmentSize)
		s.valid = s.skipTo
	}
	if cap(s.body) > 1<<20 {
		s.body = nil
	}
	return nil
}

func (s *Scanner) report(body []byte, fn func(Event) error) error {
	if fn == nil || !s.h.interesting() {
		return nil
	}
	e, ok, err := decode(s.h, body)
	if err != nil {
		return s.invalid(err.Error())
	}
	if !ok {
		return nil
	}
	e.Start, e.End = s.begin, s.pos
	return fn(e)
}

func (s *Scanner) invalid(why string) error { return &InvalidError{At: s.valid, Why: why} }
