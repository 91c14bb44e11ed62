package host

import (
	"context"
	"errors"
	"os/exec"
	"testing"
	"time"
)

func TestAwaitReaped(t *testing.T) {
	t.Parallel()
	c := exec.Command("true")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	h, err := handleOf(c.Process.Pid, "a child")
	if err != nil {
		t.Fatal(err)
	}
	if err := Await(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	// It has ended, and nobody has taken its status: its number is still in use.
	short, cancel := context.WithTimeout(t.Context(), 3*slice)
	defer cancel()
	if err := AwaitReaped(short, h); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("before it was reaped: %v", err)
	}
	reaped := make(chan error, 1)
	go func() {
		time.Sleep(2 * slice)
		reaped <- c.Wait()
	}()
	if err := errors.Join(AwaitReaped(t.Context(), h), <-reaped); err != nil {
		t.Fatal(err)
	}
}
