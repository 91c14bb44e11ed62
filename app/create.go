package app

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/action"
	"github.com/toolboxai/relight/repo"
	"github.com/toolboxai/relight/store/postgres"
)

type createInput struct {
	Store      string        `flag:"store" help:"the store; the only one when not given"`
	Repository string        `flag:"repository" help:"the repository; the store's first when not given"`
	Kind       string        `flag:"kind" help:"what to take; an incremental one reads every page too, and stores only what changed" default:"full" enum:"full,incremental"`
	Set        string        `flag:"set" help:"instead of one store: several, and then one instant in all of them, as a recovery set of this name"`
	Stores     []string      `flag:"stores" help:"the stores of the set; all of the estate when not given"`
	Keep       time.Duration `flag:"keep" help:"how long the members of the set are kept together; as the longest rule of its stores when not given"`
}

// Created is a base backup, or those of a set with the instant that was marked when the last was there.
type Created struct {
	*relight.Snapshot
	Snapshots []relight.Snapshot `json:"snapshots,omitempty"` // of a set
	Set       *SetShown          `json:"set,omitempty"`
}

func (in createInput) valid() error {
	refuse := func(what, hint string) error {
		return &relight.Error{Op: "take a base backup", Code: relight.CodeUsage, Err: errors.New(what), Hint: hint}
	}
	switch {
	case in.Set == "" && (len(in.Stores) > 0 || in.Keep > 0):
		return refuse("--stores and --keep belong to --set", "one snapshot is kept by the rules of its store")
	case in.Set != "" && (in.Store != "" || in.Repository != ""):
		return refuse("a set has several stores, each with its own repositories", "name them with --stores, or leave all out")
	}
	return nil
}

func (a *App) createBackup(ctx context.Context, env action.Env, in createInput) (Created, error) {
	if err := in.valid(); err != nil {
		return Created{}, err
	}
	if in.Set != "" {
		return a.createSet(ctx, env, in)
	}
	c, err := a.cluster(ctx, in.Store)
	if err != nil {
		return Created{}, err
	}
	m, err := a.Repository(ctx, firstOf(in.Repository, c.Repositories))
	if err != nil {
		return Created{}, err
	}
	if err := a.mustProtect(); err != nil {
		return Created{}, err
	}
	s, err := a.takeBase(ctx, env, c.Store, m, in.Kind)
	return Created{Snapshot: &s}, err
}

func (a *App) takeBase(ctx context.Context, env action.Env, s *postgres.Store, m *repo.Meta, kind string) (relight.Snapshot, error) {
	name := s.Config().Name
	take := baseBackup{Kind: kind, Lock: a.lock, Progress: env.Progress, Say: func(why string) { a.o.Log.Warn("the backup is a full one", "store", name, "because", why) }}
	return take.from(ctx, s, m, name)
}

// createSet takes the base backups one after the other, and marks the instant when all are there: recovery to it is then quick everywhere. Whether the name can be
// used shows before the first.
func (a *App) createSet(ctx context.Context, env action.Env, in createInput) (Created, error) {
	mark := markInput{Set: in.Set, Stores: in.Stores, Keep: in.Keep}
	if err := repo.ValidSetName(in.Set); err != nil {
		return Created{}, err
	}
	stores, err := a.setStores(ctx, mark)
	if err != nil {
		return Created{}, err
	}
	if _, err := a.setPlaces(ctx, in.Set, stores); err != nil {
		return Created{}, err
	}
	if err := a.mustProtect(); err != nil {
		return Created{}, err
	}
	var out Created
	for _, s := range stores {
		taken, err := a.takeBase(ctx, env, s.pg, s.meta, in.Kind)
		if err != nil {
			return out, fmt.Errorf("set %s is not made, after %d of %d base backups: %w", in.Set, len(out.Snapshots), len(stores), err)
		}
		taken.Facts = nil // the store's own affair, and long
		out.Snapshots = append(out.Snapshots, taken)
	}
	marked, err := a.markSet(ctx, env, mark)
	out.Set = marked.Set
	return out, err
}

// mustProtect: files without the log that was written meanwhile are no backup, and only protection brings the log.
func (a *App) mustProtect() error {
	p, err := a.Protection()
	if err != nil {
		return err
	}
	_, running, err := p.Running()
	if err != nil || running {
		return err
	}
	return &relight.Error{Op: "take a base backup", Code: relight.CodeFailed, Err: errors.New("nothing brings the write-ahead log into the repository: no `relight serve` runs"),
		Hint: "`relight protect start` starts protection, which takes the first base backup itself"}
}

// probeBackup finds a snapshot that was begun since the step was, or the set.
func (a *App) probeBackup(ctx context.Context, env action.Env, in createInput) (action.Probed, error) {
	if in.Set != "" {
		p, err := a.probeSet(ctx, in.Set)
		if marked, is := p.Out.(Marked); is {
			p.Out = Created{Set: marked.Set}
		}
		return p, err
	}
	all, err := a.snapshots(ctx, in.Store, in.Repository)
	if err != nil {
		return action.Probed{}, err
	}
	for _, s := range all {
		if !env.Since.IsZero() && s.Started.After(env.Since) {
			return action.Probed{State: action.Done, Detail: string(s.ID), Out: Created{Snapshot: &s}}, nil
		}
	}
	return action.Probed{State: action.NotDone, Detail: "no snapshot was begun since the step was"}, nil
}
