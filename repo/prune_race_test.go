package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob"
	"github.com/toolboxai/relight/blob/fault"
)

// interleave runs one party against storage, and at operation n the other party whole; it gives the number of operations.
func interleave(s blob.Storage, n int, other func(), one func(blob.Storage)) int {
	f := fault.New(s, func(op fault.Op) fault.Fault {
		if op.Seq == n {
			other()
		}
		return fault.Fault{}
	})
	one(f)
	return len(f.Ops())
}

// dangerous is a repository in which an expired snapshot holds the very content that the next backup is about to take.
func dangerous(t testing.TB) *shop { return endangered(newShop(t)) }

func endangered(s *shop) *shop {
	s.mustTake(packEach(), 1, 2, 3)
	s.mustTake(packEach(), 4)
	return s
}

// A backup is paused at each of its operations, and retention runs meanwhile: marks, a full grace, sweeps, once and again. What
// the backup then commits restores, and so does everything else.
func TestBackupRacesPrune(t *testing.T) {
	t.Parallel()
	shop := endangered(newTokenShop(t))
	for _, before := range []int{0, 1} { // runs of retention before the backup begins
		t.Run(fmt.Sprintf("after %d runs of retention", before), func(t *testing.T) {
			t.Parallel()
			for n, last := 1, 2; n <= last; n += everyNth {
				s := shop.again(t)
				s.mustPrune(before)
				s.clock.add(10 * time.Hour)
				last = interleave(s.s, n, func() { s.mustPrune(3) }, func(f blob.Storage) {
					_, err := s.take(t.Context(), s.writer(f), "main", files(1, 2, 3, 5), packEach())
					if err != nil {
						t.Fatalf("paused at operation %d: %v", n, err)
					}
				})
				ids := s.restoreAll("main")
				s.mustPrune(3)
				if after := s.restoreAll("main"); len(after) != 1 || after[0] != ids[len(ids)-1] {
					t.Fatalf("paused at operation %d: %v, and after retention %v", n, ids, after)
				}
				s.clean()
			}
		})
	}
}

// Retention is paused at each of its operations, and a backup runs meanwhile.
func TestPruneRacesBackup(t *testing.T) {
	t.Parallel()
	shop := endangered(newTokenShop(t))
	for _, before := range []int{0, 1, 2} { // so that marking as well as sweeping is paused
		t.Run(fmt.Sprintf("after %d runs of retention", before), func(t *testing.T) {
			t.Parallel()
			for n, last := 1, 2; n <= last; n += everyNth {
				s := shop.again(t)
				s.mustPrune(before)
				var id relight.SnapshotID
				backup := func() { id = must(s.take(t.Context(), s.writer(s.s), "main", files(1, 2, 3, 5), packEach()))(t) }
				s.clock.add(10 * time.Hour)
				last = interleave(s.s, n, backup, func(f blob.Storage) { must(s.prune(f, lastOnly))(t) })
				if ids := s.restoreAll("main"); id != "" && !slices.Contains(ids, id) {
					t.Fatalf("paused at operation %d: %s is not among %v", n, id, ids)
				}
				s.mustPrune(3)
				if ids := s.restoreAll("main"); id != "" && !slices.Contains(ids, id) {
					t.Fatalf("paused at operation %d: %s is not among %v after retention", n, id, ids)
				}
				s.clean()
			}
		})
	}
}

// A backup is under way over whole runs of retention: begun before the marks, committed when they are long ripe.
func TestTrap30SlowBackupBlocksTheSweep(t *testing.T) {
	t.Parallel()
	s := dangerous(t)
	m := s.writer(s.s)
	w := must(m.NewSnapshot(t.Context(), "main", packEach()))(t)
	for name, b := range files(1, 2, 3) { // all of it is there already
		must(w.AddFile(t.Context(), Entry{Path: name, Mode: 0o600, Paged: true}, bytes.NewReader(b)))(t)
	}
	out := s.mustPrune(4)
	if !slices.Contains(out.Blocked, w.ID()) || out.Deleted.Objects != 0 {
		t.Fatalf("retention does not wait: %+v", out)
	}
	s.want[w.ID()] = files(1, 2, 3)
	must(w.Commit(t.Context(), relight.Snapshot{}))(t)
	s.mustPrune(3)
	if ids := s.restoreAll("main"); !slices.Contains(ids, w.ID()) {
		t.Fatalf("there are %v", ids)
	}
	s.clean()
}

// Incrementals take chunks over without looking them up; their parent is kept while they run, or gone before they begin.
func TestIncrementalRacesPrune(t *testing.T) {
	t.Parallel()
	shop := endangered(newTokenShop(t))
	same := func(ctx context.Context, m *Meta, parent Manifest) (relight.SnapshotID, error) {
		w, err := m.NewSnapshot(ctx, "main", SnapshotOptions{Kind: "incremental", Parent: &parent, Workers: 1})
		if err != nil {
			return "", err
		}
		for _, name := range []string{"file-001", "file-002", "file-003"} {
			if _, err := w.AddPages(ctx, Entry{Path: name, Mode: 0o600}, allSame{}); err != nil {
				w.Abort(ctx)
				return "", err
			}
		}
		snap, err := w.Commit(ctx, relight.Snapshot{})
		return snap.ID, err
	}
	refused := 0
	for n, last := 1, 2; n <= last; n += everyNth {
		s := shop.again(t)
		m := s.writer(s.s)
		parent := must(m.Snapshots(t.Context(), "main"))(t)[0]
		s.clock.add(10 * time.Hour)
		last = interleave(s.s, n, func() { s.mustPrune(3) }, func(f blob.Storage) {
			id, err := same(t.Context(), s.writer(f), parent)
			if err != nil {
				refused++
				wantError(t, err, "parent")
				return
			}
			s.want[id] = files(1, 2, 3)
		})
		s.restoreAll("main")
		s.mustPrune(3)
		s.restoreAll("main")
		s.clean()
	}
	if refused == 0 {
		t.Fatal("no interleaving let the parent expire before the backup began")
	}
}

