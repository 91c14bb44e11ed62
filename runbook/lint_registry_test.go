package runbook

import (
	"context"
	"testing"
	"time"

	"github.com/toolboxai/relight/action"
)

// The actions that runbooks of the tests call: the shapes of the real ones, without their effects.

type storeIn struct {
	Store string `flag:"store" required:"true" help:"the store"`
}

type serviceIn struct {
	All       bool          `flag:"all"`
	Service   string        `flag:"service"`
	WritersOf string        `flag:"writers_of"`
	Timeout   time.Duration `flag:"timeout" default:"5m"`
}

type restoreIn struct {
	Store        string   `flag:"store" required:"true" help:"the store to restore"`
	At           string   `flag:"at" default:"latest"`
	Snapshot     string   `flag:"snapshot"`
	Target       string   `flag:"target" default:"in-place"`
	Tablespace   []string `flag:"tablespace"`
	Salvage      string   `flag:"salvage"`
	VerifyBefore bool     `flag:"verify-before"`
	Verify       bool     `flag:"verify"`
	Force        bool     `flag:"force"`
}

type checkIn struct {
	Store     string `flag:"store" required:"true"`
	Integrity bool   `flag:"integrity"`
}

type waitIn struct {
	Store   string        `flag:"store" required:"true"`
	Timeout time.Duration `flag:"timeout" default:"5m"`
}

type backupIn struct {
	Store string `flag:"store" required:"true"`
	Kind  string `flag:"kind" default:"full" enum:"full,incremental"`
}

type directoryIn struct {
	Directory string `flag:"directory"`
}

type repositoryIn struct {
	Repository string `flag:"repository"`
}

type assessed struct {
	Reachable bool     `json:"reachable"`
	Damaged   bool     `json:"damaged"`
	Detail    string   `json:"detail,omitempty"`
	Relations []string `json:"relations,omitempty"`
	LastLSN   string   `json:"last_lsn,omitempty"`
	SystemID  string   `json:"system_id,omitempty"`
}

type evidence struct {
	Path   string `json:"path"`
	Bytes  int64  `json:"bytes"`
	Blake3 string `json:"blake3"`
}

type salvaged struct {
	Directory  string `json:"directory"`
	Commits    int64  `json:"commits"`
	EndLSN     string `json:"end_lsn"`
	LastCommit string `json:"last_commit"`
}

type window struct {
	Store      string `json:"store"`
	Earliest   string `json:"earliest"`
	Latest     string `json:"latest"`
	LastCommit string `json:"last_commit"`
	Spans      []any  `json:"spans"`
}

type restored struct {
	ReachedLSN string  `json:"reached_lsn"`
	LastCommit string  `json:"last_commit"`
	NewLine    int     `json:"new_timeline"`
	SetAside   string  `json:"set_aside"`
	Seconds    float64 `json:"seconds"`
	RPO        float64 `json:"rpo_seconds"`
}

type checked struct {
	OK     bool  `json:"ok"`
	Checks []any `json:"checks"`
}

type streaming struct {
	Timeline   int    `json:"timeline"`
	DurableLSN string `json:"durable_lsn"`
}

type backedUp struct {
	Snapshot string `json:"snapshot"`
}

type repository struct {
	Snapshots int            `json:"snapshots"`
	More      map[string]any `json:"more"`
}

func capability[In, Out any](name string, danger action.Danger) action.Action {
	s := action.Spec[In, Out]{
		Name: name, Title: "test " + name, Danger: danger,
		Run: func(context.Context, action.Env, In) (out Out, err error) { return out, nil },
	}
	if danger.Destructive() {
		s.Probe = func(context.Context, action.Env, In) (action.Probed, error) {
			return action.Probed{State: action.NotDone}, nil
		}
		s.Plan = func(context.Context, action.Env, In) (action.Blast, error) {
			return action.Blast{Target: "main"}, nil
		}
	}
	return action.Define(s)
}

func lintRegistry(t testing.TB) *action.Registry {
	t.Helper()
	reg, err := action.NewRegistry(
		capability[serviceIn, struct{}]("service.stop", action.Harm),
		capability[serviceIn, struct{}]("service.start", action.Harm),
		capability[serviceIn, struct{}]("service.wait", action.None),
		capability[serviceIn, checked]("service.health", action.None),
		capability[storeIn, assessed]("postgres.assess", action.None),
		capability[storeIn, evidence]("postgres.evidence", action.None),
		capability[storeIn, salvaged]("postgres.salvage", action.None),
		capability[storeIn, window]("postgres.window", action.None),
		capability[restoreIn, restored]("postgres.restore", action.Data),
		capability[checkIn, checked]("postgres.check", action.None),
		capability[storeIn, struct{}]("postgres.reindex", action.Harm),
		capability[struct{}, struct{}]("protect.start", action.None),
		capability[waitIn, streaming]("protect.wait", action.None),
		capability[backupIn, backedUp]("backup.create", action.None),
		capability[directoryIn, struct{}]("estate.restore", action.None),
		capability[repositoryIn, repository]("repo.info", action.None),
	)
	if err != nil {
		t.Fatal(err)
	}
	return reg
}
