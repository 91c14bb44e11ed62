package runbook

import (
	"encoding/json"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/action"
)

// Runbook is a compiled runbook. Its canonical JSON is what Hash digests, what a run pins and what every run state is folded against.
type Runbook struct {
	Name      string            `json:"runbook"`
	Title     string            `json:"title"`
	Priority  string            `json:"priority,omitempty"` // "P0" … "P3"
	Objective relight.Objective `json:"objective"`
	Triggers  []string          `json:"trigger,omitempty"`
	Inputs    []Input           `json:"inputs,omitempty"`
	Roles     []string          `json:"roles,omitempty"`
	Version   string            `json:"version,omitempty"`
	Status    string            `json:"status,omitempty"`
	Owner     string            `json:"owner,omitempty"`
	Updated   string            `json:"updated,omitempty"`   // YYYY-MM-DD
	ReviewBy  string            `json:"review_by,omitempty"` // YYYY-MM-DD
	Intro     string            `json:"intro,omitempty"`     // prose before the first phase
	Phases    []Phase           `json:"phases"`
	Hash      string            `json:"-"` // hex BLAKE3 of the canonical JSON
}

// Input is a value that a run is started with.
type Input struct {
	Name     string   `json:"name"`
	Help     string   `json:"help,omitempty"`
	Type     string   `json:"type"` // "string", "time", "duration", "int", "bool"
	Default  string   `json:"default,omitempty"`
	Required bool     `json:"required,omitempty"`
	Enum     []string `json:"enum,omitempty"`
}

// Phase is a "##" section: detect, assess, contain, recover, verify, review.
type Phase struct {
	ID     string        `json:"id"`
	Title  string        `json:"title"`
	Prose  string        `json:"prose,omitempty"`
	Budget time.Duration `json:"budget,omitempty"` // from "(30-60 minutes)": the upper end
	Steps  []*Step       `json:"steps"`
}

// Kind of a step.
type Kind string

// The kinds.
const (
	KindDo     Kind = "do"
	KindRun    Kind = "run"
	KindAsk    Kind = "ask"
	KindChoose Kind = "choose"
	KindWait   Kind = "wait"
)

// Step is a "###" section.
type Step struct {
	ID        string        `json:"id"`
	Title     string        `json:"title"`
	Prose     string        `json:"prose,omitempty"`
	Checklist []string      `json:"checklist,omitempty"`
	Kind      Kind          `json:"kind"`
	Do        *Call         `json:"do,omitempty"`
	Run       *Command      `json:"run,omitempty"`
	Ask       *Ask          `json:"ask,omitempty"`
	Choose    *Choose       `json:"choose,omitempty"`
	Wait      *Wait         `json:"wait,omitempty"`
	Needs     []string      `json:"needs,omitempty"` // defaults to the step before it in the document
	When      *Expr         `json:"when,omitempty"`
	Each      *Expr         `json:"each,omitempty"` // a list; the step runs once per element, as {{ each }}
	Retry     int           `json:"retry,omitempty"`
	Timeout   time.Duration `json:"timeout,omitempty"`
	Danger    action.Danger `json:"danger,omitempty"`
	Target    string        `json:"target,omitempty"` // what is typed to confirm a dangerous `run`; a `do` takes it from the action's plan
	Probe     *Call         `json:"probe,omitempty"`  // a `do` has its action's own probe
	Verify    *Call         `json:"verify,omitempty"`
	Undo      *Call         `json:"undo,omitempty"`
	UndoNone  bool          `json:"undo_none,omitempty"` // stated as the point of no return
	IfFails   string        `json:"if_fails,omitempty"`  // step to go to
	OnDemand  bool          `json:"on_demand,omitempty"` // reached only through if_fails or a choice
	Clock     string        `json:"clock,omitempty"`     // the clock that success marks: "recovered"
	Line      int           `json:"-"`
}

// Call names an action with its inputs, or a command. As a probe, a command says done with exit 0, not done with
// exit 1, unknown with any other; as a verification or a poll it succeeds with exit 0.
type Call struct {
	Action string           `json:"action,omitempty"`
	With   map[string]Value `json:"with,omitempty"`
	Run    *Command         `json:"run,omitempty"`
}

// Value is a literal or a template ("{{ inputs.point }}"). A value that is exactly one expression keeps its type.
type Value struct {
	Literal  any    `json:"literal,omitempty"`
	Template string `json:"template,omitempty"`
}

// Command is a `run` step: argv, or a script whose values arrive only in the environment.
type Command struct {
	Argv   []Value          `json:"argv,omitempty"`
	Script string           `json:"script,omitempty"`
	Env    map[string]Value `json:"env,omitempty"` // a name x arrives as $RELIGHT_X
	Host   string           `json:"host,omitempty"`
}

// Ask is manual work or an approval.
type Ask struct {
	Text     string `json:"text"`
	Role     string `json:"role,omitempty"`
	Approval bool   `json:"approval,omitempty"` // needs a signature
	Other    bool   `json:"other,omitempty"`    // by a person other than who started the run
	Answer   *Value `json:"answer,omitempty"`   // when it gives text, that is the answer and nobody is asked; never for approvals
}

// Choose is a decision between options.
type Choose struct {
	Text      string   `json:"text"`
	Options   []Option `json:"options"`
	Recommend *Expr    `json:"recommend,omitempty"` // gives the id of an option
	Answer    *Value   `json:"answer,omitempty"`    // an option's id, or "recommended"; when it gives text, nobody is asked
}

// Option of a Choose. Its steps run only when it is chosen.
type Option struct {
	ID        string   `json:"id"`
	Title     string   `json:"title"`
	Available *Expr    `json:"available,omitempty"` // nil: always
	Reason    string   `json:"reason,omitempty"`    // shown when unavailable
	Steps     []string `json:"steps"`
}

// Wait is a pause, or a poll until a call succeeds.
type Wait struct {
	For   time.Duration `json:"for,omitempty"`
	Until *Call         `json:"until,omitempty"`
	Every time.Duration `json:"every,omitempty"`
}

// Expr is a compiled expression; its text is its canonical form.
type Expr struct {
	Text string
	node node
}

// MarshalJSON writes the text.
func (e Expr) MarshalJSON() ([]byte, error) { return json.Marshal(e.Text) }
