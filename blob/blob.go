// Package blob is where bytes live: the port that every storage driver implements.
//
// It promises four things of every driver, and blobtest holds each driver to them:
//
//  1. Durable: when Put returns nil, the object survives the loss of power.
//  2. Atomic: a reader sees an object whole or not at all, never in part.
//  3. Immutable: Put never changes an existing object unless told to replace it.
//  4. Honest: "not found" means proven absent; anything the driver could not find out is another error.
package blob

import (
	"context"
	"errors"
	"io"
	"time"
)

// Errors that drivers wrap; test with errors.Is.
var (
	ErrNotFound = errors.New("object not found")      // proven absent
	ErrExists   = errors.New("object already exists") // a create-only Put found the name taken
	ErrReadOnly = errors.New("storage is read-only")
	ErrName     = errors.New("invalid object name")
	ErrRange    = errors.New("range outside the object")
)

// Info describes one object.
type Info struct {
	Name     string
	Size     int64
	Modified time.Time // the storage's clock; zero where unknown
}

// PutOptions of a Put.
type PutOptions struct {
	Replace bool // overwrite an existing object; leases' beats only
}

// Storage is a flat, durable namespace of objects. Names are slash-separated paths of
// [A-Za-z0-9._-] elements, neither empty nor "." nor "..". No name may be the directory of another ("a" beside
// "a/b"): a driver may refuse the second, and none is obliged to. All methods may be called from several goroutines.
type Storage interface {
	// Put stores the rest of body under name. It may read body more than once, by seeking. Without
	// Replace it returns ErrExists when the name is taken, also when two writers race.
	Put(ctx context.Context, name string, body io.ReadSeeker, o PutOptions) error
	// Get opens length bytes from offset; a length of -1 reads to the end. A range beyond the object's
	// end is an error, never a short read.
	Get(ctx context.Context, name string, offset, length int64) (io.ReadCloser, error)
	// Stat describes one object.
	Stat(ctx context.Context, name string) (Info, error)
	// List calls fn for every object whose name begins with prefix, in ascending byte order of names.
	List(ctx context.Context, prefix string, fn func(Info) error) error
	// Delete removes an object; that it is already absent is no error.
	Delete(ctx context.Context, name string) error
	// String is the storage's URL, without secrets.
	String() string
}
