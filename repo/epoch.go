package repo

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"filippo.io/age"
	"github.com/toolboxai/relight/blob"
	"github.com/zeebo/blake3"
)

const (
	wrapPrefix  = "keys/epoch/"
	epochPrefix = "keys/epochs/"
)

// wrapped is what an object under keys/epoch/ holds, sealed to one recovery recipient.
type wrapped struct {
	Format     int    `json:"format"`
	Repository string `json:"repository"`
	epochSecrets
	Authority []byte `json:"authority"` // Ed25519 seed: knowing it authenticates the object
}

// epochRecord is the signed, public record that makes an epoch exist. Of two parties who open the same epoch
// at once, the one whose record stands has opened it.
type epochRecord struct {
	Epoch         int    `json:"epoch"`
	DataRecipient string `json:"data_recipient"`
	MetaRecipient string `json:"meta_recipient"`
}

// recipientID is the short name of a recovery recipient in one repository: 16 hex digits.
func recipientID(repository string, r Recipient) string {
	sum := blake3.Sum256([]byte(repository + "\x00" + r.text))
	return hex.EncodeToString(sum[:8])
}

func epochName(repository string, epoch int) string {
	return fmt.Sprintf("%s%d-%.8s", epochPrefix, epoch, repository)
}

// newSecrets makes the keys of an epoch. They are post-quantum when every recovery recipient is: a chain is
// as strong as its weakest link, and an older age reads the other kind.
func newSecrets(epoch int, postQuantum bool, random io.Reader) (epochSecrets, error) {
	s := epochSecrets{Epoch: epoch, ChunkKey: make([]byte, 32)}
	if _, err := io.ReadFull(random, s.ChunkKey); err != nil {
		return s, fmt.Errorf("read random bytes: %w", err)
	}
	for _, to := range []*string{&s.Data, &s.Meta} {
		id, err := newIdentity(postQuantum)
		if err != nil {
			return s, fmt.Errorf("make an identity: %w", err)
		}
		*to = id
	}
	return s, nil
}

func newIdentity(postQuantum bool) (string, error) {
	if postQuantum {
		id, err := age.GenerateHybridIdentity()
		if err != nil {
			return "", err
		}
		return id.String(), nil
	}
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return "", err
	}
	return id.String(), nil
}

func allPostQuantum(rs []Recipient) bool {
	for _, r := range rs {
		if !r.PostQuantum() {
			return false
		}
	}
	return true
}

// wrapEpoch seals an epoch's secrets to one recovery recipient. Every wrapping has a name of its own, so that
// whatever lies there already, spoiled or half-finished, does not stand in the way.
func wrapEpoch(ctx context.Context, s blob.Storage, repository string, root ed25519.PrivateKey, es epochSecrets, r Recipient, random io.Reader) error {
	es.DataRecipient = ""
	plain, err := json.Marshal(wrapped{Format: Format, Repository: repository, epochSecrets: es, Authority: root.Seed()})
	if err != nil {
		return fmt.Errorf("encode epoch %d: %w", es.Epoch, err)
	}
	var out bytes.Buffer
	w, err := age.Encrypt(&out, r.Recipient)
	if err != nil {
		return fmt.Errorf("seal epoch %d to %.16s…: %w", es.Epoch, r, err)
	}
	if _, err := w.Write(plain); err != nil {
		return fmt.Errorf("seal epoch %d: %w", es.Epoch, err)
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("seal epoch %d: %w", es.Epoch, err)
	}
	suffix, err := randomHex(random, 4)
	if err != nil {
		return err
	}
	name := fmt.Sprintf("%s%d/%s-%s", wrapPrefix, es.Epoch, recipientID(repository, r), suffix)
	if err := put(ctx, s, name, out.Bytes()); err != nil {
		return fmt.Errorf("put %s: %w", name, err)
	}
	return nil
}

// unwrapEpoch opens one object under keys/epoch/.
func unwrapEpoch(name string, raw []byte, ids []age.Identity) (wrapped, error) {
	r, err := age.Decrypt(bytes.NewReader(raw), ids...)
	if err != nil {
		return wrapped{}, err
	}
	b, err := io.ReadAll(io.LimitReader(r, 1<<20))
	if err != nil {
		return wrapped{}, corrupt(name, "%v", err)
	}
	var w wrapped
	if err := json.Unmarshal(b, &w); err != nil {
		return wrapped{}, corrupt(name, "what is sealed in it cannot be read") // the cause could quote a secret
	}
	return w, nil
}

// wrapEpochOf gives the epoch in a wrapping's name.
func wrapEpochOf(name string) (int, bool) {
	e, _, ok := strings.Cut(strings.TrimPrefix(name, wrapPrefix), "/")
	n, err := strconv.Atoi(e)
	return n, ok && err == nil && n > 0
}

// readEpochs reads the public records of the epochs. Those that the authority did not sign count for nothing.
func readEpochs(ctx context.Context, s blob.Storage, d Descriptor) (map[int]epochRecord, error) {
	out := map[int]epochRecord{}
	err := s.List(ctx, epochPrefix, func(i blob.Info) error {
		raw, err := getAll(ctx, s, i.Name, 1<<20)
		if err != nil {
			return fmt.Errorf("get %s: %w", i.Name, err)
		}
		var r epochRecord
		env, err := parseEnvelope(raw, "epoch", i.Name)
		if err == nil && (env.Signer != recoverySigner || !env.verify(d.Authority)) {
			err = refused(i.Name, "the repository's authority did not sign it")
		}
		if err == nil {
			err = env.decode(&r)
		}
		if errors.Is(err, ErrRefused) || errors.Is(err, ErrCorrupt) {
			return nil
		}
		if err != nil {
			return err
		}
		if i.Name == epochName(d.ID, r.Epoch) {
			out[r.Epoch] = r
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", epochPrefix, notAbsent(err))
	}
	return out, nil
}

// checkEpochs compares the keyring with the public records: keys that the authority does not know are
// refused, and a newer epoch is announced.
func (m *Meta) checkEpochs(ctx context.Context) error {
	records, err := readEpochs(ctx, m.storage, m.desc)
	if err != nil {
		return err
	}
	for n, r := range records {
		e := m.keys.epochs[n]
		if e != nil && (e.dataR.text != r.DataRecipient || e.metaR.text != r.MetaRecipient) {
			return usage("open repository", m.storage.String(), "write the host's credential anew with relight key enrol",
				"the keys of epoch %d at hand are not those that the authority announced", n)
		}
	}
	newest := newestOf(records)
	m.newestEpoch = newest
	if newest > m.keys.current {
		m.log.WarnContext(ctx, "a newer key epoch is open; refresh this credential", "repository", m.name, "epoch", newest, "credential", m.keys.current)
	}
	return nil
}

func newestOf(records map[int]epochRecord) (newest int) {
	for n := range records {
		newest = max(newest, n)
	}
	return newest
}

// LookAgain looks who may sign by now, and which is the newest key epoch that the authority has announced.
func (m *Meta) LookAgain(ctx context.Context) (epoch int, err error) {
	if _, err := m.freshTrust(ctx, time.Second); err != nil {
		return 0, err
	}
	records, err := readEpochs(ctx, m.storage, m.desc)
	return newestOf(records), err
}

// NewestEpoch is the newest key epoch that the authority had announced when the repository was opened. A keyring whose Epoch is older still
// writes, and what it writes can be read by recovery keys that were removed since.
func (m *Meta) NewestEpoch() int { return m.newestEpoch }
