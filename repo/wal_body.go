package repo

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"
	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob"
	"github.com/zeebo/blake3"
)

// spillAbove is the size from which a sealed body is prepared on disk instead of in memory.
const spillAbove = 32 << 20

// walCodec keeps compressors: making one costs more than compressing a live range.
type walCodec struct{ enc sync.Pool }

func (c *walCodec) encoder(w io.Writer) (*zstd.Encoder, error) {
	if e, ok := c.enc.Get().(*zstd.Encoder); ok {
		e.Reset(w)
		return e, nil
	}
	return zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20))
}

// preparedBody is a body ready to be stored: compressed and sealed, in memory or in a temporary file.
type preparedBody struct {
	io.ReadSeeker
	close  func() error
	plain  int64
	digest string // of the plain bytes
	stored int64
	sealed string // digest of the sealed bytes
}

// prepareBody compresses and seals the rest of body.
func (m *Meta) prepareBody(body io.Reader, size int64, s seal) (*preparedBody, error) {
	if size <= spillAbove {
		var buf bytes.Buffer
		p := &preparedBody{close: func() error { return nil }}
		if err := m.sealBody(p, &buf, body, s); err != nil {
			return nil, err
		}
		p.ReadSeeker = bytes.NewReader(buf.Bytes())
		return p, nil
	}
	f, err := m.tempFile()
	if err != nil {
		return nil, err
	}
	p := &preparedBody{ReadSeeker: f, close: func() error { return errors.Join(f.Close(), os.Remove(f.Name())) }}
	if err := m.sealBody(p, f, body, s); err != nil {
		return nil, errors.Join(err, p.close())
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, errors.Join(fmt.Errorf("rewind sealed body: %w", err), p.close())
	}
	return p, nil
}

func (m *Meta) tempFile() (*os.File, error) {
	if m.o.CacheDir != "" {
		if err := os.MkdirAll(m.o.CacheDir, 0o700); err != nil {
			return nil, fmt.Errorf("make cache directory: %w", err)
		}
	}
	f, err := os.CreateTemp(m.o.CacheDir, "sealing-*")
	if err != nil {
		return nil, fmt.Errorf("make temporary file: %w", err)
	}
	return f, nil
}

func (m *Meta) sealBody(p *preparedBody, to io.Writer, body io.Reader, s seal) error {
	sealedHash, plainHash := blake3.New(), blake3.New()
	counted := &countWriter{w: io.MultiWriter(to, sealedHash)}
	sealed, err := m.keys.seal(counted, s)
	if err != nil {
		return fmt.Errorf("seal body: %w", err)
	}
	z, err := m.codec.encoder(sealed)
	if err != nil {
		return fmt.Errorf("compress body: %w", err)
	}
	defer m.codec.enc.Put(z)
	n, err := io.Copy(io.MultiWriter(z, plainHash), body)
	if err = errors.Join(err, z.Close()); err != nil {
		return fmt.Errorf("compress body: %w", err)
	}
	if err := sealed.Close(); err != nil {
		return fmt.Errorf("seal body: %w", err)
	}
	p.plain, p.stored = n, counted.n
	p.digest, p.sealed = hex.EncodeToString(plainHash.Sum(nil)), hex.EncodeToString(sealedHash.Sum(nil))
	return nil
}

// copyBody writes a body's plain bytes to w and verifies size and digest. What w got counts only when the
// error is nil.
func (m *Meta) copyBody(ctx context.Context, s Sidecar, kind seal, w io.Writer) error {
	rc, err := m.storage.Get(ctx, s.Body, 0, -1)
	if errors.Is(err, blob.ErrNotFound) {
		return corrupt(s.Body, "it is missing although its sidecar is there")
	}
	if err != nil {
		return fmt.Errorf("get %s: %w", s.Body, err)
	}
	defer rc.Close() //nolint:errcheck // what was read is verified by digest
	watch := &readWatch{r: io.LimitReader(rc, s.Stored+1)}
	opened, err := m.keys.open(watch, kind)
	if err != nil {
		return bodyError(s, watch, err)
	}
	z, err := zstd.NewReader(opened, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(8<<20))
	if err != nil {
		return fmt.Errorf("open %s: %w", s.Body, err)
	}
	defer z.Close()
	h := blake3.New()
	out := &writeWatch{w: w}
	n, err := io.Copy(io.MultiWriter(out, h), io.LimitReader(z, s.Size+1))
	if out.err != nil {
		return fmt.Errorf("write what %s holds: %w", s.Body, out.err)
	}
	if err != nil {
		return bodyError(s, watch, err)
	}
	if n != s.Size || hex.EncodeToString(h.Sum(nil)) != s.Digest {
		return corrupt(s.Body, "its %d bytes are not the %d that its sidecar signed", n, s.Size)
	}
	return nil
}

// bodyError tells a storage that failed from a body that is damaged.
func bodyError(s Sidecar, watch *readWatch, err error) error {
	var none *age.NoIdentityMatchError
	var own *relight.Error
	switch {
	case watch.err != nil:
		return fmt.Errorf("read %s: %w", s.Body, notAbsent(watch.err))
	case errors.As(err, &none):
		return refused(s.Body, "it is sealed to a key that is not at hand (epoch %d)", s.Epoch)
	case errors.As(err, &own):
		return err
	}
	return corrupt(s.Body, "%v", err)
}

// readWatch remembers the error of the reader below.
type readWatch struct {
	r   io.Reader
	err error
}

// Read implements io.Reader.
func (r *readWatch) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		r.err = err
	}
	return n, err
}

// writeWatch remembers the error of the writer below.
type writeWatch struct {
	w   io.Writer
	err error
}

// Write implements io.Writer.
func (w *writeWatch) Write(p []byte) (int, error) {
	n, err := w.w.Write(p)
	if err != nil {
		w.err = err
	}
	return n, err
}

type countWriter struct {
	w io.Writer
	n int64
}

// Write implements io.Writer.
func (c *countWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// removeQuietly removes an object of ours that nothing refers to. Writers need not be able to delete: what
// stays is swept later.
func (m *Meta) removeQuietly(ctx context.Context, name string) {
	if err := m.remove(ctx, name); err != nil {
		m.log.DebugContext(ctx, "an unused object stays until the sweep", "object", name, "err", err)
	}
}

// cachePath is a file under the cache directory of this repository; "" without one.
func (m *Meta) cachePath(elem ...string) string {
	if m.o.CacheDir == "" {
		return ""
	}
	return filepath.Join(append([]string{m.o.CacheDir, m.desc.ID}, elem...)...)
}
