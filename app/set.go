package app

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/action"
	"github.com/toolboxai/relight/estate"
	"github.com/toolboxai/relight/repo"
	"github.com/toolboxai/relight/store/postgres"
)

// SetShown is a recovery set as people see it.
type SetShown struct {
	Type     string      `json:"type"` // "set"
	ID       string      `json:"id"`   // "set:NAME", which a restore takes
	At       time.Time   `json:"at"`
	SpreadMS float64     `json:"spread_ms"` // all members' points lie within it
	Until    time.Time   `json:"until,omitzero"`
	State    string      `json:"state"` // "complete", "incomplete"
	Members  []SetMember `json:"members"`
}

// SetMember is one store's point.
type SetMember struct {
	Store      string        `json:"store"`
	Point      relight.Point `json:"point"`
	Repository string        `json:"repository,omitempty"` // that it can be recovered from
	Missing    string        `json:"missing,omitempty"`    // why it cannot
}

// setStore is a store that takes part in a set.
type setStore struct {
	estate.Store
	pg   *postgres.Store
	meta *repo.Meta // its first repository
	mark *postgres.Marker
	at   relight.NamedMark
	key  repo.WALKey
}

// markSet sets the restore points of all stores at one instant, as near as can be: everything that takes time is done before. What was committed in
// one store and is missing in another lies within the spread, which is measured and recorded.
func (a *App) markSet(ctx context.Context, env action.Env, in markInput) (Marked, error) {
	if err := repo.ValidSetName(in.Set); err != nil {
		return Marked{}, err
	}
	stores, err := a.setStores(ctx, in)
	if err != nil {
		return Marked{}, err
	}
	places, err := a.setPlaces(ctx, in.Set, stores)
	if err != nil {
		return Marked{}, err
	}
	set, err := fire(ctx, in.Set, stores, a.o.Now)
	if err != nil {
		return Marked{}, err
	}
	env.Progress(relight.Progress{Phase: "wait until every store's point is durable"})
	for _, s := range stores {
		if err := s.pg.AwaitMark(ctx, s.meta, s.key, s.at.Point.LSN); err != nil {
			return Marked{}, err
		}
	}
	set.Until = set.At.Add(keepSet(in.Keep, stores))
	if set.Until.Equal(set.At) {
		set.Until = time.Time{}
	}
	for _, m := range places {
		if err := m.PutSet(ctx, set); err != nil {
			return Marked{}, fmt.Errorf("record the set in %s: %w", m.Name(), err)
		}
	}
	shown, err := a.showSet(ctx, set)
	return markedSet(shown), err
}

func markedSet(s SetShown) Marked {
	return Marked{Name: s.ID, At: relight.Point{Time: s.At}, Kind: "set", Set: &s}
}

// setStores opens the stores that were named, or all.
func (a *App) setStores(ctx context.Context, in markInput) ([]*setStore, error) {
	e, err := a.Estate()
	if err != nil {
		return nil, err
	}
	names := slices.Compact(slices.Sorted(slices.Values(in.Stores)))
	if len(names) == 0 {
		names = slices.Sorted(maps.Keys(e.Stores))
	}
	if len(names) == 0 {
		return nil, markError("the estate has no stores", "describe them under `stores:` in relight.yaml")
	}
	var out []*setStore
	for _, name := range names {
		_, s, err := a.findStore(name)
		if err != nil {
			return nil, err
		}
		one := &setStore{Store: s}
		if one.pg, err = a.postgresStore(ctx, s); err != nil {
			return nil, err
		}
		if one.meta, err = a.Repository(ctx, firstOf("", s.Repositories)); err != nil {
			return nil, err
		}
		out = append(out, one)
	}
	return out, nil
}

// setPlaces are the repositories that are to hold the record. A name that any of them knows, as a set or as a restore point of an attempt that
// failed, is refused: recovery to it would be ambiguous.
func (a *App) setPlaces(ctx context.Context, name string, stores []*setStore) ([]*repo.Meta, error) {
	taken := func(where string) error {
		return &relight.Error{Op: "mark", Subject: "set " + name, Code: relight.CodeUsage, Err: fmt.Errorf("the name is taken already in %s", where),
			Hint: "choose another name; `relight backup list` shows those there are"}
	}
	var out []*repo.Meta
	seen := map[string]bool{}
	for _, s := range stores {
		if _, held, err := s.pg.FindMark(ctx, s.meta, repo.SetMark+name); err != nil || held {
			return nil, errors.Join(err, either(held, taken("store "+s.Name)))
		}
		for _, repository := range s.Repositories {
			if seen[repository] {
				continue
			}
			seen[repository] = true
			m, err := a.Repository(ctx, repository)
			if err != nil {
				return nil, err
			}
			if _, there, err := m.Set(ctx, name); err != nil || there {
				return nil, errors.Join(err, either(there, taken("repository "+repository)))
			}
			out = append(out, m)
		}
	}
	return out, nil
}

