package repo

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// seal says to whom a signed object is sealed.
type seal int

const (
	sealedMeta  seal = iota // to the metadata recipient
	sealedData              // to the data recipient
	sealedPlain             // to nobody: public records under keys/
)

// maxSigned bounds a signed object, opened: an estate bundle is the largest.
const maxSigned = 64 << 20

// signedBytes are the bytes that a signature covers.
func (s Signed) signedBytes() []byte {
	var b bytes.Buffer
	for _, part := range []string{"relight/1", s.Kind, s.Name, s.Signer, s.At.UTC().Format(time.RFC3339Nano)} {
		b.WriteString(part)
		b.WriteByte(0)
	}
	b.Write(s.Payload)
	return b.Bytes()
}

func signEnvelope(key ed25519.PrivateKey, signer, kind, name string, at time.Time, payload any) ([]byte, error) {
	p, err := json.Marshal(payload)
	if err != nil {
		return nil, fmt.Errorf("encode %s %s: %w", kind, name, err)
	}
	s := Signed{Kind: kind, Name: name, Signer: signer, At: at.UTC().Round(0), Payload: p}
	s.Sig = ed25519.Sign(key, s.signedBytes())
	b, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode %s %s: %w", kind, name, err)
	}
	if len(b) > maxSigned {
		return nil, fmt.Errorf("%s %s has %d bytes; at most %d can be signed", kind, name, len(b), maxSigned)
	}
	return b, nil
}

// parseEnvelope reads an envelope and verifies that it says to be kind and name. The signature is not yet
// verified.
func parseEnvelope(b []byte, kind, name string) (Signed, error) {
	var s Signed
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return Signed{}, corrupt(name, "it is not a signed object: %v", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Signed{}, corrupt(name, "there is more behind the signed object")
	}
	switch {
	case len(s.Sig) != ed25519.SignatureSize || s.Signer == "":
		return Signed{}, refused(name, "it is not signed")
	case s.Name != name:
		return Signed{}, refused(name, "it was signed as %s", s.Name)
	case s.Kind != kind:
		return Signed{}, refused(name, "it is a %s and should be a %s", s.Kind, kind)
	}
	return s, nil
}

// verify checks the signature by one key.
func (s Signed) verify(key ed25519.PublicKey) bool {
	return len(key) == ed25519.PublicKeySize && ed25519.Verify(key, s.signedBytes(), s.Sig)
}

func (s Signed) decode(into any) error {
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(s.Payload, into); err != nil {
		return corrupt(s.Name, "its payload cannot be read: %v", err)
	}
	return nil
}
