package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/toolboxai/relight"
)

// Process is a program that Local started. It is safe for concurrent use.
type Process struct {
	handle relight.Handle
	cmd    *exec.Cmd
	stopBy syscall.Signal
	done   chan struct{}
	err    error // valid once done is closed
}

// ExitError is a program that ended badly.
type ExitError struct {
	What   string
	Code   int            // -1 when a signal ended it
	Signal syscall.Signal // 0 when it exited
}

func (e *ExitError) Error() string {
	if e.Signal != 0 {
		return fmt.Sprintf("%s was ended by signal %d (%s)", e.What, int(e.Signal), e.Signal)
	}
	return fmt.Sprintf("%s exited with status %d", e.What, e.Code)
}

// Handle names the process for a successor.
func (p *Process) Handle() relight.Handle { return p.handle }

// Done is closed when the process has ended and its output has been read.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait returns when the process has ended, with nil for status 0 and an *ExitError otherwise; or when ctx has ended, with
// ctx's error, and the process goes on.
func (p *Process) Wait(ctx context.Context) error {
	select {
	case <-p.done:
		return p.err
	default:
	}
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Signal sends s to the process itself, not to its group. A process that has ended is no error.
func (p *Process) Signal(s os.Signal) error {
	err := p.cmd.Process.Signal(s)
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// Stop asks the process and all that it started to end (with Command.StopBy), kills them after grace, and returns when
// they are gone. Having had to stop it is no error. When ctx ends early they may still be running.
func (p *Process) Stop(ctx context.Context, grace time.Duration) error {
	if err := EndBy(ctx, p.handle, p.stopBy, grace); err != nil {
		return err
	}
	if err := p.Wait(ctx); ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return err
	}
	return nil
}

func (p *Process) reap() {
	defer close(p.done)
	err := p.cmd.Wait()
	var exit *exec.ExitError
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay): // it left with status 0; a child of its own keeps the pipe
	case errors.As(err, &exit):
		p.err = exitError(p.handle.What, exit)
	default:
		p.err = fmt.Errorf("run %s: %w", p.handle.What, err)
	}
}

func exitError(what string, exit *exec.ExitError) *ExitError {
	e := &ExitError{What: what, Code: exit.ExitCode()}
	if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		e.Signal = ws.Signal()
	}
	return e
}

// Run starts c and waits until it has ended. When ctx ends first, the program is stopped within grace and ctx's error returned.
func Run(ctx context.Context, r Runner, c Command, grace time.Duration) error {
	p, err := r.Start(ctx, c)
	if err != nil {
		return err
	}
	err = p.Wait(ctx)
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return errors.Join(err, p.Stop(context.WithoutCancel(ctx), grace))
	}
	return err
}

// Output runs c and returns what it printed. An error carries the last lines of standard error. A program that prints
// more than 16 MiB fails with a short write.
func Output(ctx context.Context, r Runner, c Command) ([]byte, error) {
	out, errs := &limited{max: 16 << 20}, &tail{max: 4 << 10}
	c.Stdout, c.Stderr = out, errs
	if err := Run(ctx, r, c, 5*time.Second); err != nil {
		if s := strings.TrimSpace(string(errs.b)); s != "" {
			return out.b.Bytes(), fmt.Errorf("%w: %s", err, s)
		}
		return out.b.Bytes(), err
	}
	return out.b.Bytes(), nil
}

type limited struct {
	b   bytes.Buffer
	max int
}

func (l *limited) Write(p []byte) (int, error) {
	if l.b.Len()+len(p) > l.max {
		return 0, fmt.Errorf("more than %d bytes of output", l.max)
	}
	return l.b.Write(p)
}

// tail keeps the end of what is written.
type tail struct {
	b   []byte
	max int
}

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if over := len(t.b) - t.max; over > 0 {
		t.b = append(t.b[:0], t.b[over:]...)
	}
	return len(p), nil
}
