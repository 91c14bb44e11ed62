// Package retry wraps a storage whose answers sometimes get lost.
//
// It promises a bounded number of attempts with growing, randomised pauses, to try again only what another attempt can
// change (never an absent object, a taken name, a refused range or an ended context), and to end with the
// error of the last attempt. A create-only Put whose first attempt arrived although its answer was lost finds
// its own object: it succeeds if the bytes there are equal, and is blob.ErrExists if they are not. Reading goes on
// where it broke off, which is right for immutable objects; a replaced one is read whole in one attempt or
// signed by whoever wrote it.
package retry

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"time"

	"github.com/toolboxai/relight/blob"
)

// Policy says how often and how long. Every field is needed.
type Policy struct {
	Attempts int                                              // at least 1
	First    time.Duration                                    // pause before the second attempt; doubles with each further one
	Max      time.Duration                                    // longest pause
	Sleep    func(ctx context.Context, d time.Duration) error // returns ctx's error when it ends first
	Rand     func() float64                                   // in [0, 1); spreads the pauses of many clients over half to all of their length
	Tell     func(op, name string, attempt int, err error)    // of every failed attempt that is followed by another; may be nil
}

// Storage tries again.
type Storage struct {
	inner  blob.Storage
	policy Policy
}

// New wraps s.
func New(s blob.Storage, p Policy) *Storage { return &Storage{inner: s, policy: p} }

// String is the wrapped storage's URL.
func (s *Storage) String() string { return s.inner.String() }

// Sleep waits for d on the real clock, or until ctx ends.
func Sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// hopeless are errors that another attempt cannot change.
func hopeless(err error) bool {
	for _, sentinel := range []error{
		blob.ErrNotFound, blob.ErrExists, blob.ErrReadOnly, blob.ErrName, blob.ErrRange, fs.ErrPermission, errFinal,
	} {
		if errors.Is(err, sentinel) {
			return true
		}
	}
	return false
}

// errFinal marks errors of the caller's own functions.
var errFinal = errors.New("not the storage's error")

type final struct{ error }

func (f final) Is(target error) bool { return target == errFinal }
func (f final) Unwrap() error        { return f.error }

// try calls act until it succeeds, is hopeless, ctx ends or the attempts are used up.
func (s *Storage) try(ctx context.Context, op, name string, act func(attempt int) error) error {
	pause := s.policy.First
	for attempt := 1; ; attempt++ {
		err := act(attempt)
		if err == nil || hopeless(err) || ctx.Err() != nil || attempt >= s.policy.Attempts {
			return unmark(err)
		}
		if s.policy.Tell != nil {
			s.policy.Tell(op, name, attempt, err)
		}
		if stop := s.policy.Sleep(ctx, time.Duration(float64(pause)*(0.5+s.policy.Rand()/2))); stop != nil {
			return errors.Join(stop, err)
		}
		pause = min(2*pause, s.policy.Max)
	}
}

func unmark(err error) error {
	if f := (final{}); errors.As(err, &f) {
		return f.error
	}
	return err
}

// Stat describes one object.
func (s *Storage) Stat(ctx context.Context, name string) (info blob.Info, err error) {
	err = s.try(ctx, "stat", name, func(int) error {
		info, err = s.inner.Stat(ctx, name)
		return err
	})
	return info, err
}

// Delete removes an object.
func (s *Storage) Delete(ctx context.Context, name string) error {
	return s.try(ctx, "delete", name, func(int) error { return s.inner.Delete(ctx, name) })
}

// List lists objects, each once: a repeated listing is silent up to where the last one broke off. An error of fn ends it.
func (s *Storage) List(ctx context.Context, prefix string, fn func(blob.Info) error) error {
	last := ""
	return s.try(ctx, "list", prefix, func(int) error {
		return s.inner.List(ctx, prefix, func(i blob.Info) error {
			if i.Name <= last {
				return nil
			}
			last = i.Name
			if err := fn(i); err != nil {
				return final{err}
			}
			return nil
		})
	})
}

// Put stores an object; body is sought back for each attempt.
func (s *Storage) Put(ctx context.Context, name string, body io.ReadSeeker, o blob.PutOptions) error {
	start, err := body.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	return s.try(ctx, "put", name, func(attempt int) error {
		if _, err := body.Seek(start, io.SeekStart); err != nil {
			return final{err}
		}
		source := &source{ReadSeeker: body}
		err := s.inner.Put(ctx, name, source, o)
		if source.err != nil {
			return final{err}
		}
		if attempt > 1 && errors.Is(err, blob.ErrExists) {
			return s.mine(ctx, name, body, start, err)
		}
		return err
	})
}

// source remembers that the body failed: that is not the storage's fault, and trying again would hide it.
type source struct {
	io.ReadSeeker
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.ReadSeeker.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}
