package repo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob"
)

const recipientPrefix = "keys/recipients/"

const (
	actionAdd    = "add"
	actionRemove = "remove"
)

// recipientRecord is one signed change of the list of recovery recipients.
type recipientRecord struct {
	Recipient string `json:"recipient"`
	Action    string `json:"action"`
}

func recordRecipient(ctx context.Context, s blob.Storage, k *Keyring, r Recipient, action string, now time.Time) error {
	name := recipientPrefix + nameTime(now) + "-" + recipientID(k.repository, r)
	return putPlain(ctx, s, k, "recipient", name, now, recipientRecord{Recipient: r.text, Action: action})
}

// Recipients lists the recovery recipients. It needs no secret.
func (m *Meta) Recipients(ctx context.Context) ([]Recipient, error) {
	rs, _, err := m.recipients(ctx)
	return rs, err
}

// recipients also gives the time of the next change: later than all former ones, whatever this clock says,
// for the order of the records decides who is a recipient.
func (m *Meta) recipients(ctx context.Context) ([]Recipient, time.Time, error) {
	var out []Recipient
	next := m.now()
	err := m.storage.List(ctx, recipientPrefix, func(i blob.Info) error {
		var rec recipientRecord
		err := m.getAuthority(ctx, "recipient", i.Name, &rec)
		if errors.Is(err, ErrRefused) || errors.Is(err, ErrCorrupt) {
			m.log.WarnContext(ctx, "a record of a recovery recipient is not believed", "repository", m.name, "err", err)
			return nil
		}
		if err != nil {
			return err
		}
		r, err := ParseRecipient(rec.Recipient)
		if err != nil {
			return corrupt(i.Name, "%v", err)
		}
		stamp, _, _ := strings.Cut(strings.TrimPrefix(i.Name, recipientPrefix), "-")
		at, err := time.Parse(timeName, stamp)
		if err != nil {
			return corrupt(i.Name, "its name holds no time")
		}
		if !at.Before(next) {
			next = at.Add(1)
		}
		out = slices.DeleteFunc(out, func(o Recipient) bool { return o.text == r.text })
		if rec.Action == actionAdd {
			out = append(out, r)
		}
		return nil
	})
	if err != nil {
		return nil, next, fmt.Errorf("list recovery recipients: %w", notAbsent(err))
	}
	return out, next, nil
}

// AddRecipient lets one more recovery identity open the repository, all of its past included; m is opened by
// the recovery side.
func AddRecipient(ctx context.Context, m *Meta, r Recipient) error {
	if err := m.needAll("add recipient", r); err != nil {
		return err
	}
	rs, at, err := m.recipients(ctx)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(rs, func(o Recipient) bool { return o.text == r.text }) {
		return usage("add recipient", r.text, "nothing needs to be done", "it is a recovery recipient already")
	}
	for _, n := range m.keys.epochList() {
		if err := wrapEpoch(ctx, m.storage, m.keys.repository, m.keys.root, m.keys.epochs[n].secrets(), r, m.rand); err != nil {
			return fmt.Errorf("add recipient: %w", err)
		}
	}
	return recordRecipient(ctx, m.storage, m.keys, r, actionAdd, at)
}

// RemoveRecipient opens a new epoch that r cannot open, and gives the recovery side's keyring with it. What
// was written before stays readable to r, and hosts write in the old epoch until their credentials are
// refreshed (Keyring.Refresh).
func RemoveRecipient(ctx context.Context, m *Meta, r Recipient) (*Keyring, error) {
	if err := m.needAll("remove recipient", r); err != nil {
		return nil, err
	}
	rs, at, err := m.recipients(ctx)
	if err != nil {
		return nil, err
	}
	rest := slices.DeleteFunc(slices.Clone(rs), func(o Recipient) bool { return o.text == r.text })
	if len(rest) == len(rs) {
		return nil, &relight.Error{Op: "remove recipient", Subject: r.text, Code: relight.CodeNotFound, Err: errors.New("it is not a recovery recipient"), Hint: "relight key list shows the recipients"}
	}
	if len(rest) == 0 {
		return nil, usage("remove recipient", r.text, "add the next recipient first", "it is the last recovery recipient")
	}
	k, err := m.nextEpoch(ctx, rest)
	if err != nil {
		return nil, fmt.Errorf("remove recipient: %w", err)
	}
	if err := recordRecipient(ctx, m.storage, k, r, actionRemove, at); err != nil {
		return nil, fmt.Errorf("remove recipient: %w", err)
	}
	return k, nil
}

