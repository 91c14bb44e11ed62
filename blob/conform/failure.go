package conform

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/toolboxai/relight/blob"
)

func refusesNames(ctx context.Context, p place) error {
	bad := []string{
		"", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/./b", "a/..", "a b", "a\x00b", "a\nb", "ä", "a~b", "a:b", "a\\b", "a*", "a%2Fb",
		strings.Repeat("x", blob.MaxElement+1), strings.Repeat("x/", blob.MaxName/2) + "x",
	}
	for _, name := range bad {
		_, getErr := p.Get(ctx, name, 0, -1)
		_, statErr := p.Stat(ctx, name)
		err := errors.Join(
			must(p.Put(ctx, name, bytes.NewReader(nil), blob.PutOptions{}), blob.ErrName, "put"),
			must(getErr, blob.ErrName, "get"),
			must(statErr, blob.ErrName, "stat"),
			must(p.Delete(ctx, name), blob.ErrName, "delete"),
		)
		if err != nil {
			return fmt.Errorf("name %q: %w", name, err)
		}
	}
	for _, prefix := range []string{"/", "../", "a//", "a/../", "a b"} {
		_, err := listed(ctx, p, prefix)
		if err := must(err, blob.ErrName, fmt.Sprintf("list %q", prefix)); err != nil {
			return err
		}
	}
	return nil
}

func takesLongNames(ctx context.Context, p place) error {
	names := []string{
		p.name(strings.Repeat("e", blob.MaxElement)),
		p.name(strings.Repeat("d/", 20) + "x"),
		p.name(strings.Repeat("x", 200) + "/" + strings.Repeat("y", 200) + "/._-"),
	}
	for len(names[1])+3 <= blob.MaxName {
		names[1] += "/a"
	}
	for i, name := range names {
		data := bytesOf(uint64(i), 10)
		if err := put(ctx, p, name, data); err != nil {
			return fmt.Errorf("name of %d bytes: %w", len(name), err)
		}
		if err := same(ctx, p, name, data); err != nil {
			return fmt.Errorf("name of %d bytes: %w", len(name), err)
		}
	}
	got, err := listed(ctx, p, p.dir)
	if err == nil && len(got) != len(names) {
		err = fmt.Errorf("%d of %d long names are listed", len(got), len(names))
	}
	return err
}

// breaking is a body that calls its function once half of it has been read, and then fails if that returns an error.
type breaking struct {
	pattern
	half func() error
	done bool
}

func (b *breaking) Read(buf []byte) (int, error) {
	if b.at >= b.size/2 && !b.done {
		b.done = true
		if err := b.half(); err != nil {
			return 0, err
		}
	}
	limit := int64(len(buf))
	if !b.done {
		limit = min(limit, b.size/2-b.at)
	}
	return b.pattern.Read(buf[:limit])
}

var errBody = errors.New("the body cannot be read")

func leavesNothing(ctx context.Context, p place) error {
	name := p.name("object")
	body := &breaking{pattern: pattern{seed: 1, size: 1 << 20}, half: func() error { return errBody }}
	if err := must(p.Put(ctx, name, body, blob.PutOptions{}), errBody, "store a body that breaks"); err != nil {
		return err
	}
	if err := absent(ctx, p, name); err != nil {
		return err
	}
	old := bytesOf(2, 100)
	if err := put(ctx, p, name, old); err != nil {
		return fmt.Errorf("store under the name of a failed write: %w", err)
	}
	body = &breaking{pattern: pattern{seed: 3, size: 1 << 20}, half: func() error { return errBody }}
	if err := must(p.Put(ctx, name, body, blob.PutOptions{Replace: true}), errBody, "replace by a body that breaks"); err != nil {
		return err
	}
	return same(ctx, p, name, old)
}

func absent(ctx context.Context, p place, name string) error {
	_, err := p.Stat(ctx, name)
	if err := must(err, blob.ErrNotFound, "stat what was not stored"); err != nil {
		return err
	}
	names, err := listed(ctx, p, p.dir)
	if err == nil && len(names) > 0 {
		err = fmt.Errorf("listed although it was not stored: %s", names)
	}
	return err
}

func stopsCancelled(ctx context.Context, p place) error {
	name := p.name("object")
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	body := &breaking{pattern: pattern{seed: 1, size: 4 << 20}, half: func() error { cancel(); return nil }}
	if err := must(p.Put(inner, name, body, blob.PutOptions{}), context.Canceled, "store, cancelled half-way"); err != nil {
		return err
	}
	if err := absent(ctx, p, name); err != nil {
		return err
	}
	if err := put(ctx, p, name, bytesOf(1, 100)); err != nil {
		return err
	}
	_, getErr := read(inner, p, name, 0, -1)
	_, statErr := p.Stat(inner, name)
	_, listErr := listed(inner, p, p.dir)
	_, emptyErr := listed(inner, p, p.name("nothing/"))
	err := errors.Join(
		must(put(inner, p, p.name("other"), nil), context.Canceled, "put"),
		must(getErr, context.Canceled, "get"), must(statErr, context.Canceled, "stat"),
		must(listErr, context.Canceled, "list"),
		must(emptyErr, context.Canceled, "list nothing"), must(p.Delete(inner, name), context.Canceled, "delete"),
	)
	return errors.Join(err, stopsReading(ctx, p), same(ctx, p, name, bytesOf(1, 100)))
}

// stopsReading cancels between two reads of one object that is larger than any buffer between.
func stopsReading(ctx context.Context, p place) error {
	name := p.name("long")
	if err := p.Put(ctx, name, &pattern{seed: 1, size: 8 << 20}, blob.PutOptions{}); err != nil {
		return err
	}
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	rc, err := p.Get(inner, name, 0, -1)
	if err != nil {
		return err
	}
	_, err = io.ReadFull(rc, make([]byte, 1000))
	cancel()
	_, rest := io.Copy(io.Discard, rc)
	return errors.Join(err, must(rest, context.Canceled, "read on after cancelling"), rc.Close())
}
