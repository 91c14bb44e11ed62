package app

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/action"
	"github.com/toolboxai/relight/blob"
	"github.com/toolboxai/relight/coordinator"
	"github.com/toolboxai/relight/estate"
	"github.com/toolboxai/relight/host"
	"github.com/toolboxai/relight/repo"
)

// retentionActions remove and mirror what was backed up.
func (a *App) retentionActions() []action.Action {
	return []action.Action{
		action.Define(action.Spec[pruneInput, repo.Pruned]{Name: "backup.prune", Title: "remove what no policy of a store wants any more", Danger: action.Data,
			Example: "relight backup prune --store main --identity recovery.key", Run: a.prune, Plan: a.planPrune, Probe: a.probePrune}),
		action.Define(action.Spec[copyInput, MirrorMade]{Name: "backup.copy", Title: "mirror a repository to another place, or go on with it", Danger: action.None,
			Example: "relight backup copy --to file:///mnt/offsite/relight", Run: a.copyRepository, Probe: a.probeCopy}),
	}
}

type pruneInput struct {
	Store       string `flag:"store" help:"the store; the only one when not given"`
	Repository  string `flag:"repository" help:"the repository; the store's first when not given"`
	DropRefused bool   `flag:"drop-refused" help:"remove snapshots whose manifests are refused, damaged or deleted too, instead of stopping at them"`
}

// policies are the rules of a store as the repository knows them.
func policies(s estate.Store) map[string][]repo.Policy {
	var out []repo.Policy
	for _, k := range s.Keep {
		out = append(out, repo.Policy{Every: k.Every, Months: k.Months, For: k.For, PointInTime: k.PointInTime})
	}
	return map[string][]repo.Policy{s.Name: out}
}

// pruning opens a store's repository with the best keys at hand; may says whether they are enough to remove anything.
func (a *App) pruning(ctx context.Context, in pruneInput) (m *repo.Meta, s estate.Store, may bool, err error) {
	_, s, err = a.findStore(in.Store)
	if err != nil {
		return nil, s, false, err
	}
	name := firstOf(in.Repository, s.Repositories)
	ids, err := a.Identities()
	if err != nil {
		return nil, s, false, err
	}
	if len(ids) > 0 {
		r, err := a.Reader(ctx, name)
		if err != nil {
			return nil, s, false, err
		}
		return r.Meta(), s, true, nil
	}
	m, err = a.Repository(ctx, name)
	if err != nil {
		return nil, s, false, err
	}
	return m, s, m.Descriptor().SingleHost && m.Keyring().CanRead(), nil
}

func (a *App) prune(ctx context.Context, env action.Env, in pruneInput) (repo.Pruned, error) {
	m, s, _, err := a.pruning(ctx, in)
	if err != nil {
		return repo.Pruned{}, err
	}
	return a.pruneIn(ctx, m, repo.PruneOptions{Policies: policies(s), DropRefused: in.DropRefused, Progress: env.Progress})
}

// pruneIn keeps other processes of this host out, so that a lease that a dead one left behind need not be waited for.
func (a *App) pruneIn(ctx context.Context, m *repo.Meta, o repo.PruneOptions) (repo.Pruned, error) {
	lock, err := a.lock("prune-"+m.Name(), "prune "+m.Name())
	if err != nil {
		return repo.Pruned{}, err
	}
	defer func() { _ = lock.Unlock() }()
	o.Waiting = repo.ForOtherHosts
	return m.Prune(ctx, o)
}

// lock takes a kernel lock of the estate on this host.
func (a *App) lock(name, what string) (*host.FileLock, error) {
	e, err := a.Estate()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(stateFile(e, "locks"), 0o755); err != nil {
		return nil, fmt.Errorf("lock for %s: %w", what, err)
	}
	return host.Lock(lockFile(e, name), what, a.o.Now)
}

func lockFile(e *estate.Estate, name string) string {
	return stateFile(e, "locks", strings.ReplaceAll(name, string(os.PathSeparator), "_")+".lock")
}

