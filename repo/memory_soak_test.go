//go:build slow && soak && !race

package repo

import (
	"context"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/toolboxai/relight/blob"
	"github.com/toolboxai/relight/blob/file"
)

// TestMemoryDoesNotGrowWithTheLog looks through a month of WAL, half a million segments: a check, a retention that keeps all of it, and one that removes nearly all.
func TestMemoryDoesNotGrowWithTheLog(t *testing.T) {
	t.Parallel()
	for _, phase := range []string{"check", "prune", "cut"} {
		peak(t, "^TestLongLogChild$", "RELIGHT_TEST_PHASE="+phase)
	}
}

// TestLongLogChild does one phase when the test above starts it.
func TestLongLogChild(t *testing.T) {
	phase := os.Getenv("RELIGHT_TEST_PHASE")
	if phase == "" {
		t.Skip("run by TestMemoryDoesNotGrowWithTheLog")
	}
	const segments, last = 500_000, 10
	s := newShop(t)
	o := s.options()
	o.CacheDir = t.TempDir()
	marks := must(file.Create(t.TempDir()))(t) // a storage is not the process's memory
	m := must(Open(t.Context(), splitStorage{newLongLog(s.stand, segments), trashPrefix, marks}, s.recoveryKeys(), o))(t)
	keep := func(p Policy) Pruned {
		return must(m.Prune(t.Context(), PruneOptions{Grace: testGrace, Policies: map[string][]Policy{"main": {p}}}))(t)
	}
	switch phase {
	case "check":
		rep, err := m.Check(t.Context(), nil, func(f Finding) { t.Logf("finding %+v", f) })
		if err != nil || rep.WAL != segments {
			t.Errorf("%+v, %v", rep, err)
		}
	case "prune":
		if out := keep(Policy{Every: 15 * time.Minute, For: 30 * day, PointInTime: true}); out.Marked.Objects != 0 {
			t.Errorf("%+v", out.Marked)
		}
	case "cut":
		s.base(s.writer(s.s), segments-last)
		if out := keep(lastOnly); out.Marked.Objects != 2*(segments-last) {
			t.Errorf("%+v", out)
		}
		s.clock.add(2 * testGrace)
		if out := keep(lastOnly); out.Deleted.Objects != 2*(segments-last) {
			t.Errorf("%+v", out)
		}
		if left := objectNames(t, m.storage, testKey.prefix()+"0"); len(left) != 2*last {
			t.Errorf("%d objects are left", len(left))
		}
	}
	tellPeak(t)
}

// splitStorage keeps what lies under a prefix elsewhere, where another clock counts: it does not tell the time.
type splitStorage struct {
	blob.Storage
	prefix    string
	elsewhere blob.Storage
}

func (s splitStorage) of(name string) blob.Storage {
	if strings.HasPrefix(name, s.prefix) {
		return s.elsewhere
	}
	return s.Storage
}

func (s splitStorage) timeless(i blob.Info) blob.Info {
	if strings.HasPrefix(i.Name, s.prefix) {
		i.Modified = time.Time{}
	}
	return i
}

func (s splitStorage) Put(ctx context.Context, name string, r io.ReadSeeker, o blob.PutOptions) error {
	return s.of(name).Put(ctx, name, r, o)
}

func (s splitStorage) Get(ctx context.Context, name string, offset, length int64) (io.ReadCloser, error) {
	return s.of(name).Get(ctx, name, offset, length)
}

func (s splitStorage) Stat(ctx context.Context, name string) (blob.Info, error) {
	i, err := s.of(name).Stat(ctx, name)
	return s.timeless(i), err
}

func (s splitStorage) List(ctx context.Context, prefix string, fn func(blob.Info) error) error {
	return s.of(prefix).List(ctx, prefix, func(i blob.Info) error { return fn(s.timeless(i)) })
}

func (s splitStorage) Delete(ctx context.Context, name string) error {
	return s.of(name).Delete(ctx, name)
}
