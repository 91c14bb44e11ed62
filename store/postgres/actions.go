package postgres

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/action"
	"github.com/toolboxai/relight/repo"
	"github.com/toolboxai/relight/store"
)

// Cluster is a store of the estate with all that its actions need. Its repositories are opened when they are asked for.
type Cluster struct {
	Store        *Store
	Data         string
	Owner        string
	Evidence     string // directory that forensic copies go to
	Objective    relight.Objective
	Repositories []string
	Meta         func(ctx context.Context, repository string) (*repo.Meta, error)
	Reader       func(ctx context.Context, repository string) (*repo.Reader, error)
	ParseTime    func(text string) (time.Time, error) // in the estate's zone
	Zone         *time.Location                       // the estate's; nil: UTC
	Record       func(ctx context.Context, r Released) error
}

// Open finds a store by name; "" is the only one.
type Open func(ctx context.Context, store string) (Cluster, error)

// Actions are the postgres.* capabilities.
func Actions(open Open) []action.Action {
	a := &actions{open: open}
	return []action.Action{
		action.Define(action.Spec[storeInput, Assessment]{Name: "postgres.assess", Title: "find out how badly a store is damaged, without changing anything", Danger: action.None,
			Example: "relight postgres assess --store main", Run: a.assess, Probe: readOnly(a.assess)}),
		action.Define(action.Spec[storeInput, Evidence]{Name: "postgres.evidence", Title: "keep a forensic copy of a stopped server's data directory and tablespaces", Danger: action.None,
			Example: "relight postgres evidence --store main", Run: a.evidence, Probe: a.probeEvidence}),
		action.Define(action.Spec[storeInput, SalvageReport]{Name: "postgres.salvage", Title: "save the write-ahead log that a damaged, stopped server holds beyond the repositories", Danger: action.None,
			Example: "relight postgres salvage --store main", Run: a.salvage, Probe: a.probeSalvage}),
		action.Define(action.Spec[repositoryInput, WindowReport]{Name: "postgres.window", Title: "show from when to when a store can be recovered", Danger: action.None,
			Example: "relight postgres window --store main", Run: a.window, Probe: readOnly(a.window)}),
		action.Define(action.Spec[restoreInput, RestoreReport]{Name: "postgres.restore", Title: "restore a store to a moment, in place or into a directory", Danger: action.Data,
			Forced:  "allow an occupied or newer target; the target's name is asked for all the same",
			Example: `relight postgres restore --store main --at "2025-10-02 14:30:00" --identity recovery.key`, Run: a.restore, Probe: a.probeRestore, Plan: a.planRestore}),
		action.Define(action.Spec[checkInput, CheckReport]{Name: "postgres.check", Title: "check a running server: reachable, checksums, indexes, invariants", Danger: action.None,
			Example: "relight postgres check --store main --integrity", Run: a.check, Probe: readOnly(a.check)}),
		action.Define(action.Spec[storeInput, Reindexed]{Name: "postgres.reindex", Title: "rebuild the indexes whose order another version of the host's libraries changed", Danger: action.Harm,
			Example: "relight postgres reindex --store main", Run: a.reindex, Probe: a.probeReindex, Plan: a.planReindex}),
		action.Define(action.Spec[adoptInput, Adopted]{Name: "postgres.adopt", Title: "take the log of a cluster that was made anew: after initdb or pg_upgrade", Danger: action.Harm,
			Example: `relight postgres adopt --store main --why "pg_upgrade to 17"`, Run: a.adopt, Probe: a.probeAdopt, Plan: a.planAdopt}),
		action.Define(action.Spec[releaseInput, Released]{Name: "postgres.release", Title: "let commits go that wait for relight in synchronous mode, on record", Danger: action.Harm,
			Example: `relight postgres release --store main --why "the repository's host is lost"`, Run: a.release, Probe: a.probeRelease, Plan: a.planRelease}),
		action.Define(action.Spec[storeInput, CheckReport]{Name: "postgres.doctor", Title: "check that a store can be protected: privileges, slots, space, versions, keys", Danger: action.None,
			Example: "relight postgres doctor --store main", Run: a.doctor, Probe: readOnly(a.doctor)}),
	}
}

type actions struct{ open Open }

type storeInput struct {
	Store string `flag:"store" help:"the store; the only one when not given"`
}

type repositoryInput struct {
	Store      string `flag:"store" help:"the store; the only one when not given"`
	Repository string `flag:"repository" help:"the repository; the store's first when not given"`
}

type checkInput struct {
	Store     string `flag:"store" help:"the store; the only one when not given"`
	Integrity bool   `flag:"integrity" help:"read every table and index"`
}

// readOnly makes a probe of an action that changes nothing: doing it again is how one finds out.
func readOnly[In, Out any](run func(context.Context, action.Env, In) (Out, error)) func(context.Context, action.Env, In) (action.Probed, error) {
	return func(ctx context.Context, env action.Env, in In) (action.Probed, error) {
		out, err := run(ctx, env, in)
		if err != nil {
			return action.Probed{State: action.NotDone, Detail: err.Error()}, nil
		}
		return action.Probed{State: action.Done, Out: out}, nil
	}
}

// repository is the one that a restore reads from: the named one, or the store's first.
func (c Cluster) repository(name string) string {
	if name == "" && len(c.Repositories) > 0 {
		return c.Repositories[0]
	}
	return name
}

// WindowReport is a window in words that a runbook can use: earliest and latest are "" when there is none.
type WindowReport struct {
	Earliest   string              `json:"earliest"`
	Latest     string              `json:"latest"`
	LastCommit string              `json:"last_commit"`
	CoveredAt  string              `json:"covered_at"`
	Spans      []relight.Span      `json:"spans"`
	Gaps       []relight.Gap       `json:"gaps"`
	Names      []relight.NamedMark `json:"names"`
}

