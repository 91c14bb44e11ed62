package app

import (
	"context"
	"fmt"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/action"
	"github.com/toolboxai/relight/coordinator"
	"github.com/toolboxai/relight/estate"
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

// markers are the tasks that set restore points by policy.
func (a *App) markers(e *estate.Estate) []coordinator.Task {
	var out []coordinator.Task
	for _, s := range e.Stores {
		if s.MarkEvery > 0 {
			out = append(out, coordinator.Task{Name: "set restore points in " + s.Name, Every: s.MarkEvery, Do: func(ctx context.Context) error {
				in := markInput{Store: s.Name, Name: "relight-" + a.o.Now().UTC().Format("20060102T150405Z")}
				_, err := a.markPoint(ctx, action.Env{}, in)
				return err
			}})
		}
	}
	return out
}
