package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/action"
	"github.com/toolboxai/relight/app"
)

// actionCommands makes one command of each action: "postgres.restore" is `relight postgres restore`. A noun that already has a command gains the
// action's verb beside its own.
func (s *session) actionCommands(root *cobra.Command, actions []action.Action) {
	for _, a := range actions {
		noun, verb, _ := strings.Cut(a.Name(), ".")
		parent := find(root, noun)
		if parent == nil {
			parent = group(noun, nounHelp(noun))
			root.AddCommand(parent)
		}
		if find(parent, verb) == nil {
			parent.AddCommand(s.actionCommand(a, verb))
		}
	}
}

func find(parent *cobra.Command, name string) *cobra.Command {
	for _, c := range parent.Commands() {
		if c.Name() == name {
			return c
		}
	}
	return nil
}

func nounHelp(noun string) string {
	switch noun {
	case "postgres":
		return "protect, inspect and recover PostgreSQL"
	case "service":
		return "start, stop and look at the estate's services"
	case "protect":
		return "start and watch protection"
	case "backup":
		return "take, list and verify backups"
	case "estate":
		return "the estate's own configuration"
	default:
		return noun
	}
}

func (s *session) actionCommand(a action.Action, verb string) *cobra.Command {
	var dry, force bool
	c := &cobra.Command{Use: verb, Short: a.Title(), Example: "  " + a.Example(), Args: cobra.NoArgs}
	c.Flags().SetNormalizeFunc(otherNames)
	values := bindFields(c.Flags(), a.Fields())
	s.completeFields(c, a.Fields())
	if a.HasPlan() {
		c.Flags().BoolVar(&dry, "plan", false, "show what would be changed, and change nothing")
	}
	if a.Danger().Destructive() {
		s.bindGuard(c)
	}
	if a.Forced() != "" {
		c.Flags().BoolVar(&force, "force", false, a.Forced())
	}
	c.RunE = func(c *cobra.Command, _ []string) error {
		in, err := a.Decode(values(c.Flags()))
		if err != nil {
			return err
		}
		live, err := s.live(a.Name())
		if err != nil {
			return err
		}
		return s.runAction(c.Context(), live, in, dry, force)
	}
	return c
}

// otherNames are what people call some flags besides.
func otherNames(_ *pflag.FlagSet, name string) pflag.NormalizedName {
	if name == "verify-before-restore" {
		name = "verify-before"
	}
	return pflag.NormalizedName(name)
}

func (s *session) runAction(ctx context.Context, a action.Action, in any, dry, force bool) error {
	m := s.meter()
	defer m.close()
	env := action.Env{Actor: s.actor, Force: force, Confirm: s.confirmBlast, Guard: s.a.GuardAction, Announce: s.announce, Progress: m.show, Log: s.a.Log(), Now: time.Now}
	if dry {
		b, err := a.Plan(ctx, env, in)
		if err != nil {
			return err
		}
		return s.showPlan(b)
	}
	out, err := action.Execute(ctx, a, env, in)
	m.close()
	if err == nil {
		return s.result(out)
	}
	if relight.CodeOf(err) == relight.CodeVerification && out != nil { // what was found is the answer, and the exit code says that it is bad
		if rerr := s.result(out); rerr != nil {
			return rerr
		}
	}
	return err
}

func (s *session) showPlan(b action.Blast) error {
	if s.json {
		return s.print(b)
	}
	s.say("%s would change %s (danger: %s)", b.Action, b.Target, b.Danger)
	for _, line := range b.Lines {
		s.say("  %s", line)
	}
	return nil
}

// bindFields declares a flag for each field; the result reads those that were given.
func bindFields(f *pflag.FlagSet, fields []action.Field) func(*pflag.FlagSet) map[string]any {
	for _, field := range fields {
		help := field.Help
		if len(field.Enum) > 0 {
			help += " (" + strings.Join(field.Enum, ", ") + ")"
		}
		if field.Required {
			help += " (required)"
		}
		switch field.Type {
		case action.TypeBool:
			f.Bool(field.Flag(), field.Default == "true", help)
		case action.TypeStrings:
			f.Var(&list{}, field.Flag(), help)
		default:
			f.String(field.Flag(), field.Default, help)
		}
	}
	return func(f *pflag.FlagSet) map[string]any {
		given := map[string]any{}
		for _, field := range fields {
			flag := f.Lookup(field.Flag())
			if flag == nil || !flag.Changed {
				continue
			}
			given[field.Name] = flagValue(f, field)
		}
		return given
	}
}

// list is the value of a flag that takes several words, each time it is given, as an input of a run does.
type list []string

func (l *list) String() string { return strings.Join(*l, ",") }
func (l *list) Type() string   { return "strings" }
func (l *list) Set(s string) error {
	*l = append(*l, action.SplitList(s)...)
	return nil
}

func flagValue(f *pflag.FlagSet, field action.Field) any {
	if l, ok := f.Lookup(field.Flag()).Value.(*list); ok {
		return []string(*l)
	}
	return fmt.Sprint(f.Lookup(field.Flag()).Value)
}

// declared is every action as far as names, inputs and help go: they are known before there is an app, and the app that a command runs with is made
// once its flags are read.
func (s *session) declared() ([]action.Action, error) {
	r, err := app.New(app.Options{}).Actions()
	if err != nil {
		return nil, err
	}
	return r.List(), nil
}

// live gives the same action of the app that the flags have configured.
func (s *session) live(name string) (action.Action, error) {
	r, err := s.a.Actions()
	if err != nil {
		return action.Action{}, err
	}
	return r.Lookup(name)
}
