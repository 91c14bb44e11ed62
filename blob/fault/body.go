package fault

import (
	"bytes"
	"context"
	"errors"
	"io"

	"github.com/toolboxai/relight/blob"
)

// Errors of faulty operations.
var (
	ErrInjected = errors.New("injected fault")
	ErrDead     = errors.New("the process has died") // of every operation after Die and DieLate
)

// Put stores the body, or fails or spoils it as decided.
func (s *Storage) Put(ctx context.Context, name string, body io.ReadSeeker, o blob.PutOptions) error {
	f := s.begin(Put, name, o.Replace)
	if f.Effect != Tear && f.Effect != Flip {
		return s.around(ctx, f, func() error { return s.inner.Put(ctx, name, body, o) })
	}
	data, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	if f.Effect == Tear {
		if err := s.inner.Put(ctx, name, bytes.NewReader(data[:len(data)/2]), o); err != nil {
			return err
		}
		return f.Err
	}
	flip(data)
	return s.inner.Put(ctx, name, bytes.NewReader(data), o)
}

// flip changes the lowest bit of the middle byte.
func flip(data []byte) {
	if len(data) > 0 {
		data[len(data)/2] ^= 1
	}
}

// reader lives as long as one Get, whose context it carries.
type reader struct {
	s    *Storage
	ctx  context.Context
	name string
	rc   io.ReadCloser
	torn bool
}

func (r *reader) Read(p []byte) (n int, err error) {
	if r.torn {
		return 0, io.EOF
	}
	f := r.s.begin(Read, r.name, false)
	switch f.Effect {
	case Flip:
		n, err = r.rc.Read(p)
		flip(p[:n])
		return n, err
	case Tear:
		r.torn = true
		n, _ = r.rc.Read(p[:len(p)/2])
		return n, nil
	}
	err = r.s.around(r.ctx, f, func() error {
		n, err = r.rc.Read(p)
		return err
	})
	if err != nil && !errors.Is(err, io.EOF) && f.Effect == Lose {
		n = 0 // the bytes are lost with the answer
	}
	return n, err
}

func (r *reader) Close() error { return r.rc.Close() }
