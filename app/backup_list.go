package app

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/action"
	"github.com/toolboxai/relight/repo"
	"github.com/toolboxai/relight/store/postgres"
)

type listInput struct {
	Store      string `flag:"store" help:"the store; the only one when not given"`
	Repository string `flag:"repository" help:"the repository; the store's first when not given"`
	selection
}

// BackupList is a list of snapshots, newest last, with the restore points between them and the recovery sets that the store is in.
type BackupList struct {
	Snapshots []relight.Snapshot  `json:"snapshots"`
	Points    []relight.NamedMark `json:"restore_points,omitempty"` // by policy, `relight backup mark` or the server's users
	Sets      []SetShown          `json:"sets,omitempty"`
}

// Records are the lines of the list for programs, each with its type.
func (l BackupList) Records() (stream string, records []any) {
	for _, s := range l.Snapshots {
		records = append(records, struct {
			Type string `json:"type"`
			relight.Snapshot
		}{"snapshot", s})
	}
	for _, p := range l.Points {
		records = append(records, struct {
			Type string `json:"type"`
			relight.NamedMark
		}{"restore-point", p})
	}
	for _, s := range l.Sets {
		records = append(records, s)
	}
	return "backups", records
}

func (a *App) listBackups(ctx context.Context, _ action.Env, in listInput) (BackupList, error) {
	f, err := a.filter(in.selection)
	if err != nil {
		return BackupList{}, err
	}
	var l BackupList
	if l.Snapshots, err = a.snapshots(ctx, in.Store, in.Repository); err != nil {
		return BackupList{}, err
	}
	if !in.Latest && !in.Verified { // a restore point is neither a base backup nor proven
		if l.Points, l.Sets, err = a.between(ctx, in); err != nil {
			return BackupList{}, err
		}
	}
	l.narrow(f)
	if len(l.Snapshots) == 0 {
		return BackupList{}, &relight.Error{Op: "list backups", Code: relight.CodeNotFound, Err: errors.New("there is none that matches"),
			Hint: "`relight backup list` shows all there are, `relight backup create` takes one"}
	}
	return l, nil
}

// between gives what lies between base backups: restore points, and the sets that the store is in.
func (a *App) between(ctx context.Context, in listInput) ([]relight.NamedMark, []SetShown, error) {
	points, err := a.points(ctx, in.Store, in.Repository)
	if err != nil {
		return nil, nil, err
	}
	_, s, err := a.findStore(in.Store)
	if err != nil {
		return nil, nil, err
	}
	m, err := a.Repository(ctx, firstOf(in.Repository, s.Repositories))
	if err != nil {
		return nil, nil, err
	}
	all, err := m.Sets(ctx)
	if err != nil {
		return nil, nil, err
	}
	var sets []SetShown
	for _, set := range all {
		if !slices.ContainsFunc(set.Members, func(x repo.SetMember) bool { return x.Store == s.Name }) {
			continue
		}
		shown, err := a.showSet(ctx, set)
		if err != nil {
			return nil, nil, err
		}
		sets = append(sets, shown)
	}
	slices.SortFunc(sets, func(x, y SetShown) int { return x.At.Compare(y.At) })
	return points, sets, nil
}

func (l *BackupList) narrow(f filter) {
	l.Snapshots = slices.DeleteFunc(l.Snapshots, func(s relight.Snapshot) bool { return !f.takes(s) })
	l.Points = slices.DeleteFunc(l.Points, func(p relight.NamedMark) bool { return !f.inTime(p.Point.Time) })
	l.Sets = slices.DeleteFunc(l.Sets, func(s SetShown) bool { return !f.inTime(s.At) })
	if n := len(l.Snapshots); f.Latest && n > 1 {
		l.Snapshots = l.Snapshots[n-1:]
	}
}

func (a *App) probeList(ctx context.Context, env action.Env, in listInput) (action.Probed, error) {
	out, err := a.listBackups(ctx, env, in)
	if err != nil {
		return action.Probed{State: action.NotDone, Detail: err.Error()}, nil
	}
	return action.Probed{State: action.Done, Out: out}, nil
}

