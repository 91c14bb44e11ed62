package cli

import (
	"bufio"
	"errors"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/app"
	"github.com/toolboxai/relight/repo"
)

func (s *session) keyCommands() *cobra.Command {
	return group("key", "make recovery keys, and say who may open and who may write",
		s.keyGenerate(), s.keyList(), s.keyAdd(), s.keyRemove(), s.keyRotate(), s.keyEnrol(), s.keyRefresh(), s.keyRevoke())
}

func (s *session) keyGenerate() *cobra.Command {
	var pq bool
	c := &cobra.Command{Use: "generate FILE", Short: "make a recovery identity, to be kept offline", Args: cobra.ExactArgs(1), Example: "  relight key generate /media/usb/recovery.key"}
	c.Flags().BoolVar(&pq, "post-quantum", false, "make a hybrid key that also resists a quantum computer")
	c.RunE = func(_ *cobra.Command, args []string) error {
		recipient, err := app.GenerateIdentity(args[0], pq)
		if err != nil {
			return err
		}
		return s.result(struct {
			File      string `json:"file"`
			Recipient string `json:"recipient"`
		}{args[0], recipient})
	}
	return c
}

// recipientText takes a public key itself, or finds it in an identity file's comment or a recipient file.
func recipientText(arg string) (string, error) {
	if strings.HasPrefix(arg, "age1") {
		return arg, nil
	}
	f, err := os.Open(arg)
	if err != nil {
		return "", &relight.Error{Op: "read recipient", Subject: arg, Code: relight.CodeUsage, Err: errors.New("it is neither a public key nor a file that can be read"),
			Hint: "give age1… or age1pq1…, or a file that holds it"}
	}
	defer func() { _ = f.Close() }()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		for word := range strings.FieldsSeq(lines.Text()) {
			if strings.HasPrefix(word, "age1") {
				return word, nil
			}
		}
	}
	return "", &relight.Error{Op: "read recipient", Subject: arg, Code: relight.CodeUsage, Err: errors.New("the file holds no public key"),
		Hint: "`relight key generate` writes the public key into a comment"}
}

// freeCredential refuses to keep a credential nowhere, or over another.
func freeCredential(op, path string) error {
	if path == "" {
		return usageError(op, errors.New("no place for the credential"), "name one with --credential FILE")
	}
	if _, err := os.Lstat(path); err == nil {
		return &relight.Error{Op: op, Subject: path, Code: relight.CodeUsage, Err: os.ErrExist, Hint: "a credential is never overwritten: move the file away first, or name another with --credential FILE"}
	}
	return nil
}

// recoverySide makes a command that works on a repository opened with the recovery key.
func (s *session) recoverySide(use, short, example string, args cobra.PositionalArgs, do func(c *cobra.Command, m *repo.Meta, args []string) error) *cobra.Command {
	var p place
	c := &cobra.Command{Use: use, Short: short, Args: args, Example: "  " + example}
	p.flags(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		storage, err := p.storage(s.a)
		if err != nil {
			return err
		}
		m, err := s.a.RecoverySide(c.Context(), storage)
		if err != nil {
			return err
		}
		return errors.Join(do(c, m, args), m.Close())
	}
	return c
}

func (s *session) keyList() *cobra.Command {
	return s.recoverySide("list", "show recovery recipients and enrolled hosts", "relight key list --identity recovery.key", cobra.NoArgs,
		func(c *cobra.Command, m *repo.Meta, _ []string) error {
			info, err := app.Describe(c.Context(), m)
			if err != nil {
				return err
			}
			return s.result(info.Keys)
		})
}

func (s *session) keyAdd() *cobra.Command {
	return s.recoverySide("add RECIPIENT", "let one more recovery key open the repository, its past included", "relight key add age1… --identity recovery.key", cobra.ExactArgs(1),
		func(c *cobra.Command, m *repo.Meta, args []string) error {
			rs, err := parseRecipients(args)
			if err != nil {
				return err
			}
			if err := repo.AddRecipient(c.Context(), m, rs[0]); err != nil {
				return err
			}
			s.say("%s opens every epoch from now on", rs[0])
			return nil
		})
}

func (s *session) keyRemove() *cobra.Command {
	return s.recoverySide("remove RECIPIENT", "open a new epoch that a recovery key cannot open; old data stays readable to it", "relight key remove age1… --identity recovery.key", cobra.ExactArgs(1),
		func(c *cobra.Command, m *repo.Meta, args []string) error {
			rs, err := parseRecipients(args)
			if err != nil {
				return err
			}
			k, err := repo.RemoveRecipient(c.Context(), m, rs[0])
			if err != nil {
				return err
			}
			s.say("epoch %d is open without %s; what was written before stays readable to it", k.Epoch(), rs[0])
			s.say("refresh every host's credential: relight key refresh FILE --identity …")
			return nil
		})
}

