package repo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob/fault"
)

const ttl = 30 * time.Second

func TestLeaseIsHeldReleasedAndTakenOver(t *testing.T) {
	t.Parallel()
	st := newStand(t)
	a, b := st.writer(st.s), st.recovery(st.s)
	first := must(a.Acquire(t.Context(), "run/main", ttl))(t)
	if first.Epoch() != 1 || !first.Valid() {
		t.Fatalf("epoch %d, valid %v", first.Epoch(), first.Valid())
	}
	other := must(b.Acquire(t.Context(), "run", ttl))(t) // a name above it is another lease
	if other.Epoch() != 1 {
		t.Fatalf("lease run has epoch %d", other.Epoch())
	}
	ok(t, first.Renew(t.Context()))
	ok(t, first.Release(t.Context()))
	ok(t, first.Release(t.Context()))
	before := st.clock.now()
	second := must(b.Acquire(t.Context(), "run/main", ttl))(t)
	if second.Epoch() != 2 || !st.clock.now().Equal(before) {
		t.Fatalf("epoch %d after waiting %s", second.Epoch(), st.clock.now().Sub(before))
	}
	wantError(t, first.Renew(t.Context()), "lost")

	// The holder is silent: after its TTL, and not before, the lease is taken over.
	before = st.clock.now()
	third := must(a.Acquire(t.Context(), "run/main", ttl))(t)
	if waited := st.clock.now().Sub(before); waited < ttl || third.Epoch() != 3 {
		t.Fatalf("epoch %d after %s", third.Epoch(), waited)
	}
	if second.Valid() {
		t.Fatal("the stale holder believes that it holds the lease")
	}
	err := second.Renew(t.Context())
	if !errors.Is(err, ErrLeaseHeld) || relight.CodeOf(err) != relight.CodeLeaseHeld || relight.HintOf(err) == "" {
		t.Fatalf("renew after the takeover: %v", err)
	}
	ok(t, third.Renew(t.Context()))
}

func TestLeaseOfALivingHolderIsRefused(t *testing.T) {
	t.Parallel()
	st := newStand(t)
	held := must(st.writer(st.s).Acquire(t.Context(), "run/main", ttl))(t)
	o := st.options()
	o.Sleep = func(ctx context.Context, d time.Duration) error { // the holder beats while the taker sleeps
		st.clock.add(d)
		return held.Renew(ctx)
	}
	m := must(Open(t.Context(), st.s, must(Unlock(t.Context(), st.s, st.id))(t), o))(t)
	_, err := m.Acquire(t.Context(), "run/main", ttl)
	wantError(t, err, "run/main", "host db1")
	if !errors.Is(err, ErrLeaseHeld) || relight.CodeOf(err).Exit() != 8 {
		t.Fatal(err)
	}
}

func TestStaleHolderThatWakesUpIsFenced(t *testing.T) {
	t.Parallel()
	st := newStand(t)
	stale := must(st.writer(st.s).Acquire(t.Context(), "run/main", ttl))(t)
	st.clock.add(2 * ttl) // it slept; nobody took over yet
	wantError(t, stale.Renew(t.Context()), "its TTL passed")
	next := must(st.recovery(st.s).Acquire(t.Context(), "run/main", ttl))(t)
	if next.Epoch() != 2 {
		t.Fatalf("epoch %d", next.Epoch())
	}
}

