package repo

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"strings"

	"filippo.io/age"
	"github.com/toolboxai/relight/blob"
)

// Unlock is the recovery side: it opens every epoch of a repository with recovery identities.
func Unlock(ctx context.Context, s blob.Storage, ids ...age.Identity) (*Keyring, error) {
	if len(ids) == 0 {
		return nil, usage("unlock", s.String(), "give the recovery identity with --identity", "no identity was given")
	}
	d, err := ReadDescriptor(ctx, s)
	if err != nil {
		return nil, err
	}
	records, err := readEpochs(ctx, s, d)
	if err != nil {
		return nil, err
	}
	u := &unlocking{s: s, d: d, ids: ids, records: records, seen: map[int]bool{}, k: &Keyring{
		repository: d.ID, authority: d.Authority, host: recoverySigner, epochs: map[int]*epochKeys{},
	}}
	if err := s.List(ctx, wrapPrefix, func(i blob.Info) error { return u.try(ctx, i.Name) }); err != nil {
		return nil, fmt.Errorf("unlock %s: %w", s, notAbsent(err))
	}
	return u.finish()
}

type unlocking struct {
	s       blob.Storage
	d       Descriptor
	ids     []age.Identity
	records map[int]epochRecord
	seen    map[int]bool // epochs that have a wrapping
	bad     []error      // wrappings that should have opened
	foreign int          // wrappings that opened and belong to another repository
	k       *Keyring
}

func (u *unlocking) try(ctx context.Context, name string) error {
	epoch, ok := wrapEpochOf(name)
	if !ok {
		return nil
	}
	raw, err := getAll(ctx, u.s, name, 1<<20)
	if errors.Is(err, ErrCorrupt) {
		u.bad = append(u.bad, err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("get %s: %w", name, err)
	}
	u.seen[epoch] = true
	w, err := unwrapEpoch(name, raw, u.ids)
	if err != nil {
		if u.ours(name) {
			u.bad = append(u.bad, corrupt(name, "it was sealed to this identity and does not open: %v", err))
		}
		return nil
	}
	return u.take(name, epoch, w)
}

// ours says whether a wrapping was made for one of the identities at hand.
func (u *unlocking) ours(name string) bool {
	return slices.ContainsFunc(u.ids, func(id age.Identity) bool {
		r, err := RecipientOf(id)
		return err == nil && strings.Contains(name, "/"+recipientID(u.d.ID, r)+"-")
	})
}

// take adds an opened epoch. Only who knows the authority's seed can have made it; one that names another
// authority is a forgery, for anybody can seal to a public recipient.
func (u *unlocking) take(name string, epoch int, w wrapped) error {
	if w.Repository != u.d.ID {
		u.foreign++
		return nil
	}
	if len(w.Authority) != ed25519.SeedSize || w.Epoch != epoch {
		u.bad = append(u.bad, refused(name, "it holds epoch %d and an authority of %d bytes", w.Epoch, len(w.Authority)))
		return nil
	}
	root := ed25519.NewKeyFromSeed(w.Authority)
	if !u.d.Authority.Equal(root.Public()) {
		u.bad = append(u.bad, refused(name, "it names another authority than the descriptor; one of the two is forged"))
		return nil
	}
	e, err := w.keys()
	if err != nil {
		u.bad = append(u.bad, corrupt(name, "%v", err))
		return nil
	}
	if r, ok := u.records[epoch]; ok {
		if r.DataRecipient != e.dataR.text || r.MetaRecipient != e.metaR.text {
			return nil // left by a party that lost the race for this epoch
		}
		u.k.current = max(u.k.current, epoch)
	}
	u.k.epochs[epoch], u.k.root, u.k.signer = e, root, root
	id := name[strings.LastIndexByte(name, '/')+1:]
	u.k.opened = append(u.k.opened, id[:strings.IndexByte(id+"-", '-')])
	return nil
}

func (u *unlocking) finish() (*Keyring, error) {
	if len(u.k.epochs) == 0 {
		return nil, u.nothing()
	}
	for e := range u.seen {
		if u.k.epochs[e] == nil {
			u.k.missing = append(u.k.missing, e)
		}
	}
	u.k.problems = u.bad
	slices.Sort(u.k.missing)
	slices.Sort(u.k.opened)
	u.k.opened = slices.Compact(u.k.opened)
	if u.k.current == 0 { // no epoch has its record: reading must still be possible
		u.k.current = slices.Max(u.k.epochList())
	}
	return u.k, nil
}

func (u *unlocking) nothing() error {
	switch {
	case len(u.bad) > 0:
		return fmt.Errorf("unlock %s: %w", u.s, errors.Join(u.bad...))
	case len(u.seen) == 0:
		return fmt.Errorf("unlock %s: %w", u.s, corrupt(wrapPrefix, "no wrapped key is left there"))
	case u.foreign > 0:
		return usage("unlock", u.s.String(), "check the address", "the identity opens keys of another repository only")
	default:
		return usage("unlock", u.s.String(), "check which identity belongs to this repository: its recipients are listed by relight repo info",
			"the given identity opens none of its keys")
	}
}
