package cli

import "github.com/spf13/cobra"

// guardCommand is what `relight serve` starts beside itself where commits wait for it and are to be released when it dies.
func (s *session) guardCommand() *cobra.Command {
	var store string
	c := &cobra.Command{Use: "guard", Short: "release commits that wait for a receiver which does not answer", Args: cobra.NoArgs, Hidden: true,
		RunE: func(c *cobra.Command, _ []string) error { return s.a.Guard(c.Context(), store) }}
	c.Flags().StringVar(&store, "store", "", "the store; the only one when not given")
	return c
}
