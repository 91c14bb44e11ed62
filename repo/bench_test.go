package repo

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob"
	"github.com/toolboxai/relight/blob/file"
	"github.com/toolboxai/relight/blob/mem"
	"golang.org/x/sync/errgroup"
)

const benchFiles, benchBytes = 8, 32 << 20 // 256 MiB

// sink0 takes packs without keeping them: the benchmark is of the pipeline.
type sink0 struct{ blob.Storage }

func (s sink0) Put(ctx context.Context, name string, body io.ReadSeeker, o blob.PutOptions) error {
	if len(name) < 5 || name[:5] != "pack/" {
		return s.Storage.Put(ctx, name, body, o)
	}
	_, err := io.Copy(io.Discard, body)
	return err
}

// heapPages makes pages as PostgreSQL lays them out: line pointers from the front, rows from the back. Even pages hold
// pgbench accounts, odd ones JSON text.
func heapPages(seed uint64, n int) []byte {
	rng := rand.New(rand.NewPCG(seed, 2))
	words := strings.Fields("account balance branch teller customer street city status pending shipped returned amount currency created updated note")
	b := make([]byte, 0, n)
	for p := 0; len(b) < n; p++ {
		page := make([]byte, 8192)
		binary.LittleEndian.PutUint64(page, rng.Uint64N(1<<36)) // LSN
		binary.LittleEndian.PutUint16(page[8:], uint16(rng.Uint32()))
		end, line := len(page), 24
		for i := 0; ; i++ {
			var row []byte
			row = binary.LittleEndian.AppendUint32(row, 700+rng.Uint32N(4)) // xmin
			row = append(row, make([]byte, 14)...)
			row = append(row, byte(i), 0, 4, 0, 2, 9, 24, 0)
			if p%2 == 0 {
				row = binary.LittleEndian.AppendUint32(row, uint32(p*61+i))
				row = binary.LittleEndian.AppendUint32(row, uint32(p/1600))
				row = binary.LittleEndian.AppendUint32(row, rng.Uint32N(10000))
				row = append(row, bytes.Repeat([]byte{' '}, 84)...)
			} else {
				row = fmt.Appendf(row, `{"id": %d, "key": "%x", "%s": "%s %s %s", "%s": %d.%02d}`, p*20+i, rng.Uint64(), words[rng.IntN(16)],
					words[rng.IntN(16)], words[rng.IntN(16)], words[rng.IntN(16)], words[rng.IntN(16)], rng.IntN(100000), rng.IntN(100))
			}
			if end-len(row)-8 < line+4 {
				break
			}
			end -= (len(row) + 7) &^ 7
			copy(page[end:], row)
			binary.LittleEndian.PutUint32(page[line:], uint32(end)|uint32(len(row))<<17|1<<15)
			line += 4
		}
		b = append(b, page...)
	}
	return b[:n]
}

func benchData() [][]byte {
	all := make([][]byte, benchFiles)
	for i := range all {
		all[i] = heapPages(uint64(i), benchBytes)
	}
	return all
}

// BenchmarkFrame is what compression alone costs on the same data.
func BenchmarkFrame(b *testing.B) {
	fr, err := newFramer()
	if err != nil {
		b.Fatal(err)
	}
	data, stored := heapPages(1, benchBytes), 0
	b.SetBytes(benchBytes)
	b.ReportAllocs()
	for b.Loop() {
		stored = 0
		for at := 0; at < len(data); at += defaultPage {
			stored += len(fr.frame(data[at : at+defaultPage]))
		}
	}
	b.ReportMetric(float64(benchBytes)/float64(stored), "ratio")
}

func benchBackup(b *testing.B, s func() blob.Storage, workers int, paged bool) {
	data := benchData()
	b.SetBytes(benchFiles * benchBytes)
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		store := s()
		m := newVault(b, store).writer(b, store, "")
		b.StartTimer()
		storeFiles(b, m, data, workers, paged)
	}
}

