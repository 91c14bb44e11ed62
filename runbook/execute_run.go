package runbook

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/host"
)

const (
	outputTail = 16 << 10 // bytes of a command's output that are kept: its end, where errors stand
	stopGrace  = 10 * time.Second
	pollEvery  = 5 * time.Second
	envPrefix  = "RELIGHT_"
)

// resolveCommand fills a command in. Values reach a script only as environment variables, never as text of the script.
// The caller holds mu.
func (r *run) resolveCommand(c *Command, u StepState, edits map[string]any) (invocation, error) {
	v, sc := invocation{inputs: map[string]any{}}, r.st.scope(&u)
	if c.Host != "" {
		return v, usage("run", "step "+u.ID, fmt.Errorf("host %q cannot be reached: there is no transport to other hosts", c.Host), "")
	}
	for i, a := range c.Argv {
		s, err := textOf(a, sc)
		if err != nil {
			return v, fmt.Errorf("argument %d: %w", i+1, err)
		}
		v.argv = append(v.argv, s)
	}
	if c.Script != "" {
		v.argv = []string{"/bin/sh", "-eu", "-c", c.Script}
	}
	if len(v.argv) == 0 {
		return v, errors.New("the command is empty")
	}
	values := map[string]any{}
	for name, x := range c.Env {
		s, err := textOf(x, sc)
		if err != nil {
			return v, fmt.Errorf("env %s: %w", name, err)
		}
		values[name] = s
	}
	v.setEnv(merge(values, edits))
	return v, nil
}

func (v *invocation) setEnv(values map[string]any) {
	for _, name := range slices.Sorted(maps.Keys(values)) {
		v.env = append(v.env, variable(name)+"="+fmt.Sprint(values[name]))
	}
	v.inputs = map[string]any{"argv": v.argv}
	if len(values) > 0 {
		v.inputs["env"] = values
	}
}

// variable names the environment variable of a value: "point" arrives as RELIGHT_POINT.
func variable(name string) string {
	clean := func(c rune) rune {
		switch {
		case c >= 'a' && c <= 'z':
			return c - 'a' + 'A'
		case c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_':
			return c
		default:
			return '_'
		}
	}
	return envPrefix + strings.Map(clean, name)
}

func textOf(v Value, sc Scope) (string, error) {
	x, err := v.Eval(sc)
	switch {
	case err != nil:
		return "", err
	case x == Unknown:
		return "", errUnknown
	case x == nil:
		return "", nil
	}
	return fmt.Sprint(x), nil
}

// command runs a program whose children die with relight, its handle journaled before it has any effect.
func (r *run) command(ctx context.Context, id string, v invocation) (any, error) {
	if r.e.c.Runner == nil {
		return nil, usage("run", "step "+id, errors.New("this engine has no host to run programs on"), "")
	}
	stdout, stderr := &tail{max: outputTail}, &tail{max: outputTail}
	env := append([]string{envPrefix + "RUN=" + string(r.id), envPrefix + "STEP=" + id}, v.env...)
	err := host.Run(ctx, r.e.c.Runner, host.Command{
		Argv: v.argv, Env: env, Stdout: stdout, Stderr: stderr, What: "step " + id,
		Started: func(ctx context.Context, h relight.Handle) error { return r.record(ctx, id, EventStepHandle, h) },
	}, stopGrace)
	if err == nil {
		return map[string]any{"exit": 0, "stdout": stdout.text(), "stderr": stderr.text()}, nil
	}
	last := lastLine(stderr.text())
	if last == "" {
		last = lastLine(stdout.text())
	}
	if last == "" {
		return nil, err
	}
	return nil, fmt.Errorf("%w: %s", err, r.e.c.Redact(last))
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}

// tail keeps the end of what is written to it.
type tail struct {
	mu  sync.Mutex
	max int
	buf []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if over := len(t.buf) - t.max; over > 0 {
		t.buf = slices.Delete(t.buf, 0, over)
	}
	return len(p), nil
}

// text is what was kept, without the last line break, as a shell's $( ) gives it.
func (t *tail) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimRight(string(bytes.ToValidUTF8(t.buf, []byte("�"))), "\n")
}

// wait pauses, or polls a call until it succeeds. It has no effect, so a resume simply goes on waiting; a pause is
// counted from its first start.
func (r *run) wait(ctx context.Context, id string, w *Wait) (any, error) {
	began := r.view(id).Started
	var err error
	if w.Until != nil {
		err = r.poll(ctx, id, w)
	} else if left := w.For - r.e.c.Now().Sub(began); left > 0 {
		err = r.e.c.Sleep(ctx, left)
	}
	if err != nil {
		return nil, err
	}
	return map[string]any{"seconds": r.e.c.Now().Sub(began).Seconds()}, nil
}

func (r *run) poll(ctx context.Context, id string, w *Wait) error {
	every, began := w.Every, r.e.c.Now()
	if every <= 0 {
		every = pollEvery
	}
	for {
		call, err := r.call(w.Until, r.view(id))
		if err != nil {
			return err
		}
		if call.danger().Destructive() {
			return fmt.Errorf("%s changes data, it cannot be polled", call.name())
		}
		_, err = r.invoke(ctx, id, call)
		if err == nil || ctx.Err() != nil {
			return err
		}
		if w.For > 0 && r.e.c.Now().Sub(began)+every > w.For {
			return fmt.Errorf("not within %s: %w", w.For, err)
		}
		if serr := r.e.c.Sleep(ctx, every); serr != nil {
			return errors.Join(err, serr)
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// HostProcesses ends processes of this host: asks, and kills after Grace.
type HostProcesses struct{ Grace time.Duration }

// End refuses handles that are not processes of this host: what cannot be ended must not be taken for dead.
func (p HostProcesses) End(ctx context.Context, h relight.Handle) error {
	if h.Kind != "process" && h.Kind != "" || h.Host != "" {
		return fmt.Errorf("end %s %q on host %q: only processes of this host can be ended here", h.Kind, h.Label, h.Host)
	}
	return host.End(ctx, h, p.Grace)
}
