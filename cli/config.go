package cli

import (
	"github.com/spf13/cobra"

	"github.com/toolboxai/relight/estate"
)

func (s *session) configCommands() *cobra.Command {
	show := &cobra.Command{Use: "show", Short: "print the estate as relight understands it, defaults filled in", Args: cobra.NoArgs, Example: "  relight config show",
		RunE: func(*cobra.Command, []string) error {
			e, err := s.a.Estate()
			if err != nil {
				return err
			}
			return s.result(e.View())
		}}
	lint := &cobra.Command{Use: "lint", Short: "check relight.yaml", Args: cobra.NoArgs, Example: "  relight config lint --config relight.yaml",
		RunE: func(*cobra.Command, []string) error {
			e, err := s.a.Estate()
			if err != nil {
				return err
			}
			if s.json {
				return s.print(map[string]any{"type": "lint", "file": e.File, "problems": 0})
			}
			s.say("%s: no problem", e.File)
			return nil
		}}
	example := &cobra.Command{Use: "example", Short: "print a relight.yaml with every key, to adapt", Args: cobra.NoArgs, Example: "  relight config example > relight.yaml",
		RunE: func(*cobra.Command, []string) error { return s.text("example", estate.Example) }}
	return group("config", "read relight.yaml", show, lint, example)
}
