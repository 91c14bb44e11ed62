package cli

import (
	"runtime/debug"

	"github.com/spf13/cobra"
)

// addCommands joins every command: relight's own first, then one for each action.
func (s *session) addCommands(root *cobra.Command) {
	root.AddCommand(s.demoCommand(), s.serveCommand(), s.statusCommand(), s.recoverCommand(), s.runbookCommands(), s.runCommands(), s.repoCommands(), s.keyCommands(),
		s.blobCommands(), s.journalCommands(), s.configCommands(), s.walGetCommand(), s.versionCommand())
	actions, err := s.declared()
	if err != nil { // two actions of one name: a mistake of ours that every test sees
		root.RunE = func(*cobra.Command, []string) error { return err }
		return
	}
	s.actionCommands(root, actions)
}

func (s *session) versionCommand() *cobra.Command {
	return &cobra.Command{Use: "version", Short: "print the version", Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error {
		version, revision := "unknown", ""
		if info, ok := debug.ReadBuildInfo(); ok {
			version = info.Main.Version
			for _, setting := range info.Settings {
				if setting.Key == "vcs.revision" {
					revision = setting.Value
				}
			}
		}
		if s.json {
			return s.print(map[string]string{"version": version, "revision": revision})
		}
		s.say("relight %s %s", version, revision)
		return nil
	}}
}
