package runbook

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/action"
	"github.com/toolboxai/relight/host"
)

// ErrStale is what a Log returns when a run's last event is not the expected one: somebody else has written.
var ErrStale = errors.New("the run has newer events")

// ErrNobody is what a Person returns when no one can answer now. The run then waits, and can be resumed.
var ErrNobody = errors.New("nobody can answer now")

// Log keeps the events of runs. An append is durable when it returns, and all or nothing.
type Log interface {
	// Append adds events of one run, in order, provided that the last event of the run has position after (0: the run
	// has none); otherwise it adds nothing and its error is ErrStale. It returns the events with Seq filled in.
	Append(ctx context.Context, run relight.RunID, after int64, events []relight.Event) ([]relight.Event, error)
	Events
}

// Events reads runs.
type Events interface {
	// Read calls fn with the events of run in order.
	Read(ctx context.Context, run relight.RunID, fn func(relight.Event) error) error
}

// Person answers for people. An error other than ErrNobody stops the step that asked.
type Person interface {
	Confirm(ctx context.Context, q Question) (typed string, err error)
	Ask(ctx context.Context, q Question) (Answer, error)
	Choose(ctx context.Context, q Question) (option string, err error) // also for AskUnknown
}

// Processes ends what a dead relight left behind: when End returns nil, nothing of it runs any more.
type Processes interface {
	End(ctx context.Context, h relight.Handle) error
}

// Leases make sure that a run has one holder. force takes over from a holder that still seems to live.
type Leases interface {
	Acquire(ctx context.Context, run relight.RunID, force bool) (Lease, error)
}

// Lease is held while a run is driven. Lost is closed when it is known to be lost.
type Lease interface {
	Lost() <-chan struct{}
	Release(ctx context.Context) error
}

// Config is what an engine is made of. Log and Actions are required.
type Config struct {
	Log       Log
	Actions   *action.Registry
	Runner    host.Runner // for `run` steps
	Processes Processes   // nil: host processes, ten seconds of grace
	Person    Person      // nil: nobody
	Leases    Leases      // nil: the caller makes sure that a run has one holder
	Approvers []Approver
	// SignedOnly refuses an approval that is only asserted.
	SignedOnly bool
	// Approved refuses a runbook whose hash was not approved for real runs; nil: all may run.
	Approved func(ctx context.Context, rb *Runbook) error
	// Guard keeps other hosts' destructive runs away from a target while this process drives the run. Its lease is nil where the target is nothing that hosts
	// have in common; nil: none is ever needed.
	Guard    func(ctx context.Context, run relight.RunID, target string) (Lease, error)
	Redact   func(string) string // applied to every text that is journaled; nil: none
	Watch    func(relight.Event) // called with every durable event, in order, from one goroutine at a time
	Progress func(run relight.RunID, step string, p relight.Progress)
	Host     string // name of this host in events
	Parallel int    // steps at once; 0: 4
	// Poll is how often a live run looks for what other processes write about it; 0: a second, below 0: never.
	Poll   time.Duration
	Now    func() time.Time
	Sleep  func(ctx context.Context, d time.Duration) error
	NewID  func() (relight.RunID, error)
	Rand   io.Reader
	Logger *slog.Logger
}

// Engine executes compiled runbooks. It is safe for concurrent use and starts no goroutine that outlives a call.
type Engine struct {
	c Config
	// people answer one question at a time, whatever asks
	people sync.Mutex
}

