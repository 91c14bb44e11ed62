package app

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/coordinator"
	"github.com/toolboxai/relight/estate"
	"github.com/toolboxai/relight/platform"
	"github.com/toolboxai/relight/platform/process"
	"github.com/toolboxai/relight/store/postgres"
	"golang.org/x/sys/unix"
)

// findStore looks a store up; "" is the only one.
func (a *App) findStore(name string) (*estate.Estate, estate.Store, error) {
	e, err := a.Estate()
	if err != nil {
		return nil, estate.Store{}, err
	}
	names := slices.Sorted(maps.Keys(e.Stores))
	if name == "" && len(names) == 1 {
		name = names[0]
	}
	s, ok := e.Stores[name]
	if !ok {
		return nil, s, &relight.Error{Op: "find store", Subject: name, Code: relight.CodeUsage, Err: errors.New("the estate has no such store"),
			Hint: "name one with --store: " + strings.Join(names, ", ")}
	}
	return e, s, nil
}

// connections are those of every server of a store's cluster, the one on this host first, joined with the password, which is resolved only now. A role
// has one password on all of them.
func (a *App) connections(ctx context.Context, s estate.Store) ([]string, error) {
	all := append([]string{s.Connection}, s.Peers...)
	if s.Password == "" {
		return all, nil
	}
	value, err := a.resolveSecret(ctx, s.Password)
	if err != nil {
		return nil, err
	}
	quoted := strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(value.Reveal())
	for i := range all {
		all[i] += " password='" + quoted + "'"
	}
	return all, nil
}

// postgresStore is the data side of a store.
func (a *App) postgresStore(ctx context.Context, s estate.Store) (*postgres.Store, error) {
	conns, err := a.connections(ctx, s)
	if err != nil {
		return nil, err
	}
	var invariants []postgres.Invariant
	for _, i := range s.Invariants {
		invariants = append(invariants, postgres.Invariant{Name: i.Name, Database: i.Database, Query: i.Query, Want: i.Expect})
	}
	return postgres.New(postgres.Config{Name: s.Name, Conn: conns[0], Peers: conns[1:], DataDir: s.Data, BinDir: s.Binaries, Owner: s.Owner,
		Spool: s.Spool, Bound: slotBound(s), Synchronous: synchronous(s), Invariants: invariants},
		postgres.Deps{Log: a.o.Log, Host: a.Host(), Now: a.o.Now, WALGet: []string{a.o.Executable, "wal-get"}}), nil
}

// slotBound is what the store's slot may retain, in the words of its receiver.
func slotBound(s estate.Store) postgres.SlotBound {
	b := postgres.SlotBound{Limit: s.Slot.Limit, KeepFree: s.Slot.KeepFree, Hold: s.Slot.Hold}
	if b.KeepFree > 0 {
		b.WALDir = filepath.Join(s.Data, "pg_wal")
	}
	return b
}

// synchronous is a store's choice in the words of its receiver.
func synchronous(s estate.Store) *postgres.Synchronous {
	if s.Synchronous == nil {
		return nil
	}
	return &postgres.Synchronous{Repository: s.Synchronous.Repository, Degrade: s.Synchronous.Degrade, DegradeAfter: s.Synchronous.DegradeAfter,
		SpoolOutside: s.Synchronous.SpoolOutside}
}

// Platform is where the estate's services run.
func (a *App) Platform() (platform.Platform, []relight.Service, error) {
	e, err := a.Estate()
	if err != nil {
		return nil, nil, err
	}
	specs := map[string]process.Service{}
	var services []relight.Service
	for name, s := range e.Services {
		p := s.Process
		specs[name] = process.Service{Command: p.Command, User: p.User, Dir: p.Directory, Log: p.Log, StopBy: unix.SignalNum("SIG" + p.Signal),
			Grace: p.StopAfter, Ready: p.Ready}
		services = append(services, s.Service)
	}
	return process.New(specs, stateFile(e, "services"), a.Host(), a.o.Log, a.o.Now), services, nil
}

// live asks a store's server where it stands.
func live(ctx context.Context, conn string) (coordinator.Live, error) {
	at, err := whereabouts(ctx, conn)
	if err != nil && postgres.Starting(err) {
		err = fmt.Errorf("%w: %w", coordinator.ErrStarting, err)
	}
	return at, err
}

func whereabouts(ctx context.Context, conn string) (coordinator.Live, error) {
	c, err := pgx.Connect(ctx, conn)
	if err != nil {
		return coordinator.Live{}, err
	}
	defer func() { _ = c.Close(context.WithoutCancel(ctx)) }()
	var lsn string
	var timeline uint32
	// The name of the current segment begins with the timeline; the control file's checkpoint lags behind a promotion.
	// A standby has neither; what it has replayed is what it holds.
	err = c.QueryRow(ctx, `select case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_flush_lsn() end::text,
		case when pg_is_in_recovery() then (select greatest(c.timeline_id, r.min_recovery_end_timeline) from pg_control_checkpoint() c, pg_control_recovery() r)
		else ('x' || substr(pg_walfile_name(pg_current_wal_flush_lsn()), 1, 8))::bit(32)::int end`).Scan(&lsn, &timeline)
	if err != nil {
		return coordinator.Live{}, err
	}
	at, err := relight.ParseLSN(lsn)
	return coordinator.Live{Timeline: relight.TimelineID(timeline), LSN: at}, err
}
