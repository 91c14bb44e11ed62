package cli

import (
	"crypto/rand"
	"time"

	"github.com/spf13/cobra"

	"github.com/toolboxai/relight/blob/conform"
)

func (s *session) blobCommands() *cobra.Command {
	c := &cobra.Command{Use: "check URL", Short: "ask a storage whether it keeps the promises that a repository needs", Args: cobra.ExactArgs(1),
		Long:    "Write, read, race and remove test objects below a fresh prefix of the storage, and report each answer. Nothing else is touched.",
		Example: "  relight blob check file:///backup/relight"}
	c.RunE = func(c *cobra.Command, args []string) error {
		storage, err := s.a.OpenStorage(args[0])
		if err != nil {
			return err
		}
		if err := s.header("blob-check"); err != nil {
			return err
		}
		begun := time.Now()
		return conform.Check(c.Context(), storage, conform.Options{Rand: rand.Reader}, func(name string, err error) {
			s.blobAnswer(name, err, time.Since(begun))
			begun = time.Now()
		})
	}
	return group("blob", "look at storage", c)
}

func (s *session) blobAnswer(name string, err error, took time.Duration) {
	verdict, detail := "passed", ""
	if err != nil {
		verdict, detail = "failed", err.Error()
	}
	if s.json {
		_ = s.print(map[string]any{"type": "check", "name": name, "verdict": verdict, "detail": detail, "seconds": took.Seconds()}) // a broken pipe ends the command anyway
		return
	}
	s.say("%-7s %6.2fs  %s %s", verdict, took.Seconds(), name, detail)
}
