package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/toolboxai/relight"
)

// strict makes every wrong command line a usage error with a hint: unknown commands, wrong numbers of arguments, unknown flags, bad values.
func strict(root *cobra.Command) {
	root.SetFlagErrorFunc(flagError)
	each(root, func(c *cobra.Command) {
		check := c.Args
		switch {
		case c.HasSubCommands():
			c.Args = noSuchCommand
		case check != nil:
			c.Args = func(c *cobra.Command, args []string) error {
				if err := check(c, args); err != nil {
					return argumentError(c, args)
				}
				return nil
			}
		}
	})
}

// each calls fn for c and every command below it.
func each(c *cobra.Command, fn func(*cobra.Command)) {
	fn(c)
	for _, child := range c.Commands() {
		each(child, fn)
	}
}

// noSuchCommand refuses the arguments of a command that only holds others.
func noSuchCommand(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	var names []string
	for _, child := range c.Commands() {
		if !child.Hidden {
			names = append(names, child.Name())
		}
	}
	hint := "see `" + c.CommandPath() + " --help`"
	if near := relight.Nearest(args[0], names); near != "" {
		hint = "did you mean `" + c.CommandPath() + " " + near + "`? " + hint
	}
	return &relight.Error{Op: c.CommandPath(), Code: relight.CodeUsage, Err: fmt.Errorf("there is no command %q", args[0]), Hint: hint}
}

// argumentError says what a command takes instead of what it was given.
func argumentError(c *cobra.Command, args []string) error {
	given := "no argument was given"
	if len(args) > 0 {
		given = fmt.Sprintf("wrong arguments: %s", strings.Join(quoted(args), " "))
	}
	takes := strings.TrimSuffix(c.UseLine(), " [flags]")
	return &relight.Error{Op: c.CommandPath(), Code: relight.CodeUsage, Err: errors.New(given), Hint: "write `" + takes + "`; see `" + c.CommandPath() + " --help`"}
}

func flagError(c *cobra.Command, err error) error {
	e := &relight.Error{Op: c.CommandPath(), Code: relight.CodeUsage, Err: err, Hint: "see `" + c.CommandPath() + " --help`"}
	var unknown *pflag.NotExistError
	var bad *pflag.InvalidValueError
	switch {
	case errors.As(err, &unknown) && unknown.GetSpecifiedShortnames() == "":
		var names []string
		c.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
		if near := relight.Nearest(unknown.GetSpecifiedName(), names); near != "" {
			e.Hint = "did you mean --" + near + "? " + e.Hint
		}
	case errors.As(err, &bad):
		e.Err = fmt.Errorf("--%s: %q is not %s", bad.GetFlag().Name, bad.GetValue(), valueText(bad.GetFlag().Value.Type()))
	}
	return e
}

// valueText describes what a flag of pflag's type takes.
func valueText(kind string) string {
	switch kind {
	case "int", "int64":
		return "a whole number"
	case "bool":
		return "true or false"
	case "duration":
		return "a duration such as 500ms, 30s or 15m"
	default:
		return "a " + kind
	}
}
