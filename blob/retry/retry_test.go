package retry_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/toolboxai/relight/blob"
	"github.com/toolboxai/relight/blob/blobtest"
	"github.com/toolboxai/relight/blob/fault"
	"github.com/toolboxai/relight/blob/mem"
	"github.com/toolboxai/relight/blob/retry"
)

// policy records its pauses in place of sleeping.
func policy(attempts int, pauses *[]time.Duration) retry.Policy {
	return retry.Policy{
		Attempts: attempts, First: time.Second, Max: 5 * time.Second,
		Rand: func() float64 { return 0.5 },
		Sleep: func(ctx context.Context, d time.Duration) error {
			if pauses != nil {
				*pauses = append(*pauses, d)
			}
			return ctx.Err()
		},
	}
}

func TestConformance(t *testing.T) {
	blobtest.Run(t, func(*testing.T) blob.Storage { return retry.New(mem.New(), policy(3, nil)) })
}

// A storage that refuses one operation in five and loses the answer of another one in five keeps every promise behind
// enough attempts.
func TestConformanceOnAStorageThatFails(t *testing.T) {
	const seed = 20260101
	t.Logf("seed %d", seed)
	faults := fault.Seeded(seed, 0.4, fault.Fault{Effect: fault.Refuse}, fault.Fault{Effect: fault.Lose})
	decide := func(o fault.Op) fault.Fault {
		switch {
		case o.Kind == fault.Read && strings.Contains(o.Name, "replaces-in-one-step"):
			return fault.Fault{} // reading goes on where it broke off, which only immutable objects allow
		case o.Kind == fault.Put && strings.Contains(o.Name, "keeps-objects-as-they-are"):
			return fault.Fault{} // it stores equal bytes twice, which a repeated attempt cannot tell from its own
		}
		return faults(o)
	}
	blobtest.Run(t, func(*testing.T) blob.Storage { return retry.New(fault.New(mem.New(), decide), policy(40, nil)) })
}

func TestPausesGrowAndEnd(t *testing.T) {
	t.Parallel()
	var pauses []time.Duration
	broken := fault.New(mem.New(), fault.From(1, fault.Fault{Effect: fault.Refuse}))
	_, err := retry.New(broken, policy(6, &pauses)).Stat(t.Context(), "a")
	if !errors.Is(err, fault.ErrInjected) {
		t.Errorf("ends with %v, not with the storage's error", err)
	}
	want := []time.Duration{750, 1500, 3000, 3750, 3750}
	for i := range want {
		want[i] *= time.Millisecond
	}
	if !slices.Equal(pauses, want) {
		t.Errorf("paused %v, expected %v", pauses, want)
	}
	if n := len(broken.Ops()); n != 6 {
		t.Errorf("%d attempts, expected 6", n)
	}
}

func TestHopelessIsNotRepeated(t *testing.T) {
	t.Parallel()
	for _, hopeless := range []error{blob.ErrNotFound, blob.ErrExists, blob.ErrReadOnly, blob.ErrName, blob.ErrRange} {
		s := fault.New(mem.New(), fault.From(1, fault.Fault{Effect: fault.Refuse, Err: fmt.Errorf("wrapped: %w", hopeless)}))
		err := retry.New(s, policy(5, nil)).Delete(t.Context(), "a")
		if !errors.Is(err, hopeless) || len(s.Ops()) != 1 {
			t.Errorf("%v: %d attempts, error %v", hopeless, len(s.Ops()), err)
		}
	}
}

