package demo

import (
	"fmt"
	"strings"

	"github.com/toolboxai/relight"
)

// verdict turns a result that falls short of the promise into an error, and notes which objectives it missed.
func (r *Result) verdict() error {
	if !r.Verified {
		return r.fail(relight.CodeVerification, "what came back does not verify")
	}
	if r.Recovered+r.Lost != r.Acknowledged {
		return r.fail(relight.CodeVerification, "%d commits were acknowledged, and %d recovered and %d lost are not as many", r.Acknowledged, r.Recovered, r.Lost)
	}
	if r.Lost > 0 && r.Exposure == 0 {
		return r.fail(relight.CodeVerification, "%d acknowledged commits are lost, though the damaged server's own log was there", r.Lost)
	}
	if !r.ProtectedAgain {
		return r.fail(relight.CodeFailed, "what came back is not protected again")
	}
	for _, o := range []struct {
		name           string
		got, objective float64
	}{{"RTO", r.RTO, r.RTOObjective}, {"RPO", r.RPO, r.RPOObjective}, {"exposure", r.RPO, r.Exposure}} {
		if o.got > o.objective {
			r.ObjectivesMissed = append(r.ObjectivesMissed, fmt.Sprintf("%s: %.1f s of %.0f s", o.name, o.got, o.objective))
		}
	}
	if len(r.ObjectivesMissed) > 0 {
		return r.fail(relight.CodeObjective, "recovered, and an objective was missed: %s", strings.Join(r.ObjectivesMissed, "; "))
	}
	return nil
}

func (r *Result) fail(code relight.Code, format string, args ...any) error {
	return &relight.Error{Op: "demo", Subject: r.Scenario, Code: code, Err: fmt.Errorf(format, args...)}
}
