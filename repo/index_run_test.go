package repo

import (
	"encoding/binary"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/zeebo/blake3"
)

// Whatever is in a run is found, every record of its id, and nothing else, also where the ids are not evenly spread.
func TestRunFindsWhatIsThere(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	spread := func(int) ChunkID { return blake3.Sum256(binary.LittleEndian.AppendUint64(nil, rng.Uint64())) }
	shapes := map[string]func(i int) ChunkID{
		"even":      spread,
		"low":       func(i int) ChunkID { id := spread(i); clear(id[:6]); return id },
		"high":      func(i int) ChunkID { id := spread(i); copy(id[:], "\xff\xff\xff\xff\xff\xff\xff"); return id },
		"one":       func(int) ChunkID { return ChunkID{5} },
		"few":       func(i int) ChunkID { return ChunkID{byte(i % 3)} },
		"two heaps": func(i int) ChunkID { id := spread(i); copy(id[:2], []byte{0x40, byte(i&1) * 0xff}); return id },
	}
	for name, shape := range shapes {
		for _, n := range []int{0, 1, 2, runPread - 1, runPread, runPread + 1, 1000, 5000} {
			recs := make([]record, 0, n)
			for i := range n {
				recs = append(recs, record{id: shape(i), pack: uint32(i), off: 1, frame: 1, plain: 1})
			}
			slices.SortFunc(recs, compareRecords)
			run := makeRun(t, recs)
			for i := range min(n, 60) {
				checkFind(t, name, run, recs, recs[(i*7919)%n].id)
				checkFind(t, name, run, recs, shape(i))
			}
			for _, id := range []ChunkID{{}, {0xff}, {0x40, 0x80}, blake3.Sum256([]byte(name))} {
				checkFind(t, name, run, recs, id)
			}
		}
	}
}

func makeRun(t testing.TB, recs []record) *indexRun {
	t.Helper()
	path := filepath.Join(t.TempDir(), "run")
	f := must(os.Create(path))(t)
	h := blake3.New()
	w := newRecordWriter(f, h)
	var row []byte
	for _, r := range recs {
		row = r.append(row[:0])
		ok(t, w.add(row))
	}
	count, digest, err := w.finish()
	ok(t, err)
	ok(t, f.Close())
	run := must(openRun(path, "run", count, digest))(t)
	t.Cleanup(func() { _ = run.f.Close() })
	return run
}

func checkFind(t *testing.T, shape string, run *indexRun, recs []record, id ChunkID) {
	t.Helper()
	lo, _ := slices.BinarySearchFunc(recs, id, func(r record, id ChunkID) int { return slices.Compare(r.id[:], id[:]) })
	want := 0
	for lo+want < len(recs) && recs[lo+want].id == id {
		want++
	}
	got := 0
	_, err := run.find(id, newRunPool(), func(r record, at int64) bool {
		if at != int64(lo+got) || r != recs[at] {
			t.Fatalf("%s of %d: record %d is %+v", shape, len(recs), at, r)
		}
		got++
		return false
	})
	if err != nil || got != want {
		t.Fatalf("%s of %d: %x found %d times instead of %d: %v", shape, len(recs), id[:8], got, want, err)
	}
}

func BenchmarkRunFind(b *testing.B) {
	const n = 1 << 21
	recs := make([]record, n)
	for i := range recs {
		recs[i].id = blake3.Sum256(binary.LittleEndian.AppendUint64(nil, uint64(i)))
	}
	ids := slices.Clone(recs)
	slices.SortFunc(recs, compareRecords)
	run, pool := makeRun(b, recs), newRunPool()
	i := 0
	for b.Loop() {
		found, err := run.find(ids[i%n].id, pool, func(record, int64) bool { return true })
		if !found || err != nil {
			b.Fatal(found, err)
		}
		i++
	}
}
