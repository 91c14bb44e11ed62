package demo

import (
	"slices"
	"testing"

	"github.com/toolboxai/relight"
)

func TestVerdict(t *testing.T) {
	t.Parallel()
	corruption := Result{Scenario: Corruption, RTO: 7, RTOObjective: 7200, RPOObjective: 900, Acknowledged: 100, Recovered: 100, Verified: true, ProtectedAgain: true}
	infrastructure := Result{Scenario: Infrastructure, RTO: 7, RTOObjective: 14400, RPO: 0.9, RPOObjective: 3600, Exposure: inFlight.Seconds(), Acknowledged: 100, Recovered: 60, Lost: 40,
		Verified: true, ProtectedAgain: true}
	for name, c := range map[string]struct {
		from   Result
		but    func(*Result)
		code   relight.Code
		missed []string
	}{
		"corruption, nothing lost":            {corruption, func(*Result) {}, "", nil},
		"corruption, one commit lost":         {corruption, func(r *Result) { r.Recovered, r.Lost, r.RPO = 99, 1, 0.1 }, relight.CodeVerification, nil},
		"corruption, not verified":            {corruption, func(r *Result) { r.Verified = false }, relight.CodeVerification, nil},
		"corruption, not all accounted for":   {corruption, func(r *Result) { r.Recovered = 99 }, relight.CodeVerification, nil},
		"corruption, not protected again":     {corruption, func(r *Result) { r.ProtectedAgain = false }, relight.CodeFailed, nil},
		"corruption, too slow":                {corruption, func(r *Result) { r.RTO = 7200.1 }, relight.CodeObjective, []string{"RTO: 7200.1 s of 7200 s"}},
		"infrastructure, what was in flight":  {infrastructure, func(*Result) {}, "", nil},
		"infrastructure, nothing lost":        {infrastructure, func(r *Result) { r.Recovered, r.Lost, r.RPO = 100, 0, 0 }, "", nil},
		"infrastructure, all that is allowed": {infrastructure, func(r *Result) { r.RPO = 2 }, "", nil},
		"infrastructure, a minute lost":       {infrastructure, func(r *Result) { r.RPO = 60 }, relight.CodeObjective, []string{"exposure: 60.0 s of 2 s"}},
		"infrastructure, hours lost": {infrastructure, func(r *Result) { r.RPO = 7200 }, relight.CodeObjective,
			[]string{"RPO: 7200.0 s of 3600 s", "exposure: 7200.0 s of 2 s"}},
		"infrastructure, slow and not verified": {infrastructure, func(r *Result) { r.RTO, r.Verified = 20000, false }, relight.CodeVerification, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := c.from
			c.but(&r)
			err := r.verdict()
			if got := relight.CodeOf(err); got != c.code || !slices.Equal(r.ObjectivesMissed, c.missed) {
				t.Errorf("code %q, missed %q: %v", got, r.ObjectivesMissed, err)
			}
		})
	}
}
