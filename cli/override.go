package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/runbook"
)

// amend makes a command that records a person's decision about RUN [STEP] and says how to go on.
func (s *session) amend(use, short, example string, args int, flags func(c *cobra.Command), do func(c *cobra.Command, e *runbook.Engine, run relight.RunID, step string) (*runbook.State, error)) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Args: cobra.ExactArgs(args), ValidArgsFunction: s.completeRun, Example: "  " + example}
	flags(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := s.header("run"); err != nil {
			return err
		}
		engine, err := s.engine(c.Context(), s.view(), false)
		if err != nil {
			return err
		}
		step := ""
		if len(args) > 1 {
			step = args[1]
		}
		st, err := do(c, engine, relight.RunID(args[0]), step)
		if err != nil {
			return err
		}
		if s.json {
			return s.print(resultOf(st))
		}
		s.say("recorded; the run is %s", st.Status)
		if !st.Over() {
			s.say("go on with: relight run resume %s", st.Run)
		}
		return nil
	}
	return c
}

func (s *session) runOverride(verb, kind, short string) *cobra.Command {
	var reason string
	return s.amend(verb+" RUN STEP", short, "relight run "+verb+" r-20251002-1430 restore --reason 'checked by hand'", 2,
		func(c *cobra.Command) { c.Flags().StringVar(&reason, "reason", "", "why, for the journal (required)") },
		func(c *cobra.Command, e *runbook.Engine, run relight.RunID, step string) (*runbook.State, error) {
			return e.Override(c.Context(), run, runbook.Override{Kind: kind, Step: step, Actor: s.actor, Reason: reason})
		})
}

func (s *session) runEdit() *cobra.Command {
	var reason string
	var inputs []string
	return s.amend("edit RUN STEP", "change the inputs of a step that has not run", "relight run edit r-20251002-1430 restore --input at=latest --reason 'newer is safe'", 2,
		func(c *cobra.Command) {
			c.Flags().StringVar(&reason, "reason", "", "why, for the journal (required)")
			c.Flags().StringArrayVar(&inputs, "input", nil, "new value, NAME=VALUE")
		},
		func(c *cobra.Command, e *runbook.Engine, run relight.RunID, step string) (*runbook.State, error) {
			values := map[string]any{}
			for _, in := range inputs {
				name, value, ok := strings.Cut(in, "=")
				if !ok {
					return nil, usageError("run edit", fmt.Errorf("input %q is not of the form NAME=VALUE", in), "give it as --input at=latest")
				}
				values[name] = value
			}
			return e.Override(c.Context(), run, runbook.Override{Kind: runbook.EventEdit, Step: step, Actor: s.actor, Reason: reason, Inputs: values})
		})
}

func (s *session) runAbort() *cobra.Command {
	var reason string
	return s.amend("abort RUN", "end a run for good; what it started is ended too", "relight run abort r-20251002-1430 --reason 'false alarm'", 1,
		func(c *cobra.Command) { c.Flags().StringVar(&reason, "reason", "", "why, for the journal (required)") },
		func(c *cobra.Command, e *runbook.Engine, run relight.RunID, _ string) (*runbook.State, error) {
			return e.Override(c.Context(), run, runbook.Override{Kind: runbook.EventAbort, Actor: s.actor, Reason: reason})
		})
}

func (s *session) runRollBack() *cobra.Command {
	var reason, to string
	return s.amend("roll-back RUN", "undo steps, the newest first, as far as the point of no return", "relight run roll-back r-20251002-1430 --to stop-writers --reason 'wrong plan'", 1,
		func(c *cobra.Command) {
			c.Flags().StringVar(&reason, "reason", "", "why, for the journal (required)")
			c.Flags().StringVar(&to, "to", "", "the step that is undone last; the run is paused then, and a resume does again what was undone (default: all, and the run is over)")
		},
		func(c *cobra.Command, e *runbook.Engine, run relight.RunID, _ string) (*runbook.State, error) {
			return e.RollBack(c.Context(), run, to, runbook.OpenOptions{Actor: s.actor, Reason: reason})
		})
}

func (s *session) runAnswer() *cobra.Command {
	var text string
	return s.amend("answer RUN STEP", "say that manual work is done, and what came of it", "relight run answer r-20251002-1430 notify --text 'status page updated'", 2,
		func(c *cobra.Command) { c.Flags().StringVar(&text, "text", "done", "what came of it") },
		func(c *cobra.Command, e *runbook.Engine, run relight.RunID, step string) (*runbook.State, error) {
			return e.Answer(c.Context(), run, step, runbook.Answer{Actor: s.actor, Value: text})
		})
}

func (s *session) runChoose() *cobra.Command {
	var option string
	return s.amend("choose RUN STEP", "choose an option that a run waits for", "relight run choose r-20251002-1430 how --option point-in-time", 2,
		func(c *cobra.Command) { c.Flags().StringVar(&option, "option", "", "the option's name (required)") },
		func(c *cobra.Command, e *runbook.Engine, run relight.RunID, step string) (*runbook.State, error) {
			return e.Choose(c.Context(), run, step, option, s.actor)
		})
}

func (s *session) runApprove() *cobra.Command {
	var decision, signature string
	var text bool
	c := s.amend("approve RUN STEP", "approve or refuse a step, with an SSH key's signature", "relight run approve r-20251002-1430 go-live --text | ssh-keygen -Y sign -n relight -f ~/.ssh/id_ed25519 > go.sig\n  relight run approve r-20251002-1430 go-live --signature go.sig", 2,
		func(c *cobra.Command) {
			c.Flags().StringVar(&decision, "decision", runbook.Approve, "approve or refuse")
			c.Flags().StringVar(&signature, "signature", "", "file made by ssh-keygen -Y sign -n relight (- for stdin); without one the approval is only asserted")
			c.Flags().BoolVar(&text, "text", false, "print what is to be signed, and record nothing")
		},
		func(c *cobra.Command, e *runbook.Engine, run relight.RunID, step string) (*runbook.State, error) {
			signed, err := readSignature(signature, s.In)
			if err != nil {
				return nil, err
			}
			return e.Answer(c.Context(), run, step, runbook.Answer{Actor: s.actor, Decision: decision, Signature: signed})
		})
	record := c.RunE
	c.RunE = func(c *cobra.Command, args []string) error {
		if !text {
			return record(c, args)
		}
		engine, err := s.engine(c.Context(), s.view(), false)
		if err != nil {
			return err
		}
		st, err := engine.State(c.Context(), relight.RunID(args[0]))
		if err != nil {
			return err
		}
		step := st.Step(args[1])
		if step == nil || step.Question == nil {
			return &relight.Error{Op: "run approve", Subject: args[1], Code: relight.CodeNotFound, Err: errors.New("the run does not wait for this step"), Hint: "relight run show " + args[0]}
		}
		return s.text("approval", string(runbook.ApprovalText(st.Run, step.Question.PlanHash, args[1], decision)))
	}
	return c
}

func readSignature(path string, in io.Reader) (string, error) {
	switch path {
	case "":
		return "", nil
	case "-":
		b, err := io.ReadAll(in)
		return string(b), err
	default:
		b, err := os.ReadFile(path)
		if err != nil {
			return "", usageError("read signature", err, "make one with ssh-keygen -Y sign -n relight")
		}
		return string(b), nil
	}
}
