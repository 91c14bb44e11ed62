//go:build slow

package repo

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob/file"
)

// rescue runs the independent script with the tools that are installed.
func rescue(t *testing.T, args ...string) (string, error) { return rescueWith(t, "", args...) }

// rescueWith prefers the tools in a directory.
func rescueWith(t *testing.T, dir string, args ...string) (string, error) {
	t.Helper()
	for _, tool := range []string{"python3", "age", "zstd", "b3sum"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("the rescue script needs %s: %v", tool, err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "python3", append([]string{"-B", "../tools/rescue/rescue.py"}, args...)...)
	cmd.Env = append(os.Environ(), "PATH="+dir+string(os.PathListSeparator)+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// A repository of post-quantum recovery keys comes back with an age that knows them; one that doesn't is told apart from a wrong key.
func TestRescueScriptOpensHybridKeys(t *testing.T) {
	t.Parallel()
	root, tools, out := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "out")
	build := exec.CommandContext(t.Context(), "go", "-C", "../tools", "build", "-o", filepath.Join(tools, "age"), "filippo.io/age/cmd/age")
	if said, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build age: %v\n%s", err, said)
	}
	s := must(file.Open(root))(t)
	id, r := identity(t, true)
	v := &vault{s: s, init: must(Init(t.Context(), s, InitOptions{Recipients: []Recipient{r}, Host: "db1"}))(t)}
	m := v.writer(t, s, "")
	tree := init0(faultTree(40))
	must(serialBackup(t.Context(), m, tree))(t)
	wal := putRescueWAL(t, m)
	key := filepath.Join(t.TempDir(), "recovery.key")
	ok(t, os.WriteFile(key, fmt.Appendln(nil, id), 0o600))
	args := []string{"--repo", root, "--identity", key, "--store", "main", "--out", out}
	if said, err := rescueWith(t, tools, args...); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	for _, f := range tree {
		compareOnDisk(t, filepath.Join(out, "data", f.e.Path), f)
	}
	for name, want := range wal {
		if got := must(os.ReadFile(filepath.Join(out, "wal", name)))(t); !bytes.Equal(got, want) {
			t.Errorf("WAL file %s has other bytes", name)
		}
	}
	if said, err := rescue(t, append(args[:len(args)-1], t.TempDir())...); err != nil && !strings.Contains(said, "age 1.3 or newer") {
		t.Errorf("with the age that is installed: %v\n%s", err, said)
	}
}

func TestRescueScriptRestoresWithoutRelight(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	root, out := t.TempDir(), filepath.Join(t.TempDir(), "out")
	s, err := file.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	v := newVault(t, s)
	m := v.writer(t, s, "")
	if _, err := backup(ctx, m, testTree(40), SnapshotOptions{Kind: "full"}); err != nil {
		t.Fatal(err)
	}
	first := objects(t, root)
	tree := testTree(41) // shares the small files with the first
	if _, err := backup(ctx, m, tree, SnapshotOptions{Kind: "full"}); err != nil {
		t.Fatal(err)
	}
	wal := putRescueWAL(t, m)
	id := filepath.Join(t.TempDir(), "recovery.key")
	if err := os.WriteFile(id, []byte(v.id.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if log, err := rescue(t, "--repo", root, "--identity", id, "--store", "main", "--out", out); err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	for _, f := range tree {
		compareOnDisk(t, filepath.Join(out, "data", f.e.Path), f)
	}
	for name, want := range wal {
		got, err := os.ReadFile(filepath.Join(out, "wal", name))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("WAL file %s: %d bytes, %v", name, len(got), err)
		}
	}
	if got, err := os.ReadDir(filepath.Join(out, "wal")); err != nil || len(got) != len(wal) {
		t.Errorf("%d WAL files, %v", len(got), err)
	}
	refuseDamage(t, root, id, first)
}

// damageable are the folders whose objects a restore reads.
var damageable = []string{"pack/data", "pack/meta", "snap/main"}

// objects lists the objects in the damageable folders of a repository.
func objects(t *testing.T, root string) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	for _, prefix := range damageable {
		entries, err := os.ReadDir(filepath.Join(root, prefix))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			all[filepath.Join(prefix, e.Name())] = true
		}
	}
	return all
}