// allSame is a page source of which the parent has everything; it is as long as goods.
type allSame struct{}

func (allSame) Chunk(_ context.Context, i int64, _ []byte) (int, []Stretch, error) {
	if i == 3 {
		return 100, nil, io.EOF
	}
	return defaultPage, nil, nil
}

// A restore is paused at each operation while its snapshot expires. Within the grace it ends well; later it may fail, and never
// gives other bytes.
func TestRestoreRacesPrune(t *testing.T) {
	t.Parallel()
	shop := endangered(newTokenShop(t))
	for _, runs := range []int{1, 3} {
		failed := 0
		for n, last := 1, 2; n <= last; n += everyNth {
			s := shop.again(t)
			man := must(s.recovery(s.s).Snapshots(t.Context(), "main"))(t)[0]
			last = interleave(s.s, n, func() { s.mustPrune(runs) }, func(f blob.Storage) {
				m := must(Open(t.Context(), f, s.recoveryKeys(), s.options()))(t)
				r := must(m.Reader())(t)
				err := m.Entries(t.Context(), man, func(e Entry) error {
					var b bytes.Buffer
					if err := r.Copy(t.Context(), man, e, &b); err != nil {
						return err
					}
					if !bytes.Equal(b.Bytes(), s.want[man.ID][e.Path]) {
						t.Fatalf("paused at operation %d: other bytes", n)
					}
					return nil
				})
				if err != nil && (runs == 1 || !errors.Is(err, ErrCorrupt)) {
					t.Fatalf("paused at operation %d: %v", n, err)
				}
				if err != nil {
					failed++
				}
			})
		}
		if runs == 3 && failed == 0 {
			t.Fatal("the sweep took nothing from any restore: the test shows nothing")
		}
	}
}

// The process of retention dies at each of its operations; the next one finishes.
func TestPruneDiesAnywhere(t *testing.T) {
	t.Parallel()
	shop := endangered(newTokenShop(t))
	for _, before := range []int{0, 1} {
		t.Run(fmt.Sprintf("after %d runs of retention", before), func(t *testing.T) {
			t.Parallel()
			for _, e := range []fault.Effect{fault.Die, fault.DieLate} {
				for n, last := 1, 2; n <= last; n += everyNth {
					s := shop.again(t)
					s.mustPrune(before)
					f := fault.New(s.s, fault.At(n, fault.Fault{Effect: e}))
					m := s.recovery(s.s)
					m.storage = f
					s.clock.add(2 * testGrace)
					_, err := m.Prune(t.Context(), PruneOptions{Policies: map[string][]Policy{"main": {lastOnly}}, Grace: testGrace})
					last = len(f.Ops()) + 1
					if f.Dead() == (err == nil) && n < last-3 {
						t.Fatalf("operation %d: dead %v, error %v", n, f.Dead(), err)
					}
					s.restoreAll("main")
					s.mustPrune(3)
					if ids := s.restoreAll("main"); len(ids) != 1 {
						t.Fatalf("died %v at operation %d: %v", e, n, ids)
					}
					if rep := s.clean(); rep.Orphans != 0 {
						t.Fatalf("died %v at operation %d: %d orphans", e, n, rep.Orphans)
					}
					if !f.Dead() {
						break
					}
				}
			}
		})
	}
}

// The dead are fenced at each operation of a commit: either the snapshot does not count, or it restores.
func TestFenceRacesCommit(t *testing.T) {
	t.Parallel()
	shop := endangered(newTokenShop(t))
	fenced, won := 0, 0
	for n, last := 0, 0; n <= last; n += (everyCase + 7) / 8 { // the first without a fence tells how many operations there are
		s := shop.again(t)
		m := s.writer(s.s)
		w := must(m.NewSnapshot(t.Context(), "main", packEach()))(t)
		for name, b := range files(1, 2, 3) {
			must(w.AddFile(t.Context(), Entry{Path: name, Mode: 0o600, Paged: true}, bytes.NewReader(b)))(t)
		}
		s.want[w.ID()] = files(1, 2, 3)
		ops := interleave(s.s, n, func() { s.clock.add(8 * day); s.mustPrune(4) }, func(f blob.Storage) {
			m.storage = f
			if _, err := w.Commit(t.Context(), relight.Snapshot{}); err != nil {
				wantError(t, err, "given up")
			}
		})
		last = max(last, ops)
		if ids := s.restoreAll("main"); slices.Contains(ids, w.ID()) {
			won++
		} else {
			fenced++
		}
		s.mustPrune(2)
		s.restoreAll("main")
	}
	if fenced == 0 || won < 2 {
		t.Fatalf("%d fenced, %d committed: the test does not show both", fenced, won)
	}
}
