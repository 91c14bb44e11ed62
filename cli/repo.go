package cli

import (
	"crypto/rand"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/app"
	"github.com/toolboxai/relight/blob"
	"github.com/toolboxai/relight/repo"
)

func (s *session) repoCommands() *cobra.Command {
	return group("repo", "make, inspect and check a repository", s.repoInit(), s.repoInfo(), s.repoCheck(), s.repoRescueKit(), s.repoKeyTest())
}

// place is the repository that a command speaks of: one of the estate's, by name, or any, by URL.
type place struct{ name, url string }

func (p *place) flags(c *cobra.Command) {
	c.Flags().StringVar(&p.name, "repository", "", "repository of the estate (default: its only or first)")
	c.Flags().StringVar(&p.url, "repo", "", "URL of a repository, when there is no relight.yaml")
}

// resolve gives the URL, and the place of this host's credential where the estate knows one.
func (p *place) resolve(a *app.App) (url, credential string, err error) {
	if p.url != "" {
		return p.url, "", nil
	}
	return a.RepositoryURL(p.name)
}

func (p *place) storage(a *app.App) (blob.Storage, error) {
	url, _, err := p.resolve(a)
	if err != nil {
		return nil, err
	}
	return a.OpenStorage(url)
}

func (s *session) repoInit() *cobra.Command {
	var p place
	var recipients []string
	var host, credential string
	var interval time.Duration
	var single bool
	c := &cobra.Command{Use: "init", Short: "make a repository, and this host's credential for it", Args: cobra.NoArgs,
		Long: "Make a repository. Its recovery recipients are the public halves of keys that are kept offline: nothing that this host\n" +
			"keeps can read what it wrote, unless --single-host is given.",
		Example: "  relight key generate /media/usb/recovery.key\n  relight repo init --recipient age1…\n  relight repo init --repo file:///backup/relight --recipient age1… --credential writer.json",
	}
	p.flags(c)
	c.Flags().StringArrayVar(&recipients, "recipient", nil, "public `KEY` of a recovery identity, or a file that holds it; several may be given")
	c.Flags().StringVar(&host, "host", hostname(), "name of this host in signatures")
	c.Flags().StringVar(&credential, "credential", "", "where to keep this host's credential (default: where relight.yaml says)")
	c.Flags().DurationVar(&interval, "live-interval", time.Second, "how often the live write-ahead log is made durable")
	c.Flags().BoolVar(&single, "single-host", false, "this host also holds what reads the data: weaker, and shown by the command status")
	c.RunE = func(c *cobra.Command, _ []string) error {
		url, preset, err := p.resolve(s.a)
		if err != nil {
			return err
		}
		if credential == "" {
			credential = preset
		}
		if err := freeCredential("repo init", credential); err != nil {
			return err
		}
		rs, err := parseRecipients(recipients)
		if err != nil {
			return err
		}
		storage, err := s.a.CreateStorage(url)
		if err != nil {
			return err
		}
		made, err := repo.Init(c.Context(), storage, repo.InitOptions{Recipients: rs, Host: host, LiveInterval: interval, SingleHost: single, Now: time.Now, Rand: rand.Reader})
		if err != nil {
			return err
		}
		if err := app.WriteCredential(made.Credential, credential); err != nil {
			return err
		}
		return s.result(initResult{URL: storage.String(), ID: made.Descriptor.ID, Fingerprint: made.Fingerprint, Host: host, Credential: credential, SingleHost: single,
			Next: "prove that the offline key opens it: relight repo key-test --identity FILE"})
	}
	return c
}

type initResult struct {
	URL         string `json:"url"`
	ID          string `json:"id"`
	Fingerprint string `json:"fingerprint"`
	Host        string `json:"host"`
	Credential  string `json:"credential"`
	SingleHost  bool   `json:"single_host"`
	Next        string `json:"next"`
}

func hostname() string {
	name, err := os.Hostname()
	if err != nil || name == "" {
		return "localhost"
	}
	return name
}

// parseRecipients reads public keys; an argument that names a file stands for the file's contents.
func parseRecipients(args []string) ([]repo.Recipient, error) {
	var out []repo.Recipient
	for _, arg := range args {
		text, err := recipientText(arg)
		if err != nil {
			return nil, err
		}
		r, err := repo.ParseRecipient(text)
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}

func (s *session) repoInfo() *cobra.Command {
	var p place
	c := &cobra.Command{Use: "info", Short: "show a repository's identity, keys, hosts and stores", Args: cobra.NoArgs, Example: "  relight repo info"}
	p.flags(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		info, err := s.a.RepositoryInfo(c.Context(), p.name, p.url)
		if err != nil {
			return err
		}
		return s.result(info)
	}
	return c
}

func (s *session) repoCheck() *cobra.Command {
	var p place
	c := &cobra.Command{Use: "check", Short: "read a repository back and name what is damaged", Args: cobra.NoArgs,
		Long: "Check every object of a repository. With --identity the contents are decrypted and every chunk is compared with its id;\n" +
			"without it, digests, signatures and references are checked, and that is said.",
		Example: "  relight repo check --identity /media/usb/recovery.key"}
	p.flags(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		if err := s.header("repo-check"); err != nil {
			return err
		}
		report, err := s.a.CheckRepository(c.Context(), p.name, p.url, s.finding)
		if err != nil {
			return err
		}
		if err := s.result(report); err != nil {
			return err
		}
		if report.Errors > 0 {
			return &relight.Error{Op: "check", Subject: "repository", Code: relight.CodeVerification, Err: fmt.Errorf("%d errors", report.Errors),
				Hint: "each finding names what it touches and what can still be recovered"}
		}
		return nil
	}
	return c
}

func (s *session) finding(f repo.Finding) {
	if s.json {
		_ = s.print(f) // a broken pipe ends the command anyway
		return
	}
	s.say("%s: %s: %s", f.Severity, f.Object, f.What)
	if f.Remains != "" {
		s.say("  still recoverable: %s", f.Remains)
	}
}

func (s *session) repoRescueKit() *cobra.Command {
	var p place
	c := &cobra.Command{Use: "rescue-kit", Short: "print what must be kept offline to recover from nothing", Args: cobra.NoArgs, Example: "  relight repo rescue-kit > rescue-kit.txt"}
	p.flags(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		var kit strings.Builder
		if err := s.a.RescueKit(c.Context(), p.name, p.url, &kit); err != nil {
			return err
		}
		return s.text("rescue-kit", kit.String())
	}
	return c
}

func (s *session) repoKeyTest() *cobra.Command {
	var p place
	c := &cobra.Command{Use: "key-test", Short: "prove that an offline recovery key opens the repository", Args: cobra.NoArgs,
		Long:    "Open every key epoch with the identity and record that it worked. Protection warns until this was done.",
		Example: "  relight repo key-test --identity /media/usb/recovery.key"}
	p.flags(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		storage, err := p.storage(s.a)
		if err != nil {
			return err
		}
		tested, err := s.a.KeyTest(c.Context(), storage)
		if err != nil {
			return err
		}
		return s.result(tested)
	}
	return c
}
