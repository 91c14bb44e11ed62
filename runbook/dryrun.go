package runbook

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/action"
)

// DryVerdict is what a dry run can say of a step. Success is not among the words: nothing was done.
type DryVerdict string

// The verdicts, most worrying first.
const (
	WouldFail   DryVerdict = "would fail"
	CannotKnow  DryVerdict = "unknown"
	WouldAsk    DryVerdict = "would ask"
	WouldDo     DryVerdict = "would do"
	AlreadyDone DryVerdict = "already done"
	WouldSkip   DryVerdict = "would skip"
)

// Examined is what a dry run found out about a step.
type Examined struct {
	Verdict   DryVerdict     `json:"verdict"`
	Detail    string         `json:"detail,omitempty"`
	Condition string         `json:"condition,omitempty"` // what must come true for the step to be reached
	Inputs    map[string]any `json:"inputs,omitempty"`
	Blast     *action.Blast  `json:"blast,omitempty"`
	Question  *Question      `json:"question,omitempty"`
	Output    map[string]any `json:"output,omitempty"` // when already done
	NoReturn  bool           `json:"no_return,omitempty"`
}

// DryStep is a line of the report.
type DryStep struct {
	ID    string `json:"id"`
	Title string `json:"title"`
	Phase string `json:"phase"`
	Examined
}

// DryReport is what a dry run returns. It is not journaled.
type DryReport struct {
	Runbook  string         `json:"runbook"`
	Hash     string         `json:"hash"`
	PlanHash string         `json:"plan_hash"` // of the same run in earnest
	Inputs   map[string]any `json:"inputs,omitempty"`
	Steps    []DryStep      `json:"steps"`
}

// DryRun takes rb through the engine with real probes and plans, and without effects. The error is CodeFailed when a step
// would certainly fail; the report is complete all the same.
func (e *Engine) DryRun(ctx context.Context, rb *Runbook, o StartOptions) (*DryReport, error) {
	earnest := o.Mode
	if earnest == "" || earnest == Dry {
		earnest = Real
	}
	o.Mode = Dry
	r, begin, err := e.prepare(ctx, rb, &o)
	if err != nil {
		return nil, err
	}
	r.log, r.watch = &memory{}, func(relight.Event) {}
	if err := r.begin(begin, o); err != nil {
		return nil, err
	}
	if err := r.drive(ctx); err != nil {
		return nil, fmt.Errorf("dry run of %s: %w", rb.Name, err)
	}
	report := r.st.dryReport()
	report.PlanHash = planHash(rb.Hash, earnest, r.st.Inputs, nil)
	return report, report.worst()
}

func (s *State) dryReport() *DryReport {
	d := &DryReport{Runbook: s.Name, Hash: s.Hash, Inputs: s.Inputs}
	for _, u := range s.Steps {
		line := DryStep{ID: u.ID, Title: u.Title, Phase: u.Phase}
		switch {
		case u.Examined != nil:
			line.Examined = *u.Examined
		case u.Status == StepSkipped:
			line.Examined = Examined{Verdict: WouldSkip, Detail: u.Reason}
		case u.Status == StepFailed:
			line.Examined = Examined{Verdict: WouldFail, Detail: u.Error}
		default:
			line.Examined = Examined{Verdict: CannotKnow, Detail: "it is never reached: a step before it would fail"}
		}
		line.NoReturn = u.step.UndoNone
		d.Steps = append(d.Steps, line)
	}
	return d
}

func (d *DryReport) worst() error {
	var bad []string
	for _, s := range d.Steps {
		if s.Verdict == WouldFail && s.Condition == "" {
			bad = append(bad, s.ID)
		}
	}
	if len(bad) == 0 {
		return nil
	}
	return &relight.Error{
		Op: "dry run", Subject: d.Runbook, Code: relight.CodeFailed,
		Err: fmt.Errorf("%s would fail", strings.Join(bad, ", ")), Hint: "the report says why",
	}
}

// examine is execute without effects: what can be read is read, everything else is said to be unknown.
func (r *run) examine(ctx context.Context, id string) outcome {
	x := r.examined(ctx, id)
	r.mu.Lock()
	x.Condition = r.st.provided(r.st.index[id])
	r.mu.Unlock()
	return outcome{id: id, events: []staged{{EventStepExamined, x}}}
}

