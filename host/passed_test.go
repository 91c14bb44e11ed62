package host_test

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/host"
)

// A service at its gate has its handle written down and is no service yet: whoever looks must not take it for one, and must not start a second.
func TestHeldAtItsGateIsNotStarted(t *testing.T) {
	t.Parallel()
	for _, refused := range []bool{false, true} {
		l := host.NewLocal(host.Options{})
		dir := t.TempDir()
		var seen relight.Handle
		later := make(chan bool, 1)
		_, err := l.StartDetached(t.Context(), host.Command{Argv: []string{"sleep", "300"}, What: "service", Started: func(_ context.Context, h relight.Handle) error {
			seen = h
			if passed, err := host.Passed(h, 50*time.Millisecond); passed || err == nil {
				t.Errorf("at the gate: passed %v, %v", passed, err)
			}
			go func() {
				passed, err := host.Passed(h, time.Minute)
				later <- passed && err == nil
			}()
			if refused {
				return errors.New("not on record")
			}
			return nil
		}}, host.Detached{Log: filepath.Join(dir, "log"), Handle: filepath.Join(dir, "handle")})
		if (err != nil) != refused {
			t.Fatal(err)
		}
		if got := <-later; got == refused {
			t.Errorf("refused %v, and later it has passed: %v", refused, got)
		}
		if err := errors.Join(host.End(t.Context(), seen, 0), l.Close()); err != nil {
			t.Error(err)
		}
	}
}
