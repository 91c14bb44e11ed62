package observe_test

import (
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/toolboxai/relight/blob"
	"github.com/toolboxai/relight/blob/blobtest"
	"github.com/toolboxai/relight/blob/fault"
	"github.com/toolboxai/relight/blob/mem"
	"github.com/toolboxai/relight/blob/observe"
)

// ticking advances by a second each time it is asked.
func ticking() func() time.Time {
	var mu sync.Mutex
	now := time.Unix(0, 0)
	return func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		now = now.Add(time.Second)
		return now
	}
}

func TestConformance(t *testing.T) {
	blobtest.Run(t, func(*testing.T) blob.Storage { return observe.New(mem.New(), ticking(), func(observe.Record) {}) })
}

func TestTellsEveryOperation(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	var got []observe.Record
	s := observe.New(mem.New(), ticking(), func(r observe.Record) { got = append(got, r) })
	if err := s.Put(ctx, "a", strings.NewReader("12345"), blob.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	taken := s.Put(ctx, "a", strings.NewReader("12"), blob.PutOptions{})
	rc, err := s.Get(ctx, "a", 1, 3)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, rc); err != nil {
		t.Fatal(err)
	}
	if n := len(got); n != 2 {
		t.Errorf("%d records before the reader is closed", n)
	}
	for range 2 { // a second close tells nothing
		if err := rc.Close(); err != nil {
			t.Fatal(err)
		}
	}
	_, absent := s.Get(ctx, "b", 0, -1)
	if _, err := s.Stat(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	if err := s.List(ctx, "", func(blob.Info) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	want := []observe.Record{
		{"put", "a", 5, time.Second, nil}, {"put", "a", 2, time.Second, taken}, {"get", "a", 3, time.Second, nil},
		{"get", "b", 0, time.Second, absent}, {"stat", "a", 0, time.Second, nil}, {"list", "", 1, time.Second, nil},
		{"delete", "a", 0, time.Second, nil},
	}
	if len(got) != len(want) {
		t.Fatalf("told %v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("record %d: %v, expected %v", i, got[i], want[i])
		}
	}
}

func TestTellsWhyReadingFailed(t *testing.T) {
	t.Parallel()
	inner := mem.New()
	if err := inner.Put(t.Context(), "a", strings.NewReader("12345"), blob.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	var last observe.Record
	faulty := fault.New(inner, fault.At(2, fault.Fault{Effect: fault.Refuse}))
	s := observe.New(faulty, ticking(), func(r observe.Record) { last = r })
	rc, err := s.Get(t.Context(), "a", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(rc); !errors.Is(err, fault.ErrInjected) {
		t.Errorf("read: %v", err)
	}
	if err := rc.Close(); err != nil {
		t.Fatal(err)
	}
	if last.Op != "get" || !errors.Is(last.Err, fault.ErrInjected) {
		t.Errorf("told %+v", last)
	}
}
