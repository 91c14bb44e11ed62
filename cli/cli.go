// Package cli is relight's command line: one file a command, thin over app.
//
// It promises that stdout carries what was asked for and nothing else, that every error ends with "error:" and, where there is a way on, "hint:",
// that exit codes are those of relight.Code, and that --json is line-delimited and only ever grows.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/user"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/app"
)

// Streams are the process's standard streams.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// session is what every command shares: streams, global flags, and the app they configure.
type session struct {
	Streams
	program    string // what the user calls relight
	config     string
	identities []string
	confirm    string
	unguarded  string // --without-lease
	answers    []string
	actor      string
	json       bool
	noInput    bool
	verbose    bool
	a          *app.App
}

// Main runs one command line, which begins with the program as the user calls it, and gives its exit code.
func Main(ctx context.Context, argv []string, streams Streams) int {
	s := &session{Streams: streams, program: argv[0]}
	args := argv[1:]
	root := s.commandFor(args)
	root.SetArgs(args)
	root.SetIn(streams.In)
	root.SetOut(streams.Out)
	root.SetErr(streams.Err)
	err := root.ExecuteContext(ctx)
	if s.a != nil {
		if cerr := s.a.Close(); err == nil {
			err = cerr
		}
	}
	if err == nil {
		return 0
	}
	return s.report(err)
}

// commandFor is relight with all commands, or with wal-get alone: a recovering server starts it for each segment and waits, and need not wait for the others.
func (s *session) commandFor(args []string) *cobra.Command {
	if len(args) == 0 || args[0] != "wal-get" {
		return s.root()
	}
	root := s.bare()
	root.AddCommand(s.walGetCommand())
	return root
}

// exit is an error that was already shown: only its code is left to tell.
type exit struct{ code int }

func (e exit) Error() string { return fmt.Sprintf("exit %d", e.code) }

func (s *session) report(err error) int {
	var shown exit
	if errors.As(err, &shown) {
		return shown.code
	}
	code := relight.CodeOf(err)
	if s.json {
		_ = s.print(map[string]any{"type": "error", "error": err.Error(), "hint": hintOf(err), "code": code, "exit": code.Exit()})
	}
	fmt.Fprintf(s.Err, "error: %v\n", err)
	if hint := hintOf(err); hint != "" {
		fmt.Fprintf(s.Err, "hint: %s\n", hint)
	}
	return code.Exit()
}

// hintOf gives the error's own hint, or what helps wherever the system refuses.
func hintOf(err error) string {
	var at *fs.PathError
	if hint := relight.HintOf(err); hint != "" || !errors.Is(err, fs.ErrPermission) {
		return hint
	}
	if errors.As(err, &at) {
		return fmt.Sprintf("give uid %d access to %s, or run relight as root or as its owner (ls -ld %[2]s)", os.Getuid(), at.Path)
	}
	return "run relight as root, or as the user that it was set up for"
}

func (s *session) root() *cobra.Command {
	root := s.bare()
	s.addCommands(root)
	completion(root)
	strict(root)
	return root
}

// bare is relight without its commands.
func (s *session) bare() *cobra.Command {
	root := &cobra.Command{
		Use:           "relight",
		Short:         "protect an estate, rehearse its recovery, and carry it out",
		Long:          longHelp,
		Example:       "  relight demo\n  relight status --json",
		SilenceErrors: true, SilenceUsage: true,
		PersistentPreRun: func(*cobra.Command, []string) { s.start() },
		RunE:             func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	f := root.PersistentFlags()
	f.StringVar(&s.config, "config", "", "relight.yaml (default $RELIGHT_CONFIG, ./relight.yaml, /etc/relight/relight.yaml)")
	f.StringArrayVar(&s.identities, "identity", nil, "`FILE` with a recovery identity, to read content")
	f.StringVar(&s.confirm, "confirm", os.Getenv("RELIGHT_CONFIRM"), "name of the target that may be overwritten, instead of typing it")
	f.StringVar(&s.actor, "actor", "", "who is at the keyboard, for the journal (default: the login name)")
	f.BoolVar(&s.json, "json", false, "line-delimited JSON on stdout")
	f.BoolVar(&s.noInput, "no-input", false, "never ask; end with exit code 4 where a person is needed")
	f.BoolVarP(&s.verbose, "verbose", "v", false, "log details to stderr")
	return root
}

const longHelp = `relight is an executable disaster-recovery runbook: it protects an estate continuously,
rehearses its recovery, carries recovery out step by step, and proves what came back.

Start here:
  relight demo                        watch a database be lost and recovered
  relight repo init --help            make a repository and its recovery key
  relight serve                       protect the estate of relight.yaml
  relight runbook list                what can be done on the bad day
  relight run start database-corruption

Exit codes: 0 done, 1 failed or nothing found, 2 usage or configuration, 3 recovered but an objective
was missed, 4 waiting for a person, 5 aborted, 6 verification failed, 7 the plan changed since approval,
8 a lease is held by another.`

// start makes the app once the flags are known.
func (s *session) start() {
	level := slog.LevelWarn
	if s.verbose {
		level = slog.LevelDebug
	}
	if s.actor == "" {
		s.actor = loginName()
	}
	executable, err := os.Executable()
	if err != nil {
		executable = "relight" // then it must be in the path
	}
	s.a = app.New(app.Options{Config: s.config, Identities: s.identities, Actor: s.actor, Executable: executable, WithoutLease: s.unguarded,
		Log: slog.New(slog.NewTextHandler(s.Err, &slog.HandlerOptions{Level: level})), Now: time.Now})
}

func loginName() string {
	for _, name := range []string{os.Getenv("SUDO_USER"), os.Getenv("USER")} {
		if name != "" {
			return name
		}
	}
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return "unknown"
}

// interactive says whether a person can be asked.
func (s *session) interactive() bool {
	in, ok := s.In.(*os.File)
	return ok && !s.noInput && term.IsTerminal(int(in.Fd()))
}

// group is a command that only holds others.
func group(use, short string, children ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error { return c.Help() }}
	c.AddCommand(children...)
	return c
}
