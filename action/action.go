// Package action defines a capability: a named value with typed input and output that the command line,
// the runbook engine and the API all call the same way.
//
// It promises that what an action says of itself (its name, input fields, danger) is enough to make
// flags, completion, a JSON schema and a reference page, and that a dangerous action can always be probed and planned.
package action

import (
	"context"
	"log/slog"
	"time"

	"github.com/toolboxai/relight"
)

// Danger says what the worst is that an action does.
type Danger string

// The dangers, in ascending order.
const (
	None         Danger = "none"         // reads only, or changes nothing that matters
	Harm         Danger = "service"      // interrupts a service
	Data         Danger = "data"         // overwrites or removes data
	Irreversible Danger = "irreversible" // cannot be undone by relight
)

// Rank orders dangers: None and "" are 0, Irreversible is 3, a word that is no danger is -1.
func (d Danger) Rank() int {
	switch d {
	case "", None:
		return 0
	case Harm:
		return 1
	case Data:
		return 2
	case Irreversible:
		return 3
	default:
		return -1
	}
}

// Destructive says that a person must type the target's name first.
func (d Danger) Destructive() bool { return d.Rank() >= Data.Rank() }

// Dangers lists the words, mildest first.
func Dangers() []string {
	return []string{string(None), string(Harm), string(Data), string(Irreversible)}
}

// Env is what a running action is given by its caller.
type Env struct {
	Actor   string        // who runs it: "alice", "relight serve"
	Run     relight.RunID // "" outside a run
	Step    string
	Epoch   int64  // fencing epoch of the run's lease
	Sandbox string // id of the drill's sandbox; "" in earnest
	Force   bool
	Since   time.Time                                // when the step's last attempt began; a probe tells by it what an earlier run did. Zero outside a run
	Confirm func(ctx context.Context, b Blast) error // asks for the target's name to be typed
	// Guard keeps other hosts away from what is confirmed until release is called; the context it gives ends when it no longer can. nil: nobody else is about
	Guard      func(ctx context.Context, b Blast) (guarded context.Context, release func(), err error)
	Announce   func(b Blast)                                     // shows a plan that nobody has to confirm; nil: it is not shown
	Started    func(ctx context.Context, h relight.Handle) error // journals a handle before the effect
	Progress   func(relight.Progress)
	Checkpoint func(ctx context.Context, key string, value any) error // journals a step's own progress
	Log        *slog.Logger
	Now        func() time.Time
}

// Blast is what an action is about to change, for a person to read before typing the target's name.
type Blast struct {
	Action string   `json:"action"`
	Target string   `json:"target"` // what must be typed
	Danger Danger   `json:"danger"`
	Lines  []string `json:"lines"` // one fact each: "removes /data/pg (12.3 GB, last written 14:29:58Z)"
}

// ProbeState is whether an action's effect is already there.
type ProbeState string

// The answers of a probe. Unknown sends the question to a person.
const (
	Done    ProbeState = "done"
	NotDone ProbeState = "not-done"
	Unclear ProbeState = "unknown"
)

// Probed is the answer of a probe; when done, Out is the output that the action would have given.
type Probed struct {
	State  ProbeState
	Detail string
	Out    any
}

// Spec is a capability with its types. In and Out are structs. The fields of In carry tags:
// `flag:"at"` the name on the command line and in `with:`, `help:"…"`, `default:"…"`, `required:"true"`, `enum:"a,b"`.
// Field types: string, bool, int, int64, float64, time.Duration, []string.
type Spec[In, Out any] struct {
	Name    string // "postgres.restore"
	Title   string // one line, imperative: "restore a PostgreSQL store to a point in time"
	Example string // a complete command line
	Danger  Danger
	Forced  string // what Env.Force allows, as the help of a flag; "": nothing
	Run     func(ctx context.Context, env Env, in In) (Out, error)
	Probe   func(ctx context.Context, env Env, in In) (Probed, error) // nil: none; must only read
	Plan    func(ctx context.Context, env Env, in In) (Blast, error)  // nil: none; must only read
	Undo    func(ctx context.Context, env Env, in In, out Out) error  // nil: none
}