// refuseDamage flips one bit in each object that the newest snapshot alone brought, one after the other. An older object
// may hold, at the bit's place, a chunk that nobody needs any more.
func refuseDamage(t *testing.T, root, id string, older map[string]bool) {
	added := map[string][]string{}
	for object := range objects(t, root) {
		if !older[object] {
			added[filepath.Dir(object)] = append(added[filepath.Dir(object)], object)
		}
	}
	if len(added) != len(damageable) || len(added["snap/main"]) != 1 {
		t.Fatalf("the second snapshot added %v", added)
	}
	newest := filepath.Base(added["snap/main"][0]) // two snapshots of one second have no order by name
	for _, object := range slices.Concat(added["pack/data"], added["pack/meta"], added["snap/main"]) {
		path := filepath.Join(root, object)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		bad := bytes.Clone(b)
		bad[len(bad)/2] ^= 1
		if err := errorsOf(os.Remove(path), os.WriteFile(path, bad, 0o600)); err != nil {
			t.Fatal(err)
		}
		log, err := rescue(t, "--repo", root, "--identity", id, "--store", "main", "--snapshot", newest, "--out", t.TempDir())
		if err == nil || !strings.Contains(log, "error:") {
			t.Errorf("a flipped bit in %s went unnoticed: %v\n%s", object, err, log)
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// A snapshot whose files are joined from pieces, of mosaics too, comes back without relight; one that joins to something else does not.
func TestRescueScriptJoinsMosaics(t *testing.T) {
	t.Parallel()
	root, out := t.TempDir(), filepath.Join(t.TempDir(), "out")
	s, err := file.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	c := newChain(t, s)
	body := noise(1, 40*defaultPage+3*testPage)
	c.mustAdd(t, body)
	for round := range 3 {
		body = scribble(body, uint64(round+9), 1+round, 77, 78+round, 200, 322)
		c.mustAdd(t, body)
	}
	mosaics := 0
	for _, s := range c.slots(t) {
		if s.isMosaic() {
			mosaics++
		}
	}
	if mosaics < 4 {
		t.Fatalf("%d mosaics", mosaics)
	}
	id := filepath.Join(t.TempDir(), "recovery.key")
	if err := os.WriteFile(id, []byte(c.v.id.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	last := len(c.mans) - 1
	args := []string{"--repo", root, "--identity", id, "--store", "main", "--no-wal", "--snapshot"}
	if log, err := rescue(t, append(args, string(c.mans[last].ID), "--out", out)...); err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	compareOnDisk(t, filepath.Join(out, "data", c.e.Path), testFile{c.e, c.body[last]})
	forged := forgeMosaic(t, c)
	if log, err := rescue(t, append(args, string(forged.ID), "--out", t.TempDir())...); err == nil || !strings.Contains(log, "does not match its id") {
		t.Errorf("a forged mosaic: %v\n%s", err, log)
	}
}

func errorsOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// putRescueWAL stores a whole segment, two live ranges of the next one, and a history.
func putRescueWAL(t *testing.T, m *Meta) map[string][]byte {
	t.Helper()
	ctx := t.Context()
	const size = 1 << 20
	k := WALKey{Store: "main", System: 7123, Timeline: 2}
	sink := m.Sink("main")
	side := func(name string, start, end relight.LSN) Sidecar {
		return Sidecar{Name: name, System: k.System, Timeline: k.Timeline, Start: start, End: end, SegmentSize: size, Size: int64(end - start), Version: 150000}
	}
	history := []byte("1\t0/2000000\tno recovery target specified\n")
	h := side("00000002.history", 0, 0)
	h.Size = int64(len(history))
	whole, part := pages(50, size), pages(51, 3000)
	at := relight.LSN(3 * size)
	first, second := "000000020000000000000003", "000000020000000000000004"
	err := errorsOf(
		sink.PutHistory(ctx, k, h, bytes.NewReader(history)),
		sink.PutSegment(ctx, k, side(first, at, at+size), bytes.NewReader(whole)),
		sink.PutLive(ctx, k, side(second, at+size, at+size+1000), bytes.NewReader(part[:1000])),
		sink.PutLive(ctx, k, side(second, at+size+1000, at+size+3000), bytes.NewReader(part[1000:])),
	)
	if err != nil {
		t.Fatal(err)
	}
	padded := append(bytes.Clone(part), make([]byte, size-len(part))...)
	return map[string][]byte{"00000002.history": history, first: whole, second: padded}
}

func compareOnDisk(t *testing.T, path string, f testFile) {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Error(err)
		return
	}
	if info.Mode() != f.e.Mode || !info.ModTime().Equal(f.e.ModTime) {
		t.Errorf("%s: mode %s, time %s", path, info.Mode(), info.ModTime())
	}
	switch f.e.Mode.Type() {
	case fs.ModeDir:
	case fs.ModeSymlink:
		if to, err := os.Readlink(path); err != nil || to != f.e.Link {
			t.Errorf("%s links to %q, %v", path, to, err)
		}
	default:
		b, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(b, f.body) {
			t.Error(fmt.Errorf("%s: %d bytes, %w", path, len(b), err))
		}
	}
}
