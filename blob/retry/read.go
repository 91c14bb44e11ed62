package retry

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/toolboxai/relight/blob"
)

// mine answers a repeated create-only Put that found the name taken: nil if what is there equals the body.
func (s *Storage) mine(ctx context.Context, name string, body io.ReadSeeker, start int64, taken error) error {
	if _, err := body.Seek(start, io.SeekStart); err != nil {
		return final{err}
	}
	rc, err := s.Get(ctx, name, 0, -1)
	if err != nil {
		return final{fmt.Errorf("compare with what a lost attempt may have stored: %w", err)}
	}
	same, err := equal(rc, body)
	if err := errors.Join(err, rc.Close()); err != nil {
		return final{fmt.Errorf("compare with what a lost attempt may have stored: %w", err)}
	}
	if !same {
		return taken
	}
	return nil
}

func equal(a, b io.Reader) (bool, error) {
	one, two := bufio.NewReader(a), bufio.NewReader(b)
	for {
		x, errA := one.ReadByte()
		y, errB := two.ReadByte()
		switch {
		case errA == io.EOF && errB == io.EOF:
			return true, nil
		case errA == io.EOF || errB == io.EOF:
			return false, nil
		case errA != nil || errB != nil:
			return false, errors.Join(errA, errB)
		case x != y:
			return false, nil
		}
	}
}

// Get opens a range of an object; a reader that breaks off is opened again where it did.
func (s *Storage) Get(ctx context.Context, name string, offset, length int64) (io.ReadCloser, error) {
	r := &reader{s: s, ctx: ctx, name: name, offset: offset, left: length}
	if err := s.try(ctx, "get", name, func(int) error { return r.open() }); err != nil {
		return nil, err
	}
	return r, nil
}

// reader lives as long as one Get, whose context it carries.
type reader struct {
	s      *Storage
	ctx    context.Context
	name   string
	offset int64 // of the next byte
	left   int64 // bytes to come; -1: up to the end
	rc     io.ReadCloser
}

func (r *reader) open() error {
	rc, err := r.s.inner.Get(r.ctx, r.name, r.offset, r.left)
	if err == nil {
		r.rc = rc
	}
	return err
}

// Read tries again as often as the policy allows without a byte of progress.
func (r *reader) Read(p []byte) (n int, err error) {
	err = r.s.try(r.ctx, "read", r.name, func(int) error {
		if r.rc == nil {
			if err := r.open(); err != nil {
				return err
			}
		}
		n, err = r.rc.Read(p)
		r.offset += int64(n)
		if r.left >= 0 {
			r.left -= int64(n)
		}
		return r.after(n, err)
	})
	return n, err
}

// after sorts a read's outcome: the end is the end, an error that came with bytes is left to the next call, and any other
// gives up the broken reader so that the next attempt opens another.
func (r *reader) after(n int, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, io.EOF) && r.left <= 0 {
		return final{io.EOF}
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	_ = r.rc.Close() // broken already
	r.rc = nil
	if n > 0 {
		return nil
	}
	return err
}

func (r *reader) Close() error {
	if r.rc == nil {
		return nil
	}
	return r.rc.Close()
}

var _ blob.Storage = (*Storage)(nil)
