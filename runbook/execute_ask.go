package runbook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/toolboxai/relight"
)

// ask waits for manual work or an approval. An answer that was given while nobody ran is taken first.
func (r *run) ask(ctx context.Context, id string) outcome {
	u := r.view(id)
	q := r.askQuestion(u)
	if preset, by := r.preset(u, u.step.Ask.Answer); preset != "" && u.Answer == nil && q.Kind == AskWork {
		a := Answer{Actor: by, Value: preset, Asserted: true, At: r.e.c.Now().UTC()}
		if r.record(ctx, id, EventAnswered, a) != nil {
			return outcome{id: id}
		}
		u = r.view(id)
	}
	q.Changed = u.Answer != nil && q.Kind == AskApprove && u.Answer.PlanHash != q.PlanHash
	if u.Answer == nil || q.Changed { // an approval counts only for the plan that it was given for
		if err := r.request(ctx, EventAskRequested, q); err != nil {
			return outcome{id: id}
		}
		if out, done := r.askPerson(ctx, q); done {
			return out
		}
		u = r.view(id)
	}
	if u.Answer == nil { // decided by an override meanwhile
		return outcome{id: id}
	}
	return r.judge(q, *u.Answer)
}

func (r *run) askQuestion(u StepState) Question {
	a := u.step.Ask
	r.mu.Lock()
	defer r.mu.Unlock()
	q := Question{
		Run: r.id, Step: u.ID, Title: u.Title, Kind: AskWork, Checklist: u.step.Checklist, Role: a.Role, Other: a.Other,
		Text: r.text(a.Text, &u),
	}
	if a.Approval {
		q.Kind, q.PlanHash = AskApprove, r.st.PlanHash
	}
	return q
}

// text fills a text for people; what is not known reads "unknown". The caller holds mu.
func (r *run) text(s string, u *StepState) string {
	if !strings.Contains(s, "{{") {
		return s
	}
	return ExpandProse(s, r.st.scope(u))
}

// askPerson records what a person says; done means that there is an outcome already.
func (r *run) askPerson(ctx context.Context, q Question) (outcome, bool) {
	a, err := persons(ctx, r, q.Step, func(ctx context.Context, p Person) (Answer, error) { return p.Ask(ctx, q) })
	if err != nil && r.decided(q.Step) {
		return outcome{}, false
	}
	if err != nil {
		return r.unanswered(ctx, q, err), true
	}
	if a.Actor == "" {
		a.Actor = r.actor
	}
	a, err = r.e.checkAnswer(q, r.starter(), a)
	if err != nil {
		return outcome{id: q.Step, blocked: err}, true
	}
	a.At = r.e.c.Now().UTC()
	if r.record(ctx, q.Step, EventAnswered, a) != nil {
		return outcome{id: q.Step}, true
	}
	return outcome{}, false
}

// unanswered: nobody there is a wait, anything else a failure, unless the run is being stopped.
func (r *run) unanswered(ctx context.Context, q Question, err error) outcome {
	id := q.Step
	switch {
	case r.lost(ctx):
		return outcome{id: id}
	case errors.Is(err, ErrNobody) && q.Changed:
		return outcome{id: id, blocked: &relight.Error{
			Op: "approve", Subject: "step " + id, Code: relight.CodePlanChanged,
			Err:  errors.New("the approval was given for another plan"),
			Hint: fmt.Sprintf("show the new plan to an approver: relight run approve %s %s", r.id, id),
		}}
	case errors.Is(err, ErrNobody):
		verb := "answer"
		if q.Kind == AskApprove {
			verb = "approve"
		}
		return outcome{id: id, blocked: &relight.Error{
			Op: "ask", Subject: "step " + id, Code: relight.CodeWaiting, Err: err,
			Hint: fmt.Sprintf("relight run %s %s %s, then: relight run resume %s", verb, r.id, id, r.id),
		}}
	case isWaiting(err):
		return outcome{id: id, blocked: err}
	default:
		return r.fails(id, err)
	}
}

// judge turns an answer into the end of the step.
func (r *run) judge(q Question, a Answer) outcome {
	if a.Decision == Refuse {
		return r.fails(q.Step, &relight.Error{
			Op: "approve", Subject: "step " + q.Step, Code: relight.CodeAborted, Err: fmt.Errorf("%s has refused", a.Actor),
		})
	}
	raw, err := json.Marshal(map[string]any{
		"answer": a.said(), "actor": a.Actor,
	})
	if err != nil {
		return r.fails(q.Step, err)
	}
	return r.succeeds(q.Step, raw, "person")
}

