package runbook

import (
	"encoding/json"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/action"
)

// The kinds of the events that make a run. Clock marks are "clock." and the clock's name.
const (
	EventStarted   = "run.started"
	EventResumed   = "run.resumed"
	EventTakeover  = "run.takeover"
	EventWaiting   = "run.waiting"
	EventPaused    = "run.paused"
	EventCompleted = "run.completed"
	EventExcepted  = "run.completed-with-exceptions"
	EventFailed    = "run.failed"
	EventAborted   = "run.aborted"

	EventStepStarted     = "step.started"
	EventStepHandle      = "step.handle"
	EventStepHandleEnded = "step.handle-ended"
	EventStepCheckpoint  = "step.checkpoint"
	EventStepUnknown     = "step.unknown"
	EventStepProbed      = "step.probed"
	EventStepExpanded    = "step.expanded"
	EventStepDeferred    = "step.deferred" // it stopped to ask, with nothing changed, and nobody was there
	EventStepEffected    = "step.effected"
	EventStepSucceeded   = "step.succeeded"
	EventStepFailed      = "step.failed"
	EventStepSkipped     = "step.skipped"
	EventStepExamined    = "step.examined" // dry runs only
	EventStepUndoing     = "step.undoing"
	EventStepUndone      = "step.undone"
	EventStepUndoFailed  = "step.undo-failed"

	EventConfirmRequested = "step.confirm-requested"
	EventConfirmed        = "step.confirmed"
	EventAskRequested     = "ask.requested"
	EventAnswered         = "ask.answered"
	EventChoiceRequested  = "choice.requested"
	EventChosen           = "choice.made"

	EventSkip      = "override.skip"
	EventRetry     = "override.retry"
	EventForceDone = "override.force-done"
	EventEdit      = "override.edit-inputs"
	EventRollBack  = "override.roll-back"
	EventAbort     = "override.abort"

	clockPrefix = "clock."
)

// Mode says in what earnest a run happens.
type Mode string

// The modes.
const (
	Real  Mode = "real"
	Dry   Mode = "dry"
	Drill Mode = "drill"
)

// The clocks of DESIGN §1.3.
const (
	ClockDetected    = "detected"
	ClockDeclared    = "declared"
	ClockStarted     = "started"
	ClockRecovered   = "recovered"
	ClockVerified    = "verified"
	ClockReprotected = "re-protected"
)

// Started is the data of run.started: everything that decides the run is pinned here.
type Started struct {
	Runbook json.RawMessage `json:"runbook"` // canonical JSON
	Hash    string          `json:"hash"`
	Inputs  map[string]any  `json:"inputs,omitempty"`
	// Answers were given with the start, by step: to `ask` the answer, to `choose` the option's id or "recommended".
	Answers map[string]string `json:"answers,omitempty"`
	Mode    Mode              `json:"mode"`
	Sandbox string            `json:"sandbox,omitempty"`
	Force   bool              `json:"force,omitempty"`
	Epoch   int64             `json:"epoch"`
}

// Opened is the data of run.resumed and run.takeover.
type Opened struct {
	Epoch  int64  `json:"epoch"`
	Reason string `json:"reason,omitempty"`
}

// Ended is the data of the events that stop a run, for now or for good.
type Ended struct {
	Step       string       `json:"step,omitempty"`
	Reason     string       `json:"reason,omitempty"`
	Code       relight.Code `json:"code,omitempty"`
	Exceptions []Exception  `json:"exceptions,omitempty"`
	Rolled     bool         `json:"rolled,omitempty"` // a roll-back is over
}

// Exception is something that a completed run did not do as written.
type Exception struct {
	Step   string `json:"step"`
	What   string `json:"what"` // "skipped", "forced done", "failed, then full-restore"
	Actor  string `json:"actor,omitempty"`
	Reason string `json:"reason,omitempty"`
}

// StepStart is the data of step.started.
type StepStart struct {
	Attempt int            `json:"attempt"`
	Inputs  map[string]any `json:"inputs,omitempty"` // resolved; secrets replaced
}