type showInput struct {
	Store      string `flag:"store" help:"the store; the only one when not given"`
	Repository string `flag:"repository" help:"the repository; the store's first when not given"`
	Snapshot   string `flag:"snapshot" help:"the snapshot's id, or a recovery set, set:NAME; the newest snapshot of those that match when not given"`
	selection
}

// BackupShown is one snapshot, or one recovery set, with what is known of it.
type BackupShown struct {
	Snapshot *SnapshotShown `json:"snapshot,omitempty"`
	Set      *SetShown      `json:"set,omitempty"`
}

// SnapshotShown is a snapshot with its evidence.
type SnapshotShown struct {
	relight.Snapshot
	Packs    int                `json:"packs"`
	Timeline relight.TimelineID `json:"timeline,omitempty"`
	StartLSN relight.LSN        `json:"start_lsn,omitempty"` // replay begins here
	StopLSN  relight.LSN        `json:"stop_lsn,omitempty"`  // consistent from here on
	Version  int                `json:"server_version,omitempty"`
	Proofs   []ProofShown       `json:"proofs,omitempty"`
}

// ProofShown is a proof in brief.
type ProofShown struct {
	At         time.Time `json:"at"`
	OK         bool      `json:"ok"`
	LastCommit time.Time `json:"last_commit,omitzero"`
	Checks     int       `json:"checks"`
}

func (a *App) showBackup(ctx context.Context, _ action.Env, in showInput) (BackupShown, error) {
	if err := in.alone(in.Snapshot); err != nil {
		return BackupShown{}, err
	}
	if name, is := strings.CutPrefix(in.Snapshot, repo.SetMark); is {
		return a.showNamedSet(ctx, name)
	}
	_, s, err := a.findStore(in.Store)
	if err != nil {
		return BackupShown{}, err
	}
	m, err := a.Repository(ctx, firstOf(in.Repository, s.Repositories))
	if err != nil {
		return BackupShown{}, err
	}
	man, err := a.choose(ctx, m, s.Name, in.Snapshot, in.selection)
	if err != nil {
		return BackupShown{}, err
	}
	out := SnapshotShown{Snapshot: man.Snapshot, Packs: man.Packs}
	if f, err := postgres.FactsOf(man.Snapshot); err == nil { // a store's own facts may be of another kind
		out.Timeline, out.StartLSN, out.StopLSN, out.Version = f.Timeline, f.StartLSN, f.StopLSN, f.Version
	}
	out.Facts = nil // long, and shown above as far as people ask for it
	proofs, err := m.Proofs(ctx, s.Name)
	if err != nil {
		return BackupShown{}, err
	}
	for _, p := range proofs {
		if p.Snapshot == man.ID {
			out.Proofs = append(out.Proofs, ProofShown{At: p.At, OK: p.OK, LastCommit: p.Restored.LastCommit, Checks: len(p.Checks)})
		}
	}
	return BackupShown{Snapshot: &out}, nil
}

func (a *App) showNamedSet(ctx context.Context, name string) (BackupShown, error) {
	set, ok, err := a.findSet(ctx, name)
	if err != nil {
		return BackupShown{}, err
	}
	if !ok {
		return BackupShown{}, &relight.Error{Op: "find recovery set", Subject: name, Code: relight.CodeNotFound, Err: errors.New("no repository of the estate holds it"),
			Hint: "`relight backup list` shows the sets of a store"}
	}
	shown, err := a.showSet(ctx, set)
	if err != nil {
		return BackupShown{}, err
	}
	for _, x := range shown.Members {
		if x.Missing != "" {
			return BackupShown{Set: &shown}, &relight.Error{Op: "show", Subject: shown.ID, Code: relight.CodeVerification, Err: errors.New("member " + x.Store + " is missing: " + x.Missing),
				Hint: "the other members can be recovered to it; `relight postgres window --store " + x.Store + "` shows what that store can be recovered to"}
		}
	}
	return BackupShown{Set: &shown}, nil
}

func (a *App) probeShow(ctx context.Context, env action.Env, in showInput) (action.Probed, error) {
	out, err := a.showBackup(ctx, env, in)
	if err != nil {
		return action.Probed{State: action.NotDone, Detail: err.Error()}, nil
	}
	return action.Probed{State: action.Done, Out: out}, nil
}
