package app

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/action"
	"github.com/toolboxai/relight/store/postgres"
)

type markInput struct {
	Store      string        `flag:"store" help:"the store; the only one when not given"`
	Repository string        `flag:"repository" help:"the repository that is to hold it; the store's first when not given"`
	Name       string        `flag:"name" help:"the restore point's name, used once"`
	Set        string        `flag:"set" help:"instead of a name: set the restore point in several stores at one instant, as a recovery set of this name"`
	Stores     []string      `flag:"stores" help:"the stores of the set; all of the estate when not given"`
	Keep       time.Duration `flag:"keep" help:"how long the members of the set are kept together; as the longest rule of its stores when not given"`
}

// Marked is a restore point that the repository holds, or a recovery set of several.
type Marked struct {
	Store string        `json:"store,omitempty"`
	Name  string        `json:"name"` // what a restore is given: "name:" before it, or as it stands for a set
	At    relight.Point `json:"at"`
	Kind  string        `json:"kind"` // "restore-point", "set"
	Set   *SetShown     `json:"set,omitempty"`
}

func (in markInput) valid() error {
	switch {
	case (in.Name == "") == (in.Set == ""):
		return markError("give either a name or a set", "--name NAME marks one store, --set NAME all of them")
	case in.Set == "" && (len(in.Stores) > 0 || in.Keep > 0):
		return markError("--stores and --keep belong to --set", "one restore point is kept by the rules of its store")
	case in.Set != "" && (in.Store != "" || in.Repository != ""):
		return markError("a set has several stores, each with its own repositories", "name them with --stores, or leave all out")
	}
	return nil
}

func markError(what, hint string) error {
	return &relight.Error{Op: "mark", Code: relight.CodeUsage, Err: errors.New(what), Hint: hint}
}

func (a *App) markPoint(ctx context.Context, env action.Env, in markInput) (Marked, error) {
	if err := in.valid(); err != nil {
		return Marked{}, err
	}
	if in.Set != "" {
		return a.markSet(ctx, env, in)
	}
	c, err := a.cluster(ctx, in.Store)
	if err != nil {
		return Marked{}, err
	}
	m, err := a.Repository(ctx, firstOf(in.Repository, c.Repositories))
	if err != nil {
		return Marked{}, err
	}
	mark, err := c.Store.Mark(ctx, m, in.Name)
	if err != nil {
		return Marked{}, err
	}
	return marked(c.Store.Config().Name, mark), nil
}

func marked(store string, mark relight.NamedMark) Marked {
	return Marked{Store: store, Name: mark.Name, At: mark.Point, Kind: "restore-point"}
}

func (a *App) probeMark(ctx context.Context, _ action.Env, in markInput) (action.Probed, error) {
	if err := in.valid(); err != nil {
		return action.Probed{}, err
	}
	if in.Set != "" {
		return a.probeSet(ctx, in.Set)
	}
	c, err := a.cluster(ctx, in.Store)
	if err != nil {
		return action.Probed{}, err
	}
	m, err := a.Repository(ctx, firstOf(in.Repository, c.Repositories))
	if err != nil {
		return action.Probed{}, err
	}
	mark, held, err := c.Store.FindMark(ctx, m, in.Name)
	if err != nil || !held {
		return action.Probed{State: action.NotDone, Detail: fmt.Sprintf("the repository holds no restore point %q", in.Name)}, err
	}
	return action.Probed{State: action.Done, Detail: "restore point at " + mark.Point.LSN.String(), Out: marked(c.Store.Config().Name, mark)}, nil
}

// points lists the restore points of a store in a repository.
func (a *App) points(ctx context.Context, storeName, repository string) ([]relight.NamedMark, error) {
	c, err := a.cluster(ctx, storeName)
	if err != nil {
		return nil, err
	}
	m, err := a.Repository(ctx, firstOf(repository, c.Repositories))
	if err != nil {
		return nil, err
	}
	w, err := c.Store.Window(ctx, m)
	return w.Names, err
}

// pointKeeper sets the restore points of a store for the coordinator, which knows by the log's positions when they are durable.
type pointKeeper struct {
	a            *App
	store        *postgres.Store
	repositories []string
}

func (p pointKeeper) Newest(ctx context.Context) (time.Time, error) {
	var newest time.Time
	for i, name := range p.repositories {
		m, err := p.a.Repository(ctx, name)
		if err != nil {
			return time.Time{}, err
		}
		w, err := p.store.Window(ctx, m)
		if err != nil {
			return time.Time{}, err
		}
		var here time.Time
		for _, mark := range w.Names {
			if mark.Point.Time.After(here) {
				here = mark.Point.Time
			}
		}
		if i == 0 || here.Before(newest) {
			newest = here
		}
	}
	return newest, nil
}

func (p pointKeeper) Set(ctx context.Context, name string) (relight.Point, error) {
	mark, err := p.store.SetMark(ctx, name)
	return mark.Point, err
}
