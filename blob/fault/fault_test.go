package fault_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"github.com/toolboxai/relight/blob"
	"github.com/toolboxai/relight/blob/blobtest"
	"github.com/toolboxai/relight/blob/fault"
	"github.com/toolboxai/relight/blob/mem"
)

func TestConformance(t *testing.T) {
	blobtest.Run(t, func(*testing.T) blob.Storage { return fault.New(mem.New(), nil) })
}

// A suite that cannot fail proves nothing: each spoiled operation must make some check fail.
func TestConformanceNoticesSpoiledOperations(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(fault.Op) fault.Fault{
		"flipped read": kind(fault.Read, fault.Flip), "torn read": kind(fault.Read, fault.Tear),
		"flipped put": kind(fault.Put, fault.Flip), "refused list": kind(fault.List, fault.Refuse),
		"refused delete": kind(fault.Delete, fault.Refuse), "lost stat": kind(fault.Stat, fault.Lose),
	} {
		failed := blobtest.Failures(t, fault.New(mem.New(), spoil))
		if len(failed) == 0 {
			t.Errorf("%s: every check passed", name)
		}
	}
}

func kind(k fault.Kind, e fault.Effect) func(fault.Op) fault.Fault {
	return func(o fault.Op) fault.Fault {
		if o.Kind == k {
			return fault.Fault{Effect: e}
		}
		return fault.Fault{}
	}
}

func put(ctx context.Context, s blob.Storage, name, body string) error {
	return s.Put(ctx, name, strings.NewReader(body), blob.PutOptions{})
}

func get(ctx context.Context, s blob.Storage, name string) (string, error) {
	rc, err := s.Get(ctx, name, 0, -1)
	if err != nil {
		return "", err
	}
	data, err := io.ReadAll(rc)
	return string(data), errors.Join(err, rc.Close())
}

func TestEffectsOnPut(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		effect fault.Effect
		fails  bool
		left   string // "-": absent
	}{
		{fault.None, false, "abcd"}, {fault.Refuse, true, "-"}, {fault.Lose, true, "abcd"},
		{fault.Tear, true, "ab"}, {fault.Flip, false, "abbd"}, {fault.Die, true, "-"}, {fault.DieLate, true, "abcd"},
	} {
		inner := mem.New()
		err := put(t.Context(), fault.New(inner, fault.At(1, fault.Fault{Effect: c.effect, Err: syscall.ENOSPC})), "a", "abcd")
		if (err != nil) != c.fails {
			t.Errorf("%s: %v", c.effect, err)
		}
		left, err := get(t.Context(), inner, "a")
		if errors.Is(err, blob.ErrNotFound) {
			left = "-"
		}
		if left != c.left {
			t.Errorf("%s: left %q, expected %q", c.effect, left, c.left)
		}
	}
}

func TestGivenErrorIsReturned(t *testing.T) {
	t.Parallel()
	s := fault.New(mem.New(), fault.From(2, fault.Fault{Effect: fault.Refuse, Err: syscall.ENOSPC}))
	if err := put(t.Context(), s, "a", "x"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := put(t.Context(), s, "b", "x"); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("a full disk says %v", err)
		}
	}
}

func TestEffectsOnRead(t *testing.T) {
	t.Parallel()
	for effect, want := range map[fault.Effect]string{fault.Flip: "abbd", fault.None: "abcd"} {
		inner := mem.New()
		if err := put(t.Context(), inner, "a", "abcd"); err != nil {
			t.Fatal(err)
		}
		got, err := get(t.Context(), fault.New(inner, fault.At(2, fault.Fault{Effect: effect})), "a")
		if err != nil || got != want {
			t.Errorf("%s: read %q, %v", effect, got, err)
		}
	}
	inner := mem.New()
	if err := put(t.Context(), inner, "a", strings.Repeat("x", 4000)); err != nil {
		t.Fatal(err)
	}
	got, err := get(t.Context(), fault.New(inner, fault.At(2, fault.Fault{Effect: fault.Tear})), "a")
	if err != nil || len(got) == 0 || len(got) >= 4000 {
		t.Errorf("a torn read gave %d bytes, %v", len(got), err)
	}
}

func TestDeathIsFinal(t *testing.T) {
	t.Parallel()
	inner := mem.New()
	s := fault.New(inner, fault.At(2, fault.Fault{Effect: fault.DieLate}))
	if err := put(t.Context(), s, "a", "x"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"b", "c"} {
		if err := put(t.Context(), s, name, "x"); !errors.Is(err, fault.ErrDead) {
			t.Errorf("put %s: %v", name, err)
		}
	}
	if _, err := s.Stat(t.Context(), "a"); !errors.Is(err, fault.ErrDead) || !s.Dead() {
		t.Errorf("stat after death: %v", err)
	}
	if _, err := inner.Stat(t.Context(), "b"); err != nil {
		t.Errorf("the last operation did not happen: %v", err)
	}
	if _, err := inner.Stat(t.Context(), "c"); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("an operation after death happened: %v", err)
	}
}

