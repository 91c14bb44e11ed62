package runbook

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Show is the runbook as text for a terminal: what an operator must know before starting it, then every step in the
// order of the document.
func Show(rb *Runbook) string {
	var b strings.Builder
	objective := ObjectiveScope(rb)
	fmt.Fprintf(&b, "%s — %s\n", rb.Name, rb.Title)
	fact(&b, "priority", rb.Priority)
	fact(&b, "objective", fmt.Sprintf("RTO %s, RPO %s", objective["rto"], objective["rpo"]))
	fact(&b, "trigger", strings.Join(rb.Triggers, "; "))
	fact(&b, "roles", strings.Join(rb.Roles, ", "))
	fact(&b, "version", joinFacts(rb.Version, rb.Status, rb.Owner, after("updated ", rb.Updated), after("review by ", rb.ReviewBy)))
	fact(&b, "hash", rb.Hash)
	showInputs(&b, rb)
	s := Scope{"inputs": Unknown, "steps": Unknown, "objective": objective, "run": Unknown, "each": Unknown}
	noWay := rb.noWay()
	for _, p := range rb.Phases {
		fmt.Fprintf(&b, "\n%s", strings.ToUpper(p.Title))
		if p.Budget > 0 {
			fmt.Fprintf(&b, "  (budget %s)", shortDuration(p.Budget))
		}
		b.WriteString("\n")
		for _, st := range p.Steps {
			rb.showStep(&b, st, s, st.ID == noWay)
		}
	}
	return b.String()
}

func fact(b *strings.Builder, name, value string) {
	if value != "" {
		fmt.Fprintf(b, "  %-10s %s\n", name, value)
	}
}

func after(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}

func joinFacts(facts ...string) string {
	return strings.Join(slices.DeleteFunc(facts, func(s string) bool { return s == "" }), ", ")
}

func showInputs(b *strings.Builder, rb *Runbook) {
	for i, in := range rb.Inputs {
		name := ""
		if i == 0 {
			name = "inputs"
		}
		state := "default " + in.Default
		switch {
		case in.Required:
			state = "required"
		case in.Default == "":
			state = "may be empty"
		}
		if len(in.Enum) > 0 {
			state += "; one of " + strings.Join(in.Enum, ", ")
		}
		fmt.Fprintf(b, "  %-10s %s (%s, %s)%s\n", name, in.Name, in.Type, state, after(" — ", in.Help))
	}
}

// noWay is the first step that destroys and cannot be undone.
func (rb *Runbook) noWay() string {
	for _, s := range rb.order() {
		if s.UndoNone && s.Danger.Destructive() {
			return s.ID
		}
	}
	return ""
}

func (rb *Runbook) showStep(b *strings.Builder, st *Step, s Scope, noWay bool) {
	if noWay {
		b.WriteString("  ──── point of no return: the next step cannot be undone ────\n")
	}
	fmt.Fprintf(b, "  %s", st.Title)
	if st.Danger.Rank() > 0 {
		fmt.Fprintf(b, "  [danger: %s]", st.Danger)
	}
	fmt.Fprintf(b, "\n    %s: %s\n", st.ID, whatOf(st))
	if ways := rb.reached(st.ID); len(ways) > 0 {
		fmt.Fprintf(b, "    only if %s\n", strings.Join(ways, ", or if "))
	}
	for _, line := range strings.Split(ExpandProse(st.Prose, s), "\n") {
		if line != "" {
			fmt.Fprintf(b, "    %s\n", line)
		}
	}
	for _, c := range st.Checklist {
		fmt.Fprintf(b, "    [ ] %s\n", ExpandProse(c, s))
	}
	showOptions(b, st)
	showModifiers(b, st)
}

func whatOf(st *Step) string {
	switch st.Kind {
	case KindDo:
		return strings.TrimSpace(st.Do.Action + " " + withText(st.Do.With))
	case KindRun:
		if st.Run.Script != "" {
			return "run a script\n      " + strings.ReplaceAll(strings.TrimSpace(st.Run.Script), "\n", "\n      ")
		}
		words := []string{"run"}
		for _, v := range st.Run.Argv {
			words = append(words, valueText(v))
		}
		return strings.Join(words, " ")
	case KindAsk:
		return askText(st.Ask)
	case KindChoose:
		return "choose: " + st.Choose.Text
	default:
		return "wait " + waitName(st.Wait)
	}
}

func askText(a *Ask) string {
	what := "ask"
	if a.Approval {
		what = "approval"
	}
	if a.Role != "" {
		what += " by the " + a.Role
	}
	if a.Other {
		what += ", not by who started the run"
	}
	return what + ": " + a.Text
}

func withText(with map[string]Value) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(with)) {
		parts = append(parts, k+"="+valueText(with[k]))
	}
	return strings.Join(parts, " ")
}

func showOptions(b *strings.Builder, st *Step) {
	if st.Choose == nil {
		return
	}
	for i, o := range st.Choose.Options {
		fmt.Fprintf(b, "    %c. %s (%s)", 'A'+rune(i%26), o.Title, o.ID)
		if len(o.Steps) > 0 {
			fmt.Fprintf(b, ": %s", strings.Join(o.Steps, ", "))
		}
		if o.Available != nil {
			fmt.Fprintf(b, "; only if %s, else: %s", o.Available.Text, o.Reason)
		}
		b.WriteString("\n")
	}
}

func showModifiers(b *strings.Builder, st *Step) {
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(b, "    %-8s %s\n", name, value)
		}
	}
	undo := callName(st.Undo)
	if st.UndoNone {
		undo = "none"
	}
	line("needs", strings.Join(st.Needs, ", "))
	line("when", exprText(st.When))
	line("each", exprText(st.Each))
	line("target", st.Target)
	line("probe", callName(st.Probe))
	line("verify", callName(st.Verify))
	line("undo", undo)
	line("if fails", st.IfFails)
	line("clock", st.Clock)
	if st.Timeout > 0 {
		line("timeout", shortDuration(st.Timeout))
	}
	if st.Retry > 0 {
		line("retry", fmt.Sprint(st.Retry))
	}
}
