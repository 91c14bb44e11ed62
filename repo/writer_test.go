package repo

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob"
	"github.com/toolboxai/relight/blob/mem"
	"golang.org/x/sync/errgroup"
)

// vault is a repository for tests, with the recovery side's key.
type vault struct {
	s    blob.Storage
	id   *age.X25519Identity
	init InitResult
}

func newVault(t testing.TB, s blob.Storage) *vault {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	r, err := RecipientOf(id)
	if err != nil {
		t.Fatal(err)
	}
	res, err := Init(context.Background(), s, InitOptions{Recipients: []Recipient{r}, Host: "db1"})
	if err != nil {
		t.Fatal(err)
	}
	return &vault{s: s, id: id, init: res}
}

// writer opens the repository as the protected host does, on storage s.
func (v *vault) writer(t testing.TB, s blob.Storage, cache string) *Meta {
	t.Helper()
	k, err := v.init.Credential.Keyring()
	if err != nil {
		t.Fatal(err)
	}
	m, err := Open(context.Background(), s, k, Options{Name: "vault", CacheDir: cache})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// reader opens the repository as the recovery side does.
func (v *vault) reader(t testing.TB, s blob.Storage, cache string) *Reader {
	t.Helper()
	k, err := Unlock(context.Background(), s, v.id)
	if err != nil {
		t.Fatal(err)
	}
	m, err := Open(context.Background(), s, k, Options{Name: "vault", CacheDir: cache})
	if err != nil {
		t.Fatal(err)
	}
	r, err := m.Reader()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// pages makes n bytes that look like a table: half structure, half noise.
func pages(seed uint64, n int) []byte {
	rng := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, n)
	for i := 0; i < n; i += 8 {
		v := uint64(i / 64)
		if i%16 == 0 {
			v = rng.Uint64()
		}
		for j := 0; j < 8 && i+j < n; j++ {
			b[i+j] = byte(v >> (8 * j))
		}
	}
	return b
}

type testFile struct {
	e    Entry
	body []byte
}

var testTime = time.Date(2025, 10, 2, 14, 30, 0, 0, time.UTC)

// testTree is files of every shape that the format knows.
func testTree(seed uint64) []testFile {
	file := func(path string, paged bool, body []byte) testFile {
		return testFile{Entry{Path: path, Mode: 0o600, UID: 70, GID: 70, ModTime: testTime, Paged: paged}, body}
	}
	tree := []testFile{
		{e: Entry{Path: "base", Mode: fs.ModeDir | 0o700, ModTime: testTime}},
		{e: Entry{Path: "base/empty", Mode: fs.ModeDir | 0o700, ModTime: testTime}},
		{e: Entry{Path: "pg_wal", Mode: fs.ModeSymlink | 0o777, ModTime: testTime, Link: "/wal/main"}},
		file("PG_VERSION", false, []byte("15\n")),
		file("base/0", true, nil),
		file("base/none", false, nil),
		file("base/1", true, pages(seed, 8192)),
		file("base/torn", true, pages(seed+1, 3*defaultPage+17)),
		file("base/inline", true, pages(seed+2, inlineIDs*defaultPage)),
		file("base/mapped", true, pages(seed+3, (inlineIDs+1)*defaultPage)),
		file("base/leaves", true, bytes.Repeat(pages(seed+4, 1<<20), 70)), // two leaves, repeated content
		file("base/zero", true, make([]byte, 40*defaultPage)),
		file("log/long", false, pages(seed+5, 9<<20)),
		file("log/noise", false, noise(seed+6, 3<<20)),
	}
	for i := range 300 {
		tree = append(tree, file(fmt.Sprintf("small/%03d", i), false, pages(seed+uint64(i)+100, 10+i*37)))
	}
	return tree
}

func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(seed)}).Read(b)
	return b
}

func addTree(ctx context.Context, w *Writer, tree []testFile) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	for _, f := range tree {
		g.Go(func() error {
			switch f.e.Mode.Type() {
			case fs.ModeDir:
				_, err := w.AddDir(ctx, f.e)
				return err
			case fs.ModeSymlink:
				_, err := w.AddLink(ctx, f.e)
				return err
			}
			e, err := w.AddFile(ctx, f.e, bytes.NewReader(f.body))
			digest := ""
			if !f.e.Paged {
				digest = hexDigest(f.body)
			}
			if err == nil && (e.Size != int64(len(f.body)) || e.Digest != digest) {
				return fmt.Errorf("%s stored as %d bytes, %s", f.e.Path, e.Size, e.Digest)
			}
			return err
		})
	}
	return g.Wait()
}

