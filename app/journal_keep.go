package app

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/toolboxai/relight/estate"
	"github.com/toolboxai/relight/journal"
	"github.com/toolboxai/relight/repo"
)

// shipAtOnce bounds what is shipped as one object, in bytes.
const shipAtOnce = 16 << 20

// KeepJournal ships and anchors the journal in every repository. The error names those that could not be reached: a run must go on without them.
func (a *App) KeepJournal(ctx context.Context) error {
	e, err := a.Estate()
	if err != nil {
		return err
	}
	var errs []error
	for name := range e.Repositories {
		m, err := a.Repository(ctx, name)
		if err == nil {
			err = a.keepJournalIn(ctx, m)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("keep the journal in %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

func (a *App) keepJournalIn(ctx context.Context, m *repo.Meta) error {
	e, err := a.Estate()
	if err != nil {
		return err
	}
	j, err := a.Journal(ctx)
	if err != nil {
		return err
	}
	public, err := publicKey(e)
	if err != nil {
		return err
	}
	return keepJournal(ctx, j, public, m)
}

// publicKey is the public half of the key that signs this host's journal.
func publicKey(e *estate.Estate) (ed25519.PublicKey, error) {
	key, err := signingKey(stateFile(e, "journal", "signing.key"))
	if err != nil {
		return nil, err
	}
	public, _ := key.Public().(ed25519.PublicKey) // an Ed25519 key has an Ed25519 public key
	return public, nil
}

// keepJournal ships the events up to the present head and then anchors it, in this order: what is anchored outlives this host.
func keepJournal(ctx context.Context, j *journal.Journal, public ed25519.PublicKey, m *repo.Meta) error {
	head, err := j.Anchor(ctx)
	if err != nil {
		return err
	}
	id := repo.JournalID{Host: m.Keyring().Host(), Journal: head.Journal}
	kept, err := m.JournalEnd(ctx, id)
	if err != nil {
		return err
	}
	if err := ship(ctx, j, m, id, kept+1, head.Seq); err != nil {
		return err
	}
	at, err := time.Parse(time.RFC3339Nano, head.At)
	if err != nil {
		return fmt.Errorf("anchor journal: %w", err)
	}
	signed, err := json.Marshal(head)
	if err != nil {
		return fmt.Errorf("anchor journal: %w", err)
	}
	return m.PutAnchor(ctx, repo.Anchor{JournalID: id, Seq: head.Seq, Hash: head.Hash.String(), At: at, Public: public, Head: signed})
}

// ship stores events first to last, in halves where they are too large for one object.
func ship(ctx context.Context, j *journal.Journal, m *repo.Meta, id repo.JournalID, first, last int64) error {
	const most = 4096 // events: looked at before anything is read into memory
	if first > last {
		return nil
	}
	if last-first >= most {
		if err := ship(ctx, j, m, id, first, first+most-1); err != nil {
			return err
		}
		return ship(ctx, j, m, id, first+most, last)
	}
	var b bytes.Buffer
	if err := j.Export(ctx, first, last, &b); err != nil {
		return err
	}
	if b.Len() <= shipAtOnce || first == last {
		return m.PutJournal(ctx, repo.JournalSegment{JournalID: id, First: first, Last: last, Data: b.Bytes()})
	}
	half := first + (last-first)/2
	if err := ship(ctx, j, m, id, first, half); err != nil {
		return err
	}
	return ship(ctx, j, m, id, half+1, last)
}
