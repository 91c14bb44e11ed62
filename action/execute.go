package action

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/toolboxai/relight"
)

// Preview asks the action what it is about to change. ask says whether a person must type the target's name:
// when the plan, which has looked, finds the danger destructive. A plan may find less danger than the action
// declares (a restore into an empty directory) or more.
func Preview(ctx context.Context, a Action, env Env, in any) (b Blast, ask bool, err error) {
	if a.danger.Rank() < Harm.Rank() && !a.HasPlan() {
		return Blast{Action: a.name, Danger: a.danger}, false, nil
	}
	b, err = a.Plan(ctx, env, in)
	if err != nil {
		return Blast{}, false, fmt.Errorf("plan %s: %w", a.name, err)
	}
	ask = b.Danger.Destructive()
	if ask && b.Target == "" {
		return b, true, fmt.Errorf("plan %s: it names no target to be typed", a.name)
	}
	return b, ask, nil
}

// Execute is what every face calls: plan, confirmation where it is due, then the effect. Where nobody can be
// asked, a destructive action is refused with relight.CodeWaiting and nothing has been touched.
func Execute(ctx context.Context, a Action, env Env, in any) (any, error) {
	b, ask, err := Preview(ctx, a, env, in)
	if err != nil {
		return nil, err
	}
	if ask {
		if err := b.Ask(ctx, env); err != nil {
			return nil, err
		}
	} else if env.Announce != nil && len(b.Lines) > 0 {
		env.Announce(b)
	}
	if ask && env.Guard != nil {
		guarded, release, err := env.Guard(ctx, b)
		if err != nil {
			return nil, err
		}
		defer release()
		ctx = guarded
	}
	return a.Run(ctx, env, in)
}

// Ask has the target's name typed through env.Confirm.
func (b Blast) Ask(ctx context.Context, env Env) error {
	if env.Confirm == nil {
		return b.unconfirmed(errors.New("this needs a person to confirm it, and there is none"))
	}
	return env.Confirm(ctx, b)
}

// Match compares what was typed with the target; surrounding space is forgiven, nothing else.
func (b Blast) Match(typed string) error {
	if b.Target != "" && strings.TrimSpace(typed) == b.Target {
		return nil
	}
	return b.unconfirmed(fmt.Errorf("%q is not the target's name", strings.TrimSpace(typed)))
}

func (b Blast) unconfirmed(err error) error {
	return &relight.Error{
		Op: "confirm", Subject: b.Action, Code: relight.CodeWaiting, Err: err,
		Hint: fmt.Sprintf("type %s when asked, or pass --confirm %s", b.Target, b.Target),
	}
}
