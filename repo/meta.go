package repo

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"filippo.io/age"
	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob"
)

// Options of Open.
type Options struct {
	Name     string                                           // the repository's name in the estate; "": its address
	Now      func() time.Time                                 // nil: the system's clock
	Sleep    func(ctx context.Context, d time.Duration) error // nil: a timer
	Rand     io.Reader                                        // nil: the system's
	Log      *slog.Logger                                     // nil: silent
	CacheDir string                                           // "": no cache, temporary files in the system's place
	Workers  int                                              // parallel requests; 0: 8
}

// Meta is a repository as its metadata identity shows it: it lists and writes, and does not read content. It
// may be used by several goroutines.
type Meta struct {
	storage blob.Storage
	keys    *Keyring
	desc    Descriptor
	o       Options
	name    string
	now     func() time.Time
	rand    io.Reader
	log     *slog.Logger
	content content // chunk index and readers; has its own lock

	newestEpoch int // set by Open
	codec       walCodec
	live        inflight

	reload sync.Mutex // held while trust is looked up

	mu    sync.Mutex // guards what follows
	trust *trust
	cache map[string]*sidecarCache
}

// Open opens a repository with a keyring. It refuses a keyring of another repository, and a descriptor that
// is not the keyring's.
func Open(ctx context.Context, s blob.Storage, k *Keyring, o Options) (*Meta, error) {
	d, err := ReadDescriptor(ctx, s)
	if err != nil {
		return nil, err
	}
	if err := k.matches(s, d); err != nil {
		return nil, err
	}
	m := newMeta(s, k, d, o)
	if err := m.reloadTrust(ctx); err != nil {
		return nil, fmt.Errorf("read enrolments of %s: %w", s, err)
	}
	if err := m.checkEpochs(ctx); err != nil {
		return nil, err
	}
	if len(k.missing) > 0 {
		m.log.WarnContext(ctx, "the identity at hand does not open every key epoch", "repository", m.name, "epochs", k.missing)
	}
	return m, nil
}

func newMeta(s blob.Storage, k *Keyring, d Descriptor, o Options) *Meta {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Sleep == nil {
		o.Sleep = sleep
	}
	if o.Workers <= 0 {
		o.Workers = 8
	}
	if o.Name == "" {
		o.Name = s.String()
	}
	return &Meta{
		storage: s, keys: k, desc: d, o: o, name: o.Name, now: o.Now, rand: o.Rand, log: o.Log,
		trust: &trust{}, cache: map[string]*sidecarCache{},
	}
}

// matches refuses a keyring that belongs to another repository.
func (k *Keyring) matches(s blob.Storage, d Descriptor) error {
	if k.repository != d.ID {
		return usage("open repository", s.String(), "check the address and which credential or identity belongs to it",
			"these keys belong to repository %.8s and this is repository %.8s", k.repository, d.ID)
	}
	if !k.authority.Equal(d.Authority) {
		return &relight.Error{
			Op: "open repository", Subject: s.String(), Code: relight.CodeVerification,
			Err:  refused(descriptorName, "it names another authority than the keys at hand"),
			Hint: "the descriptor may be forged; compare the fingerprint with the rescue kit",
		}
	}
	return nil
}

// Descriptor is the repository's first object.
func (m *Meta) Descriptor() Descriptor { return m.desc }

// Storage is where the repository lies.
func (m *Meta) Storage() blob.Storage { return m.storage }

// Name is the repository's name in the estate.
func (m *Meta) Name() string { return m.name }

// Keyring is the keys that the repository was opened with.
func (m *Meta) Keyring() *Keyring { return m.keys }

// putSigned signs, seals and stores a record. That the very same record is already there is no error; other
// content under the name is blob.ErrExists.
func (m *Meta) putSigned(ctx context.Context, kind, name string, payload any, sealed seal) error {
	begun := m.now()
	if err := m.putOnce(ctx, kind, name, payload, sealed); err != nil {
		return err
	}
	if kind != manifestKind { // whose witness comes before it
		m.witness(ctx, name, begun)
	}
	return nil
}

func (m *Meta) putOnce(ctx context.Context, kind, name string, payload any, sealed seal) error {
	b, err := m.keys.sign(kind, name, m.now(), payload)
	if err != nil {
		return err
	}
	if err := m.maySign(ctx, name); err != nil {
		return err
	}
	body, err := m.keys.sealBytes(b, sealed)
	if err != nil {
		return fmt.Errorf("seal %s: %w", name, err)
	}
	err = m.storage.Put(ctx, name, bytes.NewReader(body), blob.PutOptions{})
	if !errors.Is(err, blob.ErrExists) {
		if err != nil {
			return fmt.Errorf("put %s: %w", name, err)
		}
		return nil
	}
	ours, perr := parseEnvelope(b, kind, name)
	if perr != nil {
		return perr
	}
	there, gerr := m.getSigned(ctx, kind, name, nil)
	if gerr != nil {
		return fmt.Errorf("put %s: %w, and what is there cannot be read: %v", name, blob.ErrExists, gerr)
	}
	if there.Signer == ours.Signer && bytes.Equal(there.Payload, ours.Payload) {
		return nil
	}
	return fmt.Errorf("put %s: %w", name, err)
}

// getSigned reads a record, verifies its name, its signer and its signature, and decodes its payload. An
// error that wraps blob.ErrNotFound means that the object is proven absent; with errRevoked, it is what its host had signed.
func (m *Meta) getSigned(ctx context.Context, kind, name string, into any) (Signed, error) {
	s, err := m.getVerified(ctx, kind, name)
	if err != nil {
		return s, err
	}
	return s, s.decode(into)
}

func (m *Meta) getVerified(ctx context.Context, kind, name string) (Signed, error) {
	raw, err := getAll(ctx, m.storage, name, maxSigned+maxSigned/8)
	if err != nil {
		return Signed{}, fmt.Errorf("get %s: %w", name, err)
	}
	b, err := m.openBytes(name, raw, sealOf(name))
	if err != nil {
		return Signed{}, err
	}
	s, err := parseEnvelope(b, kind, name)
	if err != nil {
		return Signed{}, err
	}
	_, err = m.verifySigner(ctx, s)
	if err != nil && !errors.Is(err, errRevoked) {
		return Signed{}, err
	}
	return s, err
}

func (m *Meta) openBytes(name string, raw []byte, s seal) ([]byte, error) {
	r, err := m.keys.open(bytes.NewReader(raw), s)
	var none *age.NoIdentityMatchError
	if errors.As(err, &none) {
		return nil, refused(name, "it is sealed to a key that is not at hand")
	}
	var own *relight.Error
	if errors.As(err, &own) {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	if err != nil {
		return nil, corrupt(name, "it cannot be opened: %v", err)
	}
	b, err := io.ReadAll(io.LimitReader(r, maxSigned+1))
	if err != nil {
		return nil, corrupt(name, "it cannot be opened: %v", err)
	}
	if len(b) > maxSigned {
		return nil, corrupt(name, "larger than %d bytes", maxSigned)
	}
	return b, nil
}

// sleep waits for d or for the context's end.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
