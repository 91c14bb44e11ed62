package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/host"
	"github.com/toolboxai/relight/journal"
	"github.com/toolboxai/relight/runbook"
	"github.com/toolboxai/relight/runbook/library"
)

// EngineOptions is what the edge gives to an engine.
type EngineOptions struct {
	Person   runbook.Person
	Watch    func(relight.Event)
	Progress func(run relight.RunID, step string, p relight.Progress)
}

// Engine joins the runbook engine with this host's journal, leases and processes.
func (a *App) Engine(ctx context.Context, o EngineOptions) (*runbook.Engine, error) {
	j, err := a.Journal(ctx)
	if err != nil {
		return nil, err
	}
	actions, err := a.Actions()
	if err != nil {
		return nil, err
	}
	approvers, err := a.approvers()
	if err != nil {
		return nil, err
	}
	e, err := a.Estate()
	if err != nil {
		return nil, err
	}
	l := &runLeases{j: j}
	return runbook.New(runbook.Config{Approved: func(_ context.Context, rb *runbook.Runbook) error { return a.MayRun(rb, rb.Name) }, Guard: a.guardRun,
		SignedOnly: e.SignedOnly,
		Log:        runLog{j: j, lease: l.current}, Actions: actions, Runner: a.Host(), Person: o.Person, Leases: l, Approvers: approvers,
		Redact: func(text string) string { return string(a.redactor.Redact([]byte(text))) },
		Watch:  o.Watch, Progress: o.Progress, Host: j.Host(), Now: a.o.Now, Logger: a.o.Log})
}

// MayRun refuses a runbook that was not approved for real runs; name is how the user calls it.
func (a *App) MayRun(rb *runbook.Runbook, name string) error {
	g, err := a.Gate()
	if err != nil {
		return err
	}
	return g.Check(rb, name)
}

// approvers reads who may sign approvals. Without a file nobody is enrolled, and an approval is only asserted.
func (a *App) approvers() ([]runbook.Approver, error) {
	e, err := a.Estate()
	if err != nil || e.Approvers == "" {
		return nil, err
	}
	f, err := os.Open(e.Approvers)
	if err != nil {
		return nil, &relight.Error{Op: "read approvers", Code: relight.CodeUsage, Err: err, Hint: "`approvers:` names a file in the form of OpenSSH's allowed_signers"}
	}
	defer func() { _ = f.Close() }()
	return runbook.ReadApprovers(f)
}

// runLeases makes sure that one process drives a run.
type runLeases struct {
	j    *journal.Journal
	mu   sync.Mutex
	held *journal.Lease
}

func (r *runLeases) current() *journal.Lease {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.held
}

// Acquire implements runbook.Leases. With force, a holder that still lives is ended first: two processes must never drive one run.
func (r *runLeases) Acquire(ctx context.Context, run relight.RunID, force bool) (runbook.Lease, error) {
	self, err := host.Self("relight driving run " + string(run))
	if err != nil {
		return nil, err
	}
	l, err := r.j.Acquire(ctx, "run/"+string(run), self)
	if force && relight.CodeOf(err) == relight.CodeLeaseHeld {
		l, err = r.j.Seize(ctx, "run/"+string(run), self)
	}
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	r.held = l
	r.mu.Unlock()
	return &runLease{r: r, l: l, lost: make(chan struct{})}, nil
}

// runLease is lost only in favour of a taker, and then the next append is refused: the channel never needs to say so first.
type runLease struct {
	r    *runLeases
	l    *journal.Lease
	lost chan struct{}
}

func (l *runLease) Lost() <-chan struct{} { return l.lost }

func (l *runLease) Release(ctx context.Context) error {
	l.r.mu.Lock()
	l.r.held = nil
	l.r.mu.Unlock()
	err := l.r.j.Release(ctx, l.l)
	if errors.Is(err, journal.ErrStale) {
		return nil
	}
	return err
}

// Runbooks gives the sources of all runbooks by name: the estate's own come before the library's.
func (a *App) Runbooks() (map[string]Source, error) {
	out := map[string]Source{}
	for name, text := range library.Sources() {
		out[name] = Source{Name: name, File: "library/" + name + ".md", Text: text}
	}
	e, err := a.Estate()
	if err != nil {
		if relight.CodeOf(err) == relight.CodeUsage && errors.Is(err, fs.ErrNotExist) {
			return out, nil // the library can be read without an estate
		}
		return nil, err
	}
	for _, dir := range e.Runbooks {
		files, err := filepath.Glob(filepath.Join(dir, "*.md"))
		if err != nil {
			return nil, fmt.Errorf("find runbooks in %s: %w", dir, err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				return nil, fmt.Errorf("read runbook: %w", err)
			}
			name := strings.TrimSuffix(filepath.Base(file), ".md")
			out[name] = Source{Name: name, File: file, Text: text}
		}
	}
	return out, nil
}

// Source is a runbook as written.
type Source struct {
	Name string
	File string
	Text []byte
}

// Runbook compiles one runbook, by name or by file.
func (a *App) Runbook(name string) (*runbook.Runbook, error) {
	source, err := a.FindRunbook(name)
	if err != nil {
		return nil, err
	}
	actions, err := a.Actions()
	if err != nil {
		return nil, err
	}
	rb, err := runbook.Compile(source.Text, source.File, actions)
	if err != nil {
		return nil, &relight.Error{Op: "compile runbook", Subject: name, Code: relight.CodeUsage, Err: err, Hint: "correct it, then `relight runbook lint " + name + "`"}
	}
	return rb, nil
}

// FindRunbook gives a runbook's source, by name or by file.
func (a *App) FindRunbook(name string) (Source, error) {
	if strings.HasSuffix(name, ".md") {
		text, err := os.ReadFile(name)
		if err != nil {
			return Source{}, &relight.Error{Op: "read runbook", Code: relight.CodeUsage, Err: err, Hint: "`relight runbook list` shows the runbooks by name"}
		}
		return Source{Name: strings.TrimSuffix(filepath.Base(name), ".md"), File: name, Text: text}, nil
	}
	all, err := a.Runbooks()
	if err != nil {
		return Source{}, err
	}
	if s, ok := all[name]; ok {
		return s, nil
	}
	names := slices.Sorted(maps.Keys(all))
	hint := "the runbooks are: " + strings.Join(names, ", ")
	if near := relight.Nearest(name, names); near != "" {
		hint = fmt.Sprintf("did you mean %s? %s", near, hint)
	}
	return Source{}, &relight.Error{Op: "find runbook", Subject: name, Code: relight.CodeUsage, Err: errors.New("there is no such scenario or runbook"), Hint: hint}
}
