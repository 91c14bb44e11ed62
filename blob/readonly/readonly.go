// Package readonly wraps a storage so that nothing can be written or deleted through it. It promises that the wrapped
// storage sees reads only.
package readonly

import (
	"context"
	"fmt"
	"io"

	"github.com/toolboxai/relight/blob"
)

// Storage passes reads on and refuses everything else with blob.ErrReadOnly.
type Storage struct {
	reads blob.Storage
}

// New wraps s.
func New(s blob.Storage) *Storage { return &Storage{reads: s} }

// Put is refused.
func (s *Storage) Put(_ context.Context, name string, _ io.ReadSeeker, _ blob.PutOptions) error {
	return fmt.Errorf("put %s: %w", name, blob.ErrReadOnly)
}

// Delete is refused.
func (s *Storage) Delete(_ context.Context, name string) error {
	return fmt.Errorf("delete %s: %w", name, blob.ErrReadOnly)
}

// Get opens a range of an object.
func (s *Storage) Get(ctx context.Context, name string, offset, length int64) (io.ReadCloser, error) {
	return s.reads.Get(ctx, name, offset, length)
}

// Stat describes one object.
func (s *Storage) Stat(ctx context.Context, name string) (blob.Info, error) {
	return s.reads.Stat(ctx, name)
}

// List lists objects.
func (s *Storage) List(ctx context.Context, prefix string, fn func(blob.Info) error) error {
	return s.reads.List(ctx, prefix, fn)
}

// String is the wrapped storage's URL.
func (s *Storage) String() string { return s.reads.String() }
