package limit_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/toolboxai/relight/blob"
	"github.com/toolboxai/relight/blob/blobtest"
	"github.com/toolboxai/relight/blob/limit"
	"github.com/toolboxai/relight/blob/mem"
)

// clock advances by what is slept.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Clock() limit.Clock {
	return limit.Clock{Now: c.time, Sleep: c.sleep}
}

func (c *clock) time() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) sleep(ctx context.Context, d time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	return ctx.Err()
}

func TestConformance(t *testing.T) {
	c := &clock{}
	blobtest.Run(t, func(*testing.T) blob.Storage {
		return limit.New(mem.New(), limit.Rates{Read: 1 << 20, Write: 1 << 20}, c.Clock())
	})
}

func TestRate(t *testing.T) {
	t.Parallel()
	const size, rate = 10_000_000, 1_000_000
	c := &clock{}
	s := limit.New(mem.New(), limit.Rates{Read: rate, Write: 2 * rate}, c.Clock())
	if err := s.Put(t.Context(), "a", bytes.NewReader(make([]byte, size)), blob.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	took(t, "write", c.time().Sub(time.Time{}), size, 2*rate)

	begin := c.time()
	rc, err := s.Get(t.Context(), "a", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, rc)
	if err := errors.Join(err, rc.Close()); err != nil || n != size {
		t.Fatalf("read %d bytes, %v", n, err)
	}
	took(t, "read", c.time().Sub(begin), size, rate)
}

// took allows for the burst that is free at the beginning.
func took(t *testing.T, what string, d time.Duration, size, rate float64) {
	t.Helper()
	least, most := (size-256<<10)/rate, size/rate
	if s := d.Seconds(); s < least-0.01 || s > most+0.01 {
		t.Errorf("%s took %.2f s, expected %.2f to %.2f", what, s, least, most)
	}
}

func TestWritersShareOneRate(t *testing.T) {
	t.Parallel()
	const size, rate = 1_000_000, 500_000
	c := &clock{}
	s := limit.New(mem.New(), limit.Rates{Write: rate}, c.Clock())
	var g errgroup.Group
	for _, name := range []string{"a", "b", "c", "d"} {
		g.Go(func() error {
			return s.Put(t.Context(), name, bytes.NewReader(make([]byte, size)), blob.PutOptions{})
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	least := (4*size - 256<<10) / float64(rate)
	if s := c.time().Sub(time.Time{}).Seconds(); s < least-0.01 {
		t.Errorf("four writers took %.2f s together, expected at least %.2f", s, least)
	}
}

func TestCancelledWhileWaiting(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	c := &clock{}
	inner := mem.New()
	waiting := c.Clock()
	waiting.Sleep = func(ctx context.Context, _ time.Duration) error {
		cancel()
		return ctx.Err()
	}
	s := limit.New(inner, limit.Rates{Write: 10}, waiting)
	err := s.Put(ctx, "a", bytes.NewReader(make([]byte, 1000)), blob.PutOptions{})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled while waiting: %v", err)
	}
	if _, err := inner.Stat(t.Context(), "a"); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("stored nevertheless: %v", err)
	}
}
