package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/coordinator"
	"github.com/toolboxai/relight/estate"
	"github.com/toolboxai/relight/host"
	"github.com/toolboxai/relight/store/postgres"
)

// protection is `relight serve` of this estate as seen from another process.
type protection struct {
	a *App
	e *estate.Estate
}

// Protection gives the estate's protection.
func (a *App) Protection() (coordinator.Protection, error) {
	e, err := a.Estate()
	if err != nil {
		return nil, err
	}
	return protection{a: a, e: e}, nil
}

const serveName = "relight-serve"

func serveHandle(e *estate.Estate) string { return stateFile(e, "services", serveName+".handle") }

func statusFile(e *estate.Estate) string { return stateFile(e, "status.json") }

func (p protection) Start(ctx context.Context, started func(context.Context, relight.Handle) error) (relight.Handle, error) {
	if h, running, err := p.Running(); err != nil || running {
		return h, err
	}
	if err := os.MkdirAll(filepath.Dir(serveHandle(p.e)), 0o755); err != nil {
		return relight.Handle{}, fmt.Errorf("start protection: %w", err)
	}
	if err := forget(p.e); err != nil {
		return relight.Handle{}, err
	}
	c := host.Command{Argv: []string{p.a.o.Executable, "--config", p.e.File, "--verbose", "serve"}, Dir: "/", What: serveName, Started: started}
	return p.a.Host().StartDetached(ctx, c, host.Detached{Log: stateFile(p.e, "services", serveName+".log"), Handle: serveHandle(p.e)})
}

// Running finds the process through the handle that serve itself keeps while it holds its lock, however it was started.
func (p protection) Running() (relight.Handle, bool, error) {
	h, err := host.ReadHandle(serveHandle(p.e))
	if errors.Is(err, fs.ErrNotExist) {
		return h, false, nil
	}
	if err != nil {
		return h, false, err
	}
	alive, err := host.Passed(h, 20*time.Second) // longer than relight waits for its journal before it lets it pass
	return h, alive, err
}

func (p protection) Stop(ctx context.Context) error {
	h, running, err := p.Running()
	if err != nil || !running {
		return err
	}
	if err := host.EndBy(ctx, h, syscall.SIGTERM, 30*time.Second); err != nil {
		return err
	}
	return p.awaitGuards(ctx)
}

// awaitGuards waits for the guards of synchronous stores, which see for themselves that there is nothing left to guard. One whose server is away
// stays: when the server comes back, its commits would wait for a receiver that nobody runs.
func (p protection) awaitGuards(ctx context.Context) error {
	for name := range p.e.Stores {
		if !guarded(p.e, name) {
			continue
		}
		if _, err := p.Live(ctx, name); err != nil {
			continue
		}
		h, err := host.ReadHandle(guardHandle(p.e, name))
		if err != nil {
			return err
		}
		patience, cancel := context.WithTimeout(ctx, 10*time.Second)
		err = host.Await(patience, h)
		cancel()
		if err != nil && ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			p.a.o.Log.Warn("the guard of a synchronous store has still something to guard, and stays", "store", name, "pid", h.PID)
		}
	}
	return nil
}

func (p protection) Status() (coordinator.Status, error) {
	return readStatus(p.e)
}

func readStatus(e *estate.Estate) (coordinator.Status, error) {
	var st coordinator.Status
	b, err := os.ReadFile(statusFile(e))
	if errors.Is(err, fs.ErrNotExist) {
		return st, nil
	}
	if err != nil {
		return st, fmt.Errorf("read status: %w", err)
	}
	if err := json.Unmarshal(b, &st); err != nil {
		return st, fmt.Errorf("read status %s: %w", statusFile(e), err)
	}
	return st, nil
}

func (p protection) Stores() ([]string, error) {
	return slices.Sorted(maps.Keys(p.e.Stores)), nil
}

func (p protection) Live(ctx context.Context, name string) (coordinator.Live, error) {
	conns, err := p.a.connections(ctx, p.e.Stores[name])
	if err != nil {
		return coordinator.Live{}, err
	}
	conn, err := postgres.Lead(ctx, conns)
	if err != nil {
		return coordinator.Live{}, err
	}
	return live(ctx, conn)
}
