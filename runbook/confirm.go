package runbook

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/action"
)

// Nobody is a Person for unattended runs.
type Nobody struct{}

// Confirm returns ErrNobody.
func (Nobody) Confirm(context.Context, Question) (string, error) { return "", ErrNobody }

// Ask returns ErrNobody.
func (Nobody) Ask(context.Context, Question) (Answer, error) { return Answer{}, ErrNobody }

// Choose returns ErrNobody.
func (Nobody) Choose(context.Context, Question) (string, error) { return "", ErrNobody }

// preview says what the effect is about to change, and whether the target's name must be typed. Where the runbook
// declares more danger than the plan finds, the runbook is followed.
func (r *run) preview(ctx context.Context, id string, j *job) (action.Blast, bool, error) {
	b := action.Blast{Action: string(j.step.Kind), Danger: j.step.Danger}
	switch j.step.Kind {
	case KindDo:
		planned, _, err := action.Preview(ctx, *j.act, r.env(id), j.in)
		if err != nil {
			return b, false, err
		}
		b = planned
		if j.step.Danger.Rank() > b.Danger.Rank() {
			b.Danger = j.step.Danger
		}
	case KindRun:
		b.Lines = []string{"runs " + strings.Join(j.argv, " ")}
	}
	if b.Target == "" {
		b.Target = j.step.Target
	}
	ask := b.Danger.Destructive()
	if ask && b.Target == "" {
		b.Target = j.step.ID
	}
	return b, ask, nil
}

// confirm has the target's name typed, and keeps others away from it.
func (r *run) confirm(ctx context.Context, id string, b action.Blast) error {
	if err := r.typed(ctx, id, b); err != nil {
		return err
	}
	return r.guard(ctx, b.Target)
}

// typed has the target's name typed, once for each plan: what was confirmed before a crash holds as long as the plan
// is the same.
func (r *run) typed(ctx context.Context, id string, b action.Blast) error {
	hash := blastHash(b)
	u := r.view(id)
	if u.Confirmed != nil && u.Confirmed.BlastHash == hash {
		return nil
	}
	q := Question{
		Run: r.id, Step: id, Title: u.Title, Kind: AskConfirm, Blast: &b, BlastHash: hash, Changed: u.Confirmed != nil,
		Text: fmt.Sprintf("type %s to go on", b.Target),
	}
	if err := r.request(ctx, EventConfirmRequested, q); err != nil {
		return err
	}
	typed, err := persons(ctx, r, id, func(ctx context.Context, p Person) (string, error) { return p.Confirm(ctx, q) })
	if now := r.view(id); err != nil && now.Confirmed != nil && now.Confirmed.BlastHash == hash {
		return nil // confirmed elsewhere meanwhile
	}
	if errors.Is(err, ErrNobody) {
		return r.unconfirmed(id, q, err)
	}
	if err == nil {
		err = b.Match(typed)
	}
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.st.index[id].Status == StepRunning { // mid-way: durable before the action goes on
		if err := r.stage(id, EventConfirmed, Confirmation{Typed: typed, Blast: b, BlastHash: hash}); err != nil {
			return err
		}
		return r.flush(ctx)
	}
	return r.stage(id, EventConfirmed, Confirmation{Typed: typed, Blast: b, BlastHash: hash}) // durable with the start
}

func (r *run) unconfirmed(id string, q Question, err error) error {
	code := relight.CodeWaiting
	if q.Changed {
		code, err = relight.CodePlanChanged, errors.New("the plan has changed since it was confirmed, and nobody can confirm the new one")
	}
	return &relight.Error{
		Op: "confirm", Subject: "step " + id, Code: code, Err: err,
		Hint: fmt.Sprintf("relight run resume %s --confirm %s", r.id, q.Blast.Target),
	}
}

// request journals a question unless the very same one stands already.
func (r *run) request(ctx context.Context, kind string, q Question) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	u := r.st.index[q.Step]
	if u.Question != nil && u.Question.Kind == q.Kind && u.Question.BlastHash == q.BlastHash && u.Question.PlanHash == q.PlanHash {
		return r.flush(ctx)
	}
	if err := r.stage(q.Step, kind, q); err != nil {
		return err
	}
	return r.flush(ctx)
}

// persons lets one question at a time reach people.
func persons[T any](ctx context.Context, r *run, id string, ask func(context.Context, Person) (T, error)) (T, error) {
	r.e.people.Lock()
	defer r.e.people.Unlock()
	ctx, done := r.asking(ctx, id)
	defer done()
	return ask(ctx, r.e.c.Person)
}
