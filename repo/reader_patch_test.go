package repo

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/toolboxai/relight/blob/mem"
	"pgregory.net/rapid"
)

// counting is a file that knows what was written into it.
type counting struct {
	*os.File
	written int64
}

func (c *counting) WriteAt(b []byte, off int64) (int, error) {
	c.written += int64(len(b))
	return c.File.WriteAt(b, off)
}

func TestPatchWritesOnlyWhatDiffers(t *testing.T) {
	t.Parallel()
	much(t)
	ctx := t.Context()
	v := newVault(t, mem.New())
	m := v.writer(t, v.s, t.TempDir())
	const size = 90*defaultPage + 8192
	body := pages(5, size)
	flat := noise(9, 3*maxChunk+17)
	tree := []testFile{{Entry{Path: "a", Mode: 0o600, ModTime: testTime, Paged: true}, body}, {Entry{Path: "b", Mode: 0o600, ModTime: testTime}, flat},
		{Entry{Path: "c", Mode: 0o600, ModTime: testTime, Paged: true}, nil}}
	if _, err := backup(ctx, m, tree, SnapshotOptions{}); err != nil {
		t.Fatal(err)
	}
	all, err := m.Snapshots(ctx, "main")
	if err != nil {
		t.Fatal(err)
	}
	r := v.reader(t, v.s, t.TempDir())
	entries := map[string]Entry{}
	if err := r.Meta().Entries(ctx, all[0], func(e Entry) error { entries[e.Path] = e; return nil }); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	patch := func(t interface{ Fatal(...any) }, e Entry, have []byte) ([]byte, int64) {
		path := filepath.Join(dir, "file")
		if err := os.WriteFile(path, have, 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		c := &counting{File: f}
		n, err := r.Patch(ctx, all[0], e, c, int64(len(have)))
		if err != nil || n != c.written {
			t.Fatal(n, c.written, err)
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(f)
		if err != nil || f.Close() != nil {
			t.Fatal(err)
		}
		return got, n
	}
	rapid.Check(t, func(t *rapid.T) {
		have := slices.Clone(body)
		hurt := map[int]bool{}
		for range rapid.IntRange(0, 6).Draw(t, "changes") {
			at := rapid.IntRange(0, size-1).Draw(t, "at")
			have[at] ^= byte(rapid.IntRange(1, 255).Draw(t, "bits"))
			hurt[at/defaultPage] = true
		}
		switch end := rapid.IntRange(0, size).Draw(t, "end"); rapid.IntRange(0, 3).Draw(t, "length") {
		case 0:
			have = have[:end]
			for i := end / defaultPage; i <= (size-1)/defaultPage; i++ {
				hurt[i] = true
			}
		case 1:
			have = append(have, noise(3, 1+end%200000)...)
		}
		got, n := patch(t, entries["a"], have)
		if !bytes.Equal(got, body) {
			t.Fatal("the file is not what the snapshot holds")
		}
		if n > int64(len(hurt))*defaultPage {
			t.Fatalf("%d bytes were written for %d chunks that differ", n, len(hurt))
		}
	})
	for _, have := range [][]byte{nil, flat, flat[:100], append(slices.Clone(flat), 1), noise(8, len(flat))} {
		if got, n := patch(t, entries["b"], have); !bytes.Equal(got, flat) || bytes.Equal(have, flat) != (n == 0) {
			t.Errorf("file that is cut by content: %d bytes from %d, %d written", len(got), len(have), n)
		}
	}
	if got, _ := patch(t, entries["c"], []byte("x")); len(got) != 0 {
		t.Errorf("empty file has %d bytes", len(got))
	}
}

// Nothing of a damaged repository gets into the file unnoticed, and what the file holds already needs no repository.
func TestPatchFromADamagedRepository(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	v := newVault(t, mem.New())
	body := noise(5, 10*defaultPage)
	snap, err := backup(ctx, v.writer(t, v.s, t.TempDir()), []testFile{{Entry{Path: "a", Mode: 0o600, ModTime: testTime, Paged: true}, body}}, SnapshotOptions{})
	if err != nil {
		t.Fatal(err)
	}
	r := v.reader(t, v.s, t.TempDir())
	man, err := r.Meta().Manifest(ctx, "main", snap.ID)
	if err != nil {
		t.Fatal(err)
	}
	var e Entry
	if err := r.Meta().Entries(ctx, man, func(got Entry) error { e = got; return nil }); err != nil {
		t.Fatal(err)
	}
	for _, name := range names(t, v.s, "pack/") {
		if b := raw(t, v.s, name); len(b) > 5*defaultPage {
			b[len(b)/2] ^= 1
			overwrite(t, v.s, name, b)
		}
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if _, err := f.Write(body); err != nil {
		t.Fatal(err)
	}
	if n, err := r.Patch(ctx, man, e, f, int64(len(body))); n != 0 || err != nil {
		t.Errorf("whole file: %d written, %v", n, err)
	}
	if n, err := r.Patch(ctx, man, e, f, 0); !errors.Is(err, ErrCorrupt) || n >= int64(len(body)) {
		t.Errorf("empty file: %d written, %v", n, err)
	}
}
