package repo

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"filippo.io/age"
	"github.com/zeebo/blake3"
)

// recoverySigner is the name under which the recovery side signs; no host may take it.
const recoverySigner = "recovery"

// Keyring is the keys that one party holds of one repository. It is immutable and may be used by several
// goroutines.
type Keyring struct {
	repository string
	authority  ed25519.PublicKey
	root       ed25519.PrivateKey // the authority's key; nil but on the recovery side
	host       string
	signer     ed25519.PrivateKey
	epochs     map[int]*epochKeys
	current    int
	missing    []int    // epochs that the identities at hand do not open
	opened     []string // recipients whose wrapping was opened
	problems   []error  // wrappings that should have opened
}

// epochKeys are the keys of one epoch.
type epochKeys struct {
	epoch int
	data  age.Identity // nil without the right to read content
	meta  age.Identity
	dataR Recipient
	metaR Recipient
	chunk [32]byte
	pool  *sync.Pool // of *blake3.Hasher keyed with chunk
}

// epochSecrets is how an epoch's keys are written down: in keys/epoch/… and in credentials.
type epochSecrets struct {
	Epoch         int    `json:"epoch"`
	Data          string `json:"data,omitempty"`           // secret identity
	DataRecipient string `json:"data_recipient,omitempty"` // where the identity is withheld
	Meta          string `json:"meta"`
	ChunkKey      []byte `json:"chunk_key"`
}

func (s epochSecrets) keys() (*epochKeys, error) {
	e := &epochKeys{epoch: s.Epoch}
	if s.Epoch < 1 || len(s.ChunkKey) != 32 {
		return nil, fmt.Errorf("epoch %d has a chunk key of %d bytes", s.Epoch, len(s.ChunkKey))
	}
	copy(e.chunk[:], s.ChunkKey)
	var err error
	if e.meta, e.metaR, err = parseEpochIdentity(s.Meta); err != nil {
		return nil, fmt.Errorf("metadata identity of epoch %d: %w", s.Epoch, err)
	}
	if s.Data != "" {
		if e.data, e.dataR, err = parseEpochIdentity(s.Data); err != nil {
			return nil, fmt.Errorf("data identity of epoch %d: %w", s.Epoch, err)
		}
	} else if e.dataR, err = ParseRecipient(s.DataRecipient); err != nil {
		return nil, fmt.Errorf("data recipient of epoch %d: %w", s.Epoch, err)
	}
	if _, err := blake3.NewKeyed(e.chunk[:]); err != nil {
		return nil, fmt.Errorf("chunk key of epoch %d: %w", s.Epoch, err)
	}
	e.pool = &sync.Pool{New: func() any {
		h, err := blake3.NewKeyed(e.chunk[:])
		if err != nil {
			panic(err) // the same key was accepted above
		}
		return h
	}}
	return e, nil
}

func parseEpochIdentity(s string) (age.Identity, Recipient, error) {
	ids, err := age.ParseIdentities(strings.NewReader(s))
	if err != nil || len(ids) != 1 {
		return nil, Recipient{}, fmt.Errorf("it is not one age identity")
	}
	r, err := RecipientOf(ids[0])
	return ids[0], r, err
}

// CanRead says whether k holds a data identity, and so reads content.
func (k *Keyring) CanRead() bool {
	for _, e := range k.epochs {
		if e.data != nil {
			return true
		}
	}
	return false
}

// CanWrite says whether k can seal and sign.
func (k *Keyring) CanWrite() bool { return k.signer != nil }

// CanEnrol says whether k holds the authority: it is then the recovery side.
func (k *Keyring) CanEnrol() bool { return k.root != nil }

// Host is the name under which k signs.
func (k *Keyring) Host() string { return k.host }

// Epoch is the epoch in which k writes.
func (k *Keyring) Epoch() int { return k.current }

// Same says whether o holds the same keys: it signs alike, and opens the same epochs.
func (k *Keyring) Same(o *Keyring) bool {
	if k.repository != o.repository || k.host != o.host || k.CanRead() != o.CanRead() || !bytes.Equal(k.signer, o.signer) {
		return false
	}
	return slices.Equal(k.epochList(), o.epochList())
}

// Repository is the id of the repository that the keys belong to.
func (k *Keyring) Repository() string { return k.repository }

// Missing lists the epochs whose secrets the given identities do not open.
func (k *Keyring) Missing() []int { return slices.Clone(k.missing) }

func (k *Keyring) epoch() (*epochKeys, error) {
	e := k.epochs[k.current]
	if e == nil {
		return nil, fmt.Errorf("the keys of epoch %d are not at hand", k.current)
	}
	return e, nil
}

