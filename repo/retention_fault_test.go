package repo

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/toolboxai/relight/blob"
	"github.com/toolboxai/relight/blob/fault"
	"github.com/toolboxai/relight/blob/mem"
	"github.com/zeebo/blake3"
)

// Every operation of retention fails in every way: what is listed restores, and the next run finishes. A bit that flips on its way into the storage is found by
// name, and what carries it can be deleted.
func TestEveryOperationOfRetentionMayFail(t *testing.T) {
	t.Parallel()
	base := endangered(newTokenShop(t))
	for _, before := range []int{0, 1} {
		t.Run(fmt.Sprintf("after %d runs of retention", before), func(t *testing.T) {
			t.Parallel()
			faulty := func(n int, e fault.Effect) (*shop, []fault.Op, error) {
				s := base.again(t)
				s.mustPrune(before)
				m := s.recovery(s.s)
				f := fault.New(s.s, fault.At(n, fault.Fault{Effect: e}))
				m.storage = f
				s.clock.add(2 * testGrace)
				_, err := m.Prune(t.Context(), PruneOptions{Policies: map[string][]Policy{"main": {lastOnly}}, Grace: testGrace})
				return s, f.Ops(), err
			}
			_, all, err := faulty(0, fault.None)
			ok(t, err)
			for n := 1; n <= len(all); n += everyFault {
				for _, e := range []fault.Effect{fault.Refuse, fault.Lose, fault.Tear, fault.Flip} {
					s, ops, err := faulty(n, e)
					when := fmt.Sprintf("%s at operation %d", e, n)
					s.restoreAll("main")
					if _, err := s.prune(s.s, lastOnly); err != nil { // only what was stored wrongly may stop it, and is named
						op := ops[n-1]
						if op.Kind != fault.Put || e != fault.Tear && e != fault.Flip || !strings.Contains(err.Error(), op.Name) {
							t.Fatalf("%s (%s): the next run: %v", when, op, err)
						}
						ok(t, s.s.Delete(t.Context(), op.Name))
					}
					s.mustPrune(4)
					if ids := s.restoreAll("main"); len(ids) != 1 {
						t.Fatalf("%s: %v (%v)", when, ids, err)
					}
					if rep := s.clean(); rep.Orphans != 0 {
						t.Fatalf("%s: %d orphans", when, rep.Orphans)
					}
				}
			}
		})
	}
}

// Every operation of a copy fails in every way, upon the mirror and upon the repository: what the mirror lists restores, and the next copy finishes. A storage
// keeps its promise that an object is there whole or not at all, so none is torn in the mirror; what is flipped on its way into it, its check names.
func TestEveryOperationOfACopyMayFail(t *testing.T) {
	t.Parallel()
	base := stock(newTokenShop(t))
	for _, upon := range []string{"mirror", "repository"} {
		t.Run(upon, func(t *testing.T) {
			t.Parallel()
			faulty := func(n int, e fault.Effect) (s *shop, to *mem.Storage, ops []fault.Op) {
				s, to = base.again(t), mem.New()
				m := s.writer(s.s) // opened before anything fails
				m.o.Workers = 1    // so that the operations come in one order
				into, at := blob.Storage(to), fault.At(n, fault.Fault{Effect: e})
				f := fault.New(to, at)
				if upon == "repository" {
					f = fault.New(s.s, at)
					m.storage = f
				} else {
					into = f
				}
				_, _ = m.Mirror(t.Context(), into, nil)
				return s, to, f.Ops()
			}
			_, _, all := faulty(0, fault.None)
			recovered := map[[32]byte]bool{}
			for n := 1; n <= len(all); n += everyFault {
				for _, e := range []fault.Effect{fault.Refuse, fault.Lose, fault.Tear, fault.Flip, fault.Die, fault.DieLate} {
					s, to, ops := faulty(n, e)
					if len(ops) < n {
						continue
					}
					when := fmt.Sprintf("%s at operation %s of %d", e, ops[n-1], len(all))
					put := upon == "mirror" && ops[n-1].Kind == fault.Put
					if put && e == fault.Flip {
						s.spoiltInMirror(to, ops[n-1].Name, when)
					}
					if put && (e == fault.Flip || e == fault.Tear) {
						continue
					}
					if _, err := ReadDescriptor(t.Context(), to); err == nil {
						s.lastPlace(to).restoreAll("main")
					}
					if out, err := s.mirror(s.s, to); err != nil || len(out.Damaged)+len(out.Withheld) > 0 {
						t.Fatalf("%s: the next copy: %+v %v", when, out, err)
					}
					if holds := s.contents(to); !recovered[holds] {
						s.recovered(to)
						recovered[holds] = true
					}
				}
			}
			if len(recovered) == 0 {
				t.Fatal("nothing was recovered")
			}
		})
	}
}

// contents are the digest of all that a mirror holds: what comes back from one comes back from another that holds the same. Witnesses are sealed by each copy anew,
// so they count by what they say.
func (s *shop) contents(mirror *mem.Storage) [32]byte {
	s.t.Helper()
	m := s.writer(mirror)
	h := blake3.New()
	for _, name := range objectNames(s.t, mirror, "") {
		body := raw(s.t, mirror, name)
		if strings.HasPrefix(name, witnessPrefix) {
			body = must(m.openBytes(name, body, sealOf(name)))(s.t)
		}
		_ = must(fmt.Fprintf(h, "%s %d\n%s", name, len(body), body))(s.t)
	}
	return [32]byte(h.Sum(nil))
}

// spoiltInMirror demands that what the storage changed is named there, and that the next copy brings it once it was deleted.
func (s *shop) spoiltInMirror(to *mem.Storage, name, when string) {
	s.t.Helper()
	if strings.HasPrefix(name, "keys/") || name == descriptorName || strings.HasPrefix(name, estatePrefix) || strings.HasSuffix(name, ".beat") || strings.HasPrefix(name, pendingPrefix) {
		return // what is written is the whole of it: no bits are left over to compare with, or it is replaced
	}
	left := s.lastPlace(to)
	var found []string
	m := left.recovery(to)
	must(m.Check(s.t.Context(), must(m.Reader())(s.t), func(f Finding) { found = append(found, f.Object+" "+f.What) }))(s.t)
	if !slices.ContainsFunc(found, func(f string) bool { return strings.Contains(f, name) }) {
		s.t.Fatalf("%s: %s is not named in %v", when, name, found)
	}
	ok(s.t, to.Delete(s.t.Context(), name))
	must(s.mirror(s.s, to))(s.t)
	s.recovered(to)
}
