// Package demo shows relight at work: a scratch PostgreSQL with live traffic, a real disaster, the recovery by the built-in runbook, and the
// proof of what came back.
//
// It promises that nothing is staged: the demonstration runs the same commands that a user would, as processes of their own; the disaster destroys real
// files; and what was lost is counted by holding every row against a ledger that the database never saw. It leaves nothing behind unless told to.
package demo

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/demo/bank"
	"github.com/toolboxai/relight/host"
)

// The scenarios.
const (
	Corruption     = "database-corruption"
	Infrastructure = "infrastructure-loss"
)

// Options of a demonstration.
type Options struct {
	Scenario   string
	Traffic    time.Duration // how long the workload runs before the disaster
	Size       int64         // bytes of data, roughly
	Keep       bool          // leave everything for a look around
	Executable string        // relight itself
	Program    string        // what the user calls it, for commands to be pasted
	Dir        string        // where to work: an empty directory, or one that is not there; "": a fresh one under the system's temporary directory
}

// Reporter shows what happens. Stage begins a stage and gives what ends it; Command is called with each command line that a user could type as well.
type Reporter interface {
	Stage(name string) (end func(detail string))
	Command(argv []string)
	Note(format string, args ...any)
	Output() io.Writer // where commands' own progress goes
}

// Deps is what a demonstration works with.
type Deps struct {
	Host   *host.Local
	Report Reporter
	Now    func() time.Time
}

// Result is the last record of a demonstration.
type Result struct {
	Type             string               `json:"type"` // "result"
	Scenario         string               `json:"scenario"`
	RTO              float64              `json:"rto_seconds"` // detection to verified
	RPO              float64              `json:"rpo_seconds"` // disaster − acknowledgement of the first lost commit; 0 when none was lost
	RTOObjective     float64              `json:"rto_objective_seconds"`
	RPOObjective     float64              `json:"rpo_objective_seconds"`
	Exposure         float64              `json:"exposure_objective_seconds"` // what the scenario may lose, which is far less than the objective; 0: nothing
	Acknowledged     int                  `json:"acknowledged"`
	Recovered        int                  `json:"recovered"`
	Lost             int                  `json:"lost"`
	Unconfirmed      int                  `json:"unconfirmed"`
	Verified         bool                 `json:"verified"`
	ProtectedAgain   bool                 `json:"protected_again"`
	Checks           []relight.Check      `json:"checks"`
	Clocks           map[string]time.Time `json:"clocks"`
	Run              relight.RunID        `json:"run"`
	Directory        string               `json:"directory,omitempty"` // what was left behind; "": nothing
	Evidence         []string             `json:"evidence,omitempty"`  // files in it
	ObjectivesMissed []string             `json:"objectives_missed,omitempty"`
}

// stand is one demonstration under way.
type stand struct {
	o      Options
	d      Deps
	layout layout
	server string // directory of its programs
	bank   bank.Bank
	ledger *bank.Ledger
	failed time.Time // the disaster
	seen   time.Time // its detection
}

// Run carries out one demonstration. The error of a recovery that came back with less than promised has code verification or objective; the result is then
// filled in all the same.
func Run(ctx context.Context, o Options, d Deps) (Result, error) {
	scenario, ok := scenarios()[o.Scenario]
	if !ok {
		return Result{}, &relight.Error{Op: "demo", Code: relight.CodeUsage, Err: fmt.Errorf("scenario %q is unknown", o.Scenario),
			Hint: "the scenarios are: " + strings.Join(slices.Sorted(maps.Keys(scenarios())), ", ")}
	}
	server, err := findServer()
	if err != nil {
		return Result{}, err
	}
	place, err := claim(o.Dir)
	if err != nil {
		return Result{}, err
	}
	s := &stand{o: o, d: d, layout: place, server: server, bank: bank.Bank{Accounts: 10_000, Balance: 1000}}
	result, err := s.play(ctx, scenario)
	return s.leave(context.WithoutCancel(ctx), result, err)
}

// scenario is a disaster and the way back from it.
type scenario struct {
	strike   func(*stand, context.Context) error
	detect   func(*stand, context.Context) error
	recover  func(*stand, context.Context) (run, error)
	exposure time.Duration // how much of what was acknowledged may be lost
}

// inFlight is how long a commit may be on its way into the repository, which is told of the log once a second.
const inFlight = 2 * time.Second

func scenarios() map[string]scenario {
	return map[string]scenario{
		Corruption:     {(*stand).corrupt, (*stand).detectCorruption, (*stand).recoverCorruption, 0}, // the damaged server's own log is there
		Infrastructure: {(*stand).destroy, (*stand).detectLoss, (*stand).recoverLoss, inFlight},
	}
}

func (s *stand) play(ctx context.Context, sc scenario) (Result, error) {
	if err := s.prepare(ctx); err != nil {
		return Result{}, err
	}
	if err := s.protect(ctx); err != nil {
		return Result{}, err
	}
	if err := s.traffic(ctx, sc); err != nil {
		return Result{}, err
	}
	if err := s.stage("the disaster is noticed", func() (string, error) { return "", sc.detect(s, ctx) }); err != nil {
		return Result{}, err
	}
	r, err := sc.recover(s, ctx)
	if err != nil {
		return Result{}, err
	}
	return s.prove(ctx, r)
}

// stage runs one stage under the reporter.
func (s *stand) stage(name string, do func() (detail string, err error)) error {
	end := s.d.Report.Stage(name)
	detail, err := do()
	if err != nil {
		end("failed")
		return fmt.Errorf("%s: %w", name, err)
	}
	end(detail)
	return nil
}
