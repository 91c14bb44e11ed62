package cli

import (
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/toolboxai/relight/demo"
)

func (s *session) demoCommand() *cobra.Command {
	var o demo.Options
	var seconds int
	var size int64
	c := &cobra.Command{Use: "demo", Short: "watch a real PostgreSQL be lost, recovered and proven", Args: cobra.NoArgs,
		Long: "Make a scratch PostgreSQL with live traffic in a directory of its own, protect it, strike it with a real disaster, recover it by the built-in\n" +
			"runbook, and prove what came back. Nothing else on this machine is touched, and nothing is left unless --keep is given.\n" +
			"Exit code 3 says that an objective was missed, or that more was lost than what was on its way into the repository; 6 that what came back does not verify.",
		Example: "  relight demo\n  relight demo --scenario infrastructure-loss --seconds 20 --keep"}
	c.Flags().StringVar(&o.Scenario, "scenario", demo.Corruption, "the disaster: "+demo.Corruption+" or "+demo.Infrastructure)
	complete(c, "scenario", cobra.FixedCompletions([]string{demo.Corruption, demo.Infrastructure}, cobra.ShellCompDirectiveNoFileComp))
	c.Flags().IntVar(&seconds, "seconds", 10, "how long the workload runs before the disaster")
	c.Flags().Int64Var(&size, "megabytes", 300, "how much data to make")
	c.Flags().StringVar(&o.Dir, "directory", "", "where to work: an empty directory, which stays, or one that is not there (default: a new one under the temporary directory)")
	c.Flags().BoolVar(&o.Keep, "keep", false, "leave everything, and print commands to look around")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if seconds < 1 || size < 1 {
			return usageError("demo", errMissing("a time and a size of at least 1"), "for example --seconds 10 --megabytes 300")
		}
		o.Traffic, o.Size = time.Duration(seconds)*time.Second, size<<20
		executable, err := os.Executable()
		if err != nil {
			return fmt.Errorf("demo: find relight itself: %w", err)
		}
		o.Executable, o.Program = executable, s.program
		if err := s.header("demo"); err != nil {
			return err
		}
		res, err := demo.Run(c.Context(), o, demo.Deps{Host: s.a.Host(), Report: &narrator{s: s, begun: time.Now()}, Now: time.Now})
		if res.Type == "" {
			return err
		}
		if serr := s.demoResult(res); serr != nil {
			return serr
		}
		return err
	}
	return c
}

// narrator tells a demonstration.
type narrator struct {
	s     *session
	begun time.Time
}

func (n *narrator) clock() string { return fmt.Sprintf("%6.1fs", time.Since(n.begun).Seconds()) }

func (n *narrator) Stage(name string) func(string) {
	begun := time.Now()
	n.s.say("\n%s  ▸ %s", n.clock(), name)
	return func(detail string) {
		took := time.Since(begun).Seconds()
		if n.s.json {
			_ = n.s.print(map[string]any{"type": "stage", "name": name, "seconds": took, "detail": detail}) // a broken pipe ends the command anyway
			return
		}
		n.s.say("%s    %.1f s  %s", n.clock(), took, detail)
	}
}

func (n *narrator) Command(argv []string) {
	if n.s.json {
		_ = n.s.print(map[string]any{"type": "command", "argv": argv}) // as above
		return
	}
	n.s.say("         $ %s", strings.Join(quoted(argv), " "))
}

// plain is what every shell takes for itself.
var plain = regexp.MustCompile(`^[\w@%+=:,./-]+$`)

// quoted writes words so that a shell reads them as they are.
func quoted(argv []string) []string {
	out := make([]string, len(argv))
	for i, a := range argv {
		out[i] = a
		if !plain.MatchString(a) {
			out[i] = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
	}
	return out
}

func (n *narrator) Note(format string, args ...any) {
	if n.s.json {
		_ = n.s.print(map[string]any{"type": "note", "text": fmt.Sprintf(format, args...)}) // as above
		return
	}
	n.s.say("         "+format, args...)
}

func (n *narrator) Output() io.Writer {
	if n.s.verbose {
		return n.s.Err
	}
	return io.Discard
}

func (s *session) demoResult(r demo.Result) error {
	if s.json {
		return s.print(r)
	}
	s.say("\n%s", strings.Repeat("─", 72))
	s.say("scenario           %s", r.Scenario)
	s.say("acknowledged       %d commits, kept in a ledger outside the database", r.Acknowledged)
	s.say("recovered          %d", r.Recovered)
	s.say("lost               %d", r.Lost)
	s.say("RPO                %.2f s   (objective %s)", r.RPO, time.Duration(r.RPOObjective)*time.Second)
	s.say("RTO                %.1f s   (objective %s)", r.RTO, time.Duration(r.RTOObjective)*time.Second)
	passed, skipped := 0, 0
	for _, c := range r.Checks {
		switch c.Verdict {
		case "passed":
			passed++
		case "skipped":
			skipped++
		}
	}
	s.say("verified           %s   (%d checks passed, %d skipped)", yesNo(r.Verified), passed, skipped)
	s.say("protected again    %s", yesNo(r.ProtectedAgain))
	for _, name := range []string{"detected", "declared", "started", "recovered", "verified", "re-protected"} {
		if t, ok := r.Clocks[name]; ok {
			s.say("  %-14s   %s", name, t.UTC().Format("15:04:05.000Z"))
		}
	}
	if r.Directory == "" {
		s.say("left behind        nothing; --keep leaves everything, the secured evidence too")
		return nil
	}
	s.say("left behind        %s", r.Directory)
	for _, e := range r.Evidence {
		s.say("evidence           %s", e)
	}
	return nil
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "NO"
}
