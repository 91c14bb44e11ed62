// Package observe wraps a storage and tells of every operation: for metrics, progress and tests of what a program asks
// of its storage. It promises to change nothing and to tell of an operation once it is over, a Get when its reader
// is closed.
package observe

import (
	"context"
	"io"
	"time"

	"github.com/toolboxai/relight/blob"
)

// Record is one finished operation.
type Record struct {
	Op       string // "put", "get", "stat", "list", "delete"
	Name     string // list: the prefix
	Bytes    int64  // read or written; list: objects seen
	Duration time.Duration
	Err      error
}

// Storage passes everything on and tells of it.
type Storage struct {
	inner blob.Storage
	now   func() time.Time
	tell  func(Record)
}

// New wraps s. tell may be called from several goroutines at once.
func New(s blob.Storage, now func() time.Time, tell func(Record)) *Storage {
	return &Storage{inner: s, now: now, tell: tell}
}

// String is the wrapped storage's URL.
func (s *Storage) String() string { return s.inner.String() }

func (s *Storage) told(op, name string, begin time.Time, n int64, err error) {
	s.tell(Record{Op: op, Name: name, Bytes: n, Duration: s.now().Sub(begin), Err: err})
}

// Put stores an object. Bytes counts what the driver read of body, repetitions included.
func (s *Storage) Put(ctx context.Context, name string, body io.ReadSeeker, o blob.PutOptions) error {
	begin, counted := s.now(), &counter{ReadSeeker: body}
	err := s.inner.Put(ctx, name, counted, o)
	s.told("put", name, begin, counted.n, err)
	return err
}

type counter struct {
	io.ReadSeeker
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.ReadSeeker.Read(p)
	c.n += int64(n)
	return n, err
}

// Get opens a range of an object.
func (s *Storage) Get(ctx context.Context, name string, offset, length int64) (io.ReadCloser, error) {
	begin := s.now()
	rc, err := s.inner.Get(ctx, name, offset, length)
	if err != nil {
		s.told("get", name, begin, 0, err)
		return nil, err
	}
	return &reader{rc: rc, closed: func(n int64, err error) { s.told("get", name, begin, n, err) }}, nil
}

type reader struct {
	rc     io.ReadCloser
	n      int64
	err    error
	closed func(int64, error)
}

func (r *reader) Read(p []byte) (int, error) {
	n, err := r.rc.Read(p)
	r.n += int64(n)
	if err != nil && err != io.EOF {
		r.err = err
	}
	return n, err
}

func (r *reader) Close() error {
	err := r.rc.Close()
	if r.err == nil {
		r.err = err
	}
	if r.closed != nil {
		r.closed(r.n, r.err)
		r.closed = nil
	}
	return err
}

// Stat describes one object.
func (s *Storage) Stat(ctx context.Context, name string) (blob.Info, error) {
	begin := s.now()
	info, err := s.inner.Stat(ctx, name)
	s.told("stat", name, begin, 0, err)
	return info, err
}

// List lists objects.
func (s *Storage) List(ctx context.Context, prefix string, fn func(blob.Info) error) error {
	begin, seen := s.now(), int64(0)
	err := s.inner.List(ctx, prefix, func(i blob.Info) error {
		seen++
		return fn(i)
	})
	s.told("list", prefix, begin, seen, err)
	return err
}

// Delete removes an object.
func (s *Storage) Delete(ctx context.Context, name string) error {
	begin := s.now()
	err := s.inner.Delete(ctx, name)
	s.told("delete", name, begin, 0, err)
	return err
}
