package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/toolboxai/relight/runbook"
)

// person answers a run's questions: from the command line where it answers, else at the terminal, else not now.
type person struct {
	s       *session
	answers map[string]string
	yes     bool
}

func (p *person) Confirm(ctx context.Context, q runbook.Question) (string, error) {
	p.show(q)
	if q.Blast != nil {
		for _, line := range q.Blast.Lines {
			fmt.Fprintf(p.s.Err, "    %s\n", line)
		}
	}
	if p.s.confirm != "" {
		return p.s.confirm, nil
	}
	if !p.s.interactive() {
		return "", runbook.ErrNobody
	}
	target := ""
	if q.Blast != nil {
		target = q.Blast.Target
	}
	return p.s.ask(ctx, fmt.Sprintf("    type %s to go on: ", target))
}

func (p *person) Ask(ctx context.Context, q runbook.Question) (runbook.Answer, error) {
	if text, ok := p.answers[q.Step]; ok {
		return p.answer(q, text), nil
	}
	if p.yes && q.Kind != runbook.AskApprove { // an approval is somebody's own word: it is answered, never assumed
		return p.answer(q, "confirmed by --yes"), nil
	}
	p.show(q)
	if !p.s.interactive() {
		return runbook.Answer{}, runbook.ErrNobody
	}
	prompt := "    what came of it (empty: done)? "
	if q.Kind == runbook.AskApprove {
		prompt = "    approve or refuse? "
	}
	text, err := p.s.ask(ctx, prompt)
	if err != nil {
		return runbook.Answer{}, err
	}
	if text == "" && q.Kind != runbook.AskApprove {
		text = "done"
	}
	return p.answer(q, text), nil
}

func (p *person) answer(q runbook.Question, text string) runbook.Answer {
	a := runbook.Answer{Actor: p.s.actor, Value: text}
	if q.Kind == runbook.AskApprove {
		a.Decision = runbook.Refuse
		if text == runbook.Approve {
			a.Decision = runbook.Approve
		}
	}
	return a
}

func (p *person) Choose(ctx context.Context, q runbook.Question) (string, error) {
	if option, ok := p.answers[q.Step]; ok {
		return option, nil
	}
	// What happened to a step that was cut off is never assumed.
	if p.yes && q.Recommend != "" && q.Kind == runbook.AskChoose {
		return q.Recommend, nil
	}
	p.show(q)
	for _, o := range q.Options {
		fmt.Fprintf(p.s.Err, "    %s\n", optionText(o, q.Recommend))
	}
	if !p.s.interactive() {
		return "", runbook.ErrNobody
	}
	text, err := p.s.ask(ctx, "    which? ")
	if text == "" {
		text = q.Recommend
	}
	return text, err
}

func optionText(o runbook.OptionView, recommend string) string {
	switch {
	case !o.Available:
		return fmt.Sprintf("(%s: %s; not available: %s)", o.ID, o.Title, o.Reason)
	case o.ID == recommend:
		return fmt.Sprintf("%s: %s (recommended)", o.ID, o.Title)
	default:
		return fmt.Sprintf("%s: %s", o.ID, o.Title)
	}
}

func (p *person) show(q runbook.Question) {
	fmt.Fprintf(p.s.Err, "\n  ? %s (%s)\n", strings.TrimSpace(q.Title), q.Step)
	if q.Text != "" {
		fmt.Fprintf(p.s.Err, "    %s\n", strings.ReplaceAll(strings.TrimSpace(q.Text), "\n", "\n    "))
	}
	for _, item := range q.Checklist {
		fmt.Fprintf(p.s.Err, "    [ ] %s\n", item)
	}
	if q.Role != "" {
		fmt.Fprintf(p.s.Err, "    for: %s\n", q.Role)
	}
}