func storeFiles(b *testing.B, m *Meta, data [][]byte, workers int, paged bool) relight.Snapshot {
	ctx := context.Background()
	w, err := m.NewSnapshot(ctx, "main", SnapshotOptions{Workers: workers})
	if err != nil {
		b.Fatal(err)
	}
	defer w.Abort(ctx)
	var g errgroup.Group
	g.SetLimit(workers)
	for i, body := range data {
		g.Go(func() error {
			_, err := w.AddFile(ctx, Entry{Path: fmt.Sprintf("base/%d", i), Paged: paged}, bytes.NewReader(body))
			return err
		})
	}
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
	snap, err := w.Commit(ctx, relight.Snapshot{})
	if err != nil {
		b.Fatal(err)
	}
	return snap
}

func BenchmarkBackup(b *testing.B) {
	null := func() blob.Storage { return sink0{mem.New()} }
	for _, workers := range []int{1, 2} {
		b.Run(fmt.Sprintf("paged/workers=%d", workers), func(b *testing.B) { benchBackup(b, null, workers, true) })
	}
	b.Run("content/workers=2", func(b *testing.B) { benchBackup(b, null, 2, false) })
	b.Run("paged/file/workers=2", func(b *testing.B) {
		benchBackup(b, func() blob.Storage { return openFile(b) }, 2, true)
	})
}

func openFile(tb testing.TB) blob.Storage {
	tb.Helper()
	s, err := file.Open(tb.TempDir())
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

type discardAt struct{}

func (discardAt) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }

func BenchmarkRestore(b *testing.B) {
	s := openFile(b)
	v := newVault(b, s)
	snap := storeFiles(b, v.writer(b, s, ""), benchData(), 2, true)
	r := v.reader(b, s, "")
	ctx := context.Background()
	man, err := r.Meta().Manifest(ctx, "main", snap.ID)
	if err != nil {
		b.Fatal(err)
	}
	var all []Entry
	if err := r.Meta().Entries(ctx, man, func(e Entry) error { all = append(all, e); return nil }); err != nil {
		b.Fatal(err)
	}
	for _, workers := range []int{1, 2} {
		b.Run(fmt.Sprintf("workers=%d", workers), func(b *testing.B) {
			b.SetBytes(benchFiles * benchBytes)
			b.ReportAllocs()
			for b.Loop() {
				var g errgroup.Group
				g.SetLimit(workers)
				for _, e := range all {
					g.Go(func() error { return r.Restore(ctx, man, e, discardAt{}) })
				}
				if err := g.Wait(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkSnapshots lists 2,880 snapshots (15 minutes for 30 days), half of them verified, with and without cache.
func BenchmarkSnapshots(b *testing.B) {
	ctx := context.Background()
	s := openFile(b)
	v := newVault(b, s)
	m := v.writer(b, s, "")
	for i := range 2880 {
		at := testTime.Add(time.Duration(i) * 15 * time.Minute)
		id, err := m.snapshotID("main", at, "")
		if err != nil {
			b.Fatal(err)
		}
		man := Manifest{Snapshot: relight.Snapshot{ID: id, Store: "main", Host: "db1", Started: at, Facts: []byte(`{"system":"7"}`)}, Format: 1, Tree: make([]ChunkID, 10)}
		if err := m.putSigned(ctx, "manifest", snapName("main", id), man, sealedMeta); err != nil {
			b.Fatal(err)
		}
		if i%2 == 0 {
			if err := m.PutChecked(ctx, Checked{Store: "main", Snapshot: id, At: at, OK: true}); err != nil {
				b.Fatal(err)
			}
		}
	}
	for _, cached := range []bool{false, true} {
		b.Run(fmt.Sprintf("cached=%v", cached), func(b *testing.B) {
			dir := ""
			if cached {
				dir = b.TempDir()
			}
			for b.Loop() {
				all, err := v.writer(b, s, dir).Snapshots(ctx, "main")
				if err != nil || len(all) != 2880 || all[2878].State != relight.Intact {
					b.Fatal(len(all), err)
				}
			}
		})
	}
}
