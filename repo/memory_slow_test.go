//go:build slow

package repo

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob"
	"github.com/toolboxai/relight/blob/file"
	"github.com/zeebo/blake3"
)

const (
	tibFiles    = 1024 // of 1 GiB each
	tibChunks   = segmentBytes / defaultPage
	tibPacks    = 2 // per file; with one, an index would hold so few that retention put indexes together
	tibInPack   = tibChunks / tibPacks
	tibPackSize = tibInPack * 2
	maxResident = 300 << 20
)

// TestMemoryDoesNotGrowWithTheDatabase backs up a synthetic database of 1 TiB (16.7 million distinct chunks, all
// in the index) incrementally, walks it as a verification does and, with the tag soak, checks the repository as its writer may and expires the first snapshot,
// each in a process of its own.
func TestMemoryDoesNotGrowWithTheDatabase(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	phases := []string{"build", "backup", "walk"}
	if tibOwnerToo {
		phases = append(phases, "check", "prune")
	}
	for _, phase := range phases {
		peak(t, "^TestTebibyteChild$", "RELIGHT_TEST_TIB="+dir, "RELIGHT_TEST_PHASE="+phase)
	}
}

// peak runs a test in a process of its own, which must stay within what is promised.
func peak(t *testing.T, test string, env ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run="+test, "-test.v")
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", env, err, out)
	}
	_, after, ok := strings.Cut(string(out), "VmHWM:")
	if !ok {
		t.Fatalf("%s: no VmHWM in %s", env, out)
	}
	kib, err := strconv.ParseInt(strings.Fields(after)[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s: peak %d MiB", env[len(env)-1], kib>>10)
	if kib<<10 > maxResident {
		t.Errorf("%s: peak of %d MiB is over %d MiB", env, kib>>10, maxResident>>20)
	}
}

// tellPeak says how much of this process was ever resident.
func tellPeak(t *testing.T) {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, line, _ := strings.Cut(string(b), "VmHWM:")
	fmt.Println("VmHWM:", strings.Fields(line)[0])
}

// TestTebibyteChild does one phase when the test above starts it.
func TestTebibyteChild(t *testing.T) {
	dir := os.Getenv("RELIGHT_TEST_TIB")
	if dir == "" {
		t.Skip("run by TestMemoryDoesNotGrowWithTheDatabase")
	}
	s, err := file.Create(filepath.Join(dir, "repo"))
	if err != nil {
		t.Fatal(err)
	}
	phases := map[string]func(t *testing.T, dir string, s blob.Storage){"build": tibBuild, "backup": tibBackup, "walk": tibWalk, "check": tibCheck, "prune": tibPrune}
	phases[os.Getenv("RELIGHT_TEST_PHASE")](t, dir, s)
	tellPeak(t)
}

func tibID(f, i int) ChunkID {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:], uint64(f))
	binary.LittleEndian.PutUint64(b[8:], uint64(i))
	return blake3.Sum256(b[:])
}

func tibEntry(f int) Entry {
	return Entry{Path: fmt.Sprintf("base/%04d", f), Mode: 0o600, Size: segmentBytes, Paged: true, ModTime: testTime}
}

