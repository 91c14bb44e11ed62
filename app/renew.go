package app

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/coordinator"
	"github.com/toolboxai/relight/estate"
	"github.com/toolboxai/relight/repo"
)

// renewed ends protection so that it begins again with the keys that lie there now. To a follower that is no orderly stop: commits that wait for it go on
// waiting for the moment that it takes.
type renewed struct{ repository string }

// Error says whose keys are others now.
func (r renewed) Error() string {
	return "this host's keys for repository " + r.repository + " were renewed"
}

// eventRenewed records that protection goes on with other keys.
const eventRenewed = "keys.renewed"

// How often the keys that lie on this host are looked at, and what a repository says of keys: epochs, enrolments, revocations.
const (
	lookAtKeys   = 5 * time.Second
	lookAtEpochs = 30 * time.Second
)

// keyTasks look whether this host's keys are still those that it should write with: `relight key rotate`, refresh and enrol write them anew while protection runs.
func (a *App) keyTasks(ctx context.Context, e *estate.Estate, record coordinator.Recorder, renew context.CancelCauseFunc) ([]coordinator.Task, error) {
	var out []coordinator.Task
	for _, name := range slices.Sorted(maps.Keys(e.Repositories)) {
		m, err := a.Repository(ctx, name)
		if err != nil {
			return nil, err
		}
		k := keeper{a: a, m: m, credential: e.Repositories[name].Credential, record: record, renew: renew}
		out = append(out, coordinator.Task{Name: "look at the keys for " + name, Every: lookAtKeys, Do: k.credentials},
			coordinator.Task{Name: "compare the key epoch of " + name, Every: lookAtEpochs, Do: k.epoch})
	}
	return out, nil
}

// keeper looks at the keys for one repository.
type keeper struct {
	a          *App
	m          *repo.Meta
	credential string // file
	record     coordinator.Recorder
	renew      context.CancelCauseFunc
}

// credentials ends protection when the file holds other keys than those in use. They are tried first: keys of no use must not replace any that work.
func (k keeper) credentials(ctx context.Context) error {
	c, err := repo.ReadCredential(k.credential)
	if err != nil {
		return err
	}
	next, err := c.Keyring()
	if err != nil || next.Same(k.m.Keyring()) {
		return err
	}
	if err := k.try(ctx, next); err != nil {
		return fmt.Errorf("the keys in %s differ from those in use, and cannot replace them: %w", k.credential, err)
	}
	k.a.o.Log.Info("protection begins again with other keys", "repository", k.m.Name(), "epoch", next.Epoch())
	if err := k.record(ctx, eventRenewed, map[string]any{"repository": k.m.Name(), "host": next.Host(), "epoch": next.Epoch()}); err != nil {
		return err
	}
	k.renew(renewed{repository: k.m.Name()})
	return nil
}

func (k keeper) try(ctx context.Context, next *repo.Keyring) error {
	m, err := repo.Open(ctx, k.m.Storage(), next, repo.Options{Name: k.m.Name(), Now: k.a.o.Now, Log: k.a.o.Log})
	if err != nil {
		return err
	}
	return errors.Join(m.MaySign(ctx), m.Close())
}

// epoch reminds of keys that were left behind by a rotation, or by the removal of a recovery key.
func (k keeper) epoch(ctx context.Context) error {
	newest, err := k.m.LookAgain(ctx)
	if err != nil || newest <= k.m.Keyring().Epoch() {
		return err
	}
	return &relight.Error{Op: "compare keys with", Subject: "repository " + k.m.Name(), Code: relight.CodeFailed,
		Err:  fmt.Errorf("key epoch %d is open, and this host writes in epoch %d, which former keys open too", newest, k.m.Keyring().Epoch()),
		Hint: fmt.Sprintf("relight key refresh %s --identity FILE; protection takes it without a restart", k.credential)}
}
