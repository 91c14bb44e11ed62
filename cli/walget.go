package cli

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/toolboxai/relight/store/postgres"
)

// walGetCommand is what a recovering PostgreSQL runs for each file of its log. It has exit codes of its own: 0 fetched, 1 proven absent,
// 126 and above for everything else, which makes the server stop instead of ending recovery early.
func (s *session) walGetCommand() *cobra.Command {
	return &cobra.Command{Use: "wal-get SOCKET NAME DESTINATION", Short: "fetch write-ahead log for a recovering server (its restore_command)", Args: cobra.ArbitraryArgs, Hidden: true,
		DisableFlagParsing: true,                              // a wrong call must not end with the exit code of wrong calls: the server takes it for absence
		PersistentPreRun:   func(*cobra.Command, []string) {}, // nothing of the estate is needed, and none must be opened
		RunE: func(c *cobra.Command, args []string) error {
			if slices.Contains(args, "--help") {
				return c.Help()
			}
			if len(args) != 3 {
				fmt.Fprintf(s.Err, "error: wal-get takes a socket, a file's name and a destination, not %d arguments\nhint: relight writes the restore_command of a recovering server; restore again\n", len(args))
				return exit{postgres.WALGetFailed}
			}
			code, err := postgres.WALGet(c.Context(), args[0], args[1], args[2])
			if err != nil {
				fmt.Fprintf(s.Err, "error: fetch %s: %v\n", args[1], err)
			}
			if code == 0 {
				return nil
			}
			return exit{code}
		}}
}
