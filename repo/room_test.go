package repo

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob"
	"github.com/toolboxai/relight/blob/fault"
	"github.com/toolboxai/relight/blob/mem"
	"github.com/zeebo/blake3"
)

// clock is a clock that moves when told, and when somebody sleeps.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: time.Date(2025, 10, 2, 14, 30, 0, 0, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

func (c *clock) sleep(ctx context.Context, d time.Duration) error {
	c.add(d)
	return ctx.Err()
}

// stand is a repository in memory with all its parties.
type stand struct {
	t     testing.TB
	s     *mem.Storage
	clock *clock
	id    *age.X25519Identity
	init  InitResult
	rings *rings // nil where each party opens its own
}

// rings are keys that were opened before.
type rings struct{ writer, recovery *Keyring }

func newStand(t testing.TB) *stand {
	t.Helper()
	st := &stand{t: t, s: mem.New(), clock: newClock()}
	st.id = must(age.GenerateX25519Identity())(t)
	r := must(RecipientOf(st.id))(t)
	st.init = must(Init(t.Context(), st.s, InitOptions{Recipients: []Recipient{r}, Host: "db1", Now: st.clock.now}))(t)
	return st
}

func (st *stand) options() Options {
	return Options{Name: "vault", Now: st.clock.now, Sleep: st.clock.sleep}
}

// writer opens the repository as the protected host does, through any storage.
func (st *stand) writer(s blob.Storage) *Meta {
	st.t.Helper()
	return must(Open(st.t.Context(), s, st.writerKeys(), st.options()))(st.t)
}

func (st *stand) writerKeys() *Keyring {
	st.t.Helper()
	if st.rings != nil {
		return st.rings.writer
	}
	return must(st.init.Credential.Keyring())(st.t)
}

// recovery opens it as the recovery side does.
func (st *stand) recovery(s blob.Storage) *Meta {
	st.t.Helper()
	return must(Open(st.t.Context(), s, st.recoveryKeys(), st.options()))(st.t)
}

func (st *stand) recoveryKeys() *Keyring {
	st.t.Helper()
	if st.rings != nil {
		return st.rings.recovery
	}
	return must(Unlock(st.t.Context(), st.s, st.id))(st.t)
}

// must ends the test on an error.
func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// much skips a test that is about much data under the race detector, which makes bytes dear and has seen the same code at work in TestSnapshotRoundTrip.
func much(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("about much data")
	}
}

// exhaustive skips, with -short, a test of many cases, one after the other: the race detector has nothing of it.
func exhaustive(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("exhaustive")
	}
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantError checks that an error says all of the given words.
func wantError(t testing.TB, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error; want one with %q", words)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Fatalf("error %q does not say %q", err, w)
		}
	}
}

const testSegment = 1 << 20

var testKey = WALKey{Store: "main", System: 7412345678901234567, Timeline: 1}

// walBytes is a segment's content, the same for the same number.
func walBytes(tli, no int) []byte {
	r := rand.NewChaCha8([32]byte{byte(tli), byte(no), byte(no >> 8)})
	b := make([]byte, testSegment)
	r.Read(b[:testSegment/4]) //nolint:errcheck // it never fails
	return b
}

func segmentName(tli, no int) string { return fmt.Sprintf("%08X%08X%08X", tli, no>>12, no&0xfff) }

func segmentStart(no int) relight.LSN { return relight.LSN(no) * testSegment }

func hexDigest(b []byte) string {
	sum := blake3.Sum256(b)
	return fmt.Sprintf("%x", sum)
}

func segmentCar(k WALKey, no int, b []byte) Sidecar {
	return Sidecar{
		System: k.System, Timeline: k.Timeline, Name: segmentName(int(k.Timeline), no), Start: segmentStart(no),
		End: segmentStart(no) + testSegment, SegmentSize: testSegment, Size: int64(len(b)), Digest: hexDigest(b), Version: 150004,
	}
}

func putSegment(ctx context.Context, s Sink, k WALKey, no int) error {
	b := walBytes(int(k.Timeline), no)
	return s.PutSegment(ctx, k, segmentCar(k, no, b), bytes.NewReader(b))
}

// putLive stores the bytes from..to of a segment.
func putLive(ctx context.Context, s Sink, k WALKey, no, from, to int) error {
	b := walBytes(int(k.Timeline), no)[from:to]
	car := segmentCar(k, no, b)
	car.Start, car.End = segmentStart(no)+relight.LSN(from), segmentStart(no)+relight.LSN(to)
	return s.PutLive(ctx, k, car, bytes.NewReader(b))
}

func putHistory(ctx context.Context, s Sink, k WALKey, text string) error {
	car := Sidecar{System: k.System, Timeline: k.Timeline, Name: historyName(k.Timeline), Size: int64(len(text)), Digest: hexDigest([]byte(text))}
	return s.PutHistory(ctx, k, car, strings.NewReader(text))
}

func onTimeline(t int) WALKey {
	k := testKey
	k.Timeline = relight.TimelineID(t)
	return k
}

// objectNames lists a storage's objects under a prefix.
func objectNames(t testing.TB, s blob.Storage, prefix string) []string {
	t.Helper()
	var out []string
	ok(t, s.List(context.Background(), prefix, func(i blob.Info) error {
		out = append(out, i.Name)
		return nil
	}))
	return out
}

// raw reads an object as it lies there.
func raw(t testing.TB, s blob.Storage, name string) []byte {
	t.Helper()
	return must(getAll(context.Background(), s, name, 1<<30))(t)
}

// overwrite plays the adversary who rules the storage.
func overwrite(t testing.TB, s blob.Storage, name string, b []byte) {
	t.Helper()
	ok(t, s.Put(context.Background(), name, bytes.NewReader(b), blob.PutOptions{Replace: true}))
}

// writes counts the operations that change a storage.
func writes(s *fault.Storage) int {
	n := 0
	for _, op := range s.Ops() {
		if op.Kind == fault.Put || op.Kind == fault.Delete {
			n++
		}
	}
	return n
}