func TestLostAnswerOfACreate(t *testing.T) {
	t.Parallel()
	lose := fault.At(1, fault.Fault{Effect: fault.Lose})

	stored := mem.New()
	body := strings.NewReader("skipped, mine")
	if _, err := body.Seek(9, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	if err := retry.New(fault.New(stored, lose), policy(3, nil)).Put(t.Context(), "a", body, blob.PutOptions{}); err != nil {
		t.Errorf("the object arrived, yet: %v", err)
	}
	if info, err := stored.Stat(t.Context(), "a"); err != nil || info.Size != 4 {
		t.Errorf("stored %+v, %v", info, err)
	}

	// Another writer took the name between the refused attempt and the next: equal length, other bytes.
	other := mem.New()
	refuse := func(o fault.Op) fault.Fault {
		if o.Seq > 1 {
			return fault.Fault{}
		}
		if err := other.Put(t.Context(), "a", strings.NewReader("them"), blob.PutOptions{}); err != nil {
			t.Error(err)
		}
		return fault.Fault{Effect: fault.Refuse}
	}
	err := retry.New(fault.New(other, refuse), policy(3, nil)).Put(t.Context(), "a", strings.NewReader("mine"), blob.PutOptions{})
	if !errors.Is(err, blob.ErrExists) {
		t.Errorf("another's object was taken for one's own: %v", err)
	}
}

func TestFirstAttemptIsNeverCompared(t *testing.T) {
	t.Parallel()
	s := mem.New()
	if err := s.Put(t.Context(), "a", strings.NewReader("same"), blob.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	err := retry.New(s, policy(3, nil)).Put(t.Context(), "a", strings.NewReader("same"), blob.PutOptions{})
	if !errors.Is(err, blob.ErrExists) {
		t.Errorf("a taken name was accepted: %v", err)
	}
}

func TestReadingGoesOnWhereItBrokeOff(t *testing.T) {
	t.Parallel()
	data := bytes.Repeat([]byte("0123456789"), 1000)
	s := mem.New()
	if err := s.Put(t.Context(), "a", bytes.NewReader(data), blob.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	everyThird := func(o fault.Op) fault.Fault {
		if o.Kind == fault.Read && o.Seq%3 == 0 {
			return fault.Fault{Effect: fault.Refuse}
		}
		return fault.Fault{}
	}
	for _, length := range []int64{-1, 9000} {
		rc, err := retry.New(fault.New(s, everyThird), policy(3, nil)).Get(t.Context(), "a", 7, length)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(rc)
		if err := errors.Join(err, rc.Close()); err != nil {
			t.Fatal(err)
		}
		want := data[7:]
		if length > 0 {
			want = want[:length]
		}
		if !bytes.Equal(got, want) {
			t.Errorf("length %d: read %d bytes, expected %d equal ones", length, len(got), len(want))
		}
	}
}

// halfList breaks off after a number of objects, once.
type halfList struct {
	*mem.Storage
	after int
}

func (h *halfList) List(ctx context.Context, prefix string, fn func(blob.Info) error) error {
	left := h.after
	h.after = -1
	return h.Storage.List(ctx, prefix, func(i blob.Info) error {
		if left == 0 {
			return errors.New("connection reset")
		}
		left--
		return fn(i)
	})
}

func TestListTellsEachObjectOnce(t *testing.T) {
	t.Parallel()
	s := &halfList{Storage: mem.New(), after: 2}
	for _, name := range []string{"a", "b", "c", "d"} {
		if err := s.Put(t.Context(), name, strings.NewReader(name), blob.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	err := retry.New(s, policy(3, nil)).List(t.Context(), "", func(i blob.Info) error {
		got = append(got, i.Name)
		return nil
	})
	if err != nil || strings.Join(got, "") != "abcd" {
		t.Errorf("listed %v, %v", got, err)
	}
}

func TestCallersErrorsAreNotRepeated(t *testing.T) {
	t.Parallel()
	s := fault.New(mem.New(), nil)
	r := retry.New(s, policy(5, nil))
	if err := r.Put(t.Context(), "a", strings.NewReader("x"), blob.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	mine := errors.New("mine")
	if err := r.List(t.Context(), "", func(blob.Info) error { return mine }); !errors.Is(err, mine) {
		t.Errorf("list ends with %v", err)
	}
	if n := len(s.Ops()); n != 2 {
		t.Errorf("%d operations, expected a put and a list: %v", n, s.Ops())
	}
}

func TestCancelledPauseEnds(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	p := policy(5, nil)
	p.Tell = func(string, string, int, error) { cancel() }
	s := fault.New(mem.New(), fault.From(1, fault.Fault{Effect: fault.Refuse}))
	err := retry.New(s, p).Delete(ctx, "a")
	if !errors.Is(err, context.Canceled) || !errors.Is(err, fault.ErrInjected) || len(s.Ops()) != 1 {
		t.Errorf("%d attempts, error %v", len(s.Ops()), err)
	}
}

func TestSleep(t *testing.T) {
	t.Parallel()
	if err := retry.Sleep(t.Context(), time.Microsecond); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := retry.Sleep(ctx, time.Hour); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled sleep says %v", err)
	}
}