func either(is bool, err error) error {
	if is {
		return err
	}
	return nil
}

// fire sets all points at once and measures within what time.
func fire(ctx context.Context, name string, stores []*setStore, now func() time.Time) (repo.Set, error) {
	set := repo.Set{Name: name}
	for _, s := range stores {
		m, err := s.pg.PrepareMark(ctx, set.Mark())
		if err != nil {
			return set, err
		}
		defer m.Close(ctx)
		s.mark = m
	}
	var g errgroup.Group
	set.At = now()
	for _, s := range stores {
		g.Go(func() (err error) { s.at, s.key, err = s.mark.Set(ctx); return err })
	}
	err := g.Wait()
	set.Spread = now().Sub(set.At) // of the monotonic clock
	if err != nil {
		return set, fmt.Errorf("the set %s is incomplete and not recorded, choose another name for the next attempt: %w", name, err)
	}
	for _, s := range stores {
		set.Members = append(set.Members, repo.SetMember{Store: s.Name, System: s.key.System, Point: s.at.Point})
	}
	return set, nil
}

// keepSet is how long a set is kept together; 0 where a store's backups are all kept anyway.
func keepSet(given time.Duration, stores []*setStore) time.Duration {
	if given > 0 {
		return given
	}
	var longest time.Duration
	for _, s := range stores {
		for _, k := range s.Keep {
			longest = max(longest, k.For)
		}
	}
	return longest
}

// findSet looks in every repository of the estate: the first that answers with a set decides.
func (a *App) findSet(ctx context.Context, name string) (repo.Set, bool, error) {
	e, err := a.Estate()
	if err != nil {
		return repo.Set{}, false, err
	}
	var errs []error
	for _, repository := range slices.Sorted(maps.Keys(e.Repositories)) {
		m, err := a.Repository(ctx, repository)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if s, ok, err := m.Set(ctx, name); err != nil {
			errs = append(errs, err)
		} else if ok {
			return s, true, nil
		}
	}
	return repo.Set{}, false, errors.Join(errs...)
}

func (a *App) probeSet(ctx context.Context, name string) (action.Probed, error) {
	s, ok, err := a.findSet(ctx, name)
	if err != nil || !ok {
		return action.Probed{State: action.NotDone, Detail: fmt.Sprintf("no repository holds a recovery set %q", name)}, err
	}
	shown, err := a.showSet(ctx, s)
	if err != nil {
		return action.Probed{}, err
	}
	return action.Probed{State: action.Done, Detail: "recovery set of " + shown.At.Format(time.RFC3339), Out: markedSet(shown)}, nil
}

// showSet says of each member whether it can be recovered, and from where.
func (a *App) showSet(ctx context.Context, s repo.Set) (SetShown, error) {
	out := SetShown{Type: "set", ID: s.Mark(), At: s.At, SpreadMS: float64(s.Spread.Microseconds()) / 1000, Until: s.Until, State: "complete"}
	for _, x := range s.Members {
		member := SetMember{Store: x.Store, Point: x.Point}
		if err := a.findMember(ctx, s, &member); err != nil {
			return out, err
		}
		if member.Missing != "" {
			out.State = "incomplete"
		}
		out.Members = append(out.Members, member)
	}
	return out, nil
}

func (a *App) findMember(ctx context.Context, s repo.Set, x *SetMember) error {
	e, err := a.Estate()
	if err != nil {
		return err
	}
	known, ok := e.Stores[x.Store]
	if !ok {
		x.Missing = "the estate has no such store"
		return nil
	}
	pg, err := a.postgresStore(ctx, known)
	if err != nil {
		return err
	}
	var why []string
	for _, repository := range known.Repositories {
		m, err := a.Repository(ctx, repository)
		if err != nil {
			return err
		}
		w, err := pg.Window(ctx, m)
		if err != nil {
			return err
		}
		if fault := lacks(w, s.Mark()); fault != "" {
			why = append(why, repository+": "+fault)
			continue
		}
		x.Repository = repository
		return nil
	}
	x.Missing = strings.Join(why, "; ")
	return nil
}

// lacks says why a window does not reach a restore point; "" when it does.
func lacks(w relight.Window, mark string) string {
	for _, m := range w.Names {
		if m.Name != mark {
			continue
		}
		for _, span := range w.Spans {
			if span.From.LSN <= m.Point.LSN && m.Point.LSN <= span.To.LSN && span.From.Timeline <= m.Point.Timeline {
				return ""
			}
		}
		return "no base backup leads to its restore point, or log is missing before it"
	}
	return "its restore point is not there"
}
