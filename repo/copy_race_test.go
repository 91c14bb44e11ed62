package repo

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob"
	"github.com/toolboxai/relight/blob/fault"
	"github.com/toolboxai/relight/blob/mem"
)

// mirrored is a shop and its mirror, whose retention wants the last snapshot only and ran some times. The shop's next snapshot has the very content that the
// mirror's retention no longer needs.
func mirrored(t testing.TB, shop *shop, to *mem.Storage, before int) (s, left *shop, mirror *mem.Storage) {
	s, mirror = shop.again(t), to.Clone()
	left = s.lastPlace(mirror)
	left.mustPrune(before)
	s.mustTake(packEach(), 1, 2, 3, 5)
	return s, left, mirror
}

// copied demands that what the mirror lists restores, and that a copy that says it is complete is: the newest snapshot is there.
func (s *shop) copied(left *shop, out Copied, err error, when string) (complete bool) {
	s.t.Helper()
	ids := left.restoreAll("main")
	all := must(s.writer(s.s).Snapshots(s.t.Context(), "main"))(s.t)
	complete = err == nil && len(out.Withheld) == 0
	if len(out.Damaged) > 0 {
		s.t.Fatalf("%s: %v are said to be damaged", when, out.Damaged)
	}
	if newest := all[len(all)-1].ID; complete && !slices.Contains(ids, newest) {
		s.t.Fatalf("%s: the copy is complete, and %s is not among %v", when, newest, ids)
	}
	return complete
}

// settled demands that the next copy, after retention has ended what it was doing, brings everything, and that retention leaves it.
func (s *shop) settled(left *shop, mirror *mem.Storage, when string) {
	s.t.Helper()
	left.mustPrune(2)
	out, err := s.mirror(s.s, mirror)
	if !s.copied(left, out, err, when+", and then") {
		s.t.Fatalf("%s: the next copy still withholds %v: %v", when, out.Withheld, err)
	}
	left.mustPrune(3)
	if ids := left.restoreAll("main"); len(ids) != 1 {
		s.t.Fatalf("%s: at last there are %v", when, ids)
	}
	left.clean()
	if names := objectNames(s.t, mirror, pendingPrefix); len(names) > 0 {
		s.t.Fatalf("%s: still registered: %v", when, names)
	}
}

// The mirror's retention is paused at each of its operations, and meanwhile a whole copy is made: what the mirror lists restores, now and when retention has
// gone on, and a copy that says that it is complete has told the truth.
func TestCopyRacesPruneOfTheMirror(t *testing.T) {
	t.Parallel()
	shop, to := endangered(newTokenShop(t)), mem.New()
	must(shop.mirror(shop.s, to))(t)
	for _, before := range []int{0, 1} { // so that marking as well as announcing and sweeping is paused
		t.Run(fmt.Sprintf("after %d runs of retention", before), func(t *testing.T) {
			t.Parallel()
			complete, withheld := 0, 0
			for n, last := 1, 2; n <= last; n += everyPause {
				s, left, mirror := mirrored(t, shop, to, before)
				when := fmt.Sprintf("paused at operation %d", n)
				done := false
				last = interleave(mirror, n, func() {
					out, err := s.mirror(s.s, mirror)
					if done = s.copied(left, out, err, when); done {
						complete++
					} else {
						withheld++
					}
				}, func(f blob.Storage) { must(left.prune(f, lastOnly))(t) })
				all := must(s.writer(s.s).Snapshots(t.Context(), "main"))(t)
				if ids := left.restoreAll("main"); done && !slices.Contains(ids, all[len(all)-1].ID) {
					t.Fatalf("%s: the copy was complete, and afterwards there are %v", when, ids)
				}
				s.settled(left, mirror, when)
			}
			if complete == 0 || before == 1 && everyPause == 1 && withheld == 0 {
				t.Fatalf("%d copies were complete, %d not: the test does not show both", complete, withheld)
			}
		})
	}
}

// A copy is paused at each of its operations upon the mirror, or upon the repository, and meanwhile the mirror's retention runs, once and again.
func TestPruneOfTheMirrorRacesCopy(t *testing.T) {
	t.Parallel()
	shop, to := endangered(newTokenShop(t)), mem.New()
	must(shop.mirror(shop.s, to))(t)
	for _, before := range []int{0, 1} {
		for _, upon := range []string{"mirror", "repository"} {
			t.Run(fmt.Sprintf("after %d runs of retention, upon the %s", before, upon), func(t *testing.T) {
				t.Parallel()
				for n, last := 1, 2; n <= last; n += everyPause {
					s, left, mirror := mirrored(t, shop, to, before)
					when := fmt.Sprintf("paused at operation %d", n)
					paused := mirror
					if upon == "repository" {
						paused = s.s
					}
					var out Copied
					var err error
					last = interleave(paused, n, func() { left.mustPrune(3) }, func(f blob.Storage) {
						if upon == "mirror" {
							out, err = s.mirror(s.s, f)
						} else {
							out, err = s.mirror(f, mirror)
						}
					})
					if !s.copied(left, out, err, when) {
						t.Fatalf("%s: withheld %v: %v", when, out.Withheld, err)
					}
					s.settled(left, mirror, when)
				}
			})
		}
	}
}

