package blob_test

import (
	"context"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/toolboxai/relight/blob"
)

func TestSpan(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ size, offset, length, want int64 }{
		{10, 0, 10, 10}, {10, 0, -1, 10}, {10, 3, -1, 7}, {10, 10, -1, 0}, {10, 10, 0, 0}, {0, 0, -1, 0},
		{10, 0, 11, -1}, {10, 11, 0, -1}, {10, 11, -1, -1}, {10, -1, 1, -1}, {10, 0, -2, -1}, {10, 5, math.MaxInt64, -1},
	} {
		got, err := blob.Span(c.size, c.offset, c.length)
		if c.want < 0 {
			if !errors.Is(err, blob.ErrRange) {
				t.Errorf("%+v: %d, %v", c, got, err)
			}
			continue
		}
		if got != c.want || err != nil {
			t.Errorf("%+v: %d, %v", c, got, err)
		}
	}
}

func TestExactlyNeverReadsShortOrLong(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		n    int64
		want string
		err  error
	}{{4, "abcd", nil}, {2, "ab", nil}, {0, "", nil}, {5, "abcd", io.ErrUnexpectedEOF}} {
		for name, shape := range map[string]func(io.Reader) io.Reader{
			"plain": func(r io.Reader) io.Reader { return r }, "one byte": iotest.OneByteReader, "end with data": iotest.DataErrReader,
		} {
			r := blob.Exactly(t.Context(), io.NopCloser(shape(strings.NewReader("abcd"))), c.n)
			got, err := io.ReadAll(r)
			if string(got) != c.want || !errors.Is(err, c.err) {
				t.Errorf("%s, %d bytes: %q, %v", name, c.n, got, err)
			}
		}
	}
}

func TestReadingEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, r := range map[string]io.Reader{
		"Exactly":     blob.Exactly(ctx, io.NopCloser(strings.NewReader("abc")), 3),
		"Cancellable": blob.Cancellable(ctx, strings.NewReader("abc")),
	} {
		if _, err := r.Read(make([]byte, 1)); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
