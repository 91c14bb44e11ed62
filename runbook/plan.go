package runbook

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/toolboxai/relight/action"
)

// Plan is a runbook with its inputs, in the order of execution, before anything runs. What only the run will know
// reads "unknown".
type Plan struct {
	Runbook string         `json:"runbook"`
	Title   string         `json:"title"`
	Hash    string         `json:"hash"`
	RTO     string         `json:"rto"`
	RPO     string         `json:"rpo"`
	Inputs  map[string]any `json:"inputs,omitempty"`
	Steps   []PlanStep     `json:"steps"`
	NoWay   string         `json:"point_of_no_return,omitempty"` // the first step that cannot be undone
}

// PlanStep is one step of a plan.
type PlanStep struct {
	N        int            `json:"n"`
	ID       string         `json:"id"`
	Title    string         `json:"title"`
	Phase    string         `json:"phase"`
	Kind     Kind           `json:"kind"`
	What     string         `json:"what,omitempty"` // the action, or the program
	With     map[string]any `json:"with,omitempty"`
	Needs    []string       `json:"needs,omitempty"`
	Reached  []string       `json:"reached,omitempty"` // of an on-demand step: "option pitr of choose-recovery", "restore fails"
	When     string         `json:"when,omitempty"`
	Each     string         `json:"each,omitempty"`
	Danger   action.Danger  `json:"danger"`
	Undo     string         `json:"undo,omitempty"` // an action, a program, or "none"
	Verify   string         `json:"verify,omitempty"`
	Timeout  string         `json:"timeout,omitempty"`
	Retry    int            `json:"retry,omitempty"`
	IfFails  string         `json:"if_fails,omitempty"`
	Clock    string         `json:"clock,omitempty"`
	Options  []PlanOption   `json:"options,omitempty"`
	Approval bool           `json:"approval,omitempty"`
}

// PlanOption is one option of a choice.
type PlanOption struct {
	ID        string   `json:"id"`
	Title     string   `json:"title"`
	Available string   `json:"available"` // "yes", "no", "unknown"
	Reason    string   `json:"reason,omitempty"`
	Steps     []string `json:"steps,omitempty"`
}

// Plan orders the steps, with what the inputs already decide filled in.
func (rb *Runbook) Plan(given map[string]any) (Plan, error) {
	inputs, err := rb.ResolveInputs(given)
	if err != nil {
		return Plan{}, err
	}
	objective := ObjectiveScope(rb)
	p := Plan{
		Runbook: rb.Name, Title: rb.Title, Hash: rb.Hash, Inputs: inputs,
		RTO: asText(objective["rto"]), RPO: asText(objective["rpo"]), Steps: []PlanStep{},
	}
	s := Scope{"inputs": inputs, "steps": Unknown, "objective": objective, "run": Unknown, "each": Unknown}
	phases := rb.phaseOf()
	for i, st := range rb.order() {
		ps, err := planStep(st, s)
		if err != nil {
			return Plan{}, fmt.Errorf("plan step %s: %w", st.ID, err)
		}
		ps.N, ps.Phase, ps.Reached = i+1, phases[st.ID], rb.reached(st.ID)
		p.Steps = append(p.Steps, ps)
		if p.NoWay == "" && st.UndoNone && st.Danger.Destructive() {
			p.NoWay = st.ID
		}
	}
	return p, nil
}

// ObjectiveScope is what `objective` looks up: "2h", "15m", "immediate".
func ObjectiveScope(rb *Runbook) map[string]any {
	rto := shortDuration(rb.Objective.RTO)
	if rb.Objective.Immediate {
		rto = "immediate"
	}
	return map[string]any{"rto": rto, "rpo": shortDuration(rb.Objective.RPO), "immediate": rb.Objective.Immediate}
}

// shortDuration is time.Duration's form without empty minutes and seconds: "2h", "1h30m".
func shortDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func (rb *Runbook) phaseOf() map[string]string {
	phases := map[string]string{}
	for _, p := range rb.Phases {
		for _, s := range p.Steps {
			phases[s.ID] = p.ID
		}
	}
	return phases
}

// reached lists the ways to an on-demand step.
func (rb *Runbook) reached(id string) []string {
	var ways []string
	for _, p := range rb.Phases {
		for _, s := range p.Steps {
			for _, o := range s.options() {
				if slices.Contains(o.Steps, id) {
					ways = append(ways, fmt.Sprintf("option %s of %s", o.ID, s.ID))
				}
			}
			if s.IfFails == id {
				ways = append(ways, s.ID+" fails")
			}
		}
	}
	return ways
}

func (s *Step) options() []Option {
	if s.Choose == nil {
		return nil
	}
	return s.Choose.Options
}

func planStep(st *Step, s Scope) (PlanStep, error) {
	var err error
	ps := PlanStep{
		ID: st.ID, Title: ExpandProse(st.Title, s), Kind: st.Kind, Needs: st.Needs, Danger: st.Danger, Retry: st.Retry, IfFails: st.IfFails, Clock: st.Clock,
		Undo: callName(st.Undo), Verify: callName(st.Verify), When: exprText(st.When), Each: exprText(st.Each),
	}
	if ps.Danger == "" {
		ps.Danger = action.None
	}
	if st.UndoNone {
		ps.Undo = "none"
	}
	if st.Timeout > 0 {
		ps.Timeout = shortDuration(st.Timeout)
	}
	switch st.Kind {
	case KindDo:
		ps.What = st.Do.Action
		ps.With, _, err = EvalAll(st.Do.With, s)
	case KindRun:
		ps.What = commandName(st.Run)
	case KindAsk:
		ps.Approval = st.Ask.Approval
	case KindChoose:
		ps.Options, err = planOptions(st.Choose, s)
	case KindWait:
		ps.What = waitName(st.Wait)
	}
	return ps, err
}

func planOptions(c *Choose, s Scope) ([]PlanOption, error) {
	var list []PlanOption
	for _, o := range c.Options {
		po := PlanOption{ID: o.ID, Available: "yes", Steps: o.Steps}
		var err error
		if po.Title, err = ExpandText(o.Title, s); err != nil {
			return nil, err
		}
		if o.Available != nil {
			ok, unknown, err := o.Available.Bool(s)
			switch {
			case err != nil:
				return nil, err
			case unknown:
				po.Available = "unknown"
			case !ok:
				po.Available = "no"
			}
			if po.Reason, err = ExpandText(o.Reason, s); err != nil {
				return nil, err
			}
		}
		list = append(list, po)
	}
	return list, nil
}

func exprText(e *Expr) string {
	if e == nil {
		return ""
	}
	return e.Text
}

func callName(c *Call) string {
	switch {
	case c == nil:
		return ""
	case c.Run != nil:
		return commandName(c.Run)
	default:
		return c.Action
	}
}

func commandName(c *Command) string {
	if len(c.Argv) == 0 {
		return "script"
	}
	return path.Base(valueText(c.Argv[0]))
}

func waitName(w *Wait) string {
	if w.Until != nil {
		return "until " + callName(w.Until)
	}
	return shortDuration(w.For)
}

func valueText(v Value) string {
	if v.Template != "" {
		return v.Template
	}
	return asText(v.Literal)
}
