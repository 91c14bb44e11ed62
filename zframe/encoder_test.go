package zframe

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// decode is the other side: a decoder that is not ours.
func decode(tb testing.TB) func(frame []byte) ([]byte, error) {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(Max))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(d.Close)
	return func(frame []byte) ([]byte, error) { return d.DecodeAll(frame, nil) }
}

// check encodes, decodes, and holds the frame to the package's promises.
func check(tb testing.TB, e *Encoder, open func([]byte) ([]byte, error), src []byte) []byte {
	tb.Helper()
	frame := e.Encode([]byte("before"), src)
	if !bytes.HasPrefix(frame, []byte("before")) {
		tb.Fatal("what stood before the frame was changed")
	}
	frame = frame[len("before"):]
	got, err := open(frame)
	if err != nil || !bytes.Equal(got, src) {
		tb.Fatalf("%d bytes give a frame of %d that decodes to %d bytes: %v", len(src), len(frame), len(got), err)
	}
	if len(frame) > len(src)+Overhead {
		tb.Fatalf("%d bytes give a frame of %d", len(src), len(frame))
	}
	var h zstd.Header
	if err := h.Decode(frame); err != nil || !h.HasFCS || h.FrameContentSize != uint64(len(src)) || h.HasCheckSum || h.DictionaryID != 0 {
		tb.Fatalf("header of %d bytes: %+v, %v", len(src), h, err)
	}
	return frame
}

// kinds are ways to make n bytes.
func kinds(rng *rand.Rand) map[string]func(n int) []byte {
	random := func(n, symbols int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rng.IntN(symbols))
		}
		return b
	}
	return map[string]func(n int) []byte{
		"zeros":  func(n int) []byte { return make([]byte, n) },
		"noise":  func(n int) []byte { return random(n, 256) },
		"hex":    func(n int) []byte { return random(n, 16) },
		"two":    func(n int) []byte { return random(n, 2) },
		"rows":   func(n int) []byte { return rows(rng, n) },
		"copies": func(n int) []byte { return copies(rng, n) },
		"period": func(n int) []byte { return bytes.Repeat([]byte("abc"), n/3+1)[:n] },
		"last":   func(n int) []byte { return append(make([]byte, max(n-1, 0)), 7)[:n] },
	}
}

// rows look like a table's: of one length, with a number that counts and a long filler.
func rows(rng *rand.Rand, n int) []byte {
	var b []byte
	for i := uint32(rng.IntN(1 << 20)); len(b) < n; i++ {
		b = binary.LittleEndian.AppendUint64(b, 0x0018_0902_0004_0000|uint64(rng.IntN(4)))
		b = binary.LittleEndian.AppendUint32(b, i)
		b = fmt.Appendf(b, "%08x%60s", rng.Uint32(), "")
	}
	return b[:n]
}

// copies repeats itself at all distances and lengths, with little or nothing between.
func copies(rng *rand.Rand, n int) []byte {
	b := []byte{byte(rng.IntN(256))}
	distance := 1
	for len(b) < n {
		for range rng.IntN(1 << rng.IntN(8)) {
			b = append(b, byte(rng.IntN(1<<rng.IntN(9))))
		}
		if rng.IntN(3) > 0 { // as often as not the last distance again
			distance = 1 + rng.IntN(min(len(b), 1<<rng.IntN(17)))
		}
		for range 3 + rng.IntN(1<<rng.IntN(14)) {
			b = append(b, b[len(b)-min(distance, len(b))])
		}
	}
	return b[:n]
}

func TestEverySize(t *testing.T) {
	t.Parallel()
	open, e := decode(t), NewEncoder()
	rng := rand.New(rand.NewPCG(1, 2))
	sizes := []int{1023, 1024, 1025, 4095, 4096, 4097, 8192, 16383, 16384, 16385, 32768, Max - 13, Max - 12, Max - 8, Max - 2, Max - 1, Max}
	for n := range 600 {
		sizes = append(sizes, n)
	}
	for name, make := range kinds(rng) {
		for _, n := range sizes {
			src := make(n)
			frame := check(t, e, open, src)
			if n < 64 || n > 70 {
				continue
			}
			if fresh := NewEncoder().Encode(nil, src); !bytes.Equal(fresh, frame) {
				t.Fatalf("%s, %d bytes: a used encoder gives another frame than a new one", name, n)
			}
		}
	}
}

// TestHistories encodes what differs in everything that sequences can differ in.
func TestHistories(t *testing.T) {
	t.Parallel()
	open, e := decode(t), NewEncoder()
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 3))
		check(t, e, open, copies(rng, 1+rng.IntN(Max)))
	}
}

func TestCompresses(t *testing.T) {
	t.Parallel()
	e, rng := NewEncoder(), rand.New(rand.NewPCG(5, 6))
	for name, least := range map[string]int{"zeros": 5000, "noise": 1, "hex": 19, "rows": 50, "period": 2000} {
		if n := len(e.Encode(nil, kinds(rng)[name](Max))) - Overhead; n*least > Max*10 {
			t.Errorf("%d bytes of %s take %d", Max, name, n)
		}
	}
}

func TestTooLong(t *testing.T) {
	t.Parallel()
	defer func() {
		if recover() == nil {
			t.Error("a piece that is too long was encoded")
		}
	}()
	NewEncoder().Encode(nil, make([]byte, Max+1))
}

// TestProgram has the reference implementation decode a file of many frames.
func TestProgram(t *testing.T) {
	t.Parallel()
	program, err := exec.LookPath("zstd")
	if err != nil {
		t.Skip("no zstd program here; make setup installs it")
	}
	var plain, framed []byte
	e, rng := NewEncoder(), rand.New(rand.NewPCG(7, 8))
	for _, make := range kinds(rng) {
		for _, n := range []int{0, 1, 2, 16, 17, 63, 64, 255, 256, 257, 1000, 1024, 5000, 20000, Max - 1, Max} {
			src := make(n)
			plain, framed = append(plain, src...), e.Encode(framed, src)
		}
	}
	for range 50 {
		src := copies(rng, 1+rng.IntN(Max))
		plain, framed = append(plain, src...), e.Encode(framed, src)
	}
	path := filepath.Join(t.TempDir(), "frames")
	if err := os.WriteFile(path, framed, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(program, "-dc", path).Output()
	if err != nil || !bytes.Equal(out, plain) {
		t.Fatalf("zstd -d gives %d bytes of %d: %v", len(out), len(plain), err)
	}
}

func FuzzEncode(f *testing.F) {
	rng := rand.New(rand.NewPCG(9, 10))
	for _, make := range kinds(rng) {
		f.Add(make(300), uint16(1))
		f.Add(make(40), uint16(77))
	}
	open, e := decode(f), NewEncoder()
	f.Fuzz(func(t *testing.T, src []byte, times uint16) {
		src = src[:min(len(src), Max)]
		check(t, e, open, src)
		if len(src) > 0 { // and a longer piece, of which it is the period, but for one byte here and there
			long := bytes.Repeat(src, min(int(times)+1, Max/len(src)))
			for i := int(times); i < len(long); i += int(times) + 100 {
				long[i]++
			}
			check(t, e, open, long)
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	e, src := NewEncoder(), rows(rand.New(rand.NewPCG(11, 12)), Max)
	var out []byte
	b.SetBytes(Max)
	b.ReportAllocs()
	for b.Loop() {
		out = e.Encode(out[:0], src)
	}
	b.ReportMetric(float64(len(src))/float64(len(out)), "ratio")
}
