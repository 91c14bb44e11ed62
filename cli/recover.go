package cli

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/toolboxai/relight/app"
)

func (s *session) recoverCommand() *cobra.Command {
	var f runFlags
	var o app.Bare
	var spaces []string
	c := &cobra.Command{Use: "recover", Short: "recover an estate on a bare machine from a repository and its recovery key", Args: cobra.NoArgs,
		Long: "Recover from nothing but a repository, its recovery key and this binary: the estate's configuration is brought back, this machine is enrolled,\n" +
			"and the runbook infrastructure-loss is carried out. Interrupted, it can be repeated; the run itself goes on with `relight run resume`.",
		Example: "  relight recover --repo file:///mnt/backup/relight --identity /media/usb/recovery.key"}
	c.Flags().StringVar(&o.URL, "repo", "", "URL of the repository (required)")
	c.Flags().StringVar(&o.Directory, "directory", "", "where relight.yaml is to lie (default: where it lay)")
	c.Flags().StringVar(&o.Host, "host", hostname(), "name of this machine in signatures")
	c.Flags().StringArrayVar(&spaces, "tablespace", nil, "`OLD=NEW`: where a tablespace goes, by its location, name or oid in the source; several may be given, or parted by commas (\\, is a comma of a path). Others go where they were")
	f.bind(c, s)
	c.RunE = func(c *cobra.Command, _ []string) error {
		if o.URL == "" {
			return usageError("recover", errMissing("--repo"), "give the repository's URL; the rescue kit names it")
		}
		o.Force = f.force
		e, err := s.a.FromBare(c.Context(), o)
		if err != nil {
			return err
		}
		if !s.json {
			s.say("estate %s is back in %s", e.Name, e.Directory)
		}
		f.inputs = append([]string{"directory=" + o.Directory}, f.inputs...)
		if len(spaces) > 0 { // an estate's own runbook of that name may have no such input
			f.inputs = append(f.inputs, "tablespaces="+strings.Join(spaces, ","))
		}
		rb, err := s.a.Runbook("infrastructure-loss")
		if err != nil {
			return err
		}
		return s.begin(c.Context(), rb, rb.Name, f)
	}
	return c
}

type errMissing string

func (e errMissing) Error() string { return string(e) + " is missing" }
