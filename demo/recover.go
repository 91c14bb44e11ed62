package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/demo/bank"
)

// run is the answer of `relight run start` and `relight recover`.
type run struct {
	Run        relight.RunID        `json:"run"`
	State      relight.RunState     `json:"state"`
	Clocks     map[string]time.Time `json:"clocks"`
	RTO        float64              `json:"rto_objective_seconds"`
	RPO        float64              `json:"rpo_objective_seconds"`
	Exceptions []string             `json:"exceptions"`
}

func (s *stand) recoverCorruption(ctx context.Context) (run, error) {
	var r run
	err := s.stage("recovery by the runbook database-corruption", func() (string, error) {
		var err error
		r, err = decode[run](s.relight(ctx, "run", "start", Corruption, "--input", "store="+storeName, "--identity", s.layout.identity(),
			"--detected", s.seen.UTC().Format(time.RFC3339Nano), "--confirm", storeName, "--yes"))
		return string(r.State), err
	})
	return r, err
}

func (s *stand) recoverLoss(ctx context.Context) (run, error) {
	var r run
	err := s.stage("recovery on a bare machine: repository, recovery key and this binary", func() (string, error) {
		if _, err := s.makePlaces(); err != nil {
			return "", err
		}
		if err := os.Remove(s.layout.estate()); err != nil { // relight brings it back
			return "", fmt.Errorf("empty the machine: %w", err)
		}
		var err error
		r, err = decode[run](s.relightAt(ctx, "recover", "--repo", "file://"+s.layout.vault(), "--identity", s.layout.identity(),
			"--detected", s.seen.UTC().Format(time.RFC3339Nano), "--confirm", storeName, "--yes"))
		return string(r.State), err
	})
	return r, err
}

// prove holds what came back against what was acknowledged, and asks the server's own checkers.
func (s *stand) prove(ctx context.Context, r run) (Result, error) {
	res := Result{Type: "result", Scenario: s.o.Scenario, Run: r.Run, Clocks: r.Clocks, RTOObjective: r.RTO, RPOObjective: r.RPO,
		Exposure: scenarios()[s.o.Scenario].exposure.Seconds()}
	err := s.stage("proof: amcheck, page checksums, invariants, and every row against the ledger", func() (string, error) {
		if err := s.check(ctx, &res); err != nil {
			return "", err
		}
		return s.compare(ctx, &res)
	})
	if err != nil {
		return res, err
	}
	err = s.stage("protected again: the new timeline streams, with a base backup of its own", func() (string, error) {
		p, err := decode[protected](s.relight(ctx, "protect", "wait", "--timeout", "120s"))
		res.ProtectedAgain = err == nil && p.Timeline > 1
		return fmt.Sprintf("timeline %d, base backup %s", p.Timeline, p.Snapshot), err
	})
	if err != nil {
		return res, err
	}
	res.RTO = r.Clocks["verified"].Sub(s.seen).Seconds()
	return res, res.verdict()
}

// checkAnswer is what `relight postgres check` prints.
type checkAnswer struct {
	Checks []relight.Check `json:"checks"`
}

func (s *stand) check(ctx context.Context, res *Result) error {
	answer, err := decode[checkAnswer](s.relight(ctx, "postgres", "check", "--store", storeName, "--integrity"))
	if err != nil {
		return err
	}
	res.Checks = answer.Checks
	if len(answer.Checks) == 0 {
		return errors.New("the check names nothing that it checked")
	}
	res.Verified = !slices.ContainsFunc(answer.Checks, func(c relight.Check) bool { return c.Verdict == relight.Failed })
	return nil
}

func (s *stand) compare(ctx context.Context, res *Result) (string, error) {
	ledger, err := bank.ReadLedger(s.layout.ledger())
	if err != nil {
		return "", err
	}
	c, err := s.bank.Compare(ctx, s.layout.dsn(), ledger)
	if err != nil {
		return "", err
	}
	res.Acknowledged, res.Recovered, res.Lost, res.Unconfirmed = c.Acknowledged, c.Recovered, len(c.Lost), c.Unconfirmed
	if len(c.Lost) > 0 {
		res.RPO = max(0, s.failed.Sub(c.Lost[0].Acknowledged).Seconds())
	}
	if len(c.Altered) > 0 || c.Sum != c.WantSum {
		res.Verified = false
		return "", &relight.Error{Op: "compare with the ledger", Code: relight.CodeVerification,
			Err: fmt.Errorf("%d transfers altered; the accounts hold %d, not %d", len(c.Altered), c.Sum, c.WantSum)}
	}
	return fmt.Sprintf("%d of %d acknowledged commits are there, %d lost", c.Recovered, c.Acknowledged, len(c.Lost)), nil
}
