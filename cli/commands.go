package cli

import (
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
)

// addCommands joins every command: relight's own first, then one for each action.
func (s *session) addCommands(root *cobra.Command) {
	root.AddCommand(s.demoCommand(), s.serveCommand(), s.statusCommand(), s.recoverCommand(), s.runbookCommands(), s.runCommands(), s.repoCommands(), s.keyCommands(),
		s.blobCommands(), s.journalCommands(), s.configCommands(), s.walGetCommand(), s.guardCommand(), s.versionCommand())
	actions, err := s.declared()
	if err != nil { // two actions of one name: a mistake of ours that every test sees
		root.RunE = func(*cobra.Command, []string) error { return err }
		return
	}
	s.actionCommands(root, actions)
}

// completion shapes the commands that cobra makes like ours.
func completion(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	root.InitDefaultHelpCmd()
	examples := map[string]string{"bash": "source <(relight completion bash)", "zsh": "relight completion zsh > \"${fpath[1]}/_relight\"",
		"fish": "relight completion fish | source", "powershell": "relight completion powershell | Out-String | Invoke-Expression"}
	if c := find(root, "completion"); c != nil {
		c.Short = "print a script that completes relight's commands in a shell"
		c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
		c.Example = "  " + examples["bash"]
		for _, shell := range c.Commands() {
			shell.Short, shell.Example = "print the completion script for "+shell.Name(), "  "+examples[shell.Name()]
		}
	}
	if c := find(root, "help"); c != nil {
		c.Short, c.Example = "explain a command", "  relight help run start"
		c.RunE = help
	}
}

func help(c *cobra.Command, args []string) error {
	about, rest, err := c.Root().Find(args)
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		return noSuchCommand(about, rest)
	}
	return about.Help()
}

// version is set by the build (-ldflags -X); otherwise the build information says.
var version string

func (s *session) versionCommand() *cobra.Command {
	return &cobra.Command{Use: "version", Short: "print the version", Args: cobra.NoArgs, Example: "  relight version --json", RunE: func(*cobra.Command, []string) error {
		v := versionOf(debug.ReadBuildInfo())
		if s.json {
			return s.print(v)
		}
		s.say("%s", strings.TrimSpace("relight "+v.Version+" "+v.Revision))
		return nil
	}}
}

type versionInfo struct {
	Type     string `json:"type"` // "version"
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Go       string `json:"go"`
}

func versionOf(info *debug.BuildInfo, ok bool) versionInfo {
	v := versionInfo{Type: "version", Version: version, Go: runtime.Version()}
	if ok {
		for _, setting := range info.Settings {
			if setting.Key == "vcs.revision" {
				v.Revision = setting.Value
			}
		}
		if v.Version == "" {
			v.Version = info.Main.Version
		}
	}
	if v.Version == "" {
		v.Version = "unknown"
	}
	return v
}
