package secret

import (
	"crypto/subtle"
	"fmt"
	"io"
	"log/slog"
)

// Mask is what stands in a secret's place.
const Mask = "•••"

// Value is a resolved secret. The zero Value is empty. Only Reveal shows it.
//
// The text lies behind a pointer because fmt, when it meets a Value in an unexported field, cannot call its methods and
// prints its fields: it then prints an address.
type Value struct{ text *string }

// New wraps a secret that came to be here: a generated password, typed input.
func New(s string) Value { return Value{text: &s} }

// Reveal gives the secret. Use it where it is consumed and nowhere else.
func (v Value) Reveal() string {
	if v.text == nil {
		return ""
	}
	return *v.text
}

// Empty says whether there is nothing to reveal.
func (v Value) Empty() bool { return v.text == nil || *v.text == "" }

// Equal compares in constant time.
func (v Value) Equal(w Value) bool {
	return subtle.ConstantTimeCompare([]byte(v.Reveal()), []byte(w.Reveal())) == 1
}

// String prints the mask.
func (v Value) String() string { return Mask }

// GoString prints the mask.
func (v Value) GoString() string { return Mask }

// Format prints the mask, whatever the verb.
func (v Value) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, Mask) }

// MarshalText writes the mask.
func (v Value) MarshalText() ([]byte, error) { return []byte(Mask), nil }

// MarshalJSON writes the mask.
func (v Value) MarshalJSON() ([]byte, error) { return []byte(`"` + Mask + `"`), nil }

// LogValue logs the mask.
func (v Value) LogValue() slog.Value { return slog.StringValue(Mask) }
