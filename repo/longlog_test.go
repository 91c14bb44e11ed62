package repo

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/toolboxai/relight/blob"
)

// longLog holds, beside a repository, so many segments of WAL, and makes their objects as they are asked for: memory and time are then those of who reads them.
type longLog struct {
	blob.Storage
	segments int
	keys     *Keyring
	clock    *clock
	body     []byte // of every segment, sealed
	car      Sidecar
	deleted  [][2]bool // body and sidecar, by segment
}

func newLongLog(st *stand, segments int) *longLog {
	s := &longLog{Storage: st.s, segments: segments, keys: st.writerKeys(), clock: st.clock, deleted: make([][2]bool, segments)}
	// One segment is written for real; all others are like it.
	ok(st.t, putSegment(st.t.Context(), st.writer(st.s).Sink(testKey.Store), testKey, 0))
	ok(st.t, st.writer(st.s).Sidecars(st.t.Context(), testKey.Store, func(_ WALKey, sc Sidecar, _ bool) error { s.car = sc; return nil }))
	s.body = must(getAll(st.t.Context(), st.s, s.car.Body, indexMax))(st.t)
	for _, name := range objectNames(st.t, st.s, testKey.prefix()+segmentName(1, 0)) {
		ok(st.t, st.s.Delete(st.t.Context(), name))
	}
	return s
}

// of is the sidecar of a segment, and the name of its object.
func (s *longLog) of(no int) (Sidecar, string) {
	car := s.car
	car.Name, car.Start = segmentName(1, no), segmentStart(no)
	car.End = car.Start + testSegment
	base := walName{WALKey: testKey, name: car.Name}.base()
	car.Body = fmt.Sprintf("%s.%016x", base, uint64(no)*0x9E3779B97F4A7C15>>4)
	return car, base + metaSuffix
}

func (s *longLog) List(ctx context.Context, prefix string, fn func(blob.Info) error) error {
	first := testKey.prefix() + "0"
	if !strings.HasPrefix(first, prefix) {
		return s.Storage.List(ctx, prefix, fn)
	}
	var before, after []blob.Info
	err := s.Storage.List(ctx, prefix, func(i blob.Info) error {
		if i.Name < first {
			before = append(before, i)
		} else {
			after = append(after, i)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for no := range s.segments {
		car, sidecar := s.of(no)
		for i, name := range []string{car.Body, sidecar} {
			if !s.deleted[no][i] {
				before = append(before, blob.Info{Name: name, Size: car.Stored, Modified: s.clock.now()})
			}
		}
		for _, i := range before {
			if err := fn(i); err != nil {
				return err
			}
		}
		before = before[:0]
	}
	for _, i := range after {
		if err := fn(i); err != nil {
			return err
		}
	}
	return nil
}

func (s *longLog) number(name string) (int, bool) {
	rest, ok := strings.CutPrefix(name, testKey.prefix())
	if !ok || len(rest) < 25 || rest[24] != '.' {
		return 0, false
	}
	_, no, ok := parseSegment(rest[:24])
	return int(no.hi<<12 | no.lo), ok
}

func (s *longLog) object(name string) ([]byte, bool, error) {
	no, ok := s.number(name)
	if !ok {
		return nil, false, nil
	}
	car, sidecar := s.of(no)
	if s.deleted[no][s.which(name)] {
		return nil, false, blob.ErrNotFound
	}
	if name == car.Body {
		return s.body, true, nil
	}
	b, err := s.keys.sign("sidecar", sidecar, s.clock.now(), car)
	if err == nil {
		b, err = s.keys.sealBytes(b, sealedMeta)
	}
	return b, true, err
}

func (s *longLog) Get(ctx context.Context, name string, offset, length int64) (io.ReadCloser, error) {
	b, ours, err := s.object(name)
	if err != nil {
		return nil, err
	}
	if !ours {
		return s.Storage.Get(ctx, name, offset, length)
	}
	b = b[offset:]
	if length >= 0 {
		b = b[:length]
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

// which of a segment's two objects a name is.
func (s *longLog) which(name string) int {
	if strings.HasSuffix(name, metaSuffix) {
		return 1
	}
	return 0
}

func (s *longLog) Delete(ctx context.Context, name string) error {
	no, ours := s.number(name)
	if !ours {
		return s.Storage.Delete(ctx, name)
	}
	s.deleted[no][s.which(name)] = true
	return nil
}

func (s *longLog) Stat(ctx context.Context, name string) (blob.Info, error) {
	b, ours, err := s.object(name)
	if err != nil {
		return blob.Info{}, err
	}
	if !ours {
		return s.Storage.Stat(ctx, name)
	}
	return blob.Info{Name: name, Size: int64(len(b)), Modified: s.clock.now()}, nil
}

// heapFor is what a value of so many parts keeps in use for each of them. It collects once more for what pools keep until then.
func heapFor[T any](parts int64, make func() T) (v T, each int64) {
	inUse := func() int64 {
		var s runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&s)
		return int64(s.HeapAlloc)
	}
	before := inUse()
	v = make()
	each = (inUse() - before) / parts
	runtime.KeepAlive(v)
	return v, each
}

// What retention remembers of WAL is a few words for each piece: a month of it is half a million pieces.
func TestHoldingsOfManySegmentsAreSmall(t *testing.T) {
	much(t)
	const segments, most = 4000, 230 // bytes each
	st := newStand(t)
	m := st.writer(newLongLog(st, segments))
	h, each := heapFor(segments, func() *storeHoldings { return must(m.holdings(t.Context(), testKey.Store, nil, nil))(t) })
	t.Logf("%d bytes for each segment", each)
	if len(h.WAL) != segments || len(h.orphans) != 0 || each > most {
		t.Errorf("%d pieces, %d orphans, %d bytes each", len(h.WAL), len(h.orphans), each)
	}
}

// Of WAL that goes, retention remembers where it is listed, and nobody who reads its marks remembers whole names: a month of it may go at once.
func TestMarksOfManySegmentsAreSmall(t *testing.T) {
	much(t)
	const segments, mostLook, mostMarks = 2000, 200, 60 // bytes for each segment, which is two objects
	s := newShop(t)
	s.base(s.writer(s.s), segments-1)
	m := s.recovery(newLongLog(s.stand, segments))
	o := PruneOptions{Policies: map[string][]Policy{"main": {lastOnly}}}
	p, each := heapFor(segments, func() *pruner {
		p := &pruner{m: m, o: o.filled(), now: m.now()}
		ok(t, p.look(t.Context()))
		return p
	})
	t.Logf("%d bytes for each segment that goes", each)
	if n := p.garbage.count(); n != 2*(segments-1) || each > mostLook {
		t.Errorf("%d objects go, %d bytes each", n, each)
	}
	must(m.Prune(t.Context(), o))(t)
	marks := must(m.readTrash(t.Context()))(t)[0].marks
	t.Logf("%d bytes for each segment that is marked", cap(marks.data)/segments)
	if marks.count != 2*(segments-1) || cap(marks.data) > mostMarks*segments {
		t.Errorf("%d objects are marked in %d bytes", marks.count, cap(marks.data))
	}
}
