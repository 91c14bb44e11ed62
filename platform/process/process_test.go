package process

import (
	"context"
	"log/slog"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/host"
	"github.com/toolboxai/relight/platform"
)

func newPlatform(t *testing.T, services map[string]Service) *Platform {
	t.Helper()
	local := host.NewLocal(host.Options{})
	t.Cleanup(func() {
		if err := local.Close(); err != nil {
			t.Error(err)
		}
	})
	dir := t.TempDir()
	for name, s := range services {
		s.Log = filepath.Join(dir, name+".log")
		services[name] = s
	}
	p := New(services, filepath.Join(dir, "handles"), local, slog.New(slog.DiscardHandler), time.Now)
	t.Cleanup(func() {
		for name := range services {
			if err := p.Stop(context.Background(), name); err != nil {
				t.Error(err)
			}
		}
	})
	return p
}

func status(t *testing.T, p *Platform, name string) platform.Status {
	t.Helper()
	st, err := p.State(context.Background(), name)
	if err != nil {
		t.Fatal(err)
	}
	return st.Status
}

func TestLifeOfAService(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	p := newPlatform(t, map[string]Service{"web": {Command: []string{"sleep", "600"}, StopBy: syscall.SIGTERM, Grace: 10 * time.Second}})
	if got := status(t, p, "web"); got != platform.Absent {
		t.Fatalf("before the start: %s", got)
	}
	var journaled relight.Handle
	h, err := p.Start(ctx, "web", func(_ context.Context, h relight.Handle) error { journaled = h; return nil })
	if err != nil || journaled != h {
		t.Fatalf("start: %v; journaled %+v, got %+v", err, journaled, h)
	}
	again, err := p.Start(ctx, "web", nil)
	if err != nil || again != h {
		t.Fatalf("a second start made %+v, %v; want the first, %+v", again, err, h)
	}
	if got := status(t, p, "web"); got != platform.Up {
		t.Fatalf("while it runs: %s", got)
	}
	if err := p.Stop(ctx, "web"); err != nil {
		t.Fatal(err)
	}
	if alive, err := host.Alive(h); alive || err != nil {
		t.Fatalf("after stop: alive %v, %v", alive, err)
	}
	if got := status(t, p, "web"); got != platform.Exited {
		t.Fatalf("after the stop: %s", got)
	}
}

func TestReadiness(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, map[string]Service{
		"good": {Command: []string{"sleep", "600"}, Ready: []string{"true"}, StopBy: syscall.SIGTERM, Grace: 10 * time.Second},
		"bad":  {Command: []string{"sleep", "600"}, Ready: []string{"false"}, StopBy: syscall.SIGTERM, Grace: 10 * time.Second},
	})
	for name, want := range map[string]platform.Status{"good": platform.Healthy, "bad": platform.Unhealthy} {
		if _, err := p.Start(context.Background(), name, nil); err != nil {
			t.Fatal(err)
		}
		if got := status(t, p, name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

func TestStopInsists(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	p := newPlatform(t, map[string]Service{"deaf": {Command: []string{"sh", "-c", "trap '' TERM; while :; do sleep 1; done"},
		StopBy: syscall.SIGTERM, Grace: 300 * time.Millisecond}})
	h, err := p.Start(ctx, "deaf", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Stop(ctx, "deaf"); err != nil {
		t.Fatal(err)
	}
	if alive, _ := host.Alive(h); alive {
		t.Fatal("it lives on")
	}
}

func TestUnknownServiceNamesTheKnown(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, map[string]Service{"web": {Command: []string{"true"}}})
	_, err := p.Start(context.Background(), "wbe", nil)
	if relight.CodeOf(err) != relight.CodeUsage || relight.HintOf(err) == "" {
		t.Fatalf("got %v, hint %q", err, relight.HintOf(err))
	}
}
