package repo

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob"
)

// PutRecord signs, seals and stores a record under a name of the layout. That the very same record is there
// is no error; other content under the name wraps blob.ErrExists.
func (m *Meta) PutRecord(ctx context.Context, kind, name string, payload any) error {
	if err := validName("record", name); err != nil {
		return err
	}
	return m.putSigned(ctx, kind, name, payload, sealOf(name))
}

// GetRecord reads one record, verified. An error that wraps blob.ErrNotFound means proven absent.
func (m *Meta) GetRecord(ctx context.Context, kind, name string, into any) (Signed, error) {
	return m.getSigned(ctx, kind, name, into)
}

// Records reports the records under a prefix, verified, in the order of their names. One that is refused or
// damaged ends it with an error that names it.
func (m *Meta) Records(ctx context.Context, kind, prefix string, fn func(Signed) error) error {
	var found []string
	err := m.storage.List(ctx, prefix, func(i blob.Info) error {
		found = append(found, i.Name)
		return nil
	})
	if err != nil {
		return fmt.Errorf("list records %s: %w", prefix, notAbsent(err))
	}
	return m.readRecords(ctx, kind, found, fn)
}

func (m *Meta) readRecords(ctx context.Context, kind string, found []string, fn func(Signed) error) error {
	read := func(ctx context.Context, name string) (Signed, error) {
		s, err := m.getVerified(ctx, kind, name)
		return s, notAbsent(err)
	}
	if err := inOrder(ctx, m.o.Workers, found, read, fn); err != nil {
		return fmt.Errorf("read %s records: %w", kind, err)
	}
	return nil
}

// Decode reads a record's payload.
func (s Signed) Decode(into any) error { return s.decode(into) }

// proofName is where a proof lies.
func proofName(p relight.Proof) string {
	return fmt.Sprintf("proof/%s/%s/%s", p.Store, p.Snapshot, nameTime(p.At))
}

// PutProof records that a snapshot was restored and queried, or that this failed.
func (m *Meta) PutProof(ctx context.Context, p relight.Proof) error {
	return m.PutRecord(ctx, "proof", proofName(p), p)
}

// Proofs lists a store's proofs, oldest first for each snapshot.
func (m *Meta) Proofs(ctx context.Context, store string) ([]relight.Proof, error) {
	var out []relight.Proof
	err := m.Records(ctx, "proof", "proof/"+store+"/", func(s Signed) error {
		var p relight.Proof
		if err := s.decode(&p); err != nil {
			return err
		}
		if proofName(p) != s.Name {
			return refused(s.Name, "it proves snapshot %s of store %s", p.Snapshot, p.Store)
		}
		out = append(out, p)
		return nil
	})
	return out, err
}

// Anchor is the head of a host's journal at a moment: what comes before cannot be changed unnoticed.
type Anchor struct {
	Host string    `json:"host"`
	Seq  int64     `json:"seq"`
	Hash string    `json:"hash"`
	At   time.Time `json:"at"`
}

func (a Anchor) name() string { return fmt.Sprintf("%s%016d", anchorPrefix(a.Host), a.Seq) }

func anchorPrefix(host string) string { return "journal/" + host + "/anchor/" }

// PutAnchor anchors this host's journal. The same head may be anchored again; another hash at the same
// sequence number is ErrConflict, and means that the journal was rewritten.
func (m *Meta) PutAnchor(ctx context.Context, a Anchor) error {
	err := m.PutRecord(ctx, "anchor", a.name(), a)
	if !errors.Is(err, blob.ErrExists) {
		return err
	}
	var there Anchor
	if _, gerr := m.getSigned(ctx, "anchor", a.name(), &there); gerr != nil {
		return gerr
	}
	if there.Hash == a.Hash {
		return nil
	}
	return fmt.Errorf("anchor journal of %s: %w: event %d was anchored as %.16s and is now %.16s", a.Host, ErrConflict, a.Seq, there.Hash, a.Hash)
}

// Anchors lists the anchors of a host's journal in order. Only the host itself, or the recovery side, may
// have signed them.
func (m *Meta) Anchors(ctx context.Context, host string) ([]Anchor, error) {
	var out []Anchor
	err := m.Records(ctx, "anchor", anchorPrefix(host), func(s Signed) error {
		a, err := anchorOf(s, host)
		out = append(out, a)
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// LatestAnchor gives the newest anchor of a host's journal; ok is false when there is none.
func (m *Meta) LatestAnchor(ctx context.Context, host string) (a Anchor, ok bool, err error) {
	newest := ""
	err = m.storage.List(ctx, anchorPrefix(host), func(i blob.Info) error {
		newest = i.Name
		return nil
	})
	if err != nil || newest == "" {
		return Anchor{}, false, notAbsent(err)
	}
	s, err := m.getVerified(ctx, "anchor", newest)
	if err != nil {
		return Anchor{}, false, notAbsent(err)
	}
	a, err = anchorOf(s, host)
	return a, err == nil, err
}

func anchorOf(s Signed, host string) (Anchor, error) {
	var a Anchor
	if err := s.decode(&a); err != nil {
		return Anchor{}, err
	}
	if err := ownJournal(s, host); err != nil {
		return Anchor{}, err
	}
	if a.Host != host || a.name() != s.Name {
		return Anchor{}, refused(s.Name, "it anchors event %d of host %s", a.Seq, a.Host)
	}
	return a, nil
}

// JournalSegment is a stretch of a host's journal, as the journal writes it.
type JournalSegment struct {
	Host  string `json:"host"`
	First int64  `json:"first"`
	Last  int64  `json:"last"`
	Data  []byte `json:"data"`
}

func (j JournalSegment) name() string {
	return fmt.Sprintf("journal/%s/%016d-%016d", j.Host, j.First, j.Last)
}

// PutJournal stores a stretch of this host's journal.
func (m *Meta) PutJournal(ctx context.Context, j JournalSegment) error {
	if j.First > j.Last {
		return fmt.Errorf("put journal of %s: events %d to %d are none", j.Host, j.First, j.Last)
	}
	return m.PutRecord(ctx, "journal", j.name(), j)
}

// Journal reports the stretches of a host's journal in order.
func (m *Meta) Journal(ctx context.Context, host string, fn func(JournalSegment) error) error {
	prefix := "journal/" + host + "/"
	var found []string
	err := m.storage.List(ctx, prefix, func(i blob.Info) error {
		if !strings.HasPrefix(i.Name, anchorPrefix(host)) {
			found = append(found, i.Name)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("list journal of %s: %w", host, notAbsent(err))
	}
	return m.readRecords(ctx, "journal", found, func(s Signed) error {
		var j JournalSegment
		if err := s.decode(&j); err != nil {
			return err
		}
		if err := ownJournal(s, host); err != nil {
			return err
		}
		if j.Host != host || j.name() != s.Name {
			return refused(s.Name, "it holds events %d to %d of host %s", j.First, j.Last, j.Host)
		}
		return fn(j)
	})
}

func ownJournal(s Signed, host string) error {
	if s.Signer != host && s.Signer != recoverySigner {
		return refused(s.Name, "host %s signed in the journal of host %s", s.Signer, host)
	}
	return nil
}
