package action

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"regexp"

	"github.com/toolboxai/relight"
)

// Action is a capability whose types were erased, so that the command line, the engine and the API can hold
// any of them. It is made by New or Define; the zero value is refused by NewRegistry.
type Action struct {
	name, title, example string
	forced               string
	danger               Danger
	fields               []Field
	out                  []OutField
	openOut              bool
	err                  error // what Define found wrong
	in                   reflect.Type
	outType              reflect.Type

	run   func(ctx context.Context, env Env, in any) (any, error)
	probe func(ctx context.Context, env Env, in any) (Probed, error)
	plan  func(ctx context.Context, env Env, in any) (Blast, error)
	undo  func(ctx context.Context, env Env, in, out any) error
}

var nameForm = regexp.MustCompile(`^[a-z][a-z0-9-]*\.[a-z][a-z0-9-]*$`)

// New erases the types of s after checking that s can keep what the package promises.
func New[In, Out any](s Spec[In, Out]) (Action, error) {
	a := Define(s)
	if a.err != nil {
		return Action{}, a.err
	}
	return a, nil
}

// Define is New for lists: what is wrong with s is kept and reported by NewRegistry.
func Define[In, Out any](s Spec[In, Out]) Action {
	a := Action{
		name: s.Name, title: s.Title, example: s.Example, danger: s.Danger, forced: s.Forced,
		in: reflect.TypeFor[In](), outType: reflect.TypeFor[Out](),
	}
	if a.danger == "" {
		a.danger = None
	}
	bind(&a, s)
	if err := a.describe(); err != nil {
		a.err = fmt.Errorf("action %q: %w", s.Name, err)
	}
	return a
}

// bind wraps the typed functions; absent ones stay nil.
func bind[In, Out any](a *Action, s Spec[In, Out]) {
	if s.Run != nil {
		a.run = func(ctx context.Context, env Env, in any) (any, error) {
			return with(a, in, func(i In) (any, error) { return s.Run(ctx, env, i) })
		}
	}
	if s.Probe != nil {
		a.probe = func(ctx context.Context, env Env, in any) (Probed, error) {
			return with(a, in, func(i In) (Probed, error) { return s.Probe(ctx, env, i) })
		}
	}
	if s.Plan != nil {
		a.plan = func(ctx context.Context, env Env, in any) (Blast, error) {
			return with(a, in, func(i In) (Blast, error) { return s.Plan(ctx, env, i) })
		}
	}
	if s.Undo != nil {
		a.undo = func(ctx context.Context, env Env, in, out any) error {
			o, err := as[Out](out)
			if err != nil {
				return fmt.Errorf("output of %s: %w", s.Name, err)
			}
			_, err = with(a, in, func(i In) (any, error) { return nil, s.Undo(ctx, env, i, o) })
			return err
		}
	}
}

// with gives fn the input with its type; an untyped map is decoded first.
func with[In, R any](a *Action, in any, fn func(In) (R, error)) (R, error) {
	var none R
	if in == nil {
		in = map[string]any{}
	}
	if m, ok := in.(map[string]any); ok {
		decoded, err := a.Decode(m)
		if err != nil {
			return none, err
		}
		in = decoded
	}
	typed, ok := in.(In)
	if !ok {
		return none, fmt.Errorf("action %s: input is a %T, not a %s", a.name, in, reflect.TypeFor[In]())
	}
	return fn(typed)
}

func (a *Action) describe() error {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if !nameForm.MatchString(a.name) {
		fail("the name is not of the form noun.verb")
	}
	if a.title == "" {
		fail("it has no title")
	}
	if a.run == nil {
		fail("it has no Run")
	}
	if a.danger.Rank() < 0 {
		fail("danger %q is none of %v", a.danger, Dangers())
	}
	if a.danger.Destructive() && (a.probe == nil || a.plan == nil) {
		fail("danger %s needs both Probe and Plan", a.danger)
	}
	fields, err := fieldsOf(a.in)
	if err != nil {
		errs = append(errs, err)
	}
	a.fields = fields
	if a.outType.Kind() != reflect.Struct {
		fail("the output is a %s, not a struct", a.outType)
	} else {
		a.out, a.openOut = outFields(a.outType, nil)
	}
	return errors.Join(errs...)
}

// Name is "postgres.restore".
func (a Action) Name() string { return a.name }

// Title is one imperative line.
func (a Action) Title() string { return a.title }

// Example is a complete command line.
func (a Action) Example() string { return a.example }

// Danger is the worst that the action does.
func (a Action) Danger() Danger { return a.danger }

// Forced says what Env.Force allows the action; "" for one to which it means nothing.
func (a Action) Forced() string { return a.forced }

// Fields describes the inputs in the order of declaration.
func (a Action) Fields() []Field { return a.fields }

// OutFields describes the output. An open output has keys that are known only at run time.
func (a Action) OutFields() (fields []OutField, open bool) { return a.out, a.openOut }

// HasProbe says whether Probe can answer.
func (a Action) HasProbe() bool { return a.probe != nil }

// HasPlan says whether Plan can answer.
func (a Action) HasPlan() bool { return a.plan != nil }

// HasUndo says whether Undo can work.
func (a Action) HasUndo() bool { return a.undo != nil }

// Run does it, without asking: Execute is for callers that have nobody else to confirm. in is the action's own
// input type, or an undecoded map.
func (a Action) Run(ctx context.Context, env Env, in any) (any, error) {
	if a.run == nil {
		return nil, fmt.Errorf("action %q cannot run", a.name)
	}
	return a.run(ctx, env.WithDefaults(), in)
}

// Probe reads whether the effect is there already; without a probe the answer is Unclear.
func (a Action) Probe(ctx context.Context, env Env, in any) (Probed, error) {
	if a.probe == nil {
		return Probed{State: Unclear, Detail: "no probe"}, nil
	}
	p, err := a.probe(ctx, env.WithDefaults(), in)
	if err != nil {
		return Probed{State: Unclear, Detail: err.Error()}, err
	}
	return p, nil
}

// Plan reads what would be changed. Without a plan of its own, an action says its name and danger.
func (a Action) Plan(ctx context.Context, env Env, in any) (Blast, error) {
	b := Blast{Action: a.name, Danger: a.danger}
	if a.plan == nil {
		return b, nil
	}
	b, err := a.plan(ctx, env.WithDefaults(), in)
	if err != nil {
		return Blast{}, err
	}
	b.Action = a.name
	if b.Danger == "" {
		b.Danger = a.danger
	}
	if b.Danger.Rank() < 0 {
		return Blast{}, fmt.Errorf("action %s: its plan gives danger %q, none of %v", a.name, b.Danger, Dangers())
	}
	return b, nil
}

// Undo takes the effect back. out is the action's own output type, or the map or JSON that was journaled of it.
func (a Action) Undo(ctx context.Context, env Env, in, out any) error {
	if a.undo == nil {
		return &relight.Error{
			Op: "undo", Subject: a.name, Err: errors.New("this action has no undo"),
			Hint: "see the runbook for the way back, or recover to an earlier point",
		}
	}
	return a.undo(ctx, env.WithDefaults(), in, out)
}
