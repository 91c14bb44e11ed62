package postgres

import (
	"context"
	"fmt"
	"slices"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/action"
)

// Assessment is how badly a store is damaged, as far as can be told without changing anything.
type Assessment struct {
	Reachable bool             `json:"reachable"`
	Damaged   bool             `json:"damaged"`
	Detail    string           `json:"detail"`
	Relations []string         `json:"relations"` // what is known to be damaged: checks that failed, or files with bad pages
	LastLSN   relight.LSN      `json:"last_lsn"`
	System    relight.SystemID `json:"system_id"`
	Checks    []relight.Check  `json:"checks,omitempty"`
}

// Assess asks the server where it answers, and reads the files themselves where it does not. A server that runs and does not answer is
// reported as damaged: nobody can use it.
func (s *Store) Assess(ctx context.Context, dir string, progress func(relight.Progress)) (Assessment, error) {
	a := Assessment{Relations: []string{}}
	c, err := readControl(dir)
	if err != nil {
		a.Damaged, a.Detail = true, "the control file cannot be read: "+err.Error()
	} else {
		a.System, a.LastLSN = c.System, c.Checkpoint
	}
	checks, err := s.Check(ctx, CheckOptions{Integrity: true, Progress: progress})
	if err == nil {
		a.answered(checks)
		return a, nil
	}
	if ctx.Err() != nil {
		return a, err
	}
	a.Damaged, a.Detail = true, "the server does not answer: "+err.Error()
	pid, err := running(dir)
	if err != nil || pid != 0 {
		a.Detail += fmt.Sprintf("; process %d works in %s, so the files are not read", pid, dir)
		return a, nil
	}
	return a, a.files(ctx, s, dir, progress)
}

func (a *Assessment) answered(checks []relight.Check) {
	a.Reachable, a.Checks = true, checks
	for _, c := range checks {
		if c.Verdict == relight.Failed {
			a.Relations = append(a.Relations, c.Name)
		}
	}
	if len(a.Relations) > 0 {
		a.Damaged, a.Detail = true, failures(checks)
	}
	if a.Detail == "" {
		a.Detail = fmt.Sprintf("the server answers; %d checks found no damage", len(checks))
	}
}

// files reads what a server that is down has left.
func (a *Assessment) files(ctx context.Context, s *Store, dir string, progress func(relight.Progress)) error {
	pages, err := s.VerifyPages(ctx, dir, 0, progress)
	if err != nil {
		a.Detail += "; the data files cannot be read: " + err.Error()
		return ctx.Err()
	}
	for _, d := range pages.First {
		if !slices.Contains(a.Relations, d.Path) {
			a.Relations = append(a.Relations, d.Path)
		}
	}
	a.Detail += fmt.Sprintf("; %d of %d pages are damaged", pages.Damaged, pages.Pages)
	return nil
}

func (a *actions) assess(ctx context.Context, env action.Env, in storeInput) (Assessment, error) {
	c, err := a.open(ctx, in.Store)
	if err != nil {
		return Assessment{}, err
	}
	return c.Store.Assess(ctx, c.Data, env.Progress)
}
