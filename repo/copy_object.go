package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/toolboxai/relight/blob"
	"github.com/zeebo/blake3"
)

// one copies an object by way of memory, or of a file when it is large, for it is verified before it is stored.
func (c *copier) one(ctx context.Context, i blob.Info, v verify) error {
	rc, err := c.m.storage.Get(ctx, i.Name, 0, -1)
	if errors.Is(err, blob.ErrNotFound) {
		c.gone()
		return nil
	}
	if err != nil {
		return fmt.Errorf("get %s: %w", i.Name, err)
	}
	body, sum, n, done, err := c.fetch(rc, i.Size)
	if err = errors.Join(err, rc.Close()); err != nil {
		return fmt.Errorf("get %s: %w", i.Name, errors.Join(err, done()))
	}
	if v != nil && !v(i.Name, sum) {
		c.damaged(i.Name, "its bytes are not what its name or its record says")
		return done()
	}
	err = c.to.Put(ctx, i.Name, body, blob.PutOptions{})
	if errors.Is(err, blob.ErrExists) {
		return done()
	}
	if err != nil {
		return fmt.Errorf("put %s: %w", i.Name, errors.Join(err, done()))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out.Objects, c.out.Bytes = c.out.Objects+1, c.out.Bytes+n
	return done()
}

func (c *copier) fetch(r io.Reader, size int64) (body io.ReadSeeker, sum [32]byte, n int64, done func() error, err error) {
	h := blake3.New()
	done = func() error { return nil }
	if size <= spillAbove {
		var b bytes.Buffer
		n, err = io.Copy(io.MultiWriter(&b, h), r)
		h.Sum(sum[:0])
		return bytes.NewReader(b.Bytes()), sum, n, done, err
	}
	f, err := c.m.tempFile()
	if err != nil {
		return nil, sum, 0, done, err
	}
	done = func() error { return errors.Join(f.Close(), os.Remove(f.Name())) }
	n, err = io.Copy(io.MultiWriter(f, h), r)
	h.Sum(sum[:0])
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	return f, sum, n, done, err
}

// replace copies an object that changes.
func (c *copier) replace(ctx context.Context, name string) error {
	b, err := getAll(ctx, c.m.storage, name, maxSigned)
	if errors.Is(err, blob.ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("get %s: %w", name, err)
	}
	if err := c.to.Put(ctx, name, bytes.NewReader(b), blob.PutOptions{Replace: true}); err != nil {
		return fmt.Errorf("put %s: %w", name, err)
	}
	return nil
}

func (c *copier) gone() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.vanished = true
}

func (c *copier) damaged(name, what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.bad[name] {
		c.bad[name] = true
		c.out.Damaged = append(c.out.Damaged, name+": "+what)
	}
}
