package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/app"
	"github.com/toolboxai/relight/estate"
	"github.com/toolboxai/relight/runbook"
)

func (s *session) runCommands() *cobra.Command {
	return group("run", "carry out a runbook, and go on with one that stopped",
		s.runStart(), s.runList(), s.runShow(), s.runWatch(), s.runResume(), s.runTakeover(), s.runOverride("retry", runbook.EventRetry, "try a failed or unknown step again"),
		s.runOverride("skip", runbook.EventSkip, "go on without a step, on record"), s.runOverride("force-done", runbook.EventForceDone, "declare a step done, on record"),
		s.runEdit(), s.runAbort(), s.runRollBack(), s.runAnswer(), s.runChoose(), s.runApprove())
}

// runFlags are shared by what begins a run.
type runFlags struct {
	inputs   []string
	detected string
	declared string
	dry      bool
	force    bool
	yes      bool
}

func (f *runFlags) bind(c *cobra.Command, s *session) {
	c.Flags().StringArrayVar(&f.inputs, "input", nil, "value of a runbook's input, `NAME=VALUE`; several may be given")
	c.Flags().StringVar(&f.detected, "detected", "", "when the disaster was noticed (RFC 3339 or the estate's zone)")
	c.Flags().StringVar(&f.declared, "declared", "", "when it was declared; default: now")
	c.Flags().BoolVar(&f.dry, "dry-run", false, "run every probe and plan, and change nothing")
	c.Flags().BoolVar(&f.force, "force", false, "actions may replace an occupied or newer target; the name is asked for all the same")
	s.bindPerson(c, &f.yes)
}

func (s *session) bindPerson(c *cobra.Command, yes *bool) {
	c.Flags().StringArrayVar(&s.answers, "answer", nil, "answer to a step's question, STEP=TEXT; an approval is STEP=approve and stays asserted without a signature; several may be given")
	s.bindGuard(c)
	c.Flags().BoolVar(yes, "yes", false, "take recommended options and confirm manual steps, on record; never confirms a destructive step, never approves")
}

func (s *session) bindGuard(c *cobra.Command) {
	c.Flags().StringVar(&s.unguarded, "without-lease", "", "name of the store that may be overwritten although a repository cannot be asked whether another host is at work on it; on record")
}

func (s *session) runStart() *cobra.Command {
	var f runFlags
	c := &cobra.Command{Use: "start RUNBOOK", Short: "carry out a runbook", Args: cobra.ExactArgs(1), ValidArgsFunction: s.completeRunbook,
		Example: "  relight run start database-corruption --identity /media/usb/recovery.key\n  relight run start database-corruption --dry-run\n" +
			"  relight run start database-corruption --input 'at=2025-10-02 14:30:00' --confirm main"}
	f.bind(c, s)
	c.RunE = func(c *cobra.Command, args []string) error {
		rb, err := s.a.Runbook(args[0])
		if err != nil {
			return err
		}
		return s.begin(c.Context(), rb, args[0], f)
	}
	return c
}

// begin starts rb, which the user calls name, and follows it to its end or to the next person.
func (s *session) begin(ctx context.Context, rb *runbook.Runbook, name string, f runFlags) error {
	o, err := s.startOptions(f)
	if err != nil {
		return err
	}
	v := s.view()
	engine, err := s.engine(ctx, v, f.yes)
	if err != nil {
		return err
	}
	if f.dry {
		report, err := engine.DryRun(ctx, rb, o)
		if report != nil {
			if serr := s.showDry(report); serr != nil {
				return serr
			}
		}
		return err
	}
	if err := s.a.MayRun(rb, name); err != nil {
		return err
	}
	if err := s.header("run"); err != nil {
		return err
	}
	if err := s.a.KeepJournal(ctx); err != nil {
		s.a.Log().Warn("the journal could not be kept before the run", "error", err)
	}
	if err := s.unfinished(ctx, engine, rb.Name); err != nil {
		return err
	}
	st, err := engine.Start(ctx, rb, o)
	return s.ended(ctx, v, st, err)
}

func (s *session) startOptions(f runFlags) (runbook.StartOptions, error) {
	o := runbook.StartOptions{Actor: s.actor, Force: f.force, Inputs: map[string]any{}, Declared: time.Now()}
	for _, in := range f.inputs {
		name, value, ok := strings.Cut(in, "=")
		if !ok {
			return o, usageError("run start", fmt.Errorf("input %q is not of the form NAME=VALUE", in), "`relight runbook show NAME` lists a runbook's inputs")
		}
		o.Inputs[name] = value
	}
	for _, clock := range []struct {
		given string
		into  *time.Time
	}{{f.detected, &o.Detected}, {f.declared, &o.Declared}} {
		if clock.given == "" {
			continue
		}
		t, err := s.parseTime(clock.given)
		if err != nil {
			return o, err
		}
		*clock.into = t
	}
	return o, nil
}

