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

// one copies an object by way of memory, or of a file when it is large, for it is verified before it is stored. Without v it is a record.
func (c *copier) one(ctx context.Context, i blob.Info, v verify) error {
	if v == nil {
		return c.record(ctx, i.Name)
	}
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
	if !v(i.Name, sum) {
		c.damaged(i.Name, "its bytes are not what its name or its record says")
		return done()
	}
	return errors.Join(c.put(ctx, i.Name, body, n), done())
}

// record copies an object whose bytes no digest tells. What is sealed to metadata must open, which no changed bit leaves possible; of all else, which is little,
// two readings must agree.
func (c *copier) record(ctx context.Context, name string) error {
	b, err := c.read(ctx, name)
	if errors.Is(err, blob.ErrNotFound) {
		c.gone()
		return nil
	}
	if err != nil {
		return err
	}
	if sealOf(name) == sealedMeta && name != descriptorName {
		if _, err := c.m.openBytes(name, b, sealedMeta); errors.Is(err, ErrCorrupt) {
			c.damaged(name, err.Error())
			return nil
		}
	} else if again, err := c.read(ctx, name); err != nil || !bytes.Equal(b, again) {
		return errors.Join(fmt.Errorf("get %s: two readings of it are not the same", name), err)
	}
	return c.put(ctx, name, bytes.NewReader(b), int64(len(b)))
}

func (c *copier) read(ctx context.Context, name string) ([]byte, error) {
	b, err := getAll(ctx, c.m.storage, name, maxSigned+maxSigned/8)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", name, err)
	}
	return b, nil
}

// put stores what was verified, and witnesses it there.
func (c *copier) put(ctx context.Context, name string, body io.ReadSeeker, n int64) error {
	begun := c.mirror.now()
	err := c.to.Put(ctx, name, body, blob.PutOptions{})
	if errors.Is(err, blob.ErrExists) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("put %s: %w", name, err)
	}
	c.mirror.witness(ctx, name, begun)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out.Objects, c.out.Bytes = c.out.Objects+1, c.out.Bytes+n
	return nil
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
