package app

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/action"
	"github.com/toolboxai/relight/coordinator"
	"github.com/toolboxai/relight/estate"
	"github.com/toolboxai/relight/platform"
	"github.com/toolboxai/relight/repo"
	"github.com/toolboxai/relight/store/postgres"
)

// Actions is the registry of every capability.
func (a *App) Actions() (*action.Registry, error) {
	return action.NewRegistry(slices.Concat(
		platform.Actions(a.Platform),
		postgres.Actions(a.cluster),
		coordinator.Actions(a.Protection),
		a.backupActions(),
		a.retentionActions(),
		[]action.Action{
			action.Define(action.Spec[repositoryChoice, RepositoryInfo]{Name: "repo.info", Title: "show a repository's identity, keys, hosts and stores", Danger: action.None,
				Example: "relight repo info", Run: a.repoInfo, Probe: a.probeRepoInfo}),
			action.Define(action.Spec[directoryInput, EstateRestored]{Name: "estate.restore", Title: "bring the estate's configuration back from a repository", Danger: action.None,
				Forced:  "replace files that differ from those that were kept",
				Example: "relight estate restore --directory /etc/relight --identity recovery.key", Run: a.restoreEstate, Probe: a.probeEstate}),
		})...)
}

// cluster joins a PostgreSQL store with its repositories.
func (a *App) cluster(ctx context.Context, name string) (postgres.Cluster, error) {
	e, s, err := a.findStore(name)
	if err != nil {
		return postgres.Cluster{}, err
	}
	pg, err := a.postgresStore(ctx, s)
	if err != nil {
		return postgres.Cluster{}, err
	}
	return postgres.Cluster{Store: pg, Data: s.Data, Owner: s.Owner, Evidence: s.Evidence, Objective: s.Objective, Repositories: s.Repositories,
		Meta: a.Repository, Reader: a.Reader, Zone: e.Zone, Record: a.recordReleased, ParseTime: func(text string) (time.Time, error) { return estate.ParseTime(text, e.Zone) }}, nil
}

type repositoryChoice struct {
	Repository string `flag:"repository" help:"the repository; the estate's only or first when not given"`
}

func (a *App) repoInfo(ctx context.Context, _ action.Env, in repositoryChoice) (RepositoryInfo, error) {
	return a.RepositoryInfo(ctx, in.Repository, "")
}

func (a *App) probeRepoInfo(ctx context.Context, env action.Env, in repositoryChoice) (action.Probed, error) {
	out, err := a.repoInfo(ctx, env, in)
	if err != nil {
		return action.Probed{State: action.NotDone, Detail: err.Error()}, nil
	}
	return action.Probed{State: action.Done, Out: out}, nil
}

type directoryInput struct {
	Repository string `flag:"repository" help:"the repository; the estate's only or first when not given"`
	Directory  string `flag:"directory" help:"where relight.yaml is to lie; where it lay when not given"`
}

// EstateRestored says what was brought back.
type EstateRestored struct {
	File  string    `json:"file"`
	Files int       `json:"files"`
	At    time.Time `json:"at"` // when it was kept
}

func (a *App) latestBundle(ctx context.Context, repository string) (estate.Bundle, time.Time, error) {
	r, err := a.Reader(ctx, repository)
	if err != nil {
		return estate.Bundle{}, time.Time{}, err
	}
	kept, err := r.Meta().LatestEstate(ctx, r)
	if err != nil {
		return estate.Bundle{}, time.Time{}, err
	}
	b, err := estate.DecodeBundle(kept.Data)
	return b, kept.At, err
}

func (a *App) restoreEstate(ctx context.Context, env action.Env, in directoryInput) (EstateRestored, error) {
	b, at, err := a.latestBundle(ctx, in.Repository)
	if err != nil {
		return EstateRestored{}, err
	}
	e, err := unpackEstate(b, in.Directory, env.Force)
	if err != nil {
		return EstateRestored{}, err
	}
	return EstateRestored{File: e.File, Files: len(b.Files), At: at}, nil
}

// probeEstate compares what is there with what was kept.
func (a *App) probeEstate(ctx context.Context, _ action.Env, in directoryInput) (action.Probed, error) {
	b, at, err := a.latestBundle(ctx, in.Repository)
	if err != nil {
		return action.Probed{}, err
	}
	same, err := b.Present(in.Directory)
	if err != nil || !same {
		return action.Probed{State: action.NotDone, Detail: "the files differ from what was kept"}, err
	}
	return action.Probed{State: action.Done, Out: EstateRestored{File: b.Path(in.Directory), Files: len(b.Files), At: at}}, nil
}

