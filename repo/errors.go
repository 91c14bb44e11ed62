package repo

import (
	"errors"
	"fmt"

	"github.com/toolboxai/relight"
)

// What can be wrong with an object; test with errors.Is.
var (
	// ErrConflict says that a name is taken by other content, or a store by another cluster.
	ErrConflict = errors.New("conflict")
	// ErrRefused says that an object is not trusted: unsigned, foreign, revoked or renamed.
	ErrRefused = errors.New("refused")
	// errRevoked is ErrRefused of an object whose host was revoked: whose it was is known.
	errRevoked = fmt.Errorf("%w", ErrRefused)
	// ErrCorrupt says that an object is damaged, or missing although a signed record refers to it.
	ErrCorrupt = errors.New("damaged")
)

// refused names an object that is not trusted.
func refused(name, format string, a ...any) error {
	return fmt.Errorf("object %s %w: %s", name, ErrRefused, fmt.Sprintf(format, a...))
}

// revoked names an object that is not trusted any more, because its host is not.
func revoked(name, format string, a ...any) error {
	return fmt.Errorf("object %s %w: %s", name, errRevoked, fmt.Sprintf(format, a...))
}

// corrupt names an object that is damaged. The cause is printed and not wrapped: what lies below may say
// "not found", and a damaged repository must never pass for an absent object.
func corrupt(name, format string, a ...any) error {
	return fmt.Errorf("object %s is %w: %s", name, ErrCorrupt, fmt.Sprintf(format, a...))
}

// usage is an error that the caller can correct.
func usage(op, subject, hint, format string, a ...any) error {
	return &relight.Error{Op: op, Subject: subject, Code: relight.CodeUsage, Err: fmt.Errorf(format, a...), Hint: hint}
}
