package repo

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/toolboxai/relight/blob"
)

// InitOptions of a new repository.
type InitOptions struct {
	Recipients   []Recipient   // recovery recipients; at least one
	Host         string        // the first writer
	Chunk        int           // bytes of a page-file chunk; 0: 64 KiB
	LiveInterval time.Duration // how often the live tail is made durable; 0: 1 s
	SingleHost   bool          // the writer also holds the data identity: explicit, and weaker
	Now          func() time.Time
	Rand         io.Reader
}

// InitResult is a new repository's keys. The recovery identity is not among them: who holds it is the
// operator's business.
type InitResult struct {
	Descriptor  Descriptor
	Fingerprint string
	Credential  *Credential // of InitOptions.Host; holds the data identity when SingleHost
	Keyring     *Keyring    // the recovery side's, in memory only: to enrol more hosts at once
}

// Init makes a repository. The descriptor is written last: what an interrupted Init leaves is not a
// repository and does not hinder the next.
func Init(ctx context.Context, s blob.Storage, o InitOptions) (InitResult, error) {
	if err := o.check(s); err != nil {
		return InitResult{}, err
	}
	_, err := s.Stat(ctx, descriptorName)
	if err == nil {
		return InitResult{}, errExists(s)
	}
	if !errors.Is(err, blob.ErrNotFound) {
		return InitResult{}, fmt.Errorf("init %s: %w", s, err)
	}
	k, d, err := o.makeKeys()
	if err != nil {
		return InitResult{}, err
	}
	if err := writeEpoch(ctx, s, k, o.Recipients, o.Now(), o.Rand); err != nil {
		return InitResult{}, fmt.Errorf("init %s: %w", s, err)
	}
	for _, r := range o.Recipients {
		if err := recordRecipient(ctx, s, k, r, actionAdd, o.Now()); err != nil {
			return InitResult{}, fmt.Errorf("init %s: %w", s, err)
		}
	}
	role := RoleWriter
	if o.SingleHost {
		role = RoleProver
	}
	c, err := enrol(ctx, s, k, o.Host, role, o.Now(), o.Rand)
	if err != nil {
		return InitResult{}, fmt.Errorf("init %s: %w", s, err)
	}
	b, err := json.Marshal(d)
	if err != nil {
		return InitResult{}, fmt.Errorf("encode descriptor: %w", err)
	}
	err = put(ctx, s, descriptorName, append(b, '\n'))
	if errors.Is(err, blob.ErrExists) {
		return InitResult{}, errExists(s)
	}
	if err != nil {
		return InitResult{}, fmt.Errorf("init %s: %w", s, err)
	}
	return InitResult{Descriptor: d, Fingerprint: d.Fingerprint(), Credential: c, Keyring: k}, nil
}

func errExists(s blob.Storage) error {
	return usage("init", s.String(), "use another address, or open the repository that is there", "there is already a repository")
}

func (o *InitOptions) check(s blob.Storage) error {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	if o.Chunk == 0 {
		o.Chunk = 64 << 10
	}
	if o.LiveInterval == 0 {
		o.LiveInterval = time.Second
	}
	bad := func(hint, format string, a ...any) error { return usage("init", s.String(), hint, format, a...) }
	if len(o.Recipients) == 0 {
		return bad("make one with relight key generate FILE, keep it offline, and give its public half: --recipient age1…", "no recovery recipient was given")
	}
	for _, r := range o.Recipients {
		if r.Recipient == nil {
			return bad("parse recipients with ParseRecipient", "a recovery recipient is empty")
		}
	}
	if o.Chunk != 32<<10 && o.Chunk != 64<<10 {
		return bad("use 65536 or 32768", "chunk size %d is neither 32 nor 64 KiB", o.Chunk)
	}
	if o.LiveInterval < time.Millisecond || o.LiveInterval > time.Hour {
		return bad("use something like 1s", "a live interval of %s is out of range", o.LiveInterval)
	}
	return validHost(o.Host)
}

// validHost refuses host names that cannot sign.
func validHost(host string) error {
	if host == recoverySigner {
		return usage("name", "host", "choose another name", "%q is the name of the recovery side", host)
	}
	return validElement("host", host)
}

func (o *InitOptions) makeKeys() (*Keyring, Descriptor, error) {
	id, err := randomHex(o.Rand, 16)
	if err != nil {
		return nil, Descriptor{}, err
	}
	seed := make([]byte, ed25519.SeedSize)
	if _, err := io.ReadFull(o.Rand, seed); err != nil {
		return nil, Descriptor{}, fmt.Errorf("read random bytes: %w", err)
	}
	root := ed25519.NewKeyFromSeed(seed)
	public, ok := root.Public().(ed25519.PublicKey)
	if !ok {
		return nil, Descriptor{}, errors.New("the authority key is not Ed25519")
	}
	es, err := newSecrets(1, allPostQuantum(o.Recipients), o.Rand)
	if err != nil {
		return nil, Descriptor{}, err
	}
	e, err := es.keys()
	if err != nil {
		return nil, Descriptor{}, err
	}
	k := &Keyring{
		repository: id, authority: public, root: root, host: recoverySigner, signer: root,
		epochs: map[int]*epochKeys{1: e}, current: 1,
	}
	return k, Descriptor{
		Format: Format, ID: id, Created: o.Now().UTC().Truncate(time.Second), Chunk: o.Chunk,
		LiveInterval: o.LiveInterval.Milliseconds(), Authority: public, SingleHost: o.SingleHost,
	}, nil
}

// writeEpoch seals the keyring's current epoch to every recipient and then makes it exist.
func writeEpoch(ctx context.Context, s blob.Storage, k *Keyring, rs []Recipient, now time.Time, random io.Reader) error {
	e, err := k.epoch()
	if err != nil {
		return err
	}
	for _, r := range rs {
		if err := wrapEpoch(ctx, s, k.repository, k.root, e.secrets(), r, random); err != nil {
			return err
		}
	}
	name := epochName(k.repository, k.current)
	return putPlain(ctx, s, k, "epoch", name, now, epochRecord{Epoch: k.current, DataRecipient: e.dataR.text, MetaRecipient: e.metaR.text})
}

// putPlain stores a public record that the authority signs, and its witness.
func putPlain(ctx context.Context, s blob.Storage, k *Keyring, kind, name string, now time.Time, payload any) error {
	if k.root == nil {
		return usage("sign", name, "unlock with the recovery identity", "the keys at hand are not the recovery side's")
	}
	b, err := signEnvelope(k.root, recoverySigner, kind, name, now, payload)
	if err != nil {
		return err
	}
	if err := put(ctx, s, name, b); err != nil {
		return fmt.Errorf("put %s: %w", name, err)
	}
	return putWitness(ctx, s, k, name, now)
}
