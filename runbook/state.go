package runbook

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/action"
)

// StepStatus is where a step stands.
type StepStatus string

// The states of a step. Unknown means that it was in flight when relight died.
const (
	StepPending   StepStatus = "pending"
	StepRunning   StepStatus = "running"
	StepUnknown   StepStatus = "unknown"
	StepWaiting   StepStatus = "waiting"
	StepSucceeded StepStatus = "succeeded"
	StepFailed    StepStatus = "failed"
	StepSkipped   StepStatus = "skipped"
	StepUndoing   StepStatus = "undoing"
	StepUndone    StepStatus = "undone"
	StepExamined  StepStatus = "examined" // dry runs only
)

// State is where a run stands. It is nothing but a fold of the run's events: Apply is its only writer.
type State struct {
	Run        relight.RunID        `json:"run"`
	Seq        int64                `json:"seq"` // journal position of the last event folded in
	Name       string               `json:"runbook"`
	Hash       string               `json:"hash"`
	PlanHash   string               `json:"plan_hash"`
	Runbook    *Runbook             `json:"-"`
	Inputs     map[string]any       `json:"inputs,omitempty"`
	Answers    map[string]string    `json:"answers,omitempty"`
	Actor      string               `json:"actor"`  // who started it
	Holder     string               `json:"holder"` // who runs it now
	Host       string               `json:"host"`
	Mode       Mode                 `json:"mode"`
	Sandbox    string               `json:"sandbox,omitempty"`
	Force      bool                 `json:"force,omitempty"`
	Epoch      int64                `json:"epoch"`
	Status     relight.RunState     `json:"status"`
	Reason     string               `json:"reason,omitempty"`
	Started    time.Time            `json:"started"`
	Finished   time.Time            `json:"finished,omitzero"`
	Phase      string               `json:"phase,omitempty"`
	Steps      []*StepState         `json:"steps"`
	Clocks     map[string]time.Time `json:"clocks,omitempty"`
	Exceptions []Exception          `json:"exceptions,omitempty"`
	Overrides  []OverrideRecord     `json:"overrides,omitempty"`
	RollingTo  *string              `json:"rolling_to,omitempty"` // a roll-back is under way; "" is to the beginning

	index map[string]*StepState
	steps map[string]*Step
}

// StepState is where a step, or one element of a step with `each`, stands.
type StepState struct {
	ID          string                     `json:"id"`
	Title       string                     `json:"title,omitempty"`
	Phase       string                     `json:"phase,omitempty"`
	Status      StepStatus                 `json:"status"`
	Attempts    int                        `json:"attempts,omitempty"`
	Failures    int                        `json:"failures,omitempty"` // since the last retry that a person ordered
	Started     time.Time                  `json:"started,omitzero"`
	Began       time.Time                  `json:"began,omitzero"` // its last attempt
	Finished    time.Time                  `json:"finished,omitzero"`
	Inputs      map[string]any             `json:"inputs,omitempty"`
	Edits       map[string]any             `json:"edits,omitempty"` // inputs that a person replaced
	Output      map[string]any             `json:"output,omitempty"`
	By          string                     `json:"by,omitempty"`
	Error       string                     `json:"error,omitempty"`
	Hint        string                     `json:"hint,omitempty"`
	Code        relight.Code               `json:"code,omitempty"`
	Reason      string                     `json:"reason,omitempty"`
	Divert      string                     `json:"divert,omitempty"`
	Effected    bool                       `json:"effected,omitempty"` // the effect is there; only its verification is open
	Handles     []relight.Handle           `json:"handles,omitempty"`  // not known to have ended
	Checkpoints map[string]json.RawMessage `json:"checkpoints,omitempty"`
	Probed      *StepProbe                 `json:"probed,omitempty"`
	Question    *Question                  `json:"question,omitempty"` // open while waiting
	Confirmed   *Confirmation              `json:"confirmed,omitempty"`
	Answer      *Answer                    `json:"answer,omitempty"`
	Chosen      string                     `json:"chosen,omitempty"`
	Expanded    bool                       `json:"expanded,omitempty"`
	Items       []*StepState               `json:"items,omitempty"`
	Element     any                        `json:"element,omitempty"` // of an item: its value
	Examined    *Examined                  `json:"examined,omitempty"`

	step *Step
}

// OverrideRecord is an override that a person ordered.
type OverrideRecord struct {
	At     time.Time `json:"at"`
	Actor  string    `json:"actor"`
	Kind   string    `json:"kind"`
	Step   string    `json:"step,omitempty"`
	Reason string    `json:"reason"`
}

// NewState is the state before the first event.
func NewState() *State {
	return &State{Clocks: map[string]time.Time{}, index: map[string]*StepState{}, steps: map[string]*Step{}}
}

// Apply folds one event in. Events of other runs and kinds it does not know are ignored, so that a newer relight may
// add kinds; an event that cannot belong at its place is an error.
func (s *State) Apply(e relight.Event) error {
	if s.Run != "" && e.Run != s.Run {
		return nil
	}
	if err := s.apply(e); err != nil {
		return fmt.Errorf("fold event %d %s of run %s: %w", e.Seq, e.Kind, e.Run, err)
	}
	if e.Seq > 0 {
		s.Seq = e.Seq
	}
	return nil
}

func (s *State) apply(e relight.Event) error {
	switch {
	case e.Kind == EventStarted:
		return s.begin(e)
	case s.Runbook == nil:
		return fmt.Errorf("the run has not started")
	case strings.HasPrefix(e.Kind, clockPrefix):
		return s.mark(e)
	case strings.HasPrefix(e.Kind, "run."):
		return s.applyRun(e)
	case strings.HasPrefix(e.Kind, "override."):
		return s.applyOverride(e)
	case e.Step == "":
		return nil
	}
	u, err := s.unit(e.Step)
	if err != nil {
		return err
	}
	return s.applyStep(u, e)
}