// RotateKeys opens a new epoch for the recipients that there are, and gives the recovery side's keyring with it. What was written before stays
// sealed to the former epochs, and hosts write in theirs until their credentials are renewed (RenewCredential).
func RotateKeys(ctx context.Context, m *Meta) (*Keyring, error) {
	if err := m.needRoot("rotate keys", m.name); err != nil {
		return nil, err
	}
	if len(m.keys.missing) > 0 {
		return nil, usage("rotate keys", m.name, "use an identity that opens all epochs", "the identity at hand does not open epochs %v", m.keys.missing)
	}
	rs, err := m.Recipients(ctx)
	if err != nil {
		return nil, err
	}
	if len(rs) == 0 {
		return nil, &relight.Error{Op: "rotate keys", Subject: m.name, Code: relight.CodeVerification, Err: errors.New("no record names a recovery recipient"),
			Hint: "put the records under " + recipientPrefix + " back from a mirror, or add a recipient; what is damaged is named by relight repo check"}
	}
	k, err := m.nextEpoch(ctx, rs)
	if err != nil {
		return nil, fmt.Errorf("rotate keys: %w", err)
	}
	return k, nil
}

// RenewCredential gives a host the keys of k, the recovery side's, and a signing key of its own making that is enrolled beside the former one: what
// the host signed before goes on counting.
func RenewCredential(ctx context.Context, m *Meta, k *Keyring, held *Credential) (*Credential, error) {
	if held.f.Repository != k.repository {
		return nil, usage("renew", "credential", "check which repository the credential is for", "%s is not for repository %.8s", held, k.repository)
	}
	c, err := enrol(ctx, m.storage, k, held.f.Host, held.f.Role, m.now(), m.rand)
	if err != nil {
		return nil, fmt.Errorf("renew the credential of %s: %w", held.f.Host, err)
	}
	return c, m.reloadTrust(ctx)
}

// nextEpoch opens an epoch for the given recipients.
func (m *Meta) nextEpoch(ctx context.Context, rs []Recipient) (*Keyring, error) {
	records, err := readEpochs(ctx, m.storage, m.desc)
	if err != nil {
		return nil, err
	}
	next := m.keys.current + 1
	for n := range records {
		next = max(next, n+1)
	}
	es, err := newSecrets(next, allPostQuantum(rs), m.rand)
	if err != nil {
		return nil, err
	}
	e, err := es.keys()
	if err != nil {
		return nil, err
	}
	k := *m.keys
	k.current, k.epochs = next, map[int]*epochKeys{next: e}
	for n, old := range m.keys.epochs {
		if n < next {
			k.epochs[n] = old
		}
	}
	return &k, writeEpoch(ctx, m.storage, &k, rs, m.now(), m.rand)
}

// needAll makes sure that every epoch can be wrapped anew.
func (m *Meta) needAll(op string, r Recipient) error {
	if r.Recipient == nil {
		return usage(op, "", "give age1… or age1pq1…", "the recipient is empty")
	}
	if err := m.needRoot(op, r.text); err != nil {
		return err
	}
	if len(m.keys.missing) > 0 {
		return usage(op, r.text, "use an identity that opens all epochs", "the identity at hand does not open epochs %v", m.keys.missing)
	}
	return nil
}