// StepEnd is the data of step.effected, step.succeeded, step.failed, step.skipped, step.undone and step.undo-failed.
type StepEnd struct {
	Output json.RawMessage `json:"output,omitempty"`
	By     string          `json:"by,omitempty"` // "effect", "probe", "person"
	Error  string          `json:"error,omitempty"`
	Hint   string          `json:"hint,omitempty"`
	Code   relight.Code    `json:"code,omitempty"`
	Again  bool            `json:"again,omitempty"`  // failed, and another attempt follows
	Divert string          `json:"divert,omitempty"` // failed, and the run goes on at this step
	Reason string          `json:"reason,omitempty"`
}

// StepProbe is the data of step.probed.
type StepProbe struct {
	State  action.ProbeState `json:"state"`
	Detail string            `json:"detail,omitempty"`
	Output json.RawMessage   `json:"output,omitempty"`
}

// Checkpoint is the data of step.checkpoint.
type Checkpoint struct {
	Key   string          `json:"key"`
	Value json.RawMessage `json:"value"`
}

// Expanded is the data of step.expanded: the elements of `each`, pinned so that a resume runs the same ones.
type Expanded struct {
	Items []any `json:"items"`
}

// Question is what a run waits for a person to say. It is the data of the requested-events and of step.unknown.
type Question struct {
	Run       relight.RunID `json:"run,omitempty"`
	Step      string        `json:"step"`
	Title     string        `json:"title,omitempty"`
	Kind      QuestionKind  `json:"kind"`
	Text      string        `json:"text,omitempty"`
	Checklist []string      `json:"checklist,omitempty"`
	Role      string        `json:"role,omitempty"`
	Other     bool          `json:"other,omitempty"` // a person other than who started the run
	Options   []OptionView  `json:"options,omitempty"`
	Recommend string        `json:"recommend,omitempty"`
	Blast     *action.Blast `json:"blast,omitempty"`
	BlastHash string        `json:"blast_hash,omitempty"`
	PlanHash  string        `json:"plan_hash,omitempty"` // what an approval signs
	Changed   bool          `json:"changed,omitempty"`   // an earlier confirmation or approval was for another plan
}

// QuestionKind says what kind of answer is wanted.
type QuestionKind string

// The kinds of questions.
const (
	AskConfirm QuestionKind = "confirm" // type the target's name
	AskWork    QuestionKind = "ask"     // do the work and say what came of it
	AskApprove QuestionKind = "approve" // sign, or refuse
	AskChoose  QuestionKind = "choose"  // one of the options
	AskUnknown QuestionKind = "unknown" // the step was in flight when relight died: what happened?
)

// The options of an AskUnknown question.
const (
	SayDone  = "done"
	SayRetry = "retry"
	SaySkip  = "skip"
	SayAbort = "abort"
)

// OptionView is an option as a person sees it.
type OptionView struct {
	ID        string `json:"id"`
	Title     string `json:"title"`
	Available bool   `json:"available"`
	Reason    string `json:"reason,omitempty"` // why it is not available
}

// Confirmation is the data of step.confirmed.
type Confirmation struct {
	Typed     string       `json:"typed"`
	Blast     action.Blast `json:"blast"`
	BlastHash string       `json:"blast_hash"`
}

// Answer is what a person says to an `ask`, and the data of ask.answered.
type Answer struct {
	Actor     string    `json:"actor,omitempty"`
	Value     string    `json:"value,omitempty"`    // what came of the work
	Decision  string    `json:"decision,omitempty"` // "approve" or "refuse" for approvals
	Signature string    `json:"signature,omitempty"`
	PlanHash  string    `json:"plan_hash,omitempty"`
	Asserted  bool      `json:"asserted,omitempty"` // nobody signed: the name is only a claim
	Key       string    `json:"key,omitempty"`      // fingerprint of the key that signed
	At        time.Time `json:"at,omitzero"`
}

// The decisions of an approval.
const (
	Approve = "approve"
	Refuse  = "refuse"
)

// Choice is the data of choice.made.
type Choice struct {
	Option    string `json:"option"`
	Recommend string `json:"recommend,omitempty"`
}

// Change is the data of the override events.
type Change struct {
	Reason string          `json:"reason"`
	Inputs map[string]any  `json:"inputs,omitempty"` // edit-inputs
	To     string          `json:"to,omitempty"`     // roll-back: the last step to be undone; "" is all
	Output json.RawMessage `json:"output,omitempty"` // force-done
}

// Mark is the data of clock events.
type Mark struct {
	At time.Time `json:"at"`
}
