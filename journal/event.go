package journal

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"unicode/utf8"

	"github.com/toolboxai/relight"
	"github.com/zeebo/blake3"
)

const (
	format  = 1
	maxBody = 1 << 20
)

// Hash is one link of the chain.
type Hash [32]byte

// String is lower-case hex.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// MarshalText writes hex.
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText reads hex.
func (h *Hash) UnmarshalText(b []byte) error {
	raw, err := hex.DecodeString(string(b))
	if err != nil || len(raw) != len(h) || hex.EncodeToString(raw) != string(b) {
		return errors.New("a hash is 64 lower-case hex digits")
	}
	copy(h[:], raw)
	return nil
}

// record is an event as it is stored.
type record struct {
	body   []byte
	hash   Hash
	signer string
	sig    []byte
}

var kindForm = regexp.MustCompile(`^[a-z][a-z0-9._-]{0,63}$`)

// encode is the canonical body of e.
func encode(e relight.Event) ([]byte, error) {
	if !kindForm.MatchString(e.Kind) {
		return nil, fmt.Errorf("event kind %q is not of the form step.started", e.Kind)
	}
	if len(e.Data) > 0 && !utf8.Valid(e.Data) {
		return nil, fmt.Errorf("data of event %s is not UTF-8", e.Kind)
	}
	e.At = e.At.UTC().Round(0)
	body, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("data of event %s is not JSON: %w", e.Kind, err)
	}
	if len(body) > maxBody {
		return nil, fmt.Errorf("event %s has %d bytes, more than %d", e.Kind, len(body), maxBody)
	}
	return body, nil
}

// decode reads a body and insists on its canonical form.
func decode(body []byte) (relight.Event, error) {
	var e relight.Event
	if err := json.Unmarshal(body, &e); err != nil {
		return e, fmt.Errorf("not an event: %w", err)
	}
	again, err := encode(e)
	if err != nil {
		return e, err
	}
	if !bytes.Equal(again, body) {
		return e, errors.New("not in canonical form")
	}
	return e, nil
}

// origin is the hash before the first event.
func origin(id, host string) Hash {
	return blake3.Sum256([]byte("relight/journal/1\x00" + id + "\x00" + host))
}

func link(prev Hash, body []byte) Hash {
	h := blake3.New()
	_, _ = h.Write(prev[:])
	_, _ = h.Write(body)
	var out Hash
	h.Sum(out[:0])
	return out
}

func eventMessage(id string, seq int64, h Hash) []byte {
	return []byte("relight/1\x00journal-event\x00" + id + "/" + strconv.FormatInt(seq, 10) + "\x00" + h.String())
}

// Fingerprint names a public key in events and anchors.
func Fingerprint(k ed25519.PublicKey) string {
	sum := blake3.Sum256(k)
	return hex.EncodeToString(sum[:8])
}
