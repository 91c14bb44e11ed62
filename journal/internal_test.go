package journal

import (
	"crypto/ed25519"
	"path/filepath"
	"testing"
	"time"

	"github.com/toolboxai/relight"
)

// Speed alone would not tell that the disk was asked.
func TestWriterConnectionIsDurable(t *testing.T) {
	t.Parallel()
	j, err := Open(t.Context(), filepath.Join(t.TempDir(), "journal.db"), Options{Host: "h", Actor: "a", Now: time.Now,
		Signer: ed25519.NewKeyFromSeed(make([]byte, 32))})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	var sync, busy int
	var mode string
	for q, into := range map[string]any{"PRAGMA synchronous": &sync, "PRAGMA journal_mode": &mode, "PRAGMA busy_timeout": &busy} {
		if err := j.write.QueryRowContext(t.Context(), q).Scan(into); err != nil {
			t.Fatal(err)
		}
	}
	if sync != 2 || mode != "wal" || busy < 1000 {
		t.Fatal(sync, mode, busy)
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