func (s *session) keyRotate() *cobra.Command {
	c := s.recoverySide("rotate [CREDENTIAL...]", "open a new key epoch for the same recovery keys, and renew hosts' credentials",
		"relight key rotate --identity recovery.key\n  relight key rotate db1.json db2.json --identity recovery.key", cobra.ArbitraryArgs, s.rotate)
	c.Long = "Open a new epoch: what is written from then on is sealed to new keys, which the same recovery keys open; what was written before stays as it is and readable.\n" +
		"Each CREDENTIAL is renewed in place: it gets the new epoch and a new signing key, enrolled beside the host's former one. The former key goes on counting until\n" +
		"relight key revoke says otherwise. Hosts whose credentials are not given write in the old epoch until relight key refresh."
	return c
}

func (s *session) rotate(c *cobra.Command, m *repo.Meta, paths []string) error {
	held := make([]*repo.Credential, len(paths))
	for i, path := range paths { // all of them before anything is changed
		var err error
		if held[i], err = repo.ReadCredential(path); err != nil {
			return err
		}
		if err := m.Keyring().Refresh(held[i]); err != nil {
			return err
		}
	}
	k, err := repo.RotateKeys(c.Context(), m)
	if err != nil {
		return err
	}
	s.say("epoch %d is open for the same recovery keys; what was written before stays readable to them", k.Epoch())
	for i, path := range paths {
		made, err := repo.RenewCredential(c.Context(), m, k, held[i])
		if err != nil {
			return err
		}
		if err := made.Write(path); err != nil {
			return err
		}
		s.say("%s: %s, with a new signing key; it writes in epoch %d from now on", path, made, k.Epoch())
	}
	s.say("test the offline key: relight repo key-test; refresh the other hosts' credentials: relight key refresh FILE")
	return nil
}

func (s *session) keyEnrol() *cobra.Command {
	var credential string
	var prover bool
	c := s.recoverySide("enrol HOST", "let a host write, and make its credential", "relight key enrol db2 --credential db2.json --identity recovery.key", cobra.ExactArgs(1),
		func(c *cobra.Command, m *repo.Meta, args []string) error {
			role := repo.RoleWriter
			if err := freeCredential("key enrol", credential); err != nil {
				return err
			}
			if prover {
				role = repo.RoleProver
			}
			made, err := repo.EnrolHost(c.Context(), m, args[0], role)
			if err != nil {
				return err
			}
			if err := app.WriteCredential(made, credential); err != nil {
				return err
			}
			s.say("%s in %s: move it to the host, readable by root only", made, credential)
			return nil
		})
	c.Flags().StringVar(&credential, "credential", "", "file to write the credential to (required)")
	c.Flags().BoolVar(&prover, "prover", false, "the host may also read content, to prove restores")
	return c
}

func (s *session) keyRefresh() *cobra.Command {
	return s.recoverySide("refresh CREDENTIAL", "give a host's credential the newest key epoch", "relight key refresh db2.json --identity recovery.key", cobra.ExactArgs(1),
		func(_ *cobra.Command, m *repo.Meta, args []string) error {
			held, err := repo.ReadCredential(args[0])
			if err != nil {
				return err
			}
			if err := m.Keyring().Refresh(held); err != nil {
				return err
			}
			if err := held.Write(args[0]); err != nil {
				return err
			}
			s.say("%s writes in epoch %d from now on", args[0], m.Keyring().Epoch())
			return nil
		})
}

func (s *session) keyRevoke() *cobra.Command {
	var keep, why string
	c := s.recoverySide("revoke HOST", "refuse what a host signed, all of it or after a moment",
		"relight key revoke db1 --why 'host stolen' --identity recovery.key\n  relight key revoke db1 --keep 2026-01-02T03:04:05Z --why 'host stolen' --identity recovery.key", cobra.ExactArgs(1),
		func(c *cobra.Command, m *repo.Meta, args []string) error {
			var until time.Time // nothing is kept
			if keep != "" {
				t, err := s.parseTime(keep)
				if err != nil {
					return err
				}
				until = t
			}
			if err := repo.RevokeHost(c.Context(), m, args[0], until, why); err != nil {
				return err
			}
			return s.revoked(args[0], until)
		})
	c.Long = "Refuse what a host signed. Without --keep nothing of it counts any more, its snapshots and log included; with --keep, what the storage\n" +
		"itself received before that moment stays valid. Choose a moment well before the theft."
	c.Flags().StringVar(&keep, "keep", "", "go on trusting what the storage had received before this time (default: nothing)")
	c.Flags().StringVar(&why, "why", "", "the reason, kept with the record")
	return c
}

func (s *session) revoked(host string, until time.Time) error {
	if s.json {
		return s.print(struct {
			Host string    `json:"host"`
			Keep time.Time `json:"keep,omitzero"`
		}{host, until})
	}
	if until.IsZero() {
		s.say("nothing that %s signed counts any more", host)
		return nil
	}
	s.say("of what %s signed, only what the storage received before %s counts", host, timeText(until))
	return nil
}
