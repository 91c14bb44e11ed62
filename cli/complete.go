package cli

import (
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"github.com/toolboxai/relight/action"
	"github.com/toolboxai/relight/estate"
)

// completeFields offers an input's few values, and the estate's names for what is called after one of its things.
func (s *session) completeFields(c *cobra.Command, fields []action.Field) {
	for _, f := range fields {
		if len(f.Enum) > 0 {
			complete(c, f.Flag(), cobra.FixedCompletions(f.Enum, cobra.ShellCompDirectiveNoFileComp))
		} else if names := namesOf(f.Name); names != nil {
			complete(c, f.Flag(), s.completeNames(names))
		}
	}
}

func complete(c *cobra.Command, flag string, values cobra.CompletionFunc) {
	_ = c.RegisterFlagCompletionFunc(flag, values) // it fails for flags that are not there, or a second time
}

// namesOf tells which names of an estate a flag takes; nil: none.
func namesOf(flag string) func(*estate.Estate) []string {
	switch flag {
	case "store", "stores":
		return func(e *estate.Estate) []string { return slices.Sorted(maps.Keys(e.Stores)) }
	case "repository":
		return func(e *estate.Estate) []string { return slices.Sorted(maps.Keys(e.Repositories)) }
	case "service":
		return func(e *estate.Estate) []string { return slices.Sorted(maps.Keys(e.Services)) }
	default:
		return nil
	}
}

func (s *session) completeNames(names func(*estate.Estate) []string) cobra.CompletionFunc {
	return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		s.start()
		e, err := s.a.Estate()
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		return names(e), cobra.ShellCompDirectiveNoFileComp
	}
}
