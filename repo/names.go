package repo

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// timeName is how a time is written into an object's name: sortable, within the alphabet of names.
const timeName = "20060102T150405.000000000Z"

func nameTime(t time.Time) string { return t.UTC().Format(timeName) }

// validElement checks one element of an object's name: a store, a host.
func validElement(what, s string) error {
	if s == "" || s == "." || s == ".." || len(s) > 200 {
		return usage("name", what, "use letters, digits, '.', '_' and '-'", "%q cannot be part of an object's name", s)
	}
	for i := range len(s) {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '_' || c == '-') {
			return usage("name", what, "use letters, digits, '.', '_' and '-'", "%q cannot be part of an object's name", s)
		}
	}
	return nil
}

// validName checks a slash-separated name.
func validName(what, s string) error {
	for e := range strings.SplitSeq(s, "/") {
		if err := validElement(what, e); err != nil {
			return err
		}
	}
	return nil
}

// sealOf says to whom the signed object of a name is sealed: the layout table of docs/format.md.
func sealOf(name string) seal {
	switch {
	case strings.HasPrefix(strings.TrimPrefix(name, witnessPrefix), "keys/"):
		return sealedPlain
	case strings.HasPrefix(name, "estate/"):
		return sealedData
	default:
		return sealedMeta
	}
}

// randomHex is n random bytes in hex.
func randomHex(r io.Reader, n int) (string, error) {
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return "", fmt.Errorf("read random bytes: %w", err)
	}
	return fmt.Sprintf("%x", b), nil
}