func (s *State) begin(e relight.Event) error {
	if s.Runbook != nil {
		return fmt.Errorf("the run has started already")
	}
	var d Started
	if err := read(e, &d); err != nil {
		return err
	}
	rb, err := Load(d.Runbook)
	if err != nil {
		return fmt.Errorf("read the pinned runbook: %w", err)
	}
	if rb.Hash != d.Hash {
		return fmt.Errorf("the pinned runbook has hash %s, not %s", rb.Hash, d.Hash)
	}
	s.Run, s.Runbook, s.Name, s.Hash = e.Run, rb, rb.Name, d.Hash
	s.Answers = d.Answers
	s.Inputs, s.Mode, s.Sandbox, s.Force, s.Epoch = plainMap(d.Inputs), d.Mode, d.Sandbox, d.Force, d.Epoch
	s.Actor, s.Holder, s.Host, s.Started, s.Status = e.Actor, e.Actor, e.Host, e.At, relight.RunRunning
	s.PlanHash = planHash(s.Hash, s.Mode, s.Inputs, nil)
	s.addSteps(rb)
	return nil
}

func (s *State) addSteps(rb *Runbook) {
	for _, p := range rb.Phases {
		for _, step := range p.Steps {
			u := &StepState{ID: step.ID, Title: step.Title, Phase: p.ID, Status: StepPending, step: step}
			s.Steps = append(s.Steps, u)
			s.index[step.ID], s.steps[step.ID] = u, step
		}
	}
}

// unit finds a step, or an element of one: "restore" or "restore[2]".
func (s *State) unit(id string) (*StepState, error) {
	if u, ok := s.index[id]; ok {
		return u, nil
	}
	return nil, fmt.Errorf("there is no step %q", id)
}

// Step finds the state of a step; nil if there is none of that id.
func (s *State) Step(id string) *StepState { return s.index[id] }

func itemID(step string, i int) string { return step + "[" + strconv.Itoa(i) + "]" }

func (s *State) mark(e relight.Event) error {
	var d Mark
	if err := read(e, &d); err != nil {
		return err
	}
	name := strings.TrimPrefix(e.Kind, clockPrefix)
	switch name {
	case ClockDetected, ClockDeclared, ClockStarted: // these happen once
		if _, ok := s.Clocks[name]; ok {
			return nil
		}
	}
	s.Clocks[name] = d.At
	return nil
}

func (s *State) applyRun(e relight.Event) error {
	var d struct {
		Epoch  int64  `json:"epoch"`
		Reason string `json:"reason"`
		Rolled bool   `json:"rolled"`
	}
	if err := read(e, &d); err != nil {
		return err
	}
	s.Reason = d.Reason
	if d.Rolled {
		s.RollingTo = nil
	}
	switch e.Kind {
	case EventResumed, EventTakeover:
		if d.Epoch <= s.Epoch {
			return fmt.Errorf("epoch %d is not newer than %d", d.Epoch, s.Epoch)
		}
		s.Epoch, s.Holder, s.Host, s.Status = d.Epoch, e.Actor, e.Host, relight.RunRunning
	case EventWaiting:
		s.Status = relight.RunWaiting
	case EventPaused:
		s.Status = relight.RunPaused
	case EventCompleted:
		s.Status, s.Finished = relight.RunCompleted, e.At
	case EventExcepted:
		s.Status, s.Finished = relight.RunWithExceptions, e.At
	case EventFailed:
		s.Status, s.Finished = relight.RunFailed, e.At
	case EventAborted:
		s.Status, s.Finished = relight.RunAborted, e.At
	}
	return nil
}

// Over says whether nothing can follow.
func (s *State) Over() bool {
	switch s.Status {
	case relight.RunCompleted, relight.RunWithExceptions, relight.RunFailed, relight.RunAborted:
		return true
	default:
		return false
	}
}

// Waiting lists the open questions.
func (s *State) Waiting() []Question {
	var list []Question
	for _, u := range s.units() {
		if u.Question != nil {
			list = append(list, *u.Question)
		}
	}
	return list
}

// units lists all that can run: steps, and the elements of expanded ones after their step.
func (s *State) units() []*StepState {
	var list []*StepState
	for _, u := range s.Steps {
		list = append(append(list, u), u.Items...)
	}
	return list
}

// settled says whether a unit needs nothing more.
func (u *StepState) settled() bool {
	switch u.Status {
	case StepSucceeded, StepSkipped, StepFailed, StepExamined:
		return true
	default:
		return false
	}
}

// inDoubt says whether the step was in flight when relight died and nothing has told yet what became of it.
func (u *StepState) inDoubt() bool {
	asked := u.Status == StepWaiting && u.Question != nil && u.Question.Kind == AskUnknown
	return u.Status == StepUnknown || asked
}

func read(e relight.Event, into any) error {
	if len(e.Data) == 0 {
		return nil
	}
	if err := json.Unmarshal(e.Data, into); err != nil {
		return fmt.Errorf("read its data: %w", err)
	}
	return nil
}

func readOutput(raw json.RawMessage) (map[string]any, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return nil, nil
	}
	return action.ReadOutput(raw)
}

// plainMap gives a decoded map the same Go types that outputs have.
func plainMap(m map[string]any) map[string]any {
	if m == nil {
		return map[string]any{}
	}
	out, err := action.Output(m)
	if err != nil {
		return m // it came from JSON, so it can be written as JSON
	}
	return out
}
