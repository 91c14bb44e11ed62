package app

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/estate"
	"github.com/toolboxai/relight/repo"
)

// selection says which of a store's snapshots are meant.
type selection struct {
	Latest   bool   `flag:"latest" help:"only the newest of those that match"`
	Verified bool   `flag:"verified" help:"only proven ones"`
	Before   string `flag:"before" help:"only those finished before this time, in the estate's zone unless it has an offset"`
}

// alone refuses a selection beside the name of a certain snapshot.
func (in selection) alone(snapshot string) error {
	if snapshot == "" || in == (selection{}) {
		return nil
	}
	return &relight.Error{Op: "find snapshot", Subject: snapshot, Code: relight.CodeUsage, Err: errors.New("a certain one is named, and one is to be selected"),
		Hint: "give either --snapshot, or any of --latest, --verified and --before"}
}

// filter is a selection whose time was read.
type filter struct {
	selection
	before time.Time
}

func (a *App) filter(in selection) (filter, error) {
	if in.Before == "" {
		return filter{selection: in}, nil
	}
	e, err := a.Estate()
	if err != nil {
		return filter{}, err
	}
	before, err := estate.ParseTime(in.Before, e.Zone)
	return filter{in, before}, err
}

func (f filter) takes(s relight.Snapshot) bool {
	return (!f.Verified || s.State == relight.Proven) && f.inTime(s.Finished)
}

func (f filter) inTime(at time.Time) bool { return f.before.IsZero() || at.Before(f.before) }

// choose finds a snapshot by its id, or the newest of those selected.
func (a *App) choose(ctx context.Context, m *repo.Meta, store, id string, in selection) (repo.Manifest, error) {
	if err := in.alone(id); err != nil {
		return repo.Manifest{}, err
	}
	f, err := a.filter(in)
	if err != nil {
		return repo.Manifest{}, err
	}
	all, err := m.Snapshots(ctx, store)
	if err != nil {
		return repo.Manifest{}, err
	}
	for _, man := range slices.Backward(all) {
		if id == "" && f.takes(man.Snapshot) || id == string(man.ID) {
			return man, nil
		}
	}
	return repo.Manifest{}, &relight.Error{Op: "find snapshot", Subject: strings.TrimSpace(id + " of " + store), Code: relight.CodeNotFound,
		Err: errors.New("the repository holds none such"), Hint: "`relight backup list` shows what it holds"}
}
