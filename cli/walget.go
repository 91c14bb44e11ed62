package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/toolboxai/relight/store/postgres"
)

// walGetCommand is what a recovering PostgreSQL runs for each file of its log. It has exit codes of its own: 0 fetched, 1 proven absent,
// 126 and above for everything else, which makes the server stop instead of ending recovery early.
func (s *session) walGetCommand() *cobra.Command {
	return &cobra.Command{Use: "wal-get SOCKET NAME DESTINATION", Short: "fetch write-ahead log for a recovering server (its restore_command)", Args: cobra.ExactArgs(3), Hidden: true,
		PersistentPreRun: func(*cobra.Command, []string) {}, // nothing of the estate is needed, and none must be opened
		RunE: func(c *cobra.Command, args []string) error {
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
