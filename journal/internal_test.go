package journal

import (
	"context"
	"crypto/ed25519"
	"database/sql"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/toolboxai/relight"
)

// Speed alone would not tell that the disk was asked.
func TestWriterConnectionIsDurable(t *testing.T) {
	t.Parallel()
	j := openWriter(t, filepath.Join(t.TempDir(), "journal.db"))
	var synchronous int
	var mode string
	for q, into := range map[string]any{"PRAGMA synchronous": &synchronous, "PRAGMA journal_mode": &mode} {
		if err := j.write.QueryRowContext(t.Context(), q).Scan(into); err != nil {
			t.Fatal(err)
		}
	}
	if synchronous != 2 || mode != "wal" {
		t.Fatal(synchronous, mode)
	}
	if _, err := j.read.ExecContext(t.Context(), "DELETE FROM event"); err == nil {
		t.Fatal("the reading connections can write")
	}
}

func FuzzDecode(f *testing.F) {
	seed, err := encode(relight.Event{Seq: 1, Kind: "a", Host: "h", Actor: "x", Data: []byte(`{"a":[1,"<"]}`)})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := decode(b)
		if err != nil {
			return
		}
		again, err := encode(e)
		if err != nil || string(again) != string(b) {
			t.Fatalf("%q became %q, %v", b, again, err)
		}
	})
}

// SQLite's own patience sleeps 100 ms between looks, and a process that writes without pause gives the lock back for some tens of microseconds.
func TestWriterWithoutPauseStarvesNobody(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "journal.db")
	busy, other := openWriter(t, path), openWriter(t, path)
	ctx, stop := context.WithCancel(t.Context())
	var writing sync.WaitGroup
	writing.Go(func() {
		for ctx.Err() == nil {
			_ = busy.update(ctx, func(*sql.Tx) error {
				time.Sleep(20 * time.Millisecond)
				return nil
			})
		}
	})
	defer writing.Wait()
	defer stop()
	for range 5 {
		if _, err := other.Append(ctx, relight.Event{Kind: "x"}, Expect{}); err != nil {
			t.Fatal(err)
		}
	}
}

func openWriter(t *testing.T, path string) *Journal {
	t.Helper()
	j, err := Open(t.Context(), path, Options{Host: "h", Actor: "a", Now: time.Now, Signer: ed25519.NewKeyFromSeed(make([]byte, 32))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	return j
}