// unfinished refuses to begin a runbook again while a run of it can be gone on with: two runs of one recovery would undo each other's work.
func (s *session) unfinished(ctx context.Context, e *runbook.Engine, name string) error {
	j, err := s.a.Journal(ctx)
	if err != nil {
		return err
	}
	infos, err := j.Runs(ctx)
	if err != nil {
		return err
	}
	for _, info := range infos {
		st, err := e.State(ctx, info.Run)
		if err != nil {
			return err
		}
		if st.Name == name && !st.Over() {
			return &relight.Error{Op: "start", Subject: name, Code: relight.CodeUsage, Err: fmt.Errorf("run %s is not finished: %s", st.Run, st.Status),
				Hint: fmt.Sprintf("go on with `relight run resume %s`, or end it with `relight run abort %s --reason …`", st.Run, st.Run)}
		}
	}
	return nil
}

// parseTime reads a moment; without an offset it is in the estate's zone.
func (s *session) parseTime(text string) (time.Time, error) {
	zone := time.UTC
	if e, err := s.a.Estate(); err == nil {
		zone = e.Zone
	}
	return estate.ParseTime(text, zone)
}

func usageError(op string, err error, hint string) error {
	return &relight.Error{Op: op, Code: relight.CodeUsage, Err: err, Hint: hint}
}

func (s *session) engine(ctx context.Context, v *view, yes bool) (*runbook.Engine, error) {
	answers, err := parseAnswers(s.answers)
	if err != nil {
		return nil, err
	}
	return s.a.Engine(ctx, app.EngineOptions{Person: &person{s: s, answers: answers, yes: yes}, Watch: v.event, Progress: v.progress})
}

func parseAnswers(given []string) (map[string]string, error) {
	out := map[string]string{}
	for _, a := range given {
		step, text, ok := strings.Cut(a, "=")
		if !ok {
			return nil, usageError("run", fmt.Errorf("answer %q is not of the form STEP=TEXT", a), "give it as --answer review=done")
		}
		out[step] = text
	}
	return out, nil
}

// ended shows where a run stands when this process leaves it, and anchors the journal once more.
func (s *session) ended(ctx context.Context, v *view, st *runbook.State, err error) error {
	v.close()
	if st == nil {
		return err
	}
	if aerr := s.a.KeepJournal(context.WithoutCancel(ctx)); aerr != nil {
		s.a.Log().Warn("the journal could not be kept after the run", "error", aerr)
	}
	if perr := s.showState(st); perr != nil {
		return perr
	}
	if err == nil {
		err = objectiveError(st)
	}
	return err
}

// runResult is the last record of a run's command.
type runResult struct {
	Type    string               `json:"type"` // "run"
	Run     relight.RunID        `json:"run"`
	Runbook string               `json:"runbook"`
	State   relight.RunState     `json:"state"`
	Reason  string               `json:"reason,omitempty"`
	Clocks  map[string]time.Time `json:"clocks"`
	runbook.Outcome
	Exceptions []string             `json:"exceptions,omitempty"`
	Waiting    []runbook.Question   `json:"waiting,omitempty"`
	Steps      []*runbook.StepState `json:"steps"`
}

func resultOf(st *runbook.State) runResult {
	r := runResult{Type: "run", Run: st.Run, Runbook: st.Name, State: st.Status, Reason: st.Reason, Clocks: st.Clocks, Outcome: st.Outcome(), Waiting: st.Waiting(), Steps: st.Steps}
	for _, e := range st.Exceptions {
		r.Exceptions = append(r.Exceptions, strings.TrimSpace(fmt.Sprintf("%s: %s %s", e.Step, e.What, e.Reason)))
	}
	return r
}