func (a *actions) window(ctx context.Context, _ action.Env, in repositoryInput) (WindowReport, error) {
	c, err := a.open(ctx, in.Store)
	if err != nil {
		return WindowReport{}, err
	}
	m, err := c.Meta(ctx, c.repository(in.Repository))
	if err != nil {
		return WindowReport{}, err
	}
	w, err := c.Store.Window(ctx, m)
	if err != nil {
		return WindowReport{}, err
	}
	return reportWindow(w), nil
}

func reportWindow(w relight.Window) WindowReport {
	r := WindowReport{Spans: w.Spans, Gaps: w.Gaps, Names: w.Names}
	for i, s := range w.Spans {
		if i == 0 {
			r.Earliest = moment(s.From)
		}
		r.Latest, r.LastCommit, r.CoveredAt = moment(s.To), clockText(s.LastCommit), clockText(s.CoveredAt)
	}
	return r
}

// moment names a point by its time where it has one.
func moment(p relight.Point) string {
	if p.Time.IsZero() {
		return "lsn:" + p.LSN.String()
	}
	return clockText(p.Time)
}

func clockText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// CheckReport is the outcome of checks.
type CheckReport struct {
	OK     bool            `json:"ok"`
	Checks []relight.Check `json:"checks"`
}

// report turns checks into an outcome; a failed one is an error of code verification that names it.
func (s *Store) report(op, hint string, checks []relight.Check) (CheckReport, error) {
	r := CheckReport{Checks: checks}
	r.OK = !slices.ContainsFunc(checks, func(c relight.Check) bool { return c.Verdict == relight.Failed })
	if r.OK {
		return r, nil
	}
	return r, s.fail(op, relight.CodeVerification, hint, "%s", failures(checks))
}

// failures names what failed, the first in full.
func failures(checks []relight.Check) string {
	text, more := "", 0
	for _, c := range checks {
		switch {
		case c.Verdict != relight.Failed:
		case text == "":
			text = c.Name + ": " + c.Detail
		default:
			more++
		}
	}
	if more > 0 {
		text += fmt.Sprintf(" (and %d more)", more)
	}
	return text
}

func (a *actions) check(ctx context.Context, env action.Env, in checkInput) (CheckReport, error) {
	c, err := a.open(ctx, in.Store)
	if err != nil {
		return CheckReport{}, err
	}
	checks, err := c.Store.Check(ctx, CheckOptions{Integrity: in.Integrity, Progress: env.Progress})
	if err != nil {
		return CheckReport{}, err
	}
	return c.Store.report("check", "do not let writers start; `relight runbook show database-corruption` says how to recover", checks)
}

func (a *actions) reindex(ctx context.Context, env action.Env, in storeInput) (Reindexed, error) {
	c, err := a.open(ctx, in.Store)
	if err != nil {
		return Reindexed{}, err
	}
	return c.Store.Reindex(ctx, env.Progress)
}

// probeReindex says that nothing is left to rebuild.
func (a *actions) probeReindex(ctx context.Context, _ action.Env, in storeInput) (action.Probed, error) {
	c, err := a.open(ctx, in.Store)
	if err != nil {
		return action.Probed{}, err
	}
	stale, err := c.Store.Stale(ctx)
	if err != nil || len(stale) > 0 {
		return action.Probed{State: action.NotDone, Detail: fmt.Sprintf("%d stale collations, %v", len(stale), err)}, nil
	}
	return action.Probed{State: action.Done, Out: Reindexed{}}, nil
}

func (a *actions) planReindex(ctx context.Context, _ action.Env, in storeInput) (action.Blast, error) {
	c, err := a.open(ctx, in.Store)
	if err != nil {
		return action.Blast{}, err
	}
	stale, err := c.Store.Stale(ctx)
	if err != nil {
		return action.Blast{}, err
	}
	b := action.Blast{Target: c.Store.c.Name, Danger: action.Harm}
	for _, s := range stale {
		b.Lines = append(b.Lines, fmt.Sprintf("rebuilds the indexes of %s that its %s; each is locked meanwhile", s.Database, s))
	}
	if len(stale) == 0 {
		b.Danger, b.Lines = action.None, []string{"no collation is stale: there is nothing to rebuild"}
	}
	return b, nil
}

func (a *actions) doctor(ctx context.Context, _ action.Env, in storeInput) (CheckReport, error) {
	c, err := a.open(ctx, in.Store)
	if err != nil {
		return CheckReport{}, err
	}
	var checks []relight.Check
	for _, name := range c.Repositories {
		m, err := c.Meta(ctx, name)
		if err != nil {
			return CheckReport{}, err
		}
		tested, _, err := m.LastKeyTest(ctx)
		if err != nil {
			return CheckReport{}, err
		}
		checks = append(checks, c.Store.Doctor(ctx, DoctorOptions{Meta: m, KeyTested: tested.At})...)
	}
	return c.Store.report("doctor", "each failed check says what is missing: mend it, then ask again, before protection starts", checks)
}

func (c Cluster) target(in restoreInput) (store.Target, error) {
	t := store.Target{Directory: c.Data, Owner: c.Owner}
	if in.Target != "in-place" {
		t.Directory = in.Target
	}
	if dir, err := filepath.Abs(t.Directory); err == nil { // the server's programs run elsewhere
		t.Directory = dir
	}
	var err error
	t.Tablespaces, err = ParseTablespaces(in.Tablespace)
	return t, err
}