// backup stores a tree and commits it.
func backup(ctx context.Context, m *Meta, tree []testFile, o SnapshotOptions) (relight.Snapshot, error) {
	w, err := m.NewSnapshot(ctx, "main", o)
	if err != nil {
		return relight.Snapshot{}, err
	}
	defer w.Abort(ctx)
	if err := addTree(ctx, w, tree); err != nil {
		return relight.Snapshot{}, err
	}
	return w.Commit(ctx, relight.Snapshot{Facts: []byte(`{"system":"7"}`)})
}

// compareTree restores a snapshot and holds it against the tree.
func compareTree(ctx context.Context, r *Reader, man Manifest, tree []testFile) error {
	want := map[string]testFile{}
	for _, f := range tree {
		want[f.e.Path] = f
	}
	var got []Entry
	if err := r.Meta().Entries(ctx, man, func(e Entry) error { got = append(got, e); return nil }); err != nil {
		return err
	}
	if len(got) != len(tree) {
		return fmt.Errorf("%d entries instead of %d", len(got), len(tree))
	}
	if !slices.IsSortedFunc(got, func(a, b Entry) int { return cmp.Compare(a.Path, b.Path) }) {
		return errors.New("entries are not in path order")
	}
	for _, e := range got {
		f := want[e.Path]
		if e.Mode != f.e.Mode || e.UID != f.e.UID || !e.ModTime.Equal(f.e.ModTime) || e.Link != f.e.Link || e.Paged != f.e.Paged {
			return fmt.Errorf("entry %+v differs from %+v", e, f.e)
		}
		same := expected{left: f.body}
		if err := r.Copy(ctx, man, e, &same); err != nil {
			return fmt.Errorf("%s: %w", e.Path, err)
		}
		if len(same.left) > 0 {
			return fmt.Errorf("%s lacks its last %d bytes", e.Path, len(same.left))
		}
	}
	return nil
}

// expected refuses what differs from what is left to come.
type expected struct{ left []byte }

func (e *expected) Write(p []byte) (int, error) {
	if !bytes.HasPrefix(e.left, p) {
		return 0, fmt.Errorf("the content differs %d bytes before its end", len(e.left))
	}
	e.left = e.left[len(p):]
	return len(p), nil
}

func TestSnapshotRoundTrip(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	v := newVault(t, mem.New())
	m := v.writer(t, v.s, t.TempDir())
	tree := testTree(1)
	snap, err := backup(ctx, m, tree, SnapshotOptions{Kind: "full"})
	if err != nil {
		t.Fatal(err)
	}
	var size int64
	for _, f := range tree {
		size += int64(len(f.body))
	}
	if snap.Size != size || snap.Files != int64(len(tree)-3) || snap.Stored == 0 || snap.Stored >= size || snap.State != relight.Complete ||
		snap.Host != "db1" || snap.Epoch != 1 || snap.Kind != "full" {
		t.Errorf("snapshot %+v", snap)
	}
	r := v.reader(t, v.s, t.TempDir())
	all, err := r.Meta().Snapshots(ctx, "main")
	if err != nil || len(all) != 1 || all[0].ID != snap.ID || string(all[0].Facts) != `{"system":"7"}` {
		t.Fatalf("snapshots %v, %v", all, err)
	}
	if err := compareTree(ctx, r, all[0], tree); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Reader(); err == nil || relight.HintOf(err) == "" {
		t.Errorf("a writer's credential reads content: %v", err)
	}
	if left := names(t, v.s, "pending/"); len(left) > 0 {
		t.Errorf("registration left: %v", left)
	}
}

