package repo

import (
	"maps"
	"testing"

	"filippo.io/age"
)

// token stands for an epoch's identity and its recipient where thousands of cases are tried: whoever holds the same token opens
// what is sealed to it, and nobody else does. An elliptic curve is most of what such a case costs otherwise, and has no part in it.
type token string

func (k token) Wrap(fileKey []byte) ([]*age.Stanza, error) {
	return []*age.Stanza{{Type: "token", Args: []string{string(k)}, Body: fileKey}}, nil
}

func (k token) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	for _, s := range stanzas {
		if s.Type == "token" && s.Args[0] == string(k) {
			return s.Body, nil
		}
	}
	return nil, age.ErrIncorrectIdentity
}

// tokens puts tokens in place of the curves of all epochs.
func (k *Keyring) tokens() *Keyring {
	for _, e := range k.epochs {
		data, meta := token("data-"+e.dataR.text), token("meta-"+e.metaR.text)
		e.dataR.Recipient, e.metaR.Recipient, e.meta = data, meta, meta
		if e.data != nil {
			e.data = data
		}
	}
	return k
}

// newTokenShop is a shop whose repository is sealed with tokens.
func newTokenShop(t testing.TB) *shop {
	s := newShop(t)
	s.rings = &rings{
		writer:   must(s.init.Credential.Keyring())(t).tokens(),
		recovery: must(Unlock(t.Context(), s.s, s.id))(t).tokens(),
	}
	return s
}

// again is the same shop with a storage, a clock and a memory of its own.
func (s *shop) again(t testing.TB) *shop {
	st := *s.stand
	st.t, st.s, st.clock = t, s.s.Clone(), &clock{t: s.clock.now()}
	return &shop{stand: &st, want: maps.Clone(s.want)}
}
