package repo

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
)

func TestInOrder(t *testing.T) {
	t.Parallel()
	items := make([]int, 500)
	for i := range items {
		items[i] = i
	}
	var running, most atomic.Int64
	work := func(_ context.Context, i int) (int, error) {
		if n := running.Add(1); n > most.Load() {
			most.Store(n)
		}
		defer running.Add(-1)
		return i * 2, nil
	}
	var got []int
	ok(t, inOrder(t.Context(), 4, items, work, func(r int) error { got = append(got, r); return nil }))
	if len(got) != 500 || !slices.IsSorted(got) || most.Load() > 4 {
		t.Fatalf("%d results, %d at once", len(got), most.Load())
	}
	bad := errors.New("bad")
	failing := func(ctx context.Context, i int) (int, error) {
		if i == 100 {
			return 0, bad
		}
		return work(ctx, i)
	}
	if err := inOrder(t.Context(), 4, items, failing, func(int) error { return nil }); !errors.Is(err, bad) {
		t.Fatalf("a worker's error: %v", err)
	}
	n := 0
	err := inOrder(t.Context(), 4, items, work, func(int) error {
		if n++; n == 3 {
			return bad
		}
		return nil
	})
	if !errors.Is(err, bad) || n != 3 {
		t.Fatalf("the receiver's error: %v after %d", err, n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := inOrder(ctx, 4, items, work, func(int) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Fatalf("cancelled: %v", err)
	}
	if running.Load() != 0 {
		t.Fatal("work goes on")
	}
}
