package repo

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"io"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob"
)

// EnrolHost makes a host's credential and enrols it; m is opened by the recovery side. A host may be
// enrolled again: each enrolment is a key of its own.
func EnrolHost(ctx context.Context, m *Meta, host, role string) (*Credential, error) {
	if err := validHost(host); err != nil {
		return nil, err
	}
	if role != RoleWriter && role != RoleProver {
		return nil, usage("enrol", host, "use writer or prover", "there is no role %q", role)
	}
	if err := m.needRoot("enrol", host); err != nil {
		return nil, err
	}
	c, err := enrol(ctx, m.storage, m.keys, host, role, m.now(), m.rand)
	if err != nil {
		return nil, fmt.Errorf("enrol %s: %w", host, err)
	}
	return c, m.reloadTrust(ctx)
}

func enrol(ctx context.Context, s blob.Storage, k *Keyring, host, role string, now time.Time, random io.Reader) (*Credential, error) {
	seed := make([]byte, ed25519.SeedSize)
	if _, err := io.ReadFull(random, seed); err != nil {
		return nil, fmt.Errorf("read random bytes: %w", err)
	}
	public, ok := ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("the signing key is not Ed25519")
	}
	e := Enrolment{Host: host, Key: public, Role: role, Epoch: k.current}
	if err := putPlain(ctx, s, k, "host", hostPrefix+host+"-"+keyID(public), now, e); err != nil {
		return nil, err
	}
	return &Credential{f: credentialFile{
		Format: Format, Repository: k.repository, Authority: k.authority, Host: host, Role: role,
		Seed: seed, Epochs: k.secretsFor(role),
	}}, nil
}

// RevokeHost makes all keys of a host count for nothing; m is opened by the recovery side. What the storage
// itself received before keep stays valid; with a zero keep nothing of the host does.
func RevokeHost(ctx context.Context, m *Meta, host string, keep time.Time, why string) error {
	if err := m.needRoot("revoke", host); err != nil {
		return err
	}
	if err := m.reloadTrust(ctx); err != nil {
		return fmt.Errorf("revoke %s: %w", host, err)
	}
	t := m.trusted()
	if len(t.keys[host]) == 0 {
		return &relight.Error{Op: "revoke", Subject: host, Code: relight.CodeNotFound, Err: fmt.Errorf("no host of this name is enrolled"), Hint: "relight key list shows the hosts"}
	}
	for _, e := range t.keys[host] {
		id := keyID(e.Key)
		if _, done := t.revoked[host+"-"+id]; done {
			continue
		}
		r := Revocation{Host: host, ID: id, Keep: keep, Why: why}
		if err := putPlain(ctx, m.storage, m.keys, "revocation", revokedPrefix+host+"-"+id, m.now(), r); err != nil {
			return fmt.Errorf("revoke %s: %w", host, err)
		}
	}
	return m.reloadTrust(ctx)
}

func (m *Meta) needRoot(op, subject string) error {
	if m.keys.root == nil {
		return usage(op, subject, "unlock with the recovery identity: --identity FILE", "only the recovery side may do this")
	}
	return nil
}
