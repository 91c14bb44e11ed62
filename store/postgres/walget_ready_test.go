package postgres

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/repo"
	"github.com/toolboxai/relight/store/postgres/walfile"
)

// A server takes what is ready by itself: that counts like any other, brings the next segments, and may be asked for again.
func TestReadySegmentsAreTaken(t *testing.T) {
	wal := recordedWAL(t, "v15-switch-and-commits")
	m := newMemSink("a")
	for i := range 20 { // more than are fetched ahead
		hold(m, 1, sampleStart+relight.LSN(i)<<21, wal)
	}
	g := newWALGetStand(t, m)
	name := func(i int) string { return walfile.SegmentName(1, sampleStart+relight.LSN(i)<<20, 1<<20) }
	take := func(i int) {
		t.Helper()
		ready, dest := filepath.Join(g.dir, "cache", name(i)), filepath.Join(g.dir, "RECOVERYXLOG")
		eventuallyUnit(t, func() bool { _, err := os.Stat(ready); return err == nil })
		out, err := exec.Command("sh", "-c", strings.NewReplacer("%f", name(i), "%p", dest).Replace(g.server.RestoreCommand([]string{"false"}))).CombinedOutput()
		if err != nil {
			t.Fatalf("take %s: %v %s", name(i), err, out)
		}
		b, err := os.ReadFile(dest)
		if want := wal[i%2<<20 : (i%2+1)<<20]; err != nil || !bytes.Equal(b, want) {
			t.Fatalf("%s: %d other bytes, %v", name(i), len(b), err)
		}
	}
	g.expect(name(0), WALGetDone, wal[:1<<20])
	for i := 1; i < 40; i++ {
		take(i)
	}
	end := sampleStart + 40<<20
	eventuallyUnit(t, func() bool { s := g.server.Stats(); return s.Reached == end && s.Served == 40 && s.Last == name(39) })
	g.expect(name(39), WALGetDone, wal[1<<20:]) // once more
	if s := g.server.Stats(); s.Served != 41 || s.Failed != nil {
		t.Errorf("%+v", s)
	}
}

// A file that is not complete yet, or whose fetch failed, has no name under which it could be taken.
func TestOnlyCompleteSegmentsAreReady(t *testing.T) {
	dir := t.TempDir()
	c := newWALCache(dir, func(string) error { return nil })
	for _, failure := range []error{nil, errors.New("503 slow down")} {
		err := c.get(t.Context(), "x", func(w io.Writer) error {
			if _, err := w.Write([]byte("half")); err != nil {
				return err
			}
			if _, err := os.Stat(filepath.Join(dir, "x")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("half of it is there: %v", err)
			}
			return failure
		})
		if !errors.Is(err, failure) {
			t.Error(err)
		}
		_, err = os.Stat(filepath.Join(dir, "x"))
		if (err == nil) != (failure == nil) {
			t.Errorf("after %v: %v", failure, err)
		}
		_ = os.Remove(filepath.Join(dir, "x"))
		if taken := c.taken(); failure == nil && !slices.Equal(taken, []string{"x"}) || failure != nil && taken != nil {
			t.Errorf("after %v: taken %v", failure, taken)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left: %v %v", left, err)
	}
}

// What a dead server left in the cache is not handed out.
func TestCacheOfADeadServerGoes(t *testing.T) {
	cache := filepath.Join(t.TempDir(), "cache")
	stale := filepath.Join(cache, "000000010000000000000008")
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(os.Mkdir(cache, 0o700))
	check(os.WriteFile(stale, []byte("of another recovery"), 0o600))
	m := newMemSink("a")
	s, err := NewWALServer(t.Context(), WALServerOptions{Repository: memRepository{sink: m, key: repo.WALKey{Store: "main", System: sampleSystem}}, Store: "main",
		System: sampleSystem, Socket: filepath.Join(t.TempDir(), "s"), CacheDir: cache, Log: slog.New(slog.DiscardHandler)})
	check(err)
	if _, err := os.Stat(stale); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
	check(s.Close())
}

func TestRestoreCommandQuotes(t *testing.T) {
	s := &WALServer{o: WALServerOptions{Socket: "/run/it's 100%/wal", CacheDir: "/srv/$(x) %f"}}
	got := s.RestoreCommand([]string{"/bin/re light", "wal-get"})
	want := `mv -f '/srv/$(x) %%f'/"%f" "%p" 2>/dev/null || exec '/bin/re light' 'wal-get' '/run/it'\''s 100%%/wal' "%f" "%p"`
	if got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
