package host

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// Whatever the order and the lengths, the file holds what was written, and no byte waits for ever to be sent.
func TestWriteBehind(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "file")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	want := make([]byte, 3*behind)
	w := NewWriteBehind(f)
	write := func(off, n int) {
		for i := range n {
			want[off+i] = byte(rng.Uint32())
		}
		if got, err := w.WriteAt(want[off:off+n], int64(off)); got != n || err != nil {
			t.Fatal(got, err)
		}
		if w.to-w.from >= behind {
			t.Fatalf("%d bytes wait", w.to-w.from)
		}
	}
	for off := 0; off < 2*behind; off += 64 << 10 {
		write(off, 64<<10)
	}
	write(len(want)-5, 5)
	write(100, 3)
	write(103, behind)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the file holds other bytes: %v", err)
	}
	if _, err := w.WriteAt([]byte("x"), 0); err == nil {
		t.Error("a closed file takes bytes")
	}
}
