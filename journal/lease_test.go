package journal_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/journal"
)

func owner(pid int) relight.Handle {
	return relight.Handle{Kind: "process", PID: pid, Started: 7, Boot: "b", What: "relight run start"}
}

func TestLeaseIsTakenOverFromTheDeadAndTheirWritesAreRefused(t *testing.T) {
	t.Parallel()
	var dead atomic.Bool
	alive := func(o *journal.Options) {
		o.Alive = func(h relight.Handle) (bool, error) { return h.PID != 1 || !dead.Load(), nil }
	}
	a, path := fresh(t, alive)
	b := open(t, path, alive)
	old, err := a.Acquire(t.Context(), "run/r-1", owner(1))
	if err != nil || old.Epoch != 1 {
		t.Fatal(old, err)
	}
	if _, err := b.Acquire(t.Context(), "run/r-1", owner(2)); relight.CodeOf(err) != relight.CodeLeaseHeld || relight.HintOf(err) == "" {
		t.Fatal(err)
	}
	if _, err := b.Acquire(t.Context(), "run/r-2", owner(2)); err != nil {
		t.Fatal("another lease:", err)
	}
	if _, err := a.Append(t.Context(), event("r-1", "step.started", 1), journal.After("r-1", 0).Under(old)); err != nil {
		t.Fatal(err)
	}
	dead.Store(true)
	young, err := b.Acquire(t.Context(), "run/r-1", owner(2))
	if err != nil || young.Epoch != 2 {
		t.Fatal(young, err)
	}
	for name, err := range map[string]error{
		"append":  second(a.Append(t.Context(), event("r-1", "step.completed", 1), journal.Expect{}.Under(old))),
		"release": a.Release(t.Context(), old),
		"held":    a.Held(t.Context(), old),
	} {
		if !errors.Is(err, journal.ErrStale) || relight.CodeOf(err) != relight.CodeLeaseHeld {
			t.Errorf("%s under a lost lease: %v", name, err)
		}
	}
	if err := errors.Join(b.Held(t.Context(), young), b.Release(t.Context(), young)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Append(t.Context(), event("r-1", "x", 1), journal.Expect{}.Under(young)); !errors.Is(err, journal.ErrStale) {
		t.Fatal("append under a released lease:", err)
	}
	third, err := a.Acquire(t.Context(), "run/r-1", owner(3))
	if err != nil || third.Epoch != 3 {
		t.Fatal(third, err)
	}
	var kinds []string
	_ = a.Read(t.Context(), journal.Filter{Kinds: []string{"lease.acquired", "lease.released"}}, func(e relight.Event) error {
		kinds = append(kinds, string(e.Data))
		return nil
	})
	if len(kinds) != 5 {
		t.Fatal(kinds)
	}
}

func second[T any](_ T, err error) error { return err }

func TestUncertainOwnerKeepsItsLease(t *testing.T) {
	t.Parallel()
	j, _ := fresh(t, func(o *journal.Options) {
		o.Alive = func(relight.Handle) (bool, error) { return false, errors.New("no /proc") }
	})
	if _, err := j.Acquire(t.Context(), "x", owner(1)); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Acquire(t.Context(), "x", owner(2)); relight.CodeOf(err) != relight.CodeLeaseHeld {
		t.Fatal(err)
	}
}

func TestOneOfManyWins(t *testing.T) {
	t.Parallel()
	j, path := fresh(t)
	js := []*journal.Journal{j, open(t, path), open(t, path)}
	var wins atomic.Int64
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			l, err := js[i%3].Acquire(t.Context(), "store/main", owner(i+1))
			switch {
			case err == nil && l.Epoch == 1:
				wins.Add(1)
			case relight.CodeOf(err) != relight.CodeLeaseHeld:
				t.Errorf("%v, %v", l, err)
			}
		})
	}
	wg.Wait()
	if wins.Load() != 1 {
		t.Fatalf("%d winners", wins.Load())
	}
}

func TestSeizedLeaseFencesItsLivingOwner(t *testing.T) {
	t.Parallel()
	j, _ := fresh(t)
	old, err := j.Acquire(t.Context(), "run/r-1", owner(1))
	if err != nil {
		t.Fatal(err)
	}
	l, err := j.Seize(t.Context(), "run/r-1", owner(2))
	if err != nil || l.Epoch != 2 {
		t.Fatal(l, err)
	}
	if _, err := j.Append(t.Context(), event("r-1", "x", 1), journal.Expect{}.Under(old)); !errors.Is(err, journal.ErrStale) {
		t.Fatal(err)
	}
	if _, err := j.Append(t.Context(), event("r-1", "x", 1), journal.Expect{}.Under(l)); err != nil {
		t.Fatal(err)
	}
}