func (a *App) planPrune(ctx context.Context, env action.Env, in pruneInput) (action.Blast, error) {
	m, s, may, err := a.pruning(ctx, in)
	if err != nil {
		return action.Blast{}, err
	}
	p, err := m.PlanPrune(ctx, repo.PruneOptions{Policies: policies(s), DropRefused: in.DropRefused, Progress: env.Progress})
	if err != nil {
		return action.Blast{}, err
	}
	b := action.Blast{Action: "backup.prune", Target: s.Name, Danger: action.Data, Lines: p.Lines()}
	if nothingGoes(p) {
		b.Danger = action.None
	}
	if len(s.Keep) == 0 {
		b.Lines = append(b.Lines, "the store has no policy (`policy: {keep: …}` in relight.yaml): none of its snapshots goes, only what no snapshot needs")
	}
	if !may {
		b.Lines = append(b.Lines, "the keys of this host may not remove anything: this needs the recovery key (--identity FILE)")
	}
	return b, nil
}

func nothingGoes(p repo.Pruned) bool {
	return len(p.Expired()) == 0 && p.Marked.Objects == 0 && p.Deleted.Objects == 0
}

func (a *App) probePrune(ctx context.Context, env action.Env, in pruneInput) (action.Probed, error) {
	m, s, _, err := a.pruning(ctx, in)
	if err != nil {
		return action.Probed{}, err
	}
	p, err := m.PlanPrune(ctx, repo.PruneOptions{Policies: policies(s), DropRefused: in.DropRefused, Progress: env.Progress})
	if err != nil {
		return action.Probed{}, err
	}
	if nothingGoes(p) {
		return action.Probed{State: action.Done, Detail: "nothing is there that no policy wants", Out: p}, nil
	}
	return action.Probed{State: action.NotDone, Detail: "there is something that no policy wants"}, nil
}

// pruneEvery is how often a single-host estate prunes by itself. Elsewhere the hosts that are protected must not be able to delete.
const pruneEvery = 6 * time.Hour

// pruneTask removes what no policy wants; nil unless this host holds all keys anyway.
func (a *App) pruneTask(e *estate.Estate, m *repo.Meta) []coordinator.Task {
	all := map[string][]repo.Policy{}
	for _, s := range e.Stores {
		if len(s.Keep) > 0 && slices.Contains(s.Repositories, m.Name()) {
			maps.Copy(all, policies(s))
		}
	}
	if !m.Descriptor().SingleHost || !m.Keyring().CanRead() || len(all) == 0 {
		return nil
	}
	return []coordinator.Task{{Name: "prune " + m.Name(), Every: pruneEvery, Do: func(ctx context.Context) error {
		_, err := a.pruneIn(ctx, m, repo.PruneOptions{Policies: all})
		return err
	}}}
}

type copyInput struct {
	Repository string `flag:"repository" help:"the repository that is copied; the estate's only or first when not given"`
	To         string `flag:"to" help:"where the mirror lies, or is to lie: a URL" required:"true"`
}

// MirrorMade says what a copy brought over.
type MirrorMade struct {
	From string `json:"from"`
	To   string `json:"to"`
	repo.Copied
}

// copyRepository needs no more than a writer's keys: what is moved stays sealed.
func (a *App) copyRepository(ctx context.Context, env action.Env, in copyInput) (MirrorMade, error) {
	m, err := a.Repository(ctx, in.Repository)
	if err != nil {
		return MirrorMade{}, err
	}
	to, err := a.mirrorAt(in.To)
	if err != nil {
		return MirrorMade{}, err
	}
	out := MirrorMade{From: m.Storage().String(), To: to.String()}
	if out.Copied, err = m.Mirror(ctx, to, env.Progress); err != nil {
		return out, err
	}
	if len(out.Damaged) > 0 || len(out.Withheld) > 0 {
		return out, &relight.Error{Op: "copy", Subject: m.Name(), Code: relight.CodeVerification,
			Err:  errors.New("the mirror is not complete: " + strings.Join(append(out.Damaged, out.Withheld...), "; ")),
			Hint: "where the mirror's retention is deleting, copy again later. Where something is damaged, `relight repo check` says what is untouched; the next backup stores again what is missing, and what a check found damaged"}
	}
	return out, nil
}

func (a *App) mirrorAt(to string) (blob.Storage, error) {
	if !strings.Contains(to, "://") && !strings.HasPrefix(to, "/") {
		return nil, &relight.Error{Op: "copy", Subject: to, Code: relight.CodeUsage, Err: errors.New("it is neither a URL nor an absolute path"),
			Hint: "name the place as file:///PATH"}
	}
	return a.CreateStorage(to)
}

// probeCopy cannot tell without comparing everything, which is what a copy does first: repeating it is safe.
func (a *App) probeCopy(context.Context, action.Env, copyInput) (action.Probed, error) {
	return action.Probed{State: action.NotDone, Detail: "a copy goes on where it was interrupted"}, nil
}