func (a *App) backupActions() []action.Action {
	return []action.Action{
		action.Define(action.Spec[createInput, Created]{Name: "backup.create", Title: "take a base backup now: of one store, or of several with one instant for all of them", Danger: action.None,
			Example: "relight backup create --store main\n  relight backup create --set before-release", Run: a.createBackup, Probe: a.probeBackup}),
		action.Define(action.Spec[markInput, Marked]{Name: "backup.mark", Title: "set a named restore point and wait until it is durable", Danger: action.None,
			Example: "relight backup mark --store main --name before-migration", Run: a.markPoint, Probe: a.probeMark}),
		action.Define(action.Spec[listInput, BackupList]{Name: "backup.list", Title: "list snapshots, newest last", Danger: action.None,
			Example: "relight backup list --store main --latest", Run: a.listBackups, Probe: a.probeList}),
		action.Define(action.Spec[showInput, BackupShown]{Name: "backup.show", Title: "show one snapshot or recovery set with all that is known of it", Danger: action.None,
			Example: "relight backup show --snapshot set:before-release", Run: a.showBackup, Probe: a.probeShow}),
		action.Define(action.Spec[pickInput, BackupVerified]{Name: "backup.verify", Title: "read every byte of a snapshot back: intact afterwards", Danger: action.None,
			Example: "relight backup verify --latest --identity recovery.key", Run: a.verifyBackup}),
		action.Define(action.Spec[pickInput, relight.Proof]{Name: "backup.prove", Title: "restore a snapshot into a sandbox and query it: proven afterwards", Danger: action.None,
			Example: "relight backup prove --latest --identity recovery.key", Run: a.proveBackup}),
	}
}

func firstOf(name string, names []string) string {
	if name == "" && len(names) > 0 {
		return names[0]
	}
	return name
}

func (a *App) snapshots(ctx context.Context, storeName, repository string) ([]relight.Snapshot, error) {
	_, s, err := a.findStore(storeName)
	if err != nil {
		return nil, err
	}
	m, err := a.Repository(ctx, firstOf(repository, s.Repositories))
	if err != nil {
		return nil, err
	}
	manifests, err := m.Snapshots(ctx, s.Name)
	if err != nil {
		return nil, err
	}
	out := make([]relight.Snapshot, len(manifests))
	for i, man := range manifests {
		out[i] = man.Snapshot
		out[i].Facts = nil // the store's own affair, and long
	}
	return out, nil
}

type pickInput struct {
	Store      string `flag:"store" help:"the store; the only one when not given"`
	Repository string `flag:"repository" help:"the repository; the store's first when not given"`
	Snapshot   string `flag:"snapshot" help:"the snapshot's id; the newest of those that match when not given"`
	selection
}

// BackupVerified says that a snapshot is intact, and what that does not say.
type BackupVerified struct {
	Snapshot relight.SnapshotID    `json:"snapshot"`
	State    relight.SnapshotState `json:"state"`
	Lacks    string                `json:"lacks"`
}

// pick chooses a snapshot and opens its repository for reading.
func (a *App) pick(ctx context.Context, in pickInput) (*repo.Reader, repo.Manifest, error) {
	_, s, err := a.findStore(in.Store)
	if err != nil {
		return nil, repo.Manifest{}, err
	}
	r, err := a.Reader(ctx, firstOf(in.Repository, s.Repositories))
	if err != nil {
		return nil, repo.Manifest{}, err
	}
	man, err := a.choose(ctx, r.Meta(), s.Name, in.Snapshot, in.selection)
	return r, man, err
}

func (a *App) verifyBackup(ctx context.Context, env action.Env, in pickInput) (BackupVerified, error) {
	r, man, err := a.pick(ctx, in)
	if err != nil {
		return BackupVerified{}, err
	}
	err = r.VerifySnapshot(ctx, man, 0, env.Progress) // it records what it finds, and with it the snapshot's state
	if damaged := new(repo.DamageError); errors.As(err, &damaged) || errors.Is(err, repo.ErrCorrupt) || relight.CodeOf(err) == relight.CodeVerification {
		return BackupVerified{}, &relight.Error{Op: "verify", Subject: "snapshot " + string(man.ID), Code: relight.CodeVerification, Err: err,
			Hint: "`relight repo check` says what is untouched"}
	}
	if err != nil { // a storage that does not answer says nothing of the snapshot
		return BackupVerified{}, err
	}
	return BackupVerified{Snapshot: man.ID, State: relight.Intact,
		Lacks: "proven: only a restore that was queried shows that it comes back; see `relight backup prove`"}, nil
}

func (a *App) proveBackup(ctx context.Context, _ action.Env, in pickInput) (relight.Proof, error) {
	r, man, err := a.pick(ctx, in)
	if err != nil {
		return relight.Proof{}, err
	}
	c, err := a.cluster(ctx, in.Store)
	if err != nil {
		return relight.Proof{}, err
	}
	proof, err := c.Store.Prove(ctx, r, relight.RecoveryPoint{Store: man.Store, Snapshot: man.ID, Target: relight.RecoveryTarget{Kind: relight.TargetLatest}})
	if err == nil && !proof.OK {
		err = &relight.Error{Op: "prove", Subject: "snapshot " + string(man.ID), Code: relight.CodeVerification, Err: errors.New("what was restored does not pass its checks"),
			Hint: "the proof names what failed"}
	}
	return proof, err
}
