package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/estate"
	"github.com/toolboxai/relight/host"
	"github.com/toolboxai/relight/journal"
	"github.com/toolboxai/relight/runbook"
	"github.com/toolboxai/relight/runbook/library"
)

// approvalsFile is what an estate keeps of decisions about its runbooks, oldest first.
type approvalsFile struct {
	Format  int               `json:"format"`
	Decided []runbook.Decided `json:"decided"`
}

// Gate says which runbooks may be executed in earnest. Without an estate only the built-in ones may.
func (a *App) Gate() (runbook.Gate, error) {
	var g runbook.Gate
	actions, err := a.Actions()
	if err != nil {
		return g, err
	}
	builtIn, err := library.Compile(actions)
	if err != nil {
		return g, err
	}
	for _, rb := range builtIn {
		g.BuiltIn = append(g.BuiltIn, rb.Hash)
	}
	e, err := a.Estate()
	if errors.Is(err, fs.ErrNotExist) {
		return g, nil
	}
	if err != nil {
		return g, err
	}
	g.SignedOnly = e.SignedOnly
	if g.Approvers, err = a.approvers(); err != nil {
		return g, err
	}
	g.Decided, err = readApprovals(e)
	return g, err
}

func readApprovals(e *estate.Estate) ([]runbook.Decided, error) {
	b, err := os.ReadFile(e.Approvals())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var f approvalsFile
	if err == nil {
		err = json.Unmarshal(b, &f)
	}
	if err == nil && f.Format != 1 {
		err = fmt.Errorf("format %d is newer than this relight", f.Format)
	}
	if err != nil {
		return nil, &relight.Error{Op: "read the approvals of runbooks", Subject: e.Approvals(), Code: relight.CodeUsage, Err: err,
			Hint: "restore the file (`relight journal show --kind runbook.decided` tells what was in it), or move it away and approve anew"}
	}
	return f.Decided, nil
}

// DecideRunbook records what a person says about a runbook: in the journal first, then beside relight.yaml, from where it goes into every repository.
func (a *App) DecideRunbook(ctx context.Context, rb *runbook.Runbook, said runbook.Answer) (runbook.Decided, error) {
	e, err := a.Estate()
	if err != nil {
		return runbook.Decided{}, err
	}
	lock, err := a.lock("approvals", "approval of "+rb.Name)
	if err != nil {
		return runbook.Decided{}, err
	}
	defer func() { _ = lock.Unlock() }()
	g, err := a.Gate()
	if err != nil {
		return runbook.Decided{}, err
	}
	d, err := g.Decide(rb, said, a.o.Now())
	if err != nil {
		return d, err
	}
	if err := a.journalDecision(ctx, d); err != nil {
		return d, err
	}
	b, err := json.MarshalIndent(approvalsFile{Format: 1, Decided: append(g.Decided, d)}, "", "  ")
	if err != nil {
		return d, fmt.Errorf("record the approval: %w", err)
	}
	if err := host.WriteFileDurable(e.Approvals(), append(b, '\n'), 0o644); err != nil {
		return d, &relight.Error{Op: "record the approval", Code: relight.CodeUsage, Err: err, Hint: "the directory of relight.yaml must be writable: run as root or as its owner"}
	}
	a.keepEverywhere(ctx, e)
	return d, nil
}

func (a *App) journalDecision(ctx context.Context, d runbook.Decided) error {
	j, err := a.Journal(ctx)
	if err != nil {
		return err
	}
	data, err := json.Marshal(d)
	if err != nil {
		return fmt.Errorf("record the approval: %w", err)
	}
	_, err = j.Append(ctx, relight.Event{Kind: runbook.EventRunbookDecided, Actor: d.Actor, Data: data}, journal.Expect{})
	return err
}

// keepEverywhere keeps the estate in its repositories now, so that a recovery on a bare machine knows what was approved. Where one cannot be reached, protection
// does it later.
func (a *App) keepEverywhere(ctx context.Context, e *estate.Estate) {
	for _, name := range slices.Sorted(maps.Keys(e.Repositories)) {
		m, err := a.Repository(ctx, name)
		if err == nil {
			err = a.keepEstate(ctx, m)
		}
		if err != nil {
			a.o.Log.Warn("the approval is recorded here and not yet in the repository; protection brings it there", "repository", name, "error", err)
		}
	}
}