// Many want it at once, again and again: never two holders of an epoch, and epochs only grow.
func TestLeaseHasOneHolderPerEpoch(t *testing.T) {
	t.Parallel()
	st := newStand(t)
	var mu sync.Mutex
	var epochs []int64
	var wg sync.WaitGroup
	for range 8 {
		m := st.writer(st.s)
		wg.Go(func() {
			for range 20 {
				l, err := m.Acquire(context.Background(), "pack", ttl)
				if err != nil {
					if !errors.Is(err, ErrLeaseHeld) {
						t.Error(err)
					}
					continue
				}
				mu.Lock()
				epochs = append(epochs, l.Epoch())
				mu.Unlock()
				if err := l.Release(context.Background()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	slices.Sort(epochs)
	if n := len(epochs); n == 0 || len(slices.Compact(slices.Clone(epochs))) != n {
		t.Fatalf("an epoch was given twice: %v", epochs)
	}
	if left := objectNames(t, st.s, "lease/pack/"); len(left) > 12 {
		t.Fatalf("former epochs pile up: %v", left)
	}
}

// Whatever operation fails, two never hold the lease at once.
func TestLeaseWithFaults(t *testing.T) {
	exhaustive(t)
	t.Parallel()
	under := func(t *testing.T, f fault.Fault, seq int) (*stand, *Lease, int, error) {
		st := newStand(t)
		m := st.writer(st.s)
		s := fault.New(st.s, fault.At(seq, f))
		m.storage = s
		l, err := m.Acquire(t.Context(), "run/main", ttl)
		if err == nil {
			err = l.Renew(t.Context())
		}
		return st, l, len(s.Ops()), err
	}
	_, _, all, err := under(t, fault.Fault{}, 0)
	ok(t, err)
	for seq := range all {
		for _, e := range []fault.Effect{fault.Refuse, fault.Lose, fault.Tear, fault.Die, fault.DieLate, fault.Flip} {
			t.Run(fmt.Sprintf("%d %v", seq+1, e), func(t *testing.T) {
				t.Parallel()
				st, l, _, err := under(t, fault.Fault{Effect: e}, seq+1)
				other := st.recovery(st.s)
				next, nerr := other.Acquire(t.Context(), "run/main", ttl) // waits, on the common clock
				if nerr == nil && l != nil && l.Valid() && next.Valid() {
					t.Fatalf("two hold it: epochs %d and %d (%v)", l.Epoch(), next.Epoch(), err)
				}
				if nerr != nil {
					t.Fatalf("the lease can never be taken again: %v", nerr)
				}
			})
		}
	}
}

// The second writer waits out the first one's silence, and what the first one commits when it wakes up is refused.
func TestStaleHolderOfABackupCannotCommit(t *testing.T) {
	t.Parallel()
	s := dangerous(t)
	first, second := s.writer(s.s), s.writer(s.s)
	l1 := must(first.Acquire(t.Context(), "backup/main", ttl))(t)
	o := packEach()
	o.Lease = l1
	w1 := must(first.NewSnapshot(t.Context(), "main", o))(t)
	o.Lease = must(second.Acquire(t.Context(), "backup/main", ttl))(t) // waits for l1's TTL
	id := must(s.take(t.Context(), second, "main", files(1, 2), o))(t)
	_, err := w1.Commit(t.Context(), relight.Snapshot{})
	wantError(t, err, "given up", "its lease was lost")
	if ids := s.restoreAll("main"); !slices.Contains(ids, id) || slices.Contains(ids, w1.ID()) {
		t.Fatalf("there are %v", ids)
	}
	// Even one that believes in its lease, for its own clock stood still, is fenced.
	l3 := must(first.Acquire(t.Context(), "backup/main", ttl))(t)
	o.Lease = l3
	w3 := must(first.NewSnapshot(t.Context(), "main", o))(t)
	o.Lease = must(second.Acquire(t.Context(), "backup/main", ttl))(t)
	must(s.take(t.Context(), second, "main", files(3), o))(t)
	l3.last = s.clock.now()
	_, err = w3.Commit(t.Context(), relight.Snapshot{})
	wantError(t, err, "given up", "taken for dead")
}

// A holder's clock that steps back must not make it believe for ever; one that steps ahead only makes it give up early.
func TestLeaseAndSteppingClocks(t *testing.T) {
	t.Parallel()
	st := newStand(t)
	own := newClock()
	o := st.options()
	o.Now = own.now
	holder := must(Open(t.Context(), st.s, must(st.init.Credential.Keyring())(t), o))(t)
	l := must(holder.Acquire(t.Context(), "run/main", ttl))(t)
	own.add(-time.Hour)
	other := must(st.recovery(st.s).Acquire(t.Context(), "run/main", ttl))(t) // the holder was silent for its TTL
	err := l.Renew(t.Context())
	if !errors.Is(err, ErrLeaseHeld) || l.Valid() {
		t.Fatalf("%v, valid %v", err, l.Valid())
	}
	ok(t, other.Renew(t.Context()))
	own.add(2 * time.Hour)
	wantError(t, l.Check(), "held")
}

func TestHoldRenewsAndTellsOfLoss(t *testing.T) {
	t.Parallel()
	st := newStand(t)
	m := st.writer(st.s)
	err := m.Hold(t.Context(), "run/main", 30*time.Millisecond, ForAnybody, func(ctx context.Context, l *Lease) error {
		for range 3 { // it is renewed: the beat goes on
			before := must(m.readBeat(ctx, "run/main", l.Epoch()))(t)
			for must(m.readBeat(ctx, "run/main", l.Epoch()))(t).Beat == before.Beat {
				time.Sleep(time.Millisecond)
			}
		}
		ok(t, m.putSigned(ctx, "lease", leaseName("run/main", l.Epoch()+1), leaseRecord{What: "run/main", Epoch: l.Epoch() + 1, Host: "db9"}, sealedMeta))
		<-ctx.Done() // somebody took over
		return ctx.Err()
	})
	if !errors.Is(err, ErrLeaseHeld) {
		t.Fatal(err)
	}
}
