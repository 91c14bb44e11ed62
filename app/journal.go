package app

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/estate"
	"github.com/toolboxai/relight/host"
	"github.com/toolboxai/relight/journal"
	"github.com/toolboxai/relight/repo"
	"github.com/toolboxai/relight/runbook"
	"github.com/toolboxai/relight/secret"
)

func openJournal(ctx context.Context, e *estate.Estate, o Options, known *secret.Redactor) (*journal.Journal, error) {
	dir := stateFile(e, "journal")
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, &relight.Error{Op: "open journal", Code: relight.CodeUsage, Err: err,
			Hint: "the state directory must be writable: run as root, or set `state:` in relight.yaml"}
	}
	signer, err := signingKey(filepath.Join(dir, "signing.key"))
	if err != nil {
		return nil, err
	}
	name, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	return journal.Open(ctx, filepath.Join(dir, "journal.db"), journal.Options{Host: name, Actor: o.Actor, Signer: signer, Now: o.Now, Alive: host.Alive, Scrub: known.Redact, Log: o.Log})
}

// signingKey reads the key that signs this host's journal, and makes it on first use.
func signingKey(path string) (ed25519.PrivateKey, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return newSigningKey(path)
	}
	if err != nil {
		return nil, fmt.Errorf("read the journal's signing key: %w", err)
	}
	seed, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(seed) != ed25519.SeedSize {
		return nil, &relight.Error{Op: "read the journal's signing key", Subject: path, Err: errors.New("it is no key"), Hint: "restore the file, or move the journal's directory away to begin a new one"}
	}
	return ed25519.NewKeyFromSeed(seed), nil
}

// newSigningKey is safe against two processes that make one at the same time: the first to link it into place wins, and both read it.
func newSigningKey(path string) (ed25519.PrivateKey, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the journal's signing key: %w", err)
	}
	mine := fmt.Sprintf("%s.%d", path, os.Getpid())
	if err := host.WriteFileDurable(mine, []byte(hex.EncodeToString(key.Seed())+"\n"), 0o600); err != nil {
		return nil, err
	}
	defer func() { _ = os.Remove(mine) }() // it is gone when the move succeeded
	if err := host.Move(mine, path); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("make the journal's signing key: %w", err)
	}
	return signingKey(path)
}

// runLog is the journal as the runbook engine sees it.
type runLog struct {
	j     *journal.Journal
	lease func() *journal.Lease // the one under which this process drives runs, or nil
}

func (l runLog) Append(ctx context.Context, run relight.RunID, after int64, events []relight.Event) ([]relight.Event, error) {
	x := journal.After(run, after)
	if held := l.lease(); held != nil {
		x = x.Under(held)
	}
	out, err := l.j.AppendBatch(ctx, events, x)
	if errors.Is(err, journal.ErrConflict) {
		return nil, fmt.Errorf("%w: %w", runbook.ErrStale, err)
	}
	return out, err
}

func (l runLog) Read(ctx context.Context, run relight.RunID, fn func(relight.Event) error) error {
	return l.j.Read(ctx, journal.Filter{Run: run}, fn)
}

// anchorRecord is a journal's signed head with the key that signed it, as a repository keeps it: the record itself is signed by the
// enrolled host, so the key need not be believed for its own sake.
type anchorRecord struct {
	Anchor journal.Anchor    `json:"anchor"`
	Public ed25519.PublicKey `json:"public"`
}

const anchorKind = "journal-anchor"

func anchorPrefix(hostName, journalID string) string {
	return fmt.Sprintf("journal/%s/%s/anchor/", hostName, journalID)
}

// anchor puts the journal's present head into a repository. Equal heads are kept once.
func anchor(ctx context.Context, j *journal.Journal, public ed25519.PublicKey, m *repo.Meta) error {
	a, err := j.Anchor(ctx)
	if err != nil {
		return err
	}
	prefix := anchorPrefix(a.Host, a.Journal)
	if _, err := m.Storage().Stat(ctx, prefix+fmt.Sprintf("%016d", a.Seq)); err == nil {
		return nil
	}
	return m.PutRecord(ctx, anchorKind, prefix+fmt.Sprintf("%016d", a.Seq), anchorRecord{Anchor: a, Public: public})
}

// Anchor puts the journal's head into every repository that can be reached; a repository that cannot is a warning, since a run must go on.
func (a *App) Anchor(ctx context.Context) error {
	e, err := a.Estate()
	if err != nil {
		return err
	}
	j, err := a.Journal(ctx)
	if err != nil {
		return err
	}
	key, err := signingKey(stateFile(e, "journal", "signing.key"))
	if err != nil {
		return err
	}
	public, _ := key.Public().(ed25519.PublicKey) // an Ed25519 key has an Ed25519 public key
	var errs []error
	for name := range e.Repositories {
		m, err := a.Repository(ctx, name)
		if err == nil {
			err = anchor(ctx, j, public, m)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("anchor the journal in %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// shipJournal keeps the journal's new events in a repository, so that they outlive this host.
func (a *App) shipJournal(ctx context.Context, m *repo.Meta) error {
	j, err := a.Journal(ctx)
	if err != nil {
		return err
	}
	head, err := j.Head(ctx)
	if err != nil {
		return err
	}
	prefix := fmt.Sprintf("journal/%s/%s/", j.Host(), j.ID())
	last, err := shippedUpTo(ctx, m, prefix)
	if err != nil || last >= head.Seq {
		return err
	}
	var b bytes.Buffer
	if err := j.Export(ctx, last+1, head.Seq, &b); err != nil {
		return err
	}
	return m.PutRecord(ctx, "journal", fmt.Sprintf("%s%016d-%016d", prefix, last+1, head.Seq), segmentRecord{Data: b.Bytes()})
}

type segmentRecord struct {
	Data []byte `json:"data"`
}

// JournalTrust gathers, from every repository, what this host's journal is verified against. Without any repository the key on this host is all there is, and
// the second result says so.
func (a *App) JournalTrust(ctx context.Context) (journal.Trust, []string, error) {
	j, err := a.Journal(ctx)
	if err != nil {
		return journal.Trust{}, nil, err
	}
	e, err := a.Estate()
	if err != nil {
		return journal.Trust{}, nil, err
	}
	var t journal.Trust
	var notes []string
	for name := range e.Repositories {
		if err := a.trustFrom(ctx, name, j, &t); err != nil {
			notes = append(notes, fmt.Sprintf("repository %s was not asked: %v", name, err))
		}
	}
	if len(t.Keys) > 0 {
		return t, notes, nil
	}
	key, err := signingKey(stateFile(e, "journal", "signing.key"))
	if err != nil {
		return t, notes, err
	}
	public, _ := key.Public().(ed25519.PublicKey) // as above
	t.Keys = []journal.Key{{Host: j.Host(), Public: public}}
	return t, append(notes, "no repository holds an anchor: the journal is verified against this host's own key only, which proves nothing against who holds this host"), nil
}

func (a *App) trustFrom(ctx context.Context, name string, j *journal.Journal, t *journal.Trust) error {
	m, err := a.Repository(ctx, name)
	if err != nil {
		return err
	}
	return m.Records(ctx, anchorKind, anchorPrefix(j.Host(), j.ID()), func(s repo.Signed) error {
		var r anchorRecord
		if err := s.Decode(&r); err != nil {
			return err
		}
		t.Anchors = append(t.Anchors, r.Anchor)
		for _, k := range t.Keys {
			if k.Public.Equal(r.Public) {
				return nil
			}
		}
		t.Keys = append(t.Keys, journal.Key{Host: r.Anchor.Host, Public: r.Public})
		return nil
	})
}