func (k *Keyring) epochList() []int {
	var out []int
	for e := range k.epochs {
		out = append(out, e)
	}
	slices.Sort(out)
	return out
}

// identities lists the identities of all epochs, newest first.
func (k *Keyring) identities(data bool) []age.Identity {
	var out []age.Identity
	es := k.epochList()
	slices.Reverse(es)
	for _, n := range es {
		id := k.epochs[n].meta
		if data {
			id = k.epochs[n].data
		}
		if id != nil {
			out = append(out, id)
		}
	}
	return out
}

// chunkID is the current epoch's id of a chunk.
func (k *Keyring) chunkID(p []byte) ChunkID { return k.chunkIDIn(k.current, p) }

// chunkIDIn is the id that a chunk has in an epoch. The zero id matches nothing and stands for an epoch whose
// key is not at hand.
func (k *Keyring) chunkIDIn(epoch int, p []byte) ChunkID {
	e := k.epochs[epoch]
	if e == nil {
		return ChunkID{}
	}
	h := e.pool.Get().(*blake3.Hasher)
	defer e.pool.Put(h)
	h.Reset()
	h.Write(p) //nolint:errcheck // a hash never fails
	var id ChunkID
	h.Sum(id[:0])
	return id
}

// sealData seals what is written to the current epoch's data recipient; Close finishes it.
func (k *Keyring) sealData(w io.Writer) (io.WriteCloser, error) { return k.seal(w, sealedData) }

// sealMeta seals what is written to the current epoch's metadata recipient; Close finishes it.
func (k *Keyring) sealMeta(w io.Writer) (io.WriteCloser, error) { return k.seal(w, sealedMeta) }

func (k *Keyring) seal(w io.Writer, s seal) (io.WriteCloser, error) {
	if s == sealedPlain {
		return nopWriteCloser{w}, nil
	}
	e, err := k.epoch()
	if err != nil {
		return nil, err
	}
	if s == sealedData {
		return age.Encrypt(w, e.dataR.Recipient)
	}
	return age.Encrypt(w, e.metaR.Recipient)
}

func (k *Keyring) sealBytes(b []byte, s seal) ([]byte, error) {
	var out bytes.Buffer
	w, err := k.seal(&out, s)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(b); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// openData opens what was sealed to the data recipient of any epoch.
func (k *Keyring) openData(r io.Reader) (io.Reader, error) { return k.open(r, sealedData) }

// openMeta opens what was sealed to the metadata recipient of any epoch.
func (k *Keyring) openMeta(r io.Reader) (io.Reader, error) { return k.open(r, sealedMeta) }

func (k *Keyring) open(r io.Reader, s seal) (io.Reader, error) {
	if s == sealedPlain {
		return r, nil
	}
	ids, err := k.openers(s)
	if err != nil {
		return nil, err
	}
	return age.Decrypt(r, ids...)
}

// openDataAt opens a sealed data object of size sealed bytes for reading at offsets; it gives the plain size.
func (k *Keyring) openDataAt(r io.ReaderAt, size int64) (io.ReaderAt, int64, error) {
	return k.openAt(r, size, sealedData)
}

// openMetaAt does the same for metadata.
func (k *Keyring) openMetaAt(r io.ReaderAt, size int64) (io.ReaderAt, int64, error) {
	return k.openAt(r, size, sealedMeta)
}

func (k *Keyring) openAt(r io.ReaderAt, size int64, s seal) (io.ReaderAt, int64, error) {
	ids, err := k.openers(s)
	if err != nil {
		return nil, 0, err
	}
	return age.DecryptReaderAt(r, size, ids...)
}

func (k *Keyring) openers(s seal) ([]age.Identity, error) {
	ids := k.identities(s == sealedData)
	if len(ids) == 0 {
		return nil, errNoDataIdentity()
	}
	return ids, nil
}

// errNoDataIdentity says that these keys read metadata only, and whose read more.
func errNoDataIdentity() error {
	return usage("read", "content", "use the recovery identity, or a prover's credential", "the keys at hand open metadata only")
}

// sign makes a signed envelope. The payload's JSON is what is signed, byte for byte.
func (k *Keyring) sign(kind, name string, at time.Time, payload any) ([]byte, error) {
	if k.signer == nil {
		return nil, usage("sign", name, "use a writer's credential", "the keys at hand cannot sign")
	}
	return signEnvelope(k.signer, k.host, kind, name, at, payload)
}

type nopWriteCloser struct{ io.Writer }

// Close has nothing to do.
func (nopWriteCloser) Close() error { return nil }
