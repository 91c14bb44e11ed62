package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/app"
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
		if err := s.header("journal"); err != nil {
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
			"An edit, a deletion, a new order, or a truncation before the last anchored head is found. Journals that only the repositories\n" +
			"still hold, of a host that was lost and of other hosts, are verified from there.",
		Example: "  relight journal verify"}
	c.RunE = func(c *cobra.Command, _ []string) error {
		reports, err := s.a.VerifyJournals(c.Context())
		if err != nil {
			return err
		}
		if err := s.header("journal-verify"); err != nil {
			return err
		}
		var errs []error
		for _, r := range reports {
			if err := s.showVerification(r); err != nil {
				return err
			}
			errs = append(errs, r.Err())
		}
		return errors.Join(errs...)
	}
	return c
}

func (s *session) showVerification(r app.JournalReport) error {
	if s.json {
		return s.print(r)
	}
	s.say("journal %.8s of host %s, %s: %d events, of which the first %d are anchored", r.Journal, r.Host, journalPlace(r), r.Events, r.Anchored)
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

func journalPlace(r app.JournalReport) string {
	if r.Repository == "" {
		return "here"
	}
	return "kept in " + r.Repository
}
