package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/action"
	"github.com/toolboxai/relight/host"
)

// SalvageReport says what the damaged server's own log won.
type SalvageReport struct {
	Commits    int         `json:"commits"` // that no repository held
	EndLSN     relight.LSN `json:"end_lsn"`
	LastCommit string      `json:"last_commit"`
	Bytes      int64       `json:"bytes"`
	Directory  string      `json:"directory"` // where a copy lies; "" when there was nothing to win
	Broken     string      `json:"broken"`    // why the log could not be used to its end; "" when it could
}

const salvageName = "salvage-20060102-150405.json"

// salvage saves what the damaged server holds beyond each repository and sends it there, so that every later restore finds it.
func (a *actions) salvage(ctx context.Context, env action.Env, in storeInput) (SalvageReport, error) {
	c, err := a.open(ctx, in.Store)
	if err != nil {
		return SalvageReport{}, err
	}
	var report SalvageReport
	for _, name := range c.Repositories {
		m, err := c.Meta(ctx, name)
		if err != nil {
			return report, err
		}
		won, err := c.Store.Salvage(ctx, m, SalvageOptions{DataDir: c.Data, Into: filepath.Join(c.Evidence, "salvaged-wal", name), Sink: m.Sink(c.Store.Config().Name)})
		if err != nil {
			return report, err
		}
		report.add(won)
	}
	return report, keepReport(filepath.Join(c.Evidence, env.Now().UTC().Format(salvageName)), report)
}

func (r *SalvageReport) add(won Salvaged) {
	if won.Commits >= r.Commits {
		r.Commits, r.Bytes, r.Directory = won.Commits, won.Bytes, won.Directory
	}
	r.EndLSN = max(r.EndLSN, won.To)
	if !won.LastCommit.IsZero() { // a repository that lacked nothing has none to tell
		r.LastCommit = clockText(won.LastCommit)
	}
	if won.Broken != "" {
		r.Broken = won.Broken
	}
}

func (a *actions) probeSalvage(ctx context.Context, env action.Env, in storeInput) (action.Probed, error) {
	c, err := a.open(ctx, in.Store)
	if err != nil {
		return action.Probed{}, err
	}
	return reportSince[SalvageReport](c.Evidence, salvageName, env.Since)
}

// keepReport writes down that something is done, for the probe of a successor.
func keepReport(path string, report any) error {
	b, err := json.Marshal(report)
	if err != nil {
		return fmt.Errorf("keep %s: %w", path, err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("keep %s: %w", path, err)
	}
	return host.WriteFileDurable(path, append(b, '\n'), 0o600)
}

// reportSince finds a report in dir that was made at or after since. layout is its name, a time in it.
func reportSince[Out any](dir, layout string, since time.Time) (action.Probed, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !os.IsNotExist(err) {
		return action.Probed{}, fmt.Errorf("look for what was done: %w", err)
	}
	for _, e := range entries {
		made, err := time.Parse(layout, e.Name())
		if err != nil || since.IsZero() || made.Before(since.Truncate(time.Second)) {
			continue
		}
		var out Out
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err == nil && json.Unmarshal(b, &out) == nil {
			return action.Probed{State: action.Done, Detail: e.Name(), Out: out}, nil
		}
	}
	return action.Probed{State: action.NotDone, Detail: "nothing was made since " + clockText(since)}, nil
}
