package repo

import (
	"bytes"
	"testing"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob/file"
)

// BenchmarkPutLive is the cost of one second's exposure: a small live range, durable on disk.
func BenchmarkPutLive(b *testing.B) {
	st := newStand(b)
	s := fileCopy(b, st)
	sink := st.writer(s).Sink("main")
	const size = 100_000
	for i := 0; b.Loop(); i++ {
		no, at := i/10, i%10*size
		ok(b, putLive(b.Context(), sink, testKey, no, at, at+size))
	}
}

// BenchmarkPutSegment is the cost of one full segment of the usual size.
func BenchmarkPutSegment(b *testing.B) {
	st := newStand(b)
	sink := st.writer(fileCopy(b, st)).Sink("main")
	const size = 16 << 20
	body := bytes.Repeat(walBytes(1, 1), size/testSegment)
	car := Sidecar{System: testKey.System, Timeline: 1, SegmentSize: size, Size: size, Digest: hexDigest(body)}
	b.SetBytes(size)
	for i := 0; b.Loop(); i++ {
		car.Name, car.Start = segmentName16(i), relight.LSN(i)*size
		car.End = car.Start + size
		ok(b, sink.PutSegment(b.Context(), testKey, car, bytes.NewReader(body)))
	}
}

func segmentName16(no int) string { return segmentName(1, no>>8<<12|no&0xff) }

// BenchmarkSidecars3000 reads 3,000 sidecars: with an empty cache, and with a full one.
func BenchmarkSidecars3000(b *testing.B) {
	st := newStand(b)
	sink := st.writer(st.s).Sink("main")
	body := make([]byte, testSegment)
	digest := hexDigest(body)
	for no := range 3000 {
		car := segmentCar(testKey, no, body)
		car.Digest = digest
		ok(b, sink.PutSegment(b.Context(), testKey, car, bytes.NewReader(body)))
	}
	walk := func(b *testing.B, dir string) {
		o := st.options()
		o.CacheDir = dir
		m := must(Open(b.Context(), st.s, must(st.init.Credential.Keyring())(b), o))(b)
		n := 0
		ok(b, m.Sidecars(b.Context(), "main", func(WALKey, Sidecar, bool) error { n++; return nil }))
		if n != 3000 {
			b.Fatalf("%d sidecars", n)
		}
		ok(b, m.Close())
	}
	b.Run("cold", func(b *testing.B) {
		for b.Loop() {
			walk(b, b.TempDir())
		}
	})
	dir := b.TempDir()
	walk(b, dir)
	b.Run("cached", func(b *testing.B) {
		for b.Loop() {
			walk(b, dir)
		}
	})
}

// fileCopy is the stand's repository on disk.
func fileCopy(b *testing.B, st *stand) *file.Storage {
	b.Helper()
	s := must(file.Open(b.TempDir()))(b)
	for _, n := range objectNames(b, st.s, "") {
		overwrite(b, s, n, raw(b, st.s, n))
	}
	return s
}