// New checks c and fills its defaults.
func New(c Config) (*Engine, error) {
	if c.Log == nil || c.Actions == nil {
		return nil, errors.New("make a runbook engine: it needs a log and actions")
	}
	if c.Processes == nil {
		c.Processes = HostProcesses{Grace: 10 * time.Second}
	}
	if c.Person == nil {
		c.Person = Nobody{}
	}
	if c.Redact == nil {
		c.Redact = func(s string) string { return s }
	}
	if c.Watch == nil {
		c.Watch = func(relight.Event) {}
	}
	if c.Parallel <= 0 {
		c.Parallel = 4
	}
	if c.Poll == 0 {
		c.Poll = time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.timeDefaults()
	return &Engine{c: c}, nil
}

func (c *Config) timeDefaults() {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Sleep == nil {
		c.Sleep = sleep
	}
	if c.Rand == nil {
		c.Rand = rand.Reader
	}
	if c.NewID == nil {
		c.NewID = func() (relight.RunID, error) { return newRunID(c.Now(), c.Rand) }
	}
}

// StartOptions is what a run is started with.
type StartOptions struct {
	ID      relight.RunID // "": a new one
	Inputs  map[string]any
	Answers map[string]string // by step: what is said to an `ask`, which option is chosen; never an approval
	Actor   string
	Mode    Mode // "": Real
	Sandbox string
	Force   bool // passed to actions
	// Detected and Declared are clocks that ran before the run; zero if unknown.
	Detected, Declared time.Time
}

// Start begins a run and drives it as far as it goes. The state is returned whenever there is one, with an error that
// says why the run is not completed: CodeWaiting, CodeAborted, CodePlanChanged, or the code of the step that failed.
func (e *Engine) Start(ctx context.Context, rb *Runbook, o StartOptions) (*State, error) {
	if o.Mode == Dry {
		return nil, usage("start", rb.Name, errors.New("a dry run is not started"), "use DryRun")
	}
	r, begin, err := e.prepare(ctx, rb, &o)
	if err != nil {
		return nil, err
	}
	if o.Mode == Real && e.c.Approved != nil {
		if err := e.c.Approved(ctx, rb); err != nil {
			return nil, fmt.Errorf("start %s: %w", rb.Name, err)
		}
	}
	return r.held(ctx, false, func(ctx context.Context) error {
		if err := r.begin(begin, o); err != nil {
			return err
		}
		return r.drive(ctx)
	})
}

// prepare makes the live run and the data of its first event.
func (e *Engine) prepare(_ context.Context, rb *Runbook, o *StartOptions) (*run, Started, error) {
	if o.Mode == "" {
		o.Mode = Real
	}
	if o.ID == "" {
		id, err := e.c.NewID()
		if err != nil {
			return nil, Started{}, fmt.Errorf("name a run of %s: %w", rb.Name, err)
		}
		o.ID = id
	}
	canonical, err := rb.Canonical()
	if err != nil {
		return nil, Started{}, fmt.Errorf("pin runbook %s: %w", rb.Name, err)
	}
	inputs, err := rb.ResolveInputs(o.Inputs)
	if err != nil {
		return nil, Started{}, err
	}
	if err := checkAnswers(rb, o.Answers); err != nil {
		return nil, Started{}, err
	}
	if err := e.checkSecrets(rb, inputs); err != nil {
		return nil, Started{}, err
	}
	r := e.newRun(o.ID, o.Actor)
	r.epoch = 1
	return r, Started{
		Runbook: canonical, Hash: rb.Hash, Inputs: inputs, Answers: o.Answers, Mode: o.Mode,
		Sandbox: o.Sandbox, Force: o.Force, Epoch: 1,
	}, nil
}

// checkSecrets refuses a secret as input: inputs are pinned in the journal as they are.
func (e *Engine) checkSecrets(rb *Runbook, inputs map[string]any) error {
	for name, v := range inputs {
		if s, ok := v.(string); ok && e.c.Redact(s) != s {
			return usage("start", rb.Name, fmt.Errorf("input %s holds a secret, and inputs are journaled", name),
				"name it by reference, such as env:PASSWORD or file:/run/secrets/password")
		}
	}
	return nil
}

// checkAnswers refuses answers that no step would ask for.
func checkAnswers(rb *Runbook, answers map[string]string) error {
	var asking []string
	for _, p := range rb.Phases {
		for _, s := range p.Steps {
			if s.Kind == KindChoose || s.Kind == KindAsk && !s.Ask.Approval {
				asking = append(asking, s.ID)
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(answers)) {
		if !slices.Contains(asking, id) {
			return usage("start", rb.Name, fmt.Errorf("step %q asks nothing that can be answered beforehand%s", id, relight.DidYouMean(id, asking)),
				"such steps are: "+strings.Join(asking, ", "))
		}
	}
	return nil
}

// State folds the events of a run.
func (e *Engine) State(ctx context.Context, id relight.RunID) (*State, error) {
	return Fold(ctx, e.c.Log, id)
}

// Fold reads where a run stands.
func Fold(ctx context.Context, log Events, id relight.RunID) (*State, error) {
	st := NewState()
	if err := log.Read(ctx, id, st.Apply); err != nil {
		return nil, fmt.Errorf("read run %s: %w", id, err)
	}
	if st.Runbook == nil {
		return nil, &relight.Error{
			Op: "read run", Subject: string(id), Code: relight.CodeNotFound, Err: errors.New("the journal holds no such run"),
			Hint: "relight run list shows the runs",
		}
	}
	return st, nil
}

// held drives do with the run's lease.
func (r *run) held(ctx context.Context, force bool, do func(ctx context.Context) error) (*State, error) {
	if r.e.c.Leases == nil {
		defer r.leave(ctx)
		return r.result(ctx, do(ctx))
	}
	lease, err := r.e.c.Leases.Acquire(ctx, r.id, force)
	if err != nil {
		return nil, r.notHeld(err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-lease.Lost():
			cancel(errLeaseLost)
		case <-ctx.Done():
		}
	}()
	st, err := r.result(ctx, do(ctx))
	r.leave(ctx)
	cancel(nil)
	<-watched
	if rerr := lease.Release(context.WithoutCancel(ctx)); rerr != nil {
		r.e.c.Logger.Warn("the run's lease was not released", "run", r.id, "err", rerr)
	}
	return st, err
}

// notHeld says what can be done where another process drives the run.
func (r *run) notHeld(err error) error {
	held := &relight.Error{Op: "hold run", Subject: string(r.id), Err: err}
	if relight.CodeOf(err) == relight.CodeLeaseHeld {
		held.Hint = relight.HintOf(err) + "; what is out of reach gives way to: relight run takeover " + string(r.id) + " --reason WHY"
	}
	return held
}

var errLeaseLost = &relight.Error{
	Op: "hold the run", Code: relight.CodeLeaseHeld, Err: errors.New("its lease was lost"),
	Hint: "see who has taken the run over: relight run show",
}

// result gives the state to the caller; a run that never began has none.
func (r *run) result(ctx context.Context, err error) (*State, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.st.Runbook == nil {
		return nil, err
	}
	if r.restamped { // the journal's times are the ones on record
		if st, ferr := Fold(context.WithoutCancel(ctx), r.log, r.id); ferr == nil {
			return st, err
		}
	}
	return r.st, err
}

func usage(op, subject string, err error, hint string) error {
	return &relight.Error{Op: op, Subject: subject, Code: relight.CodeUsage, Err: err, Hint: hint}
}

func mustJSON(v any) (json.RawMessage, error) {
	if v == nil {
		return nil, nil
	}
	return json.Marshal(v)
}

// newRunID sorts by time and does not repeat.
func newRunID(now time.Time, random io.Reader) (relight.RunID, error) {
	var tail [3]byte
	if _, err := io.ReadFull(random, tail[:]); err != nil {
		return "", err
	}
	return relight.RunID("r-" + now.UTC().Format("20060102T150405Z") + "-" + hex.EncodeToString(tail[:])), nil
}
