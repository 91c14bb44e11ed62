package repo

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// The roles of a credential.
const (
	RoleWriter = "writer" // seals content that it cannot read
	RoleProver = "prover" // reads content too
)

// Credential is what a host holds of a repository. It prints as nothing but names.
type Credential struct{ f credentialFile }

type credentialFile struct {
	Format     int               `json:"format"`
	Repository string            `json:"repository"`
	Authority  ed25519.PublicKey `json:"authority"`
	Host       string            `json:"host"`
	Role       string            `json:"role"`
	Seed       []byte            `json:"signing_seed"`
	Epochs     []epochSecrets    `json:"epochs"`
}

// String names the credential without its secrets.
func (c *Credential) String() string {
	return fmt.Sprintf("%s credential of host %s for repository %.8s", c.f.Role, c.f.Host, c.f.Repository)
}

// GoString does the same for %#v.
func (c *Credential) GoString() string { return c.String() }

// String keeps a keyring's secrets out of logs.
func (k *Keyring) String() string {
	return fmt.Sprintf("keys of %s for repository %.8s", k.host, k.repository)
}

// GoString does the same for %#v.
func (k *Keyring) GoString() string { return k.String() }

// Host is the host that the credential was made for.
func (c *Credential) Host() string { return c.f.Host }

// Role is RoleWriter or RoleProver.
func (c *Credential) Role() string { return c.f.Role }

// Repository is the id of the repository.
func (c *Credential) Repository() string { return c.f.Repository }

// ReadCredential reads a credential file. A file that others may read is refused.
func ReadCredential(path string) (*Credential, error) {
	fi, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, usage("read credential", path, "make one with relight key enrol", "there is no such file")
	}
	if err != nil {
		return nil, fmt.Errorf("read credential: %w", err)
	}
	if fi.Mode().Perm()&0o077 != 0 {
		return nil, usage("read credential", path, "chmod 600 "+path, "the file has mode %04o and others can read it", fi.Mode().Perm())
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read credential: %w", err)
	}
	c, err := parseCredential(b)
	if err != nil {
		return nil, usage("read credential", path, "write it anew with relight key enrol", "%w", err)
	}
	return c, nil
}

// parseCredential must not quote what it read: it is secret.
func parseCredential(b []byte) (*Credential, error) {
	var f credentialFile
	d := json.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(&f); err != nil {
		return nil, errors.New("it is not a credential")
	}
	if f.Format != Format {
		return nil, fmt.Errorf("it has format %d and this program reads %d", f.Format, Format)
	}
	c := &Credential{f: f}
	if _, err := c.Keyring(); err != nil {
		return nil, err
	}
	return c, nil
}

// Write writes the credential durably, readable by its owner only.
func (c *Credential) Write(path string) error {
	b, err := json.MarshalIndent(c.f, "", "  ")
	if err != nil {
		return fmt.Errorf("encode credential: %w", err)
	}
	dir := filepath.Dir(path)
	t, err := os.CreateTemp(dir, ".credential-*") // created with mode 0600
	if err != nil {
		return fmt.Errorf("write credential: %w", err)
	}
	defer os.Remove(t.Name()) //nolint:errcheck // it is gone once renamed
	_, err = t.Write(append(b, '\n'))
	err = errors.Join(err, t.Sync(), t.Close())
	if err == nil {
		err = os.Rename(t.Name(), path)
	}
	if err == nil {
		err = syncDir(dir)
	}
	if err != nil {
		return fmt.Errorf("write credential %s: %w", path, err)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Keyring gives the keys that the credential holds.
func (c *Credential) Keyring() (*Keyring, error) {
	f := c.f
	switch {
	case len(f.Repository) != 32 || !isHex(f.Repository):
		return nil, errors.New("the credential names no repository")
	case len(f.Authority) != ed25519.PublicKeySize || len(f.Seed) != ed25519.SeedSize:
		return nil, errors.New("the credential's keys have the wrong length")
	case f.Role != RoleWriter && f.Role != RoleProver:
		return nil, fmt.Errorf("the credential has the unknown role %q", f.Role)
	case f.Host == recoverySigner || validElement("host", f.Host) != nil:
		return nil, errors.New("the credential's host has no valid name")
	case len(f.Epochs) == 0:
		return nil, errors.New("the credential holds no epoch")
	}
	k := &Keyring{
		repository: f.Repository, authority: f.Authority, host: f.Host,
		signer: ed25519.NewKeyFromSeed(f.Seed), epochs: map[int]*epochKeys{},
	}
	for _, es := range f.Epochs {
		e, err := es.keys()
		if err != nil {
			return nil, err
		}
		if f.Role == RoleProver && e.data == nil {
			return nil, fmt.Errorf("the prover's credential lacks the data identity of epoch %d", es.Epoch)
		}
		k.epochs[es.Epoch] = e
		k.current = max(k.current, es.Epoch)
	}
	return k, nil
}

// Refresh gives a credential the epochs that were opened since it was made; k is the recovery side.
func (k *Keyring) Refresh(c *Credential) error {
	if k.root == nil {
		return usage("refresh", "credential", "unlock with the recovery identity", "the keys at hand are not the recovery side's")
	}
	if c.f.Repository != k.repository {
		return usage("refresh", "credential", "check which repository the credential is for", "%s is not for repository %.8s", c, k.repository)
	}
	c.f.Epochs = k.secretsFor(c.f.Role)
	return nil
}

// secretsFor writes the epochs down as a role may hold them.
func (k *Keyring) secretsFor(role string) []epochSecrets {
	var out []epochSecrets
	for _, n := range k.epochList() {
		if n > k.current {
			continue
		}
		e := k.epochs[n]
		s := epochSecrets{Epoch: n, DataRecipient: e.dataR.text, Meta: identityText(e.meta), ChunkKey: slices.Clone(e.chunk[:])}
		if role == RoleProver {
			s.Data = identityText(e.data)
		}
		out = append(out, s)
	}
	return out
}

func (e *epochKeys) secrets() epochSecrets {
	return epochSecrets{Epoch: e.epoch, Data: identityText(e.data), Meta: identityText(e.meta), ChunkKey: slices.Clone(e.chunk[:])}
}

// identityText is the secret text of a native identity; "" for nil.
func identityText(id any) string {
	if s, ok := id.(fmt.Stringer); ok {
		return s.String()
	}
	return ""
}
