package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/journal"
)

func (s *session) journalCommands() *cobra.Command {
	return group("journal", "read and verify the record of everything that was done", s.journalShow(), s.journalVerify())
}

func (s *session) journalShow() *cobra.Command {
	var run string
	var kinds []string
	c := &cobra.Command{Use: "show", Short: "print the journal's events", Args: cobra.NoArgs, Example: "  relight journal show --run r-20251002-1430"}
	c.Flags().StringVar(&run, "run", "", "only this run")
	c.Flags().StringSliceVar(&kinds, "kind", nil, "only these kinds of events")
	c.RunE = func(c *cobra.Command, _ []string) error {
		j, err := s.a.Journal(c.Context())
		if err != nil {
			return err
		}
		return j.Read(c.Context(), journal.Filter{Run: relight.RunID(run), Kinds: kinds}, func(e relight.Event) error {
			if s.json {
				return s.print(e)
			}
			s.say("%6d  %s  %-10s %-28s %s", e.Seq, timeText(e.At), e.Actor, e.Kind, e.Step)
			return nil
		})
	}
	return c
}

func (s *session) journalVerify() *cobra.Command {
	c := &cobra.Command{Use: "verify", Short: "prove that nothing in the journal was changed, dropped or reordered", Args: cobra.NoArgs,
		Long: "Recompute the journal's hash chain, check every signature, and hold it against the heads that were anchored in the repositories.\n" +
			"An edit, a deletion, a new order, or a truncation before the last anchored head is found.",
		Example: "  relight journal verify"}
	c.RunE = func(c *cobra.Command, _ []string) error {
		j, err := s.a.Journal(c.Context())
		if err != nil {
			return err
		}
		trust, notes, err := s.a.JournalTrust(c.Context())
		if err != nil {
			return err
		}
		report, err := j.Verify(c.Context(), trust)
		if err != nil {
			return err
		}
		report.Notes = append(notes, report.Notes...)
		if err := s.showVerification(report); err != nil {
			return err
		}
		return report.Err()
	}
	return c
}

func (s *session) showVerification(r journal.Report) error {
	if s.json {
		return s.print(r)
	}
	s.say("%d events of host %s, the first %d anchored elsewhere", r.Events, r.Host, r.Anchored)
	for _, f := range r.Findings {
		s.say("event %d: %s", f.Seq, f.Detail)
	}
	for _, n := range r.Notes {
		fmt.Fprintf(s.Err, "note: %s\n", n)
	}
	if r.OK() {
		s.say("verified")
	}
	return nil
}
