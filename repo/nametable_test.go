package repo

import (
	"context"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"testing"

	"github.com/toolboxai/relight/blob"
	"pgregory.net/rapid"
)

// A table tells what was put into it, in order, and nothing else.
func TestNameTable(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.MapOf(rapid.StringMatching(`[ab/.]{0,20}`), rapid.Int64()).Draw(t, "names")
		var table nameTable
		for _, name := range slices.Sorted(maps.Keys(want)) {
			table.add(name, want[name])
		}
		if got := maps.Collect(table.all()); !maps.Equal(got, want) {
			t.Fatalf("%v instead of %v", got, want)
		}
		for _, name := range append(slices.Collect(maps.Keys(want)), rapid.String().Draw(t, "other")) {
			size, ok := table.get(name)
			if _, there := want[name]; ok != there || size != want[name] && ok {
				t.Fatalf("%q: %d, %v", name, size, ok)
			}
		}
	})
}

// longLog lists so many segments with their sidecars, and holds none.
type longLog struct {
	blob.Storage
	segments int
}

func (s longLog) List(_ context.Context, prefix string, fn func(blob.Info) error) error {
	for no := range s.segments {
		base := walName{WALKey: testKey, name: segmentName(1, no)}.base()
		for _, name := range []string{fmt.Sprintf("%s.%016x", base, uint64(no)*0x9E3779B97F4A7C15>>4), base + metaSuffix} {
			if err := fn(blob.Info{Name: name, Size: int64(1<<20 + no)}); err != nil {
				return err
			}
		}
	}
	return nil
}

// Half a million sidecars are a listing of 80 MB: the test's are fewer, and as large each.
func TestListingOfManySidecarsIsSmall(t *testing.T) {
	const segments, most = 100_000, 160 // bytes each
	st := newStand(t)
	m := st.writer(st.s)
	m.storage = longLog{st.s, segments}
	heap := func() int64 {
		var s runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&s)
		return int64(s.HeapAlloc)
	}
	before := heap()
	l := must(m.listWAL(t.Context(), walPrefix("main")))(t)
	each := (heap() - before) / segments
	t.Logf("%d bytes for each segment", each)
	if len(l.sidecars) != segments || l.objects.count != 2*segments || each > most {
		t.Errorf("%d sidecars, %d objects, %d bytes each", len(l.sidecars), l.objects.count, each)
	}
	runtime.KeepAlive(l)
}
