package cli

import (
	"errors"
	"strings"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/runbook"
)

// objectiveError is the error of a run that recovered and missed its objective; nil otherwise.
func objectiveError(st *runbook.State) error {
	if st.Status != relight.RunCompleted && st.Status != relight.RunWithExceptions {
		return nil
	}
	missed := st.Outcome().Missed
	if len(missed) == 0 {
		return nil
	}
	return &relight.Error{Op: "run", Subject: string(st.Run), Code: relight.CodeObjective,
		Err:  errors.New("recovered, and an objective was missed: " + strings.Join(missed, "; ")),
		Hint: "the run is complete; bring what it took to the review"}
}

// outcome prints what was achieved against the objective, as far as it is known.
func (s *session) outcome(st *runbook.State) {
	o := st.Outcome()
	s.measured("RTO", o.RTO, o.RTOObjective)
	s.measured("RPO", o.RPO, o.RPOObjective)
	if o.Discarded != nil && *o.Discarded > 0 {
		s.say("%-13s %s, by the choice of an earlier point", "given up", secondsText(*o.Discarded))
	}
}

func (s *session) measured(name string, got *float64, objective float64) {
	if got == nil {
		return
	}
	of := ""
	if objective > 0 {
		of = "  of " + secondsText(objective)
	}
	if objective > 0 && *got > objective {
		of += "  MISSED"
	}
	s.say("%-13s %s%s", name, secondsText(*got), of)
}

func secondsText(s float64) string {
	return time.Duration(s * float64(time.Second)).Round(100 * time.Millisecond).String()
}