func names(t testing.TB, s blob.Storage, prefix string) []string {
	t.Helper()
	var all []string
	if err := s.List(context.Background(), prefix, func(i blob.Info) error { all = append(all, i.Name); return nil }); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestSecondBackupStoresOnlyWhatIsNew(t *testing.T) {
	t.Parallel()
	much(t)
	ctx := t.Context()
	for _, cached := range []bool{true, false} {
		v := newVault(t, mem.New())
		dir := ""
		if cached {
			dir = t.TempDir()
		}
		tree := testTree(2)
		first, err := backup(ctx, v.writer(t, v.s, dir), tree, SnapshotOptions{Kind: "full"})
		if err != nil {
			t.Fatal(err)
		}
		before := len(names(t, v.s, "pack/data/"))
		// Another process, with the cache of the first, or none.
		second, err := backup(ctx, v.writer(t, v.s, dir), tree, SnapshotOptions{Kind: "full"})
		if err != nil {
			t.Fatal(err)
		}
		if after := len(names(t, v.s, "pack/data/")); after != before || second.Stored > 4096 || first.Stored < 1<<20 {
			t.Errorf("cached %v: %d then %d data packs, stored %d then %d", cached, before, after, first.Stored, second.Stored)
		}
		man, err := v.writer(t, v.s, "").Manifest(ctx, "main", second.ID)
		if err != nil {
			t.Fatal(err)
		}
		if err := compareTree(ctx, v.reader(t, v.s, ""), man, tree); err != nil {
			t.Fatal(err)
		}
	}
}

func TestInsertionShiftsFewChunks(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	v := newVault(t, mem.New())
	m := v.writer(t, v.s, "")
	body := noise(3, 8<<20)
	file := func(b []byte) []testFile { return []testFile{{Entry{Path: "f", ModTime: testTime}, b}} }
	if _, err := backup(ctx, m, file(body), SnapshotOptions{}); err != nil {
		t.Fatal(err)
	}
	moved := slices.Concat(body[:1<<20], []byte("inserted"), body[1<<20:])
	snap, err := backup(ctx, m, file(moved), SnapshotOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if snap.Stored > 3<<20 {
		t.Errorf("eight inserted bytes stored %d", snap.Stored)
	}
}

// pageList is a PageSource over bytes; same says which chunks did not change.
type pageList struct {
	body []byte
	page int
	same func(i int64) bool
}

func (p pageList) Chunk(_ context.Context, i int64, buf []byte) (int, []Stretch, error) {
	off := min(int(i)*p.page, len(p.body))
	if p.same != nil && off < len(p.body) && p.same(i) {
		return min(p.page, len(p.body)-off), nil, nil
	}
	n := copy(buf, p.body[off:])
	if n < len(buf) {
		return n, []Stretch{{0, n}}[:min(n, 1)], io.EOF
	}
	return n, []Stretch{{0, n}}, nil
}

func TestIncrementalTakesOverTheParent(t *testing.T) {
	t.Parallel()
	much(t)
	ctx := t.Context()
	v := newVault(t, mem.New())
	m := v.writer(t, v.s, t.TempDir())
	old := pages(5, 1500*defaultPage+100)
	e := Entry{Path: "base/1/2", Mode: 0o600, ModTime: testTime, Paged: true}
	if _, err := backup(ctx, m, []testFile{{e, old}}, SnapshotOptions{}); err != nil {
		t.Fatal(err)
	}
	all, err := m.Snapshots(ctx, "main")
	if err != nil {
		t.Fatal(err)
	}
	body := slices.Clone(old)
	copy(body[700*defaultPage+5:], "changed")
	w, err := m.NewSnapshot(ctx, "main", SnapshotOptions{Kind: "incremental", Parent: &all[0]})
	if err != nil {
		t.Fatal(err)
	}
	got, err := w.AddPages(ctx, e, pageList{body: body, page: w.Page(), same: func(i int64) bool { return i != 700 }})
	if err != nil || got.Size != int64(len(body)) || got.Digest != "" {
		t.Fatalf("entry %+v, %v", got, err)
	}
	if _, err := w.AddPages(ctx, Entry{Path: "new"}, pageList{body: body, page: w.Page(), same: func(int64) bool { return true }}); err == nil {
		t.Error("a file without a parent was taken over")
	}
	snap, err := w.Commit(ctx, relight.Snapshot{})
	if err != nil {
		t.Fatal(err)
	}
	if snap.Stored > 200<<10 || snap.Parent != all[0].ID {
		t.Errorf("one changed page stored %d bytes; parent %s", snap.Stored, snap.Parent)
	}
	man, err := m.Manifest(ctx, "main", snap.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := compareTree(ctx, v.reader(t, v.s, ""), man, []testFile{{e, body}}); err != nil {
		t.Error(err)
	}
}

func TestAddRefusesWhatCannotBeRestored(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	v := newVault(t, mem.New())
	w, err := v.writer(t, v.s, "").NewSnapshot(ctx, "main", SnapshotOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort(ctx)
	for _, p := range []string{"", "/etc/passwd", "../x", "a/../../x", "a//b", "a/", "a\x00b", "a\xff"} {
		if _, err := w.AddFile(ctx, Entry{Path: p}, strings.NewReader("x")); err == nil {
			t.Errorf("path %q was accepted", p)
		}
		if _, err := w.AddDir(ctx, Entry{Path: p}); err == nil {
			t.Errorf("directory %q was accepted", p)
		}
	}
	if _, err := w.AddLink(ctx, Entry{Path: "l"}); err == nil {
		t.Error("a link to nothing was accepted")
	}
}

func TestPathAddedTwiceFailsTheCommit(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	v := newVault(t, mem.New())
	m := v.writer(t, v.s, "")
	w, err := m.NewSnapshot(ctx, "main", SnapshotOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := w.AddDir(ctx, Entry{Path: "d"}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Commit(ctx, relight.Snapshot{}); err == nil {
		t.Fatal("committed")
	}
	if all, err := m.Snapshots(ctx, "main"); err != nil || len(all) > 0 {
		t.Errorf("snapshots %v, %v", all, err)
	}
	if _, err := w.AddDir(ctx, Entry{Path: "e"}); !errors.Is(err, errClosed) {
		t.Errorf("add after commit: %v", err)
	}
}