// The process of a copy sleeps for more than a week at each of its operations: retention takes it for dead, and it notices when it wakes up.
func TestCopyThatIsTakenForDead(t *testing.T) {
	t.Parallel()
	shop, to := endangered(newTokenShop(t)), mem.New()
	must(shop.mirror(shop.s, to))(t)
	dead := 0
	for n, last := 1, 2; n <= last; n += (everyPause + 3) / 4 {
		s, left, mirror := mirrored(t, shop, to, 1)
		when := fmt.Sprintf("paused at operation %d", n)
		last = interleave(mirror, n, func() {
			s.clock.add(8 * day)
			left.mustPrune(3)
		}, func(f blob.Storage) {
			if _, err := s.mirror(s.s, f); err != nil {
				wantError(t, err, "taken for dead")
				dead++
			}
		})
		s.settled(left, mirror, when)
	}
	if dead == 0 {
		t.Fatal("no copy was taken for dead: the test shows nothing")
	}
}

// Who copies need not be allowed to delete, not even his registration: he says that the copy has ended, and retention clears it away.
func TestCopyWithoutTheRightToDelete(t *testing.T) {
	t.Parallel()
	s, to := dangerous(t), mem.New()
	must(s.mirror(s.s, fault.New(to, func(op fault.Op) fault.Fault {
		if op.Kind == fault.Delete {
			return fault.Fault{Effect: fault.Refuse}
		}
		return fault.Fault{}
	})))(t)
	if names := objectNames(t, to, pendingPrefix); len(names) != 2 {
		t.Fatalf("registered: %v", names)
	}
	left := s.lastPlace(to)
	if out := left.mustPrune(3); len(out.Blocked) > 0 {
		t.Fatalf("it waits for %v", out.Blocked)
	}
	if names := objectNames(t, to, pendingPrefix); len(names) > 0 {
		t.Fatalf("still registered: %v", names)
	}
	left.restoreAll("main")
	left.clean()
}

// Copies that follow upon one another without end, as those of a thief, delay the deletion by a week and no more: then it is announced, and who registers later
// keeps away.
func TestCopiesWithoutEndDelayAWeekAtMost(t *testing.T) {
	t.Parallel()
	s, to := dangerous(t), mem.New()
	must(s.mirror(s.s, to))(t)
	left := s.lastPlace(to)
	left.mustPrune(1)
	var ids []relight.SnapshotID
	next := func() {
		c := &copier{m: s.writer(s.s), to: to, mirror: left.writer(to)}
		must(c.register(t.Context()))(t)
		for _, id := range ids { // the one before has ended
			ok(t, to.Delete(t.Context(), pendingName(id)))
		}
		ids = []relight.SnapshotID{c.id}
	}
	deleted := 0
	for range 20 {
		next()
		s.clock.add(day)
		if out := left.mustPrune(1); out.Deleted.Objects > 0 {
			deleted++
		} else if !slices.Equal(out.Blocked, ids) && deleted == 0 {
			t.Fatalf("it waits for %v, and %v is under way", out.Blocked, ids)
		}
		if deleted == 0 != (len(objectNames(t, to, "pack/data/")) > 2) {
			t.Fatal("packs are gone that were waited for, or are there still")
		}
	}
	if deleted == 0 {
		t.Fatal("nothing was ever deleted")
	}
	left.restoreAll("main")
}

// A copy begins in the moment in which retention announces, and stops at each of its operations until retention has ended.
func TestCopyBeginsWhileRetentionAnnounces(t *testing.T) {
	t.Parallel()
	shop, to := endangered(newTokenShop(t)), mem.New()
	must(shop.mirror(shop.s, to))(t)
	for n, last := 1, 2; n <= last; n += everyPause {
		s, left, mirror := mirrored(t, shop, to, 1)
		when := fmt.Sprintf("stopped at operation %d", n)
		f := fault.New(mirror, fault.At(n, fault.Fault{Effect: fault.Block}))
		var out Copied
		var err error
		done := make(chan struct{})
		begin := func() {
			go func() {
				defer close(done)
				out, err = s.mirror(s.s, f)
			}()
			for len(f.Ops()) < n {
				select {
				case <-done:
					return
				case <-time.After(time.Millisecond):
				}
			}
		}
		must(left.prune(fault.New(mirror, func(op fault.Op) fault.Fault {
			if op.Kind == fault.Put && strings.HasPrefix(op.Name, trashPrefix) && strings.HasSuffix(op.Name, "/"+dueMark) {
				begin()
			}
			return fault.Fault{}
		}), lastOnly))(t)
		f.Release()
		<-done
		last = len(f.Ops())
		s.copied(left, out, err, when)
		s.settled(left, mirror, when)
	}
}
