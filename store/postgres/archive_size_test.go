package postgres

import (
	"runtime"
	"testing"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/repo"
)

// What an archive keeps of very many segments, and what it takes to look how far each of thirty base backups reaches and to plan from the first, stays in
// little memory.
func TestArchiveOfManySegmentsIsSmall(t *testing.T) {
	const segments, bases, most = 200_000, 30, 140 // bytes for each segment
	heap := func() int64 {
		var s runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&s)
		return int64(s.HeapAlloc)
	}
	before := heap()
	s := newSynthetic()
	s.a.covered = map[relight.SystemID]relight.Point{}
	begun := at(0)
	for n := range segments {
		start := relight.LSN(n+1) * seg
		none := 0
		err := s.a.addSidecar(repo.WALKey{Store: "main", System: 7, Timeline: 1}, repo.Sidecar{
			Start: start, End: start + seg, SegmentSize: seg, Commits: 9, LastCommit: begun.Add(time.Duration(n) * time.Second), LastEnd: start + 100,
			CoveredAt: begun.Add(time.Duration(n+1) * time.Second), Tablespaces: &none,
		}, false)
		if err != nil {
			t.Fatal(err)
		}
	}
	for range bases {
		s.base("b", 1, 1)
	}
	a := s.archive()
	var reached []reach
	for _, b := range a.bases {
		reached = append(reached, a.reach(b, a.lines[lineKey{7, 1}]))
	}
	planned := reached[0].pieces()
	each := (heap() - before) / segments
	t.Logf("%d bytes for each segment", each)
	if len(planned) != segments || reached[0].End != (segments+1)*seg || each > most {
		t.Errorf("%d pieces to %s, %d bytes each", len(planned), reached[0].End, each)
	}
	runtime.KeepAlive(reached)
}
