package app

import (
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
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the journal's signing key: %w", err)
	}
	mine := fmt.Sprintf("%s.%x", path, public[:8]) // nobody else's name
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
