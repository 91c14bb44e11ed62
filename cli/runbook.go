package cli

import (
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/runbook"
)

func (s *session) runbookCommands() *cobra.Command {
	return group("runbook", "read, check, plan and approve runbooks", s.runbookList(), s.runbookLint(), s.runbookShow(), s.runbookPlan(), s.runbookApprove())
}

func (s *session) runbookList() *cobra.Command {
	c := &cobra.Command{Use: "list", Short: "show the runbooks and their objectives", Args: cobra.NoArgs, Example: "  relight runbook list"}
	c.RunE = func(*cobra.Command, []string) error {
		all, err := s.a.Runbooks()
		if err != nil {
			return err
		}
		if err := s.header("runbooks"); err != nil {
			return err
		}
		gate, err := s.a.Gate()
		if err != nil {
			return err
		}
		var rows [][]string
		for _, name := range slices.Sorted(maps.Keys(all)) {
			rb, err := s.a.Runbook(name)
			if err != nil {
				return err
			}
			if s.json {
				if err := s.print(runbookView{rb, rb.Hash, gate.Standing(rb)}); err != nil {
					return err
				}
				continue
			}
			rows = append(rows, []string{rb.Name, rb.Priority, rb.Objective.RTO.String(), rb.Objective.RPO.String(), rb.Title, gate.Standing(rb).String()})
		}
		if s.json {
			return nil
		}
		return s.table([]string{"RUNBOOK", "PRIORITY", "RTO", "RPO", "TITLE", "APPROVED"}, rows)
	}
	return c
}

// runbookView is a runbook as printed: with its hash, and whether real runs may execute it.
type runbookView struct {
	*runbook.Runbook
	Hash     string           `json:"hash"`
	Approval runbook.Standing `json:"approval"`
}

func (s *session) runbookLint() *cobra.Command {
	c := &cobra.Command{Use: "lint [RUNBOOK…]", Short: "check runbooks, by name or file; all when none is named", ValidArgsFunction: s.completeRunbook, Example: "  relight runbook lint\n  relight runbook lint runbooks/failover.md"}
	c.RunE = func(_ *cobra.Command, args []string) error {
		if len(args) == 0 {
			all, err := s.a.Runbooks()
			if err != nil {
				return err
			}
			args = slices.Sorted(maps.Keys(all))
		}
		actions, err := s.a.Actions()
		if err != nil {
			return err
		}
		if err := s.header("lint"); err != nil {
			return err
		}
		bad := 0
		for _, name := range args {
			source, err := s.a.FindRunbook(name)
			if err != nil {
				return err
			}
			for _, p := range runbook.Lint(source.Text, source.File, actions) {
				bad++
				if err := s.problem(p); err != nil {
					return err
				}
			}
		}
		if bad > 0 {
			return exit{relight.CodeUsage.Exit()}
		}
		s.say("%d runbooks, no problem", len(args))
		return nil
	}
	return c
}

func (s *session) problem(p runbook.Problem) error {
	if s.json {
		return s.print(p)
	}
	s.say("%s", p)
	return nil
}

func (s *session) runbookShow() *cobra.Command {
	var source bool
	c := &cobra.Command{Use: "show RUNBOOK", Short: "show a runbook's phases and steps", Args: cobra.ExactArgs(1), ValidArgsFunction: s.completeRunbook, Example: "  relight runbook show database-corruption"}
	c.Flags().BoolVar(&source, "source", false, "print the Markdown itself, to read or to adapt")
	c.RunE = func(_ *cobra.Command, args []string) error {
		if source {
			found, err := s.a.FindRunbook(args[0])
			if err != nil {
				return err
			}
			return s.text("runbook-source", string(found.Text))
		}
		rb, err := s.a.Runbook(args[0])
		if err != nil {
			return err
		}
		gate, err := s.a.Gate()
		if err != nil {
			return err
		}
		standing := gate.Standing(rb)
		if s.json {
			return s.print(runbookView{rb, rb.Hash, standing})
		}
		s.say("%s", strings.TrimRight(runbook.Show(rb), "\n"))
		s.say("\nhash %s\napproved: %s", rb.Hash, standing)
		return nil
	}
	return c
}

func (s *session) runbookPlan() *cobra.Command {
	var inputs []string
	c := &cobra.Command{Use: "plan RUNBOOK", Short: "show what a run would do, in order, with its dangers and its point of no return", Args: cobra.ExactArgs(1), ValidArgsFunction: s.completeRunbook,
		Example: "  relight runbook plan database-corruption --input at=latest"}
	c.Flags().StringArrayVar(&inputs, "input", nil, "value of an input, NAME=VALUE")
	c.RunE = func(_ *cobra.Command, args []string) error {
		rb, err := s.a.Runbook(args[0])
		if err != nil {
			return err
		}
		o, err := s.startOptions(runFlags{inputs: inputs})
		if err != nil {
			return err
		}
		plan, err := rb.Plan(o.Inputs)
		if err != nil {
			return err
		}
		if s.json {
			return s.print(plan)
		}
		s.showRunbookPlan(plan)
		s.say("")
		s.contacts()
		return nil
	}
	return c
}

func (s *session) showRunbookPlan(p runbook.Plan) {
	s.say("%s: %s   RTO %s, RPO %s", p.Runbook, p.Title, p.RTO, p.RPO)
	phase := ""
	for _, step := range p.Steps {
		if step.Phase != phase {
			phase = step.Phase
			s.say("\n%s", phase)
		}
		s.say("  %2d %-20s %-18s %s%s", step.N, step.ID, step.What, step.Title, planNotes(step))
	}
	if p.NoWay != "" {
		s.say("\npoint of no return: %s", p.NoWay)
	}
}

func planNotes(step runbook.PlanStep) string {
	var notes []string
	if step.Danger.Destructive() {
		notes = append(notes, "danger: "+string(step.Danger))
	}
	if len(step.Reached) > 0 {
		notes = append(notes, "only by "+strings.Join(step.Reached, ", "))
	}
	if step.When != "" {
		notes = append(notes, "when "+step.When)
	}
	if len(notes) == 0 {
		return ""
	}
	return "  [" + strings.Join(notes, "; ") + "]"
}
