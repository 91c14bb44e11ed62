// Package fault makes a storage fail on purpose.
//
// It promises that every operation on the storage is counted and offered to one function, which decides what happens to
// it, so that a test can name each operation of a program and let it fail, be lost, tear, block or be the last one
// before the process dies. Nothing here is left to chance: the same program and the same decisions give the same run.
package fault

import (
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/toolboxai/relight/blob"
)

// Kind is what an operation does.
type Kind string

// The operations that are counted: the port's, and each Read of what Get opened.
const (
	Put    Kind = "put"
	Get    Kind = "get"
	Read   Kind = "read"
	Stat   Kind = "stat"
	List   Kind = "list"
	Delete Kind = "delete"
)

// Op is one operation. Seq counts from 1.
type Op struct {
	Seq     int
	Kind    Kind
	Name    string // List: the prefix
	Replace bool
}

// String is for logs: "3 put pack/data/1".
func (o Op) String() string { return fmt.Sprintf("%d %s %s", o.Seq, o.Kind, o.Name) }

// Effect is what happens to an operation.
type Effect int

// The effects. Where one means nothing for an operation (a torn Stat), it is Refuse.
const (
	None    Effect = iota
	Refuse         // nothing happens, the error is returned
	Lose           // it happens, but the answer is lost: the error is returned
	Tear           // a Put stores the first half of its body and fails; a Read ends the object early, as if it were whole
	Flip           // a Read has one bit changed, a Put stores one bit changed; no error
	Block          // it waits for Release or the end of its context, then happens
	Die            // the process dies before it: it and all that follow fail with ErrDead
	DieLate        // the process dies after it happened, before the answer: as Die otherwise
)

var effectNames = map[Effect]string{
	None: "none", Refuse: "refuse", Lose: "lose", Tear: "tear", Flip: "flip", Block: "block", Die: "die", DieLate: "die late",
}

// String is for logs.
func (e Effect) String() string { return effectNames[e] }

// Fault is an effect and the error that goes with it; nil: ErrInjected.
type Fault struct {
	Effect Effect
	Err    error
}

// Storage is a wrapped storage whose operations are decided upon.
type Storage struct {
	inner  blob.Storage
	decide func(Op) Fault

	mu      sync.Mutex
	ops     []Op
	dead    bool
	release chan struct{}
}

// New wraps s. decide is called once for each operation, from one goroutine at a time; nil lets everything pass and only
// counts.
func New(s blob.Storage, decide func(Op) Fault) *Storage {
	if decide == nil {
		decide = func(Op) Fault { return Fault{} }
	}
	return &Storage{inner: s, decide: decide, release: make(chan struct{})}
}

// Ops are the operations so far.
func (s *Storage) Ops() []Op {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Op(nil), s.ops...)
}

// Dead says whether Die or DieLate has struck.
func (s *Storage) Dead() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dead
}

// Release lets every blocked operation go on, now and later.
func (s *Storage) Release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.release:
	default:
		close(s.release)
	}
}

// String is the wrapped storage's URL.
func (s *Storage) String() string { return s.inner.String() }

// begin counts an operation and asks what happens to it.
func (s *Storage) begin(kind Kind, name string, replace bool) Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead {
		return Fault{Effect: Refuse, Err: ErrDead}
	}
	op := Op{Seq: len(s.ops) + 1, Kind: kind, Name: name, Replace: replace}
	s.ops = append(s.ops, op)
	f := s.decide(op)
	if f.Err == nil {
		f.Err = fmt.Errorf("%w: %s", ErrInjected, op)
	}
	switch f.Effect {
	case Die:
		s.dead = true
		return Fault{Effect: Refuse, Err: ErrDead}
	case DieLate:
		s.dead = true
		return Fault{Effect: Lose, Err: ErrDead}
	}
	return f
}

// around runs act as the fault allows. Effects that only bodies know are handled by Put and Read before.
func (s *Storage) around(ctx context.Context, f Fault, act func() error) error {
	switch f.Effect {
	case Block:
		if err := s.wait(ctx); err != nil {
			return err
		}
		return act()
	case None:
		return act()
	case Lose:
		if err := act(); err != nil {
			return err
		}
	}
	return f.Err
}

func (s *Storage) wait(ctx context.Context) error {
	select {
	case <-s.release:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Stat describes one object, or fails as decided.
func (s *Storage) Stat(ctx context.Context, name string) (info blob.Info, err error) {
	err = s.around(ctx, s.begin(Stat, name, false), func() error {
		info, err = s.inner.Stat(ctx, name)
		return err
	})
	return info, err
}

// List lists, or fails as decided; Lose and DieLate fail after fn has seen everything.
func (s *Storage) List(ctx context.Context, prefix string, fn func(blob.Info) error) error {
	return s.around(ctx, s.begin(List, prefix, false), func() error { return s.inner.List(ctx, prefix, fn) })
}

// Delete deletes, or fails as decided.
func (s *Storage) Delete(ctx context.Context, name string) error {
	return s.around(ctx, s.begin(Delete, name, false), func() error { return s.inner.Delete(ctx, name) })
}

// Get opens an object, or fails as decided. Each Read of it is an operation of its own.
func (s *Storage) Get(ctx context.Context, name string, offset, length int64) (io.ReadCloser, error) {
	var rc io.ReadCloser
	err := s.around(ctx, s.begin(Get, name, false), func() (err error) {
		rc, err = s.inner.Get(ctx, name, offset, length)
		return err
	})
	if err == nil {
		return &reader{s: s, ctx: ctx, name: name, rc: rc}, nil
	}
	if rc != nil {
		_ = rc.Close() // the answer is lost, and with it the reader
	}
	return nil, err
}
