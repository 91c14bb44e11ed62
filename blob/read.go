package blob

import (
	"context"
	"fmt"
	"io"
)

// Span turns the offset and length of a Get into the number of bytes to read from an object of size bytes; the
// error wraps ErrRange.
func Span(size, offset, length int64) (int64, error) {
	if offset < 0 || length < -1 || offset > size {
		return 0, fmt.Errorf("%w: offset %d, length %d, object of %d bytes", ErrRange, offset, length, size)
	}
	if length == -1 {
		return size - offset, nil
	}
	if length > size-offset {
		return 0, fmt.Errorf("%w: offset %d, length %d, object of %d bytes", ErrRange, offset, length, size)
	}
	return length, nil
}

// Exactly guards what a driver returns from Get: reading stops when ctx ends, and an end before n bytes is
// io.ErrUnexpectedEOF, so that a truncated object never passes for a shorter one.
func Exactly(ctx context.Context, rc io.ReadCloser, n int64) io.ReadCloser {
	return &exact{ctx: ctx, rc: rc, left: n}
}

// exact lives as long as one Get, whose context it carries.
type exact struct {
	ctx  context.Context
	rc   io.ReadCloser
	left int64
}

func (e *exact) Read(p []byte) (int, error) {
	if err := e.ctx.Err(); err != nil {
		return 0, err
	}
	if e.left == 0 {
		return 0, io.EOF
	}
	if int64(len(p)) > e.left {
		p = p[:e.left]
	}
	n, err := e.rc.Read(p)
	e.left -= int64(n)
	switch {
	case err != io.EOF:
		return n, err
	case e.left > 0:
		return n, io.ErrUnexpectedEOF
	}
	return n, nil // the end is told by the next call
}

func (e *exact) Close() error { return e.rc.Close() }

// Cancellable makes reading from r fail once ctx ends; drivers read bodies through it.
func Cancellable(ctx context.Context, r io.Reader) io.Reader {
	return &cancellable{ctx: ctx, r: r}
}

type cancellable struct {
	ctx context.Context
	r   io.Reader
}

func (c *cancellable) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
