// Package process runs services as plain processes of this host: the platform for machines without systemd or Docker, and for the
// demonstration.
//
// It promises that a service is known by its handle (process id, start time, boot), never by name, so that it neither starts a second copy
// nor ends a stranger that was given a dead service's process id.
package process

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/host"
	"github.com/toolboxai/relight/platform"
)

// Service is how one service runs.
type Service struct {
	Command []string
	User    string // "": as relight itself
	Dir     string
	Log     string
	StopBy  syscall.Signal
	Grace   time.Duration // between StopBy and KILL
	Ready   []string      // exits 0 when the service answers; nil: running is all that can be known
}

// Platform implements platform.Platform.
type Platform struct {
	services map[string]Service
	dir      string // where handles are kept
	local    *host.Local
	log      *slog.Logger
	now      func() time.Time
}

// New makes the platform; dir keeps the handles and is made when it is missing.
func New(services map[string]Service, dir string, local *host.Local, log *slog.Logger, now func() time.Time) *Platform {
	return &Platform{services: services, dir: dir, local: local, log: log, now: now}
}

// Start implements platform.Platform.
func (p *Platform) Start(ctx context.Context, name string, started func(context.Context, relight.Handle) error) (relight.Handle, error) {
	s, err := p.lookup(name)
	if err != nil {
		return relight.Handle{}, err
	}
	if err := os.MkdirAll(filepath.Dir(p.handleFile(name)), 0o755); err != nil {
		return relight.Handle{}, fmt.Errorf("start %s: %w", name, err)
	}
	lock, err := host.Lock(p.handleFile(name)+".lock", "starting "+name, p.now)
	if err != nil {
		return relight.Handle{}, err
	}
	defer func() { _ = lock.Unlock() }() // the kernel takes it back with the process at the latest
	before, running, err := p.running(name)
	if err != nil || running {
		return before, err
	}
	if err := p.awaitReaped(ctx, name, before); err != nil {
		return relight.Handle{}, err
	}
	user, err := p.user(s)
	if err != nil {
		return relight.Handle{}, err
	}
	if err := os.MkdirAll(filepath.Dir(s.Log), 0o755); err != nil {
		return relight.Handle{}, fmt.Errorf("start %s: %w", name, err)
	}
	c := host.Command{Argv: s.Command, Dir: s.Dir, User: user, What: "service " + name, StopBy: s.StopBy, Started: started}
	h, err := p.local.StartDetached(ctx, c, host.Detached{Log: s.Log, Handle: p.handleFile(name)})
	if err != nil {
		return relight.Handle{}, err
	}
	p.log.Info("service started", "service", name, "pid", h.PID)
	return h, nil
}

// patience is how long Start waits for the number of a dead service's process to be free.
const patience = 15 * time.Second

// awaitReaped goes on after a while all the same: a service without lock files does not mind.
func (p *Platform) awaitReaped(ctx context.Context, name string, before relight.Handle) error {
	if before.PID == 0 {
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := host.AwaitReaped(limited, before)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		p.log.Warn("the dead service's process is still in the process table; the service may think that it runs", "service", name, "pid", before.PID)
		return nil
	}
	return err
}

// Stop implements platform.Platform.
func (p *Platform) Stop(ctx context.Context, name string) error {
	s, err := p.lookup(name)
	if err != nil {
		return err
	}
	h, running, err := p.running(name)
	if err != nil || !running {
		return err
	}
	// The leader alone is asked: PostgreSQL's children take a signal of their own for something else.
	if err := host.Signal(h, s.StopBy); err != nil {
		return fmt.Errorf("stop %s: %w", name, err)
	}
	patience, cancel := context.WithTimeout(ctx, s.Grace)
	defer cancel()
	err = host.Await(patience, h)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		p.log.Warn("service did not end when asked", "service", name, "grace", s.Grace)
		err = host.EndBy(ctx, h, syscall.SIGKILL, 0)
	}
	if err != nil {
		return fmt.Errorf("stop %s: %w", name, err)
	}
	p.log.Info("service stopped", "service", name)
	return nil
}

// State implements platform.Platform.
func (p *Platform) State(ctx context.Context, name string) (platform.State, error) {
	s, err := p.lookup(name)
	if err != nil {
		return platform.State{}, err
	}
	st := platform.State{Service: name, Status: platform.Absent}
	info, err := os.Stat(p.handleFile(name))
	if errors.Is(err, fs.ErrNotExist) {
		return st, nil
	}
	if err != nil {
		return st, fmt.Errorf("look at %s: %w", name, err)
	}
	st.Since = info.ModTime()
	h, running, err := p.running(name)
	if err != nil {
		return st, err
	}
	st.Handle, st.Status = h, platform.Exited
	if !running {
		return st, nil
	}
	st.Status = platform.Up
	if len(s.Ready) > 0 {
		st.Status, st.Detail = p.ready(ctx, s)
	}
	return st, nil
}

func (p *Platform) ready(ctx context.Context, s Service) (platform.Status, string) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	user, err := p.user(s)
	if err != nil {
		return platform.Unhealthy, err.Error()
	}
	if _, err := host.Output(ctx, p.local, host.Command{Argv: s.Ready, User: user, Dir: s.Dir, What: "readiness of a service"}); err != nil {
		return platform.Unhealthy, err.Error()
	}
	return platform.Healthy, ""
}

func (p *Platform) user(s Service) (*host.User, error) {
	if s.User == "" {
		return nil, nil
	}
	u, err := host.LookupUser(s.User)
	return &u, err
}

func (p *Platform) running(name string) (relight.Handle, bool, error) {
	h, err := host.ReadHandle(p.handleFile(name))
	if errors.Is(err, fs.ErrNotExist) {
		return h, false, nil
	}
	if err != nil {
		return h, false, err
	}
	alive, err := host.Passed(h, startPatience) // at its gate it is no service yet, and becomes none if relight died over it
	return h, alive, err
}

// startPatience is longer than relight waits for its journal while it holds a service at its gate.
const startPatience = 20 * time.Second

func (p *Platform) handleFile(name string) string {
	return filepath.Join(p.dir, name+".handle")
}

func (p *Platform) lookup(name string) (Service, error) {
	s, ok := p.services[name]
	if ok {
		return s, nil
	}
	known := strings.Join(slices.Sorted(maps.Keys(p.services)), ", ")
	return s, &relight.Error{Op: "find service", Subject: name, Code: relight.CodeUsage, Err: errors.New("the estate has no such service"),
		Hint: "the estate's services are: " + known}
}
