package cli

import (
	"github.com/spf13/cobra"

	"github.com/toolboxai/relight/runbook"
)

func (s *session) runbookApprove() *cobra.Command {
	var decision, signature string
	var text bool
	c := &cobra.Command{Use: "approve RUNBOOK", Short: "approve a runbook as it is now for real runs, with an SSH key's signature", Args: cobra.ExactArgs(1), ValidArgsFunction: s.completeRunbook,
		Long: "Approve a runbook, by name or file, as it is now: real runs execute no other version of it. The decision goes into the journal, and beside relight.yaml\n" +
			"into approvals.json, which is kept in every repository. Built-in runbooks are approved by the release that they come with.",
		Example: "  relight runbook approve failover\n" +
			"  relight runbook approve failover --text | ssh-keygen -Y sign -n relight -f ~/.ssh/id_ed25519 > failover.sig\n" +
			"  relight runbook approve failover --signature failover.sig"}
	c.Flags().StringVar(&decision, "decision", runbook.Approve, "approve or refuse; refuse takes an approval back")
	c.Flags().StringVar(&signature, "signature", "", "file made by ssh-keygen -Y sign -n relight (- for stdin); without one the approval is only asserted")
	c.Flags().BoolVar(&text, "text", false, "print what is to be signed, and record nothing")
	c.RunE = func(c *cobra.Command, args []string) error {
		rb, err := s.a.Runbook(args[0])
		if err != nil {
			return err
		}
		if text {
			return s.text("approval", string(runbook.ApprovalText("", rb.Hash, "", decision)))
		}
		signed, err := readSignature(signature, s.In)
		if err != nil {
			return err
		}
		d, err := s.a.DecideRunbook(c.Context(), rb, runbook.Answer{Actor: s.actor, Decision: decision, Signature: signed})
		if err != nil {
			return err
		}
		return s.result(d)
	}
	return c
}
