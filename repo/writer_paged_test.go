package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob"
	"github.com/toolboxai/relight/blob/mem"
)

// A single big file is stored by every slot that is free, and comes back as if one had stored it.
func TestBigFileIsSharedAmongSlots(t *testing.T) {
	t.Parallel()
	much(t)
	ctx := t.Context()
	v := newVault(t, mem.New())
	for _, size := range []int{lentBlock - 1, lentBlock, lentBlock + 1, 9*lentBlock + 3*pagedBlock + 100, 6*lentBlock + pagedBlock} {
		body := pages(uint64(size), size)
		w, err := v.writer(t, v.s, "").NewSnapshot(ctx, "main", SnapshotOptions{Workers: 4, packBytes: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		e, err := w.AddFile(ctx, Entry{Path: "big", Mode: 0o600, Paged: true}, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if e.Digest != "" || e.Size != int64(size) {
			t.Errorf("%d bytes: entry %+v", size, e)
		}
		used := 0
		for range w.count {
			s := <-w.slots
			if len(s.in) > 0 {
				used++
			}
			w.slots <- s
		}
		if used > 1 && size < lentBlock || used == 1 && size > 4*lentBlock {
			t.Errorf("%d bytes were stored by %d slots", size, used)
		}
		snap, err := w.Commit(ctx, relight.Snapshot{})
		if err != nil {
			t.Fatal(err)
		}
		r := v.reader(t, v.s, "")
		man, err := r.Meta().Manifest(ctx, "main", snap.ID)
		if err != nil {
			t.Fatal(err)
		}
		var back bytes.Buffer
		if err := r.Copy(ctx, man, e, &back); err != nil || !bytes.Equal(back.Bytes(), body) {
			t.Errorf("%d bytes: %d came back: %v", size, back.Len(), err)
		}
	}
}

// brokenAfter gives n good bytes, then fails.
type brokenAfter struct {
	r io.Reader
	n int64
}

var errBroken = errors.New("the disk broke")

func (b *brokenAfter) Read(p []byte) (int, error) {
	if b.n <= 0 {
		return 0, errBroken
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.n)])
	b.n -= int64(n)
	return n, err
}

// fullStorage takes no more packs after the first few.
type fullStorage struct {
	blob.Storage
	left chan struct{}
}

var errFull = errors.New("no space left")

func (f fullStorage) Put(ctx context.Context, name string, body io.ReadSeeker, o blob.PutOptions) error {
	if bytes.HasPrefix([]byte(name), []byte("pack/")) {
		select {
		case <-f.left:
		default:
			return errFull
		}
	}
	return f.Storage.Put(ctx, name, body, o)
}

// What breaks while parts are lent fails the file with its cause, and leaves every slot free and nobody at work.
func TestSharedFileFails(t *testing.T) {
	t.Parallel()
	body := pages(7, 12*lentBlock)
	for name, tc := range map[string]struct {
		src   io.Reader
		packs int
		want  error
	}{
		"source":  {&brokenAfter{bytes.NewReader(body), 5*lentBlock + 77}, 1000, errBroken},
		"storage": {bytes.NewReader(body), 3, errFull},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			base := mem.New()
			v := newVault(t, base)
			full := fullStorage{Storage: base, left: make(chan struct{}, tc.packs)}
			for range tc.packs {
				full.left <- struct{}{}
			}
			w, err := v.writer(t, full, "").NewSnapshot(ctx, "main", SnapshotOptions{Workers: 3, packBytes: 1 << 20})
			if err != nil {
				t.Fatal(err)
			}
			defer w.Abort(ctx)
			if _, err := w.AddFile(ctx, Entry{Path: "big", Paged: true}, tc.src); !errors.Is(err, tc.want) {
				t.Errorf("error %v, want %v", err, tc.want)
			}
			if len(w.slots) != w.count {
				t.Errorf("%d of %d slots are free", len(w.slots), w.count)
			}
		})
	}
}

// BenchmarkLastFile is a backup's end: one file is left, and two processors.
func BenchmarkLastFile(b *testing.B) {
	body := heapPages(1, 256<<20)
	for _, workers := range []int{1, 2} {
		b.Run(fmt.Sprintf("workers=%d", workers), func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			for b.Loop() {
				b.StopTimer()
				store := sink0{mem.New()}
				m := newVault(b, store).writer(b, store, "")
				b.StartTimer()
				w, err := m.NewSnapshot(b.Context(), "main", SnapshotOptions{Workers: workers})
				if err != nil {
					b.Fatal(err)
				}
				if _, err := w.AddFile(b.Context(), Entry{Path: "big", Paged: true}, bytes.NewReader(body)); err != nil {
					b.Fatal(err)
				}
				w.Abort(b.Context())
			}
		})
	}
}
