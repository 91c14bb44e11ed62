package repo

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/toolboxai/relight/blob"
	"github.com/zeebo/blake3"
)

const (
	hostPrefix    = "keys/hosts/"
	revokedPrefix = "keys/revoked/"
)

// Enrolment is the signed record that makes a host's signatures count.
type Enrolment struct {
	Host  string            `json:"host"`
	Key   ed25519.PublicKey `json:"key"`
	Role  string            `json:"role"` // "writer" or "prover"
	Epoch int               `json:"epoch"`
}

// Revocation is the signed record that a host's key no longer counts.
type Revocation struct {
	Host string    `json:"host"`
	ID   string    `json:"id"`            // of the key: the object names' last part
	Keep time.Time `json:"keep,omitzero"` // what the storage received before this stays valid; zero: nothing does
	Why  string    `json:"why,omitempty"`
}

// keyID is the short name of a signing key: 16 hex digits.
func keyID(k ed25519.PublicKey) string {
	sum := blake3.Sum256(k)
	return hex.EncodeToString(sum[:8])
}

// trust is what is known of hosts: who may sign.
type trust struct {
	keys     map[string][]Enrolment // by host
	revoked  map[string]Revocation  // by host-id
	broken   map[string]error       // revocations that cannot be believed: fail closed
	problems []error                // enrolments that were refused
	loaded   time.Time
}

// reloadTrust reads enrolments and revocations. An enrolment that the authority did not sign enrols nobody; a
// revocation that cannot be verified still revokes, for an attacker must gain nothing by spoiling it.
func (m *Meta) reloadTrust(ctx context.Context) error {
	t := &trust{keys: map[string][]Enrolment{}, revoked: map[string]Revocation{}, broken: map[string]error{}, loaded: m.now()}
	err := m.storage.List(ctx, hostPrefix, func(i blob.Info) error { return m.loadHost(ctx, t, i.Name) })
	if err != nil {
		return fmt.Errorf("list %s: %w", hostPrefix, err)
	}
	err = m.storage.List(ctx, revokedPrefix, func(i blob.Info) error { return m.loadRevocation(ctx, t, i.Name) })
	if err != nil {
		return fmt.Errorf("list %s: %w", revokedPrefix, err)
	}
	for _, p := range t.problems {
		m.log.WarnContext(ctx, "an enrolment is not believed", "repository", m.name, "err", p)
	}
	m.mu.Lock()
	m.trust = t
	m.mu.Unlock()
	return nil
}

func (m *Meta) loadHost(ctx context.Context, t *trust, name string) error {
	var e Enrolment
	err := m.getAuthority(ctx, "host", name, &e)
	if err == nil && name != hostPrefix+e.Host+"-"+keyID(e.Key) {
		err = refused(name, "it enrols %s", e.Host)
	}
	if errors.Is(err, ErrRefused) || errors.Is(err, ErrCorrupt) {
		t.problems = append(t.problems, err)
		return nil
	}
	if err != nil {
		return err
	}
	t.keys[e.Host] = append(t.keys[e.Host], e)
	return nil
}

func (m *Meta) loadRevocation(ctx context.Context, t *trust, name string) error {
	id := strings.TrimPrefix(name, revokedPrefix)
	var r Revocation
	err := m.getAuthority(ctx, "revocation", name, &r)
	if err == nil && r.Host+"-"+r.ID != id {
		err = refused(name, "it revokes %s", r.Host)
	}
	if errors.Is(err, ErrRefused) || errors.Is(err, ErrCorrupt) {
		t.broken[id] = err
		return nil
	}
	if err != nil {
		return err
	}
	t.revoked[id] = r
	return nil
}

// getAuthority reads a plain record that only the authority may sign.
func (m *Meta) getAuthority(ctx context.Context, kind, name string, into any) error {
	raw, err := getAll(ctx, m.storage, name, 1<<20)
	if err != nil {
		return fmt.Errorf("get %s: %w", name, err)
	}
	s, err := parseEnvelope(raw, kind, name)
	if err != nil {
		return err
	}
	if s.Signer != recoverySigner || !s.verify(m.desc.Authority) {
		return refused(name, "the repository's authority did not sign it")
	}
	return s.decode(into)
}

// trustAge is how long a long-running process relies on what it knows of hosts.
const trustAge = time.Minute

// freshTrust gives what is known of hosts, looked up again when it is older than maxAge.
func (m *Meta) freshTrust(ctx context.Context, maxAge time.Duration) (*trust, error) {
	if t := m.trusted(); m.now().Sub(t.loaded) <= maxAge {
		return t, nil
	}
	m.reload.Lock() // one looks, the others wait for what it finds
	defer m.reload.Unlock()
	if t := m.trusted(); m.now().Sub(t.loaded) <= maxAge {
		return t, nil
	}
	if err := m.reloadTrust(ctx); err != nil {
		return nil, fmt.Errorf("look up who may sign: %w", notAbsent(err))
	}
	return m.trusted(), nil
}

