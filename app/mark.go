package app

import (
	"context"
	"fmt"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/action"
	"github.com/toolboxai/relight/store/postgres"
)

type markInput struct {
	Store      string `flag:"store" help:"the store; the only one when not given"`
	Repository string `flag:"repository" help:"the repository that is to hold it; the store's first when not given"`
	Name       string `flag:"name" help:"the restore point's name, used once" required:"true"`
}

// Marked is a restore point that the repository holds.
type Marked struct {
	Store string        `json:"store"`
	Name  string        `json:"name"`
	At    relight.Point `json:"at"`
	Kind  string        `json:"kind"` // "restore-point"
}

func (a *App) markPoint(ctx context.Context, _ action.Env, in markInput) (Marked, error) {
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
