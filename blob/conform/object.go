package conform

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/toolboxai/relight/blob"
)

func storesAndReads(ctx context.Context, p place) error {
	for _, size := range []int64{0, 1, 4095, 65536, 1<<20 + 1} {
		name := p.name(fmt.Sprintf("%d", size))
		data := bytesOf(uint64(size), size)
		if err := put(ctx, p, name, data); err != nil {
			return err
		}
		if err := same(ctx, p, name, data); err != nil {
			return fmt.Errorf("%d bytes: %w", size, err)
		}
	}
	return nil
}

func storesRest(ctx context.Context, p place) error {
	data := bytesOf(1, 5000)
	body := bytes.NewReader(data)
	if _, err := body.Seek(1234, io.SeekStart); err != nil {
		return err
	}
	if err := p.Put(ctx, p.name("rest"), body, blob.PutOptions{}); err != nil {
		return err
	}
	return same(ctx, p, p.name("rest"), data[1234:])
}

func keepsObjects(ctx context.Context, p place) error {
	name, first := p.name("object"), bytesOf(1, 100)
	if err := put(ctx, p, name, first); err != nil {
		return err
	}
	for _, second := range [][]byte{bytesOf(2, 100), first, nil} {
		if err := must(put(ctx, p, name, second), blob.ErrExists, "store under a taken name"); err != nil {
			return err
		}
		if err := same(ctx, p, name, first); err != nil {
			return err
		}
	}
	return nil
}

func replaces(ctx context.Context, p place) error {
	name := p.name("object")
	for i, size := range []int64{10, 2000, 0, 30} {
		data := bytesOf(uint64(i), size)
		if err := p.Put(ctx, name, bytes.NewReader(data), blob.PutOptions{Replace: true}); err != nil {
			return err
		}
		if err := same(ctx, p, name, data); err != nil {
			return fmt.Errorf("after write %d: %w", i+1, err)
		}
	}
	return nil
}

func readsRanges(ctx context.Context, p place) error {
	name, data := p.name("object"), bytesOf(1, 10000)
	if err := put(ctx, p, name, data); err != nil {
		return err
	}
	for _, r := range [][2]int64{{0, 10000}, {0, 1}, {9999, 1}, {17, 4096}, {5000, -1}, {9999, -1}, {10000, -1}, {0, 0}, {77, 0}, {10000, 0}} {
		got, err := read(ctx, p, name, r[0], r[1])
		if err != nil {
			return fmt.Errorf("offset %d, length %d: %w", r[0], r[1], err)
		}
		want := data[r[0]:]
		if r[1] >= 0 {
			want = want[:r[1]]
		}
		if !bytes.Equal(got, want) {
			return fmt.Errorf("offset %d, length %d: got %d other bytes", r[0], r[1], len(got))
		}
	}
	return nil
}

func refusesRanges(ctx context.Context, p place) error {
	name := p.name("object")
	if err := put(ctx, p, name, bytesOf(1, 100)); err != nil {
		return err
	}
	for _, r := range [][2]int64{{0, 101}, {100, 1}, {99, 2}, {101, -1}, {101, 0}, {1 << 40, 1}, {-1, 5}, {0, -2}, {1, 1<<63 - 1}} {
		got, err := read(ctx, p, name, r[0], r[1])
		if err == nil {
			return fmt.Errorf("offset %d, length %d of 100 bytes: %d bytes and no error", r[0], r[1], len(got))
		}
		if errors.Is(err, blob.ErrNotFound) {
			return fmt.Errorf("offset %d, length %d of 100 bytes: says that the object is absent: %w", r[0], r[1], err)
		}
	}
	return nil
}

func saysAbsent(ctx context.Context, p place) error {
	if err := put(ctx, p, p.name("dir/object"), bytesOf(1, 10)); err != nil {
		return err
	}
	for _, elem := range []string{"absent", "no/such/object", "dir", "dir/obj", "dir/object/below", "dir/object.meta"} {
		_, err := p.Get(ctx, p.name(elem), 0, -1)
		if err := must(err, blob.ErrNotFound, "get "+elem); err != nil {
			return err
		}
		_, err = p.Stat(ctx, p.name(elem))
		if err := must(err, blob.ErrNotFound, "stat "+elem); err != nil {
			return err
		}
	}
	return nil
}

func deletes(ctx context.Context, p place) error {
	name, other := p.name("dir/object"), p.name("dir/other")
	if err := errors.Join(put(ctx, p, name, bytesOf(1, 10)), put(ctx, p, other, bytesOf(2, 10))); err != nil {
		return err
	}
	for range 2 { // the second finds it absent
		if err := p.Delete(ctx, name); err != nil {
			return err
		}
		_, err := p.Stat(ctx, name)
		if err := must(err, blob.ErrNotFound, "stat after delete"); err != nil {
			return err
		}
	}
	if err := p.Delete(ctx, p.name("dir")); err != nil {
		return fmt.Errorf("delete a name below which objects lie: %w", err)
	}
	if err := same(ctx, p, other, bytesOf(2, 10)); err != nil {
		return fmt.Errorf("the neighbour of a deleted object: %w", err)
	}
	if err := put(ctx, p, name, bytesOf(3, 20)); err != nil {
		return fmt.Errorf("store again after delete: %w", err)
	}
	return same(ctx, p, name, bytesOf(3, 20))
}

func describes(ctx context.Context, p place) error {
	name := p.name("object")
	if err := put(ctx, p, name, bytesOf(1, 4321)); err != nil {
		return err
	}
	info, err := p.Stat(ctx, name)
	if err != nil {
		return err
	}
	if info.Name != name || info.Size != 4321 {
		return fmt.Errorf("stat says name %q, size %d; stored were %q, 4321", info.Name, info.Size, name)
	}
	return p.List(ctx, name, func(i blob.Info) error {
		if i.Name != info.Name || i.Size != info.Size || i.Modified.Sub(info.Modified).Abs() >= time.Second {
			return fmt.Errorf("list says %+v, stat says %+v", i, info)
		}
		return nil
	})
}
