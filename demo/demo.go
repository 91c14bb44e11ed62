// Package demo shows relight at work: a scratch PostgreSQL with live traffic, a real disaster, the recovery by the built-in runbook, and the
// proof of what came back.
//
// It promises that nothing is staged: the demonstration runs the same commands that a user would, as processes of their own; the disaster destroys real
// files; and what was lost is counted by holding every row against a ledger that the database never saw. It leaves nothing behind unless told to.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
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
	Dir        string        // where to work; "": a fresh directory under the system's temporary one
}

// Reporter shows what happens. Stage begins a stage and gives what ends it; Command is called before each relight command that a user could type as well.
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
	Acknowledged     int                  `json:"acknowledged"`
	Recovered        int                  `json:"recovered"`
	Lost             int                  `json:"lost"`
	Unconfirmed      int                  `json:"unconfirmed"`
	Verified         bool                 `json:"verified"`
	ProtectedAgain   bool                 `json:"protected_again"`
	Checks           []relight.Check      `json:"checks"`
	Clocks           map[string]time.Time `json:"clocks"`
	Run              relight.RunID        `json:"run"`
	Directory        string               `json:"directory,omitempty"`
	Evidence         []string             `json:"evidence,omitempty"`
	ObjectivesMissed []string             `json:"objectives_missed,omitempty"`
}

// stand is one demonstration under way.
type stand struct {
	o      Options
	d      Deps
	layout layout
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
	s := &stand{o: o, d: d, bank: bank.Bank{Accounts: 10_000, Balance: 1000}}
	if err := s.open(); err != nil {
		return Result{}, err
	}
	result, err := s.play(ctx, scenario)
	if o.Keep {
		s.lookAround()
		result.Directory = s.layout.root
		return result, err
	}
	return result, errors.Join(err, s.tearDown(context.WithoutCancel(ctx)))
}

// scenario is a disaster and the way back from it.
type scenario struct {
	strike  func(*stand, context.Context) error
	detect  func(*stand, context.Context) error
	recover func(*stand, context.Context) (run, error)
}

func scenarios() map[string]scenario {
	return map[string]scenario{
		Corruption:     {(*stand).corrupt, (*stand).detectCorruption, (*stand).recoverCorruption},
		Infrastructure: {(*stand).destroy, (*stand).detectLoss, (*stand).recoverLoss},
	}
}

func (s *stand) open() error {
	dir := s.o.Dir
	if dir == "" {
		made, err := os.MkdirTemp("", "relight-demo-")
		if err != nil {
			return fmt.Errorf("make a place for the demonstration: %w", err)
		}
		dir = made
	}
	absolute, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("make a place for the demonstration: %w", err)
	}
	s.layout = layout{root: absolute}
	return nil
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
