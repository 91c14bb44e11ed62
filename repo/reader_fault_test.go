package repo

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"testing"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob/fault"
	"github.com/toolboxai/relight/blob/mem"
)

// memFile is a PatchFile in memory.
type memFile struct{ b []byte }

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(f.b).ReadAt(p, off)
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	if need := int(off) + len(p) - len(f.b); need > 0 {
		f.b = append(f.b, make([]byte, need)...)
	}
	return copy(f.b[off:], p), nil
}

func (f *memFile) Truncate(n int64) error {
	f.b = f.b[:n]
	return nil
}

// gallery is a full snapshot and an incremental one, with a paged file, mosaics, and a file that is cut by content.
type gallery struct {
	*shop
	mans []Manifest
	want []map[string][]byte
}

func newGallery(t testing.TB) *gallery {
	g := &gallery{shop: newTokenShop(t)}
	m := g.writer(g.s)
	paged := noise(1, 6*defaultPage)
	for i, want := range []map[string][]byte{
		{"cut": noise(2, 150<<10), "paged": paged},
		{"cut": noise(3, 90<<10), "paged": scribble(paged, 5, 3, 20)},
	} {
		o := SnapshotOptions{Kind: "full", Workers: 1}
		if i > 0 {
			o.Parent = &g.mans[i-1]
		}
		w := must(m.NewSnapshot(t.Context(), "main", o))(t)
		must(w.AddFile(t.Context(), Entry{Path: "cut", Mode: 0o600}, bytes.NewReader(want["cut"])))(t)
		old := []byte(nil)
		if i > 0 {
			old = paged
		}
		must(w.AddPages(t.Context(), Entry{Path: "paged", Mode: 0o600}, changedPages{want["paged"], old}))(t)
		snap := must(w.Commit(t.Context(), relight.Snapshot{}))(t)
		g.clock.add(1e9)
		g.mans, g.want = append(g.mans, must(m.Manifest(t.Context(), "main", snap.ID))(t)), append(g.want, want)
	}
	return g
}

// read reads everything in each way that there is, and stops at the first error. It fails the test when bytes are given that are not those of the file.
func (g *gallery) read(t *testing.T, m *Meta, when string) error {
	r := must(m.Reader())(t)
	for i, man := range g.mans {
		err := m.Entries(t.Context(), man, func(e Entry) error { return g.readFile(t, r, man, e, g.want[i][e.Path], g.want[1-i][e.Path], when) })
		if err != nil {
			return err
		}
	}
	return nil
}

func (g *gallery) readFile(t *testing.T, r *Reader, man Manifest, e Entry, want, other []byte, when string) error {
	var b bytes.Buffer
	err := r.Copy(t.Context(), man, e, &b)
	if !bytes.HasPrefix(want, b.Bytes()) || err == nil && b.Len() != len(want) {
		t.Fatalf("%s: copied %d wrong bytes of %s (%v)", when, b.Len(), e.Path, err)
	}
	if err != nil {
		return err
	}
	var f memFile
	if err = r.Restore(t.Context(), man, e, &f); err == nil && !bytes.Equal(f.b, want) {
		t.Fatalf("%s: restored wrong bytes of %s", when, e.Path)
	}
	if err != nil {
		return err
	}
	f.b = bytes.Clone(other)
	if _, err = r.Patch(t.Context(), man, e, &f, int64(len(other))); err == nil && !bytes.Equal(f.b, want) {
		t.Fatalf("%s: patched to wrong bytes of %s", when, e.Path)
	}
	return err
}

// Every operation of reading fails in every way: the right bytes or an error, never other bytes.
func TestEveryOperationOfARestoreMayFail(t *testing.T) {
	t.Parallel()
	g := newGallery(t)
	failed := 0
	g.eachReadFault(t, g.s, func(m *Meta, when string) {
		if g.read(t, m, when) != nil {
			failed++
		}
	})
	if failed == 0 {
		t.Fatal("nothing ever failed: the test shows nothing")
	}
}

// Nothing that fails makes a verification pass that should not: of a damaged snapshot, or of one that was not read to its end.
func TestEveryOperationOfAVerificationMayFail(t *testing.T) {
	t.Parallel()
	g := newGallery(t)
	for _, damaged := range []bool{false, true} {
		passed := 0
		s := g.s.Clone()
		if damaged {
			flipAll(t, s, "pack/")
		}
		g.eachReadFault(t, s, func(m *Meta, when string) {
			r := must(m.Reader())(t)
			for _, man := range g.mans {
				if err := r.VerifySnapshot(context.Background(), man, 1, nil); err == nil {
					passed++
				}
			}
			for _, man := range must(g.recovery(unfaulty(m)).Snapshots(t.Context(), "main"))(t) {
				if damaged && (man.State != relight.Complete || passed > 0) {
					t.Fatalf("%s: %s is %s, and its packs are damaged", when, man.ID, man.State)
				}
			}
		})
		if !damaged && passed == 0 {
			t.Fatal("nothing ever passed: the test shows nothing")
		}
	}
}

// unfaulty is the storage under the faults.
func unfaulty(m *Meta) *mem.Storage { return m.storage.(*faulted).under }

// faulted is a storage with faults that knows what it wraps.
type faulted struct {
	*fault.Storage
	under *mem.Storage
}

// eachReadFault lets each operation of work, which reads from a copy of s, suffer each fault.
func (g *gallery) eachReadFault(t *testing.T, s *mem.Storage, work func(m *Meta, when string)) {
	t.Helper()
	one := func(n int, e fault.Effect) (ops int) {
		under := s.Clone()
		m := g.recovery(under)
		f := &faulted{fault.New(under, fault.At(n, fault.Fault{Effect: e})), under}
		m.storage = f
		work(m, fmt.Sprintf("%s at operation %d", e, n))
		return len(f.Ops())
	}
	all := one(0, fault.None)
	for n := 1; n <= all; n += (everyNth + 3) / 4 {
		for _, e := range []fault.Effect{fault.Refuse, fault.Lose, fault.Tear, fault.Flip, fault.Die, fault.DieLate} {
			one(n, e)
		}
	}
}

var _ io.WriterAt = (*memFile)(nil)
