package blob

import (
	"fmt"
	"strings"
)

// The longest name and the longest element of one, in bytes, that every driver can store.
const (
	MaxName    = 1000
	MaxElement = 255
)

// CheckName says whether every driver can store an object under name; the error wraps ErrName.
func CheckName(name string) error {
	if name == "" || len(name) > MaxName {
		return fmt.Errorf("%w: %q has %d bytes, allowed are 1 to %d", ErrName, clip(name), len(name), MaxName)
	}
	for elem := range strings.SplitSeq(name, "/") {
		if err := checkElement(elem); err != nil {
			return fmt.Errorf("%w: %q: %w", ErrName, clip(name), err)
		}
	}
	return nil
}

// CheckPrefix says whether a name can begin with prefix; the last element may be unfinished. A prefix that no name
// can have is an error rather than an empty list, for it is a mistake of the caller.
func CheckPrefix(prefix string) error {
	cut := strings.LastIndexByte(prefix, '/')
	if cut >= 0 {
		if err := CheckName(prefix[:cut]); err != nil {
			return err
		}
	}
	rest := prefix[cut+1:]
	if len(prefix) > MaxName || strings.IndexFunc(rest, foreign) >= 0 {
		return fmt.Errorf("%w: prefix %q", ErrName, clip(prefix))
	}
	return nil
}

func checkElement(elem string) error {
	switch {
	case elem == "":
		return fmt.Errorf("an element is empty")
	case elem == "." || elem == "..":
		return fmt.Errorf("an element is %q", elem)
	case len(elem) > MaxElement:
		return fmt.Errorf("an element has %d bytes, allowed are %d", len(elem), MaxElement)
	}
	if at := strings.IndexFunc(elem, foreign); at >= 0 {
		return fmt.Errorf("byte %d is outside [A-Za-z0-9._-]", at)
	}
	return nil
}

func foreign(r rune) bool {
	switch {
	case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
		return false
	}
	return r != '.' && r != '_' && r != '-'
}

// clip keeps messages readable when the name is what is wrong.
func clip(name string) string {
	if len(name) > 80 {
		return name[:77] + "..."
	}
	return name
}
