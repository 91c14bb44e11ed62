package repo

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"filippo.io/age"
)

// Recipient is a public recovery key, with the text that it was parsed from.
type Recipient struct {
	age.Recipient
	text string
}

// String is the public key: "age1…" or "age1pq1…".
func (r Recipient) String() string { return r.text }

// PostQuantum says whether what is sealed to r withstands a quantum computer.
func (r Recipient) PostQuantum() bool { _, ok := r.Recipient.(*age.HybridRecipient); return ok }

// ParseRecipient reads a public recovery key.
func ParseRecipient(s string) (Recipient, error) {
	s = strings.TrimSpace(s)
	fail := func(hint, format string, a ...any) (Recipient, error) {
		return Recipient{}, usage("read", "recovery recipient", hint, format, a...)
	}
	upper := strings.ToUpper(s)
	switch {
	case s == "":
		return fail("make a key with age-keygen or age-keygen -pq and give its public half", "it is empty")
	case strings.HasPrefix(upper, "AGE-SECRET-KEY-"):
		return fail("give the public half, age1…; the secret half belongs offline, never here", "this is a secret identity")
	case strings.HasPrefix(s, "ssh-"):
		return fail("make an age key with age-keygen", "SSH keys cannot be recovery keys")
	case strings.ContainsAny(s, "\n\r"):
		return fail("give one recipient at a time", "there is more than one line")
	}
	rs, err := age.ParseRecipients(strings.NewReader(s))
	if err != nil || len(rs) != 1 {
		return fail("a recipient looks like age1… or age1pq1…; check that it was copied whole", "%.12q… is not an age recipient", s)
	}
	return Recipient{Recipient: rs[0], text: s}, nil
}

// ParseIdentities reads an identity file: one secret key a line, "#" begins a comment.
func ParseIdentities(r io.Reader) ([]age.Identity, error) {
	fail := func(hint, format string, a ...any) ([]age.Identity, error) {
		return nil, usage("read", "recovery identity", hint, format, a...)
	}
	b, err := io.ReadAll(io.LimitReader(r, 1<<20))
	if err != nil {
		return nil, fmt.Errorf("read recovery identity: %w", err)
	}
	text := bytes.TrimSpace(b)
	switch {
	case len(text) == 0:
		return fail("the file should hold a line AGE-SECRET-KEY-…", "the file is empty")
	case bytes.HasPrefix(text, []byte("age-encryption.org/")), bytes.HasPrefix(text, []byte("-----BEGIN AGE ENCRYPTED FILE")):
		return fail("decrypt it first with age -d", "the identity file is itself encrypted")
	case bytes.Contains(text, []byte("PRIVATE KEY-----")):
		return fail("use the age identity that was made for this repository", "this is a PEM private key, not an age identity")
	}
	ids, err := age.ParseIdentities(bytes.NewReader(text))
	if err == nil && len(ids) > 0 {
		return ids, nil
	}
	if bytes.Contains(text, []byte("age1")) && !bytes.Contains(text, []byte("AGE-SECRET-KEY-")) {
		return fail("give the file with the secret half, AGE-SECRET-KEY-…", "this is a public recipient")
	}
	// age's own message may quote the line, and the line may be most of a secret.
	return fail("an identity file holds lines AGE-SECRET-KEY-… and comments", "no age identity could be read from it")
}

// RecipientOf gives the public half of a native age identity.
func RecipientOf(id age.Identity) (Recipient, error) {
	switch v := id.(type) {
	case *age.X25519Identity:
		return Recipient{Recipient: v.Recipient(), text: v.Recipient().String()}, nil
	case *age.HybridIdentity:
		return Recipient{Recipient: v.Recipient(), text: v.Recipient().String()}, nil
	default:
		return Recipient{}, fmt.Errorf("an identity of type %T has no known public half", id)
	}
}
