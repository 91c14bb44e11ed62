package journal_test

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/journal"
	"go.uber.org/goleak"
)

// The test binary doubles as a writer in a process of its own.
func TestMain(m *testing.M) {
	if os.Getenv("JOURNAL_TEST_WRITER") != "" {
		playWriter()
	}
	goleak.VerifyTestMain(m)
}

// playWriter appends events and says after each that it was acknowledged.
func playWriter() {
	name := os.Getenv("JOURNAL_TEST_WRITER")
	count, err := strconv.Atoi(os.Getenv("JOURNAL_TEST_COUNT"))
	must(err)
	j, err := journal.Open(context.Background(), os.Getenv("JOURNAL_TEST_PATH"), options(name))
	must(err)
	for i := range count {
		es := []relight.Event{event("r-"+name, "step.started", i), event("r-"+name, "step.completed", i)}
		got, err := j.AppendBatch(context.Background(), es, journal.Expect{})
		must(err)
		fmt.Println(got[1].Seq)
	}
	must(j.Close())
	os.Exit(0)
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

var hostKey = ed25519.NewKeyFromSeed([]byte("0123456789abcdef0123456789abcdef"))

func hostPublic() ed25519.PublicKey { return hostKey.Public().(ed25519.PublicKey) }

func trust(anchors ...journal.Anchor) journal.Trust {
	return journal.Trust{Keys: []journal.Key{{Host: "db1", Public: hostPublic()}}, Anchors: anchors}
}

func options(actor string) journal.Options {
	var ticks atomic.Int64
	return journal.Options{Host: "db1", Actor: actor, Signer: hostKey, Poll: time.Millisecond, Now: func() time.Time {
		return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).Add(time.Duration(ticks.Add(1)) * time.Millisecond)
	}}
}

func event(run, kind string, n any) relight.Event {
	b, err := json.Marshal(map[string]any{"n": n})
	must(err)
	return relight.Event{Run: relight.RunID(run), Kind: kind, Data: b}
}

func open(t testing.TB, path string, change ...func(*journal.Options)) *journal.Journal {
	t.Helper()
	o := options("alice")
	for _, f := range change {
		f(&o)
	}
	j, err := journal.Open(t.Context(), path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	})
	return j
}

func fresh(t testing.TB, change ...func(*journal.Options)) (*journal.Journal, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "journal.db")
	return open(t, path, change...), path
}

func fill(t testing.TB, j *journal.Journal, n int) {
	t.Helper()
	for i := range n {
		if _, err := j.Append(t.Context(), event("r-1", "step.done", i), journal.Expect{}); err != nil {
			t.Fatal(err)
		}
	}
}

func verified(t testing.TB, j *journal.Journal, tr journal.Trust) journal.Report {
	t.Helper()
	r, err := j.Verify(t.Context(), tr)
	if err != nil {
		t.Fatal(err)
	}
	return r
}