// verifySigner verifies a signature and gives the id of the key that made it. Signers enrolled since the
// last look are found by looking again.
func (m *Meta) verifySigner(ctx context.Context, s Signed) (string, error) {
	if s.Signer == recoverySigner {
		if !s.verify(m.desc.Authority) {
			return "", refused(s.Name, "its signature is not the recovery side's")
		}
		return recoverySigner, nil
	}
	t, err := m.freshTrust(ctx, trustAge)
	if err != nil {
		return "", fmt.Errorf("verify %s: %w", s.Name, err)
	}
	e, ok := t.signerOf(s)
	if !ok { // perhaps enrolled a moment ago
		if t, err = m.freshTrust(ctx, time.Second); err != nil {
			return "", fmt.Errorf("verify %s: %w", s.Name, err)
		}
		e, ok = t.signerOf(s)
	}
	if !ok && len(t.keys[s.Signer]) == 0 {
		return "", refused(s.Name, "host %q is not enrolled", s.Signer)
	}
	if !ok {
		return "", refused(s.Name, "its signature is not that of host %q", s.Signer)
	}
	id := keyID(e.Key)
	return id, m.checkRevoked(ctx, t, s, id)
}

// mayRetain refuses what only the side that runs retention may say, where a mere writer signed it: a thief of a writer's key must
// not be able to say that something is to go.
func (m *Meta) mayRetain(s Signed) error {
	if s.Signer == recoverySigner {
		return nil
	}
	if e, ok := m.trusted().signerOf(s); !ok || e.Role != RoleProver {
		return refused(s.Name, "host %q may write and not remove", s.Signer)
	}
	return nil
}

func (t *trust) signerOf(s Signed) (Enrolment, bool) {
	i := slices.IndexFunc(t.keys[s.Signer], func(e Enrolment) bool { return s.verify(e.Key) })
	if i < 0 {
		return Enrolment{}, false
	}
	return t.keys[s.Signer][i], true
}

// checkRevoked refuses what a revoked key signed. A thief of the key chooses the time that he signs, so the
// storage's own clock decides as well.
func (m *Meta) checkRevoked(ctx context.Context, t *trust, s Signed, id string) error {
	if err := t.broken[s.Signer+"-"+id]; err != nil {
		return refused(s.Name, "host %s is revoked by a record that cannot be verified: %v", s.Signer, err)
	}
	r, ok := t.revoked[s.Signer+"-"+id]
	if !ok {
		return nil
	}
	if r.Keep.IsZero() || !s.At.Before(r.Keep) {
		return revoked(s.Name, "host %s is revoked (%s)", s.Signer, r.Why)
	}
	info, err := m.storage.Stat(ctx, s.Name)
	if err != nil {
		return fmt.Errorf("verify %s: %w", s.Name, notAbsent(err))
	}
	if info.Modified.IsZero() || !info.Modified.Before(r.Keep) {
		return revoked(s.Name, "host %s is revoked, and the storage received the object at or after %s", s.Signer, r.Keep.Format(time.RFC3339))
	}
	return nil
}

// MaySign says why what these keys sign would not count; nil when it would. That the host is revoked wraps ErrRefused.
func (m *Meta) MaySign(ctx context.Context) error { return m.maySign(ctx, "repository "+m.name) }

// maySign refuses to write in the name of a host that nobody would believe.
func (m *Meta) maySign(ctx context.Context, name string) error {
	if m.keys.host == recoverySigner {
		return nil
	}
	pub, ok := m.keys.signer.Public().(ed25519.PublicKey)
	if !ok {
		return fmt.Errorf("sign %s: the signing key is not Ed25519", name)
	}
	t, err := m.freshTrust(ctx, trustAge)
	if err != nil {
		return fmt.Errorf("sign %s: %w", name, err)
	}
	id := m.keys.host + "-" + keyID(pub)
	r, gone := t.revoked[id]
	if gone || t.broken[id] != nil {
		return usage("write", name, "enrol the host anew with relight key enrol", "%w: host %s is revoked (%s)", ErrRefused, m.keys.host, r.Why)
	}
	if !slices.ContainsFunc(t.keys[m.keys.host], func(e Enrolment) bool { return bytes.Equal(e.Key, pub) }) {
		return usage("write", name, "enrol the host with relight key enrol", "host %s is not enrolled", m.keys.host)
	}
	return nil
}

func (m *Meta) trusted() *trust {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.trust
}

// Hosts lists the enrolments that count, and what was refused among them.
func (m *Meta) Hosts() ([]Enrolment, []error) {
	t := m.trusted()
	var out []Enrolment
	for host, es := range t.keys {
		for _, e := range es {
			id := host + "-" + keyID(e.Key)
			if _, ok := t.revoked[id]; !ok && t.broken[id] == nil {
				out = append(out, e)
			}
		}
	}
	slices.SortFunc(out, func(a, b Enrolment) int { return strings.Compare(a.Host, b.Host) })
	return out, slices.Clone(t.problems)
}