// tibBuild commits a snapshot whose data chunks exist in the index only: nobody reads them here.
func tibBuild(t *testing.T, dir string, s blob.Storage) {
	ctx := t.Context()
	v := newVault(t, s)
	if err := v.init.Credential.Write(filepath.Join(dir, "credential")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "identity"), []byte(v.id.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	w, err := v.writer(t, s, "").NewSnapshot(ctx, "main", SnapshotOptions{Kind: "full"})
	if err != nil {
		t.Fatal(err)
	}
	for f := range tibFiles {
		if err := tibFile(ctx, w, s, f); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Commit(ctx, relight.Snapshot{}); err != nil {
		t.Fatal(err)
	}
}

func tibFile(ctx context.Context, w *Writer, s blob.Storage, f int) error {
	m := mapWriter{store: w.storeMeta, leaves: leavesPerRoot(w.page)}
	for part := range tibPacks {
		body := binary.LittleEndian.AppendUint64(make([]byte, 0, tibPackSize), uint64(f*tibPacks+part))[:tibPackSize]
		pack := packInfo{id: blake3.Sum256(body), kind: dataPack, size: tibPackSize}
		if err := s.Put(ctx, pack.name(), bytes.NewReader(body), blob.PutOptions{}); err != nil {
			return err
		}
		recs := make([]record, 0, tibInPack)
		for i := range tibInPack {
			id := tibID(f, part*tibInPack+i)
			recs = append(recs, record{id: id, off: uint32(i), frame: 1, plain: defaultPage})
			if err := m.add(ctx, id); err != nil {
				return err
			}
		}
		packs, all := w.flush.take(pack, recs, w.o.flushAt, flushRecords)
		if err := w.writeIndex(ctx, packs, all); err != nil {
			return err
		}
	}
	e := tibEntry(f)
	if err := m.finish(ctx, &e); err != nil {
		return err
	}
	return w.addEntry(e)
}

// tibWriter opens the repository as its host does.
func tibWriter(t *testing.T, dir string, s blob.Storage) *Meta {
	t.Helper()
	k := must(must(ReadCredential(filepath.Join(dir, "credential")))(t).Keyring())(t)
	return must(Open(t.Context(), s, k, Options{CacheDir: filepath.Join(dir, "cache")}))(t)
}

// tibReader opens it as the recovery side does.
func tibReader(t *testing.T, dir string, s blob.Storage) *Reader {
	t.Helper()
	id := must(age.ParseX25519Identity(string(must(os.ReadFile(filepath.Join(dir, "identity")))(t))))(t)
	return (&vault{s: s, id: id}).reader(t, s, filepath.Join(dir, "cache"))
}

func tibBackup(t *testing.T, dir string, s blob.Storage) {
	ctx := t.Context()
	m := tibWriter(t, dir, s)
	all, err := m.Snapshots(ctx, "main")
	if err != nil || len(all) != 1 {
		t.Fatal(len(all), err)
	}
	w, err := m.NewSnapshot(ctx, "main", SnapshotOptions{Kind: "incremental", Parent: &all[0]})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort(ctx)
	for f := range tibFiles {
		if _, err := w.AddPages(ctx, tibEntry(f), tibSource(f)); err != nil {
			t.Fatal(err)
		}
	}
	snap, err := w.Commit(ctx, relight.Snapshot{})
	if err != nil {
		t.Fatal(err)
	}
	if snap.Size != 1<<40 || snap.Stored > 256<<20 {
		t.Errorf("size %d, stored %d", snap.Size, snap.Stored)
	}
	b, err := json.Marshal(snap.ID)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "snapshot"), b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// tibSource says that one page in each file changed.
type tibSource int

func (s tibSource) Chunk(_ context.Context, i int64, buf []byte) (int, []Stretch, error) {
	if i == tibChunks {
		return 0, nil, nil
	}
	if i != 777 {
		return len(buf), nil, nil
	}
	copy(buf, fmt.Sprintf("changed in file %d", s))
	return len(buf), []Stretch{{0, 8192}}, nil
}

func tibWalk(t *testing.T, dir string, s blob.Storage) {
	ctx := t.Context()
	r := tibReader(t, dir, s)
	var name relight.SnapshotID
	b, err := os.ReadFile(filepath.Join(dir, "snapshot"))
	if err == nil {
		err = json.Unmarshal(b, &name)
	}
	if err != nil {
		t.Fatal(err)
	}
	man, err := r.Meta().Manifest(ctx, "main", name)
	if err != nil {
		t.Fatal(err)
	}
	x, err := r.meta.index(ctx, man.ID)
	if err != nil {
		t.Fatal(err)
	}
	check := &verification{r: r, man: man, files: map[string]bool{}, objects: map[string]bool{}, lost: map[ChunkID]bool{}}
	places := newPlaces(x)
	sorter := newRowSorter(x.cache.temp(), placeSize, verifySort)
	defer sorter.close()
	if err := check.collect(ctx, places, sorter); err != nil || check.count != 0 {
		t.Fatal(check.first, err)
	}
	rows := 0
	if err := sorter.each(func([]byte) error { rows++; return nil }); err != nil || rows != tibFiles*(tibChunks+1) { // what is new lies beside the chunk that it changes
		t.Errorf("%d chunks are needed, %v", rows, err)
	}
}

// tibCheck checks without the key: the data packs hold nothing that opens.
func tibCheck(t *testing.T, dir string, s blob.Storage) {
	rep, err := tibWriter(t, dir, s).Check(t.Context(), nil, func(f Finding) { t.Errorf("finding %+v", f) })
	if err != nil || rep.Snapshots != 2 || len(rep.Untouched) != 2 || rep.Packs < tibFiles*tibPacks {
		t.Errorf("%+v, %v", rep, err)
	}
}

func tibPrune(t *testing.T, dir string, s blob.Storage) {
	newest := Policy{Every: time.Second, For: time.Nanosecond}
	out, err := tibReader(t, dir, s).Meta().Prune(t.Context(), PruneOptions{Policies: map[string][]Policy{"main": {newest}}})
	if err != nil || len(out.Expired()) != 1 || len(out.Damaged) > 0 || out.Marked.Objects > tibFiles {
		t.Errorf("%+v, %v", out, err)
	}
}
