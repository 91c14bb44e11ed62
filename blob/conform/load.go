package conform

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sync/errgroup"

	"github.com/toolboxai/relight/blob"
)

const (
	rounds  = 8
	writers = 8
)

func oneWriterWins(ctx context.Context, p place) error {
	for round := range rounds {
		if err := race(ctx, p, p.name(fmt.Sprintf("dir%d/object", round))); err != nil {
			return fmt.Errorf("round %d: %w", round+1, err)
		}
	}
	return nil
}

// race lets several create-only writers begin at once: exactly one may succeed, and its bytes must be there.
func race(ctx context.Context, p place, name string) error {
	start, results := make(chan struct{}), make([]error, writers)
	var g errgroup.Group
	for i := range writers {
		g.Go(func() error {
			<-start
			results[i] = put(ctx, p, name, bytesOf(uint64(i), 5000))
			return nil
		})
	}
	close(start)
	if err := g.Wait(); err != nil {
		return err
	}
	winner := -1
	for i, err := range results {
		switch {
		case err == nil && winner >= 0:
			return fmt.Errorf("writers %d and %d were both told that they created the object", winner, i)
		case err == nil:
			winner = i
		case !errors.Is(err, blob.ErrExists):
			return err
		}
	}
	if winner < 0 {
		return errors.New("every writer was told that the object exists, none created it")
	}
	return same(ctx, p, name, bytesOf(uint64(winner), 5000))
}

// replacesAtOnce reads an object while it is being replaced by ones of other length: every read is one of them, whole.
func replacesAtOnce(ctx context.Context, p place) error {
	name := p.name("object")
	versions := [][]byte{bytesOf(1, 100_000), bytesOf(2, 30_000)}
	if err := put(ctx, p, name, versions[0]); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		for i := range 4 * rounds {
			if err := p.Put(ctx, name, bytes.NewReader(versions[(i+1)%2]), blob.PutOptions{Replace: true}); err != nil {
				return err
			}
		}
		return nil
	})
	for range 2 {
		g.Go(func() error { return readsWhole(ctx, p, name, versions) })
	}
	return g.Wait()
}

func readsWhole(ctx context.Context, p place, name string, versions [][]byte) error {
	for range 4 * rounds {
		got, err := read(ctx, p, name, 0, -1)
		if err != nil {
			return fmt.Errorf("read while it is replaced: %w", err)
		}
		if !bytes.Equal(got, versions[0]) && !bytes.Equal(got, versions[1]) {
			return fmt.Errorf("read %d bytes that are neither of the versions written", len(got))
		}
	}
	return nil
}

func servesMany(ctx context.Context, p place) error {
	g, inner := errgroup.WithContext(ctx)
	for i := range 2 * writers {
		g.Go(func() error {
			for j := range rounds {
				if err := oneLife(inner, p, fmt.Sprintf("shared%d/%d-%d", j%3, i, j), uint64(i*rounds+j)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	left, err := listed(ctx, p, p.dir)
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("%d deleted objects are listed", len(left))
	}
	return err
}

// oneLife stores, reads, lists and deletes one object in a directory that others empty at the same time.
func oneLife(ctx context.Context, p place, elem string, seed uint64) error {
	name, data := p.name(elem), bytesOf(seed, 3000)
	if err := put(ctx, p, name, data); err != nil {
		return err
	}
	if err := same(ctx, p, name, data); err != nil {
		return fmt.Errorf("%s: %w", elem, err)
	}
	names, err := listed(ctx, p, name)
	if err == nil && (len(names) == 0 || names[0] != name) {
		err = fmt.Errorf("%s is stored but not listed", elem)
	}
	if err != nil {
		return err
	}
	return p.Delete(ctx, name)
}

func storesLarge(ctx context.Context, p place) error {
	name := p.name("large")
	if err := p.Put(ctx, name, &pattern{seed: 7, size: p.large}, blob.PutOptions{}); err != nil {
		return err
	}
	info, err := p.Stat(ctx, name)
	if err != nil {
		return err
	}
	if info.Size != p.large {
		return fmt.Errorf("stored %d bytes, stat says %d", p.large, info.Size)
	}
	for _, offset := range []int64{0, p.large/2 + 1, p.large - 1} {
		if err := matches(ctx, p, name, offset); err != nil {
			return fmt.Errorf("from offset %d: %w", offset, err)
		}
	}
	return nil
}

// matches compares the object with the pattern as it streams by.
func matches(ctx context.Context, p place, name string, offset int64) error {
	rc, err := p.Get(ctx, name, offset, -1)
	if err != nil {
		return err
	}
	want := &pattern{seed: 7, size: p.large, at: offset}
	n, err := io.Copy(&comparer{want: want}, rc)
	if err == nil && n != p.large-offset {
		err = fmt.Errorf("read %d bytes, expected %d", n, p.large-offset)
	}
	return errors.Join(err, rc.Close())
}

type comparer struct {
	want *pattern
	buf  []byte
}

func (c *comparer) Write(b []byte) (int, error) {
	at := c.want.at
	if len(c.buf) < len(b) {
		c.buf = make([]byte, len(b))
	}
	n, err := io.ReadFull(c.want, c.buf[:len(b)])
	if err != nil {
		return 0, fmt.Errorf("more than the stored bytes: %w", err)
	}
	if !bytes.Equal(b, c.buf[:n]) {
		return 0, fmt.Errorf("the %d bytes at %d differ from what was stored", n, at)
	}
	return n, nil
}