func TestBlockWaitsForReleaseOrContext(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	s := fault.New(mem.New(), fault.From(1, fault.Fault{Effect: fault.Block}))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- put(ctx, s, "a", "x") }()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled while blocked: %v", err)
	}
	go func() { done <- put(t.Context(), s, "b", "x") }()
	s.Release()
	s.Release() // twice is no error
	if err := <-done; err != nil {
		t.Errorf("released: %v", err)
	}
}

func TestSeededRepeats(t *testing.T) {
	t.Parallel()
	run := func(seed uint64) string {
		var log strings.Builder
		decide := fault.Seeded(seed, 0.5, fault.Fault{Effect: fault.Refuse}, fault.Fault{Effect: fault.Lose})
		for i := range 100 {
			fmt.Fprint(&log, decide(fault.Op{Seq: i}).Effect, " ")
		}
		return log.String()
	}
	first, again, other := run(1), run(1), run(2)
	if first != again || first == other {
		t.Error("the seed does not decide")
	}
	for _, effect := range []string{"none", "refuse", "lose"} {
		if !strings.Contains(first, effect) {
			t.Errorf("never %s in 100 operations", effect)
		}
	}
}

// transfer writes a body and then the record that points to it, as the repository does.
func transfer(s blob.Storage) error {
	if err := put(context.Background(), s, "body", "payload"); err != nil {
		return err
	}
	return put(context.Background(), s, "record", "body")
}

func recordNeedsBody(c fault.Case) error {
	ctx := context.Background()
	if _, err := c.Storage.Stat(ctx, "record"); errors.Is(err, blob.ErrNotFound) {
		if c.Err == nil {
			return errors.New("acknowledged, but lost")
		}
		return nil
	}
	if got, err := get(ctx, c.Storage, "body"); err != nil || got != "payload" {
		return fmt.Errorf("the record points to %q, %v", got, err)
	}
	return nil
}

func TestEachVisitsEveryOperation(t *testing.T) {
	t.Parallel()
	faults := []fault.Fault{{Effect: fault.Refuse}, {Effect: fault.Lose}, {Effect: fault.Die}, {Effect: fault.DieLate}}
	var visited []string
	fresh := func() blob.Storage { return mem.New() }
	err := fault.Each(1, fresh, faults, transfer, func(c fault.Case) error {
		visited = append(visited, c.String())
		return recordNeedsBody(c)
	})
	if err != nil {
		t.Error(err)
	}
	if len(visited) != 8 || visited[0] != "put body (1): refuse" || visited[7] != "put record (2): die late" {
		t.Errorf("visited %q", visited)
	}
}

func TestEachFindsTheWrongOrder(t *testing.T) {
	t.Parallel()
	wrong := func(s blob.Storage) error {
		if err := put(context.Background(), s, "record", "body"); err != nil {
			return err
		}
		return put(context.Background(), s, "body", "payload")
	}
	fresh := func() blob.Storage { return mem.New() }
	err := fault.Each(1, fresh, []fault.Fault{{Effect: fault.Die}}, wrong, recordNeedsBody)
	if err == nil || !strings.Contains(err.Error(), "put body (2): die") {
		t.Errorf("a record written before its body was not found: %v", err)
	}
}

func TestEachRefusesUnrepeatableWork(t *testing.T) {
	t.Parallel()
	runs := 0
	work := func(s blob.Storage) error {
		runs++
		return put(context.Background(), s, fmt.Sprintf("name%d", runs), "x")
	}
	fresh := func() blob.Storage { return mem.New() }
	err := fault.Each(1, fresh, []fault.Fault{{Effect: fault.Die}}, work, func(fault.Case) error { return nil })
	if err == nil || !strings.Contains(err.Error(), "not repeatable") {
		t.Errorf("work that differs from run to run: %v", err)
	}
	broken := func(blob.Storage) error { return io.ErrClosedPipe }
	if err := fault.Each(1, fresh, nil, broken, nil); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("work that fails by itself: %v", err)
	}
}

func TestLostListShowsEverything(t *testing.T) {
	t.Parallel()
	inner := mem.New()
	if err := inner.Put(t.Context(), "a", bytes.NewReader(nil), blob.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	seen := 0
	s := fault.New(inner, fault.At(1, fault.Fault{Effect: fault.Lose}))
	err := s.List(t.Context(), "", func(blob.Info) error { seen++; return nil })
	if !errors.Is(err, fault.ErrInjected) || seen != 1 {
		t.Errorf("saw %d objects, error %v", seen, err)
	}
}
