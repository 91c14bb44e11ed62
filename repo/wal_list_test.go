package repo

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/toolboxai/relight/blob"
	"github.com/toolboxai/relight/blob/fault"
)

func TestSidecarsInOrderAndFromTheCache(t *testing.T) {
	t.Parallel()
	st := newStand(t)
	s := st.writer(st.s).Sink("main")
	for _, no := range []int{4097, 3, 4096, 4} {
		ok(t, putSegment(t.Context(), s, testKey, no))
	}
	ok(t, putLive(t.Context(), s, testKey, 5, 1000, 2000))
	ok(t, putLive(t.Context(), s, testKey, 5, 0, 1000))
	ok(t, putHistory(t.Context(), s, onTimeline(2), "1\t0/501000\twhy\n"))
	ok(t, putSegment(t.Context(), s, onTimeline(2), 5))
	want := []string{segmentName(1, 3), segmentName(1, 4), segmentName(1, 4096), segmentName(1, 4097), segmentName(2, 5), "live 0/500000", "live 0/5003E8", "00000002.history"}
	dir := t.TempDir()
	walk := func(storage blob.Storage) []string {
		o := st.options()
		o.CacheDir = dir
		m := must(Open(t.Context(), storage, must(st.init.Credential.Keyring())(t), o))(t)
		defer m.Close() //nolint:errcheck // a test
		var got []string
		for range 2 {
			got = nil
			ok(t, m.Sidecars(t.Context(), "main", func(_ WALKey, c Sidecar, live bool) error {
				if live {
					got = append(got, "live "+c.Start.String())
				} else {
					got = append(got, c.Name)
				}
				return nil
			}))
		}
		return got
	}
	if got := walk(st.s); !slices.Equal(got, want) {
		t.Fatalf("got %v", got)
	}
	counting := fault.New(st.s, nil)
	if got := walk(counting); !slices.Equal(got, want) {
		t.Fatalf("from the cache: %v", got)
	}
	for _, op := range counting.Ops() {
		if op.Kind == fault.Get && strings.HasPrefix(op.Name, "wal/") {
			t.Fatalf("the cache did not spare %s", op)
		}
	}
	// The cache is not trusted: an edited line is refused.
	path := must(filepath.Glob(filepath.Join(dir, "*", "sidecars-main.jsonl")))(t)[0]
	b := must(os.ReadFile(path))(t)
	ok(t, os.WriteFile(path, bytes.ReplaceAll(b, []byte(`"server_version":150004`), []byte(`"server_version":160004`)), 0o600))
	if got := walk(st.s); len(got) >= len(want) {
		t.Fatalf("edited lines were believed: %v", got)
	}
	// A torn or foreign file does not stand in the way.
	ok(t, os.WriteFile(path, append([]byte("{torn\x00\n"), b[:len(b)/2]...), 0o600))
	if got := walk(st.s); !slices.Equal(got, want) {
		t.Fatalf("with a torn cache: %v", got)
	}
}

func TestSidecarsEndsWithTheStoragesError(t *testing.T) {
	t.Parallel()
	st := newStand(t)
	s := st.writer(st.s).Sink("main")
	for no := range 30 {
		ok(t, putSegment(t.Context(), s, testKey, no))
	}
	broken := errors.New("connection reset")
	bad := fault.New(st.s, func(o fault.Op) fault.Fault {
		if o.Kind == fault.Get && strings.HasSuffix(o.Name, segmentName(1, 20)+metaSuffix) {
			return fault.Fault{Effect: fault.Refuse, Err: broken}
		}
		return fault.Fault{}
	})
	m := must(Open(t.Context(), bad, must(st.init.Credential.Keyring())(t), st.options()))(t)
	if err := m.Sidecars(t.Context(), "main", func(WALKey, Sidecar, bool) error { return nil }); !errors.Is(err, broken) {
		t.Fatalf("got %v", err)
	}
	stop := errors.New("enough")
	n := 0
	err := st.writer(st.s).Sidecars(t.Context(), "main", func(WALKey, Sidecar, bool) error {
		if n++; n == 5 {
			return stop
		}
		return nil
	})
	if !errors.Is(err, stop) || n != 5 {
		t.Fatalf("%d, %v", n, err)
	}
}