func (r *run) examined(ctx context.Context, id string) Examined {
	u := r.view(id)
	if u.step.Each != nil && !u.isItem() {
		return Examined{Verdict: CannotKnow, Detail: "the elements of " + u.step.Each.Text + " are not known"}
	}
	switch u.step.Kind {
	case KindAsk:
		q := r.askQuestion(u)
		return Examined{Verdict: WouldAsk, Question: &q}
	case KindChoose:
		q, err := r.choiceQuestion(u)
		if err != nil {
			return Examined{Verdict: WouldFail, Detail: err.Error()}
		}
		return Examined{Verdict: WouldAsk, Question: &q}
	case KindWait:
		return Examined{Verdict: WouldDo, Detail: "would wait"}
	}
	r.mu.Lock()
	j, err := r.job(u)
	r.mu.Unlock()
	if errors.Is(err, errUnknown) {
		return Examined{Verdict: CannotKnow, Detail: err.Error()}
	}
	if err != nil {
		return Examined{Verdict: WouldFail, Detail: err.Error()}
	}
	return r.foresee(ctx, u, j)
}

// foresee probes and plans a step whose inputs are known.
func (r *run) foresee(ctx context.Context, u StepState, j *job) Examined {
	x := Examined{Verdict: WouldDo, Inputs: j.inputs}
	if u.step.Probe != nil || j.act != nil && j.act.HasProbe() {
		p, err := r.probed(ctx, u)
		switch {
		case err != nil:
			return Examined{Verdict: WouldFail, Inputs: j.inputs, Detail: "its probe: " + err.Error()}
		case p.State == action.Done:
			out, err := action.Output(p.Out)
			if err != nil {
				return Examined{Verdict: WouldFail, Inputs: j.inputs, Detail: err.Error()}
			}
			x.Verdict, x.Detail, x.Output = AlreadyDone, p.Detail, out
		case p.State == action.Unclear:
			x.Detail = "whether it is done already is unknown: " + p.Detail
		}
	} else {
		x.Detail = "it has no probe: whether it is done already is unknown"
	}
	if x.Verdict == AlreadyDone || !j.asks() {
		return x
	}
	b, _, err := r.preview(ctx, u.ID, j)
	if err != nil {
		return Examined{Verdict: WouldFail, Inputs: j.inputs, Detail: "its plan: " + err.Error()}
	}
	x.Blast = &b
	return x
}

// provided says under which condition a step is reached that a dry run cannot decide.
func (s *State) provided(u *StepState) string {
	var list []string
	for _, from := range s.Steps {
		if o := optionOf(from.step, u.step.ID); o != nil {
			list = append(list, fmt.Sprintf("%s is chosen in %s", o.ID, from.ID))
		}
		if u.step.OnDemand && from.step.IfFails == u.step.ID {
			list = append(list, from.ID+" fails")
		}
	}
	condition := strings.Join(list, ", or ")
	if u.step.When == nil {
		return condition
	}
	if _, known, err := s.condition(u.step.When, u); err == nil && known {
		return condition
	}
	if condition == "" {
		return u.step.When.Text
	}
	return "(" + condition + ") and " + u.step.When.Text
}

// worst sums up the elements of a step.
func worst(items []*StepState) Examined {
	order := []DryVerdict{WouldFail, CannotKnow, WouldAsk, WouldDo, AlreadyDone, WouldSkip}
	for _, v := range order {
		for _, i := range items {
			if i.Examined != nil && i.Examined.Verdict == v {
				x := *i.Examined
				x.Detail = fmt.Sprintf("%d elements, among them %s: %s", len(items), i.ID, x.Detail)
				return x
			}
		}
	}
	return Examined{Verdict: CannotKnow}
}

// memory is the log of a dry run.
type memory struct {
	mu     sync.Mutex
	events []relight.Event
}

func (m *memory) Append(_ context.Context, _ relight.RunID, after int64, events []relight.Event) ([]relight.Event, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if int64(len(m.events)) != after {
		return nil, ErrStale
	}
	for _, e := range events {
		e.Seq = int64(len(m.events)) + 1
		m.events = append(m.events, e)
	}
	return m.events[after:], nil
}

func (m *memory) Read(_ context.Context, _ relight.RunID, fn func(relight.Event) error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.events {
		if err := fn(e); err != nil {
			return err
		}
	}
	return nil
}