// preset is an answer for which nobody has to be asked: given with the start, or by the runbook itself.
func (r *run) preset(u StepState, own *Value) (answer, by string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if a := r.st.Answers[u.step.ID]; a != "" {
		return a, r.st.Actor
	}
	if own == nil {
		return "", ""
	}
	v, err := textOf(*own, r.st.scope(&u))
	if err != nil {
		return "", "" // what cannot be known is asked
	}
	return v, "runbook " + r.st.Name
}

// presetOption counts only when the option exists and is available; else a person decides.
func (r *run) presetOption(u StepState, q Question) string {
	option, _ := r.preset(u, u.step.Choose.Answer)
	if option == "recommended" {
		option = q.Recommend
	}
	if q.allows(option) != nil {
		return ""
	}
	return option
}

// said is what later steps see: the decision of an approval, else the text.
func (a Answer) said() string {
	if a.Value == "" {
		return a.Decision
	}
	return a.Value
}

func (r *run) starter() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.st.Actor
}

// choose waits for a decision between the options that are available.
func (r *run) choose(ctx context.Context, id string) outcome {
	u := r.view(id)
	q, err := r.choiceQuestion(u)
	if err != nil {
		return r.fails(id, err)
	}
	option := u.Chosen
	if option == "" {
		option = r.presetOption(u, q)
	}
	if option == "" {
		if err := r.request(ctx, EventChoiceRequested, q); err != nil {
			return outcome{id: id}
		}
		option, err = persons(ctx, r, id, func(ctx context.Context, p Person) (string, error) { return p.Choose(ctx, q) })
		if err != nil && r.decided(id) {
			return outcome{id: id} // it is taken up again, with what was decided
		}
		if err != nil {
			return r.unanswered(ctx, q, err)
		}
	}
	if err := q.allows(option); err != nil {
		return outcome{id: id, blocked: err}
	}
	raw, err := json.Marshal(map[string]any{"chosen": option})
	if err != nil {
		return r.fails(id, err)
	}
	out := r.succeeds(id, raw, "person")
	if u.Chosen == "" {
		out.events = append([]staged{{EventChosen, Choice{Option: option, Recommend: q.Recommend}}}, out.events...)
	}
	return out
}

// allows refuses an option that does not exist or is not available.
func (q Question) allows(option string) error {
	for _, o := range q.Options {
		if o.ID != option {
			continue
		}
		if o.Available {
			return nil
		}
		return &relight.Error{
			Op: "choose", Subject: option, Code: relight.CodeWaiting, Err: fmt.Errorf("the option is not available: %s", o.Reason),
			Hint: "choose one of " + strings.Join(q.available(), ", "),
		}
	}
	return &relight.Error{
		Op: "choose", Subject: option, Code: relight.CodeWaiting, Err: errors.New("there is no such option"),
		Hint: "choose one of " + strings.Join(q.available(), ", "),
	}
}

func (q Question) available() []string {
	var ids []string
	for _, o := range q.Options {
		if o.Available {
			ids = append(ids, o.ID)
		}
	}
	return ids
}

func (r *run) choiceQuestion(u StepState) (Question, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := u.step.Choose
	q := Question{Run: r.id, Step: u.ID, Title: u.Title, Kind: AskChoose, Text: r.text(c.Text, &u)}
	for _, o := range c.Options {
		view := OptionView{ID: o.ID, Title: r.text(o.Title, &u), Available: true}
		if o.Available != nil {
			yes, known, err := r.st.condition(o.Available, &u)
			if err != nil {
				return q, fmt.Errorf("see whether option %s is available: %w", o.ID, err)
			}
			view.Available, view.Reason = yes && known, r.whyNot(o, known, &u)
			if view.Available {
				view.Reason = ""
			}
		}
		q.Options = append(q.Options, view)
	}
	if ids := q.available(); c.Recommend == nil && len(ids) > 0 {
		q.Recommend = ids[0] // the preferred option stands first
	}
	if c.Recommend != nil {
		v, err := c.Recommend.Eval(r.st.scope(&u))
		if err != nil {
			return q, fmt.Errorf("find the recommended option: %w", err)
		}
		if s, ok := v.(string); ok && q.allows(s) == nil {
			q.Recommend = s
		}
	}
	return q, nil
}

// whyNot is the reason that is shown beside an unavailable option. The caller holds mu.
func (r *run) whyNot(o Option, known bool, u *StepState) string {
	if !known {
		return o.Available.Text + " is not known"
	}
	if o.Reason == "" {
		return o.Available.Text + " is false"
	}
	return r.text(o.Reason, u)
}