func (s *session) runList() *cobra.Command {
	c := &cobra.Command{Use: "list", Short: "show the runs in the journal, newest first", Args: cobra.NoArgs, Example: "  relight run list"}
	c.RunE = func(c *cobra.Command, _ []string) error {
		ctx := c.Context()
		j, err := s.a.Journal(ctx)
		if err != nil {
			return err
		}
		infos, err := j.Runs(ctx)
		if err != nil {
			return err
		}
		engine, err := s.engine(ctx, s.view(), false)
		if err != nil {
			return err
		}
		if err := s.header("runs"); err != nil {
			return err
		}
		var rows [][]string
		for _, info := range infos {
			st, err := engine.State(ctx, info.Run)
			if err != nil {
				return err
			}
			if s.json {
				if err := s.print(resultOf(st)); err != nil {
					return err
				}
				continue
			}
			rows = append(rows, []string{string(st.Run), st.Name, string(st.Status), timeText(st.Started), st.Actor})
		}
		if s.json {
			return nil
		}
		if len(rows) == 0 {
			return &relight.Error{Op: "list runs", Code: relight.CodeNotFound, Err: errors.New("the journal holds none"), Hint: "`relight runbook list` shows what can be run"}
		}
		return s.table([]string{"RUN", "RUNBOOK", "STATE", "STARTED", "BY"}, rows)
	}
	return c
}

func (s *session) runShow() *cobra.Command {
	c := &cobra.Command{Use: "show RUN", Short: "show where a run stands, step by step", Args: cobra.ExactArgs(1), ValidArgsFunction: s.completeRun, Example: "  relight run show r-20251002-1430"}
	c.RunE = func(c *cobra.Command, args []string) error {
		engine, err := s.engine(c.Context(), s.view(), false)
		if err != nil {
			return err
		}
		st, err := engine.State(c.Context(), relight.RunID(args[0]))
		if err != nil {
			return err
		}
		return s.showState(st)
	}
	return c
}

func (s *session) runWatch() *cobra.Command {
	c := &cobra.Command{Use: "watch RUN", Short: "follow a run that another process carries out", Args: cobra.ExactArgs(1), ValidArgsFunction: s.completeRun, Example: "  relight run watch r-20251002-1430"}
	c.RunE = func(c *cobra.Command, args []string) error {
		return s.watch(c.Context(), relight.RunID(args[0]))
	}
	return c
}

// follow is the body of every command that goes on with a run.
func (s *session) follow(ctx context.Context, yes bool, do func(e *runbook.Engine) (*runbook.State, error)) error {
	if err := s.header("run"); err != nil {
		return err
	}
	v := s.view()
	engine, err := s.engine(ctx, v, yes)
	if err != nil {
		return err
	}
	st, err := do(engine)
	return s.ended(ctx, v, st, err)
}

func (s *session) runResume() *cobra.Command {
	var yes bool
	c := &cobra.Command{Use: "resume RUN", Short: "go on with a run whose process died or stopped", Args: cobra.ExactArgs(1), ValidArgsFunction: s.completeRun,
		Long:    "Go on with a run. What a dead process left running is ended first; each step that was in flight is probed, and a person is asked\nwhere the probe cannot tell. Nothing destructive is ever done twice.",
		Example: "  relight run resume r-20251002-1430"}
	s.bindPerson(c, &yes)
	c.RunE = func(c *cobra.Command, args []string) error {
		return s.follow(c.Context(), yes, func(e *runbook.Engine) (*runbook.State, error) {
			return e.Resume(c.Context(), relight.RunID(args[0]), runbook.OpenOptions{Actor: s.actor})
		})
	}
	return c
}

func (s *session) runTakeover() *cobra.Command {
	var yes bool
	var reason string
	c := &cobra.Command{Use: "takeover RUN", Short: "take a run from a process that still holds it", Args: cobra.ExactArgs(1), ValidArgsFunction: s.completeRun,
		Example: "  relight run takeover r-20251002-1430 --reason 'terminal lost'"}
	c.Flags().StringVar(&reason, "reason", "", "why, for the journal (required)")
	s.bindPerson(c, &yes)
	c.RunE = func(c *cobra.Command, args []string) error {
		return s.follow(c.Context(), yes, func(e *runbook.Engine) (*runbook.State, error) {
			return e.Takeover(c.Context(), relight.RunID(args[0]), runbook.OpenOptions{Actor: s.actor, Reason: reason})
		})
	}
	return c
}

func (s *session) completeRunbook(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	s.start()
	all, err := s.a.Runbooks()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var names []string
	for name := range all {
		names = append(names, name)
	}
	slices.Sort(names)
	return names, cobra.ShellCompDirectiveDefault
}

func (s *session) completeRun(c *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	s.start()
	j, err := s.a.Journal(c.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	runs, err := j.Runs(c.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var ids []string
	for _, r := range runs {
		ids = append(ids, string(r.Run))
	}
	return ids, cobra.ShellCompDirectiveNoFileComp
}

// decodeData reads an event's data for display; what cannot be read is shown as nothing.
func decodeData(raw json.RawMessage) map[string]any {
	var m map[string]any
	if json.Unmarshal(raw, &m) != nil {
		return nil
	}
	return m
}
