package postgres

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"
	"pgregory.net/rapid"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob/mem"
	"github.com/toolboxai/relight/repo"
)

const testSegment = 1 << 20

// vault is a repository with the right to write and to read.
type vault struct {
	meta   *repo.Meta
	reader *repo.Reader
}

func newVault(t testing.TB) *vault {
	t.Helper()
	try := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	blobs := mem.New()
	id, err := age.GenerateX25519Identity()
	try(err)
	rec, err := repo.RecipientOf(id)
	try(err)
	init, err := repo.Init(t.Context(), blobs, repo.InitOptions{Recipients: []repo.Recipient{rec}, Host: "db1"})
	try(err)
	keys, err := init.Credential.Keyring()
	try(err)
	v := &vault{}
	v.meta, err = repo.Open(t.Context(), blobs, keys, repo.Options{Name: "vault", CacheDir: t.TempDir()})
	try(err)
	keys, err = repo.Unlock(t.Context(), blobs, id)
	try(err)
	m, err := repo.Open(t.Context(), blobs, keys, repo.Options{Name: "vault", CacheDir: t.TempDir()})
	try(err)
	v.reader, err = m.Reader()
	try(err)
	return v
}

// copy takes a directory into a new snapshot.
func (v *vault) copy(ctx context.Context, dir string, parent *repo.Manifest, old *ancestor, rules pageRules) (repo.Manifest, *copier, error) {
	w, err := v.meta.NewSnapshot(ctx, "main", repo.SnapshotOptions{Kind: "full", Parent: parent, Workers: 1})
	if err != nil {
		return repo.Manifest{}, nil, err
	}
	defer w.Abort(ctx)
	c := newCopier(w, rules, nil, 0)
	c.old = old
	walk := &scan{root: dir, log: slog.New(slog.DiscardHandler), major: 15}
	if err := c.run(ctx, 1, walk); err != nil {
		return repo.Manifest{}, nil, err
	}
	snap, err := w.Commit(ctx, relight.Snapshot{})
	if err != nil {
		return repo.Manifest{}, nil, err
	}
	man, err := v.meta.Manifest(ctx, "main", snap.ID)
	return man, c, err
}

// files reads every regular file of a snapshot.
func (v *vault) files(ctx context.Context, man repo.Manifest) (map[string][]byte, error) {
	out := map[string][]byte{}
	err := v.reader.Meta().Entries(ctx, man, func(e repo.Entry) error {
		if !e.Mode.IsRegular() {
			return nil
		}
		var b bytes.Buffer
		defer func() { out[e.Path] = b.Bytes() }()
		return v.reader.Copy(ctx, man, e, &b)
	})
	return out, err
}

// heapPage is a page that a server could have written.
func heapPage(seed byte, block uint32, lsn relight.LSN) []byte {
	p := makePage(seed, block, lsn)
	le := binary.LittleEndian
	le.PutUint16(p[10:], 4)
	le.PutUint16(p[12:], 100)
	le.PutUint16(p[14:], 4096)
	le.PutUint16(p[16:], 8192)
	le.PutUint16(p[18:], 8192|4)
	le.PutUint16(p[8:], pageChecksum(p, block))
	return p
}

// world is a directory of relation files whose changes obey the server's rules: whoever changes a page under WAL moves its position beyond all before.
type world struct {
	dir string
	lsn relight.LSN
	t   *rapid.T
}

var worldFiles = []string{"base/5/100", "base/5/100_fsm", "base/5/100_vm", "base/5/101", "base/5/101.1", "base/6/100", "global/1260", "base/5/PG_VERSION", "pg_xact/0000"}

func (w *world) read(name string) []byte {
	b, err := os.ReadFile(filepath.Join(w.dir, name))
	if err != nil && !os.IsNotExist(err) {
		w.t.Fatal(err)
	}
	return b
}

func (w *world) write(name string, b []byte) {
	path := filepath.Join(w.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) block(name string, i int) uint32 {
	if strings.HasSuffix(name, ".1") {
		i += 131072
	}
	return uint32(i)
}

// step changes one file in one of the ways that servers change files.
func (w *world) step(databases map[uint32]uint32) {
	t := w.t
	name := rapid.SampledFrom(worldFiles).Draw(t, "file")
	b := w.read(name)
	if _, ok := relationFile(name); !ok {
		w.write(name, rapid.SliceOfN(rapid.Byte(), 0, 100).Draw(t, "text"))
		return
	}
	n := len(b) / 8192
	w.lsn += relight.LSN(rapid.IntRange(1, 500).Draw(t, "wal"))
	seed := rapid.Byte().Draw(t, "seed")
	at := rapid.IntRange(0, 40).Draw(t, "at")
	switch what := rapid.IntRange(0, 7).Draw(t, "what"); {
	case what <= 2 && n > 0: // change a page
		at %= n
		copy(b[at*8192:], heapPage(seed, w.block(name, at), w.lsn))
	case what == 3: // grow
		for range rapid.IntRange(1, 20).Draw(t, "grow") {
			b = append(b, heapPage(seed, w.block(name, len(b)/8192), w.lsn)...)
		}
	case what == 4: // truncate
		b = b[:min(at, n)*8192]
	case what == 5: // grow by pages that were never used
		b = append(b, make([]byte, (at%5+1)*8192)...)
	case what == 6 && n > 0 && strings.Contains(name, "_"): // FSM and VM change without WAL
		at %= n
		copy(b[at*8192:], heapPage(seed, w.block(name, at), 0))
	case what == 7: // DROP DATABASE, CREATE DATABASE … OID = 6 STRATEGY = FILE_COPY: pages of other origin with old positions
		name, b = "base/6/100", nil
		for range rapid.IntRange(1, 20).Draw(t, "copied") {
			b = append(b, heapPage(seed, uint32(len(b)/8192), testSegment+relight.LSN(rapid.IntRange(0, 100).Draw(t, "old")))...)
		}
		databases[6]++
	}
	w.write(name, b)
}

// TestIncrementalEqualsTheDirectory: whatever happened between, the newest of a chain of incremental backups is byte for byte what a full
// one would be, with and without checksums.
func TestIncrementalEqualsTheDirectory(t *testing.T) {
	exhaustive(t)
	v := newVault(t)
	taken := 0
	rapid.Check(t, func(t *rapid.T) {
		w := &world{dir: mustTemp(t), lsn: 5 * testSegment, t: t}
		defer func() { _ = os.RemoveAll(w.dir) }()
		ctx := context.Background()
		for _, name := range worldFiles {
			w.write(name, nil)
		}
		databases := map[uint32]uint32{5: 700, 6: 701}
		facts := Facts{Lineage: &Lineage{Databases: map[uint32]uint32{}}}
		var parent *repo.Manifest
		for round := range 3 {
			for range rapid.IntRange(1, 25).Draw(t, "steps") {
				w.step(databases)
			}
			w.lsn++
			now := Facts{StartLSN: w.lsn, Lineage: &Lineage{Databases: map[uint32]uint32{}}}
			for oid, xid := range databases {
				now.Lineage.Databases[oid] = xid
			}
			var old *ancestor
			if parent != nil {
				old = &ancestor{start: facts.StartLSN, first: testSegment, databases: sameDatabases(facts, now)}
			}
			rules := pageRules{block: 8192, segment: 131072, checksum: rapid.Bool().Draw(t, "checksums"), start: w.lsn, sleep: noSleep}
			man, c, err := v.copy(ctx, w.dir, parent, old, rules)
			if err != nil || len(c.damage()) > 0 {
				t.Fatalf("round %d: %v, damage %v", round, err, c.damage())
			}
			got, err := v.files(ctx, man)
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range worldFiles {
				if want := w.read(name); !bytes.Equal(got[name], want) {
					t.Fatalf("round %d: %s differs: %d bytes, want %d", round, name, len(got[name]), len(want))
				}
			}
			taken += int(c.taken.Load())
			parent, facts = &man, now
		}
	})
	if taken == 0 {
		t.Error("no chunk was ever taken from a parent: the test shows nothing")
	}
}

func mustTemp(t *rapid.T) string {
	dir, err := os.MkdirTemp("", "relight-world")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestPagesThatProveNothing(t *testing.T) {
	t.Parallel()
	const start = 9 * testSegment
	good := heapPage(1, 0, start-1)
	wrong := func(change func(p []byte)) []byte {
		p := bytes.Clone(good)
		change(p)
		return p
	}
	for name, c := range map[string]struct {
		page []byte
		same bool
	}{
		"old":                     {good, true},
		"at the parent's start":   {heapPage(1, 0, start), false},
		"after it":                {heapPage(1, 0, start+1), false},
		"never used":              {make([]byte, 8192), false},
		"written without WAL":     {heapPage(1, 0, 0), false},
		"of initdb":               {heapPage(1, 0, 0x28), false},
		"of an unknown layout":    {wrong(func(p []byte) { p[18] = 5 }), false},
		"with unknown flags":      {wrong(func(p []byte) { p[10] = 8 }), false},
		"whose parts overlap":     {wrong(func(p []byte) { p[13] = 0x70 }), false},
		"of another kind of file": {noise(8192), false},
	} {
		s := newPageSource(newRelationReader(t.Context(), bytes.NewReader(c.page), "base/5/1", relation{}, 8192, pageRules{block: 8192, segment: 131072, sleep: noSleep}, nil),
			&ancestor{start: start, first: testSegment}, repo.Entry{Paged: true, Size: 8192}, func(int64) {})
		buf := make([]byte, 65536)
		if n, fresh, err := s.Chunk(t.Context(), 0, buf); n != 8192 || err != nil || (len(fresh) == 0) != c.same {
			t.Errorf("page %s: %d bytes, fresh %v, %v", name, n, fresh, err)
		}
		if _, _, err := s.Chunk(t.Context(), 1, buf); !errors.Is(err, io.EOF) {
			t.Errorf("page %s: after the end: %v", name, err)
		}
	}
}

func noise(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*i*7 + i>>5)
	}
	return b
}

// A damaged page is stored as it is and reported, though its position is old.
func TestDamagedPageIsNeverTakenFromTheParent(t *testing.T) {
	t.Parallel()
	page := heapPage(1, 0, 5*testSegment)
	page[5000] ^= 1
	var hurt []Damage
	s := newPageSource(newRelationReader(t.Context(), bytes.NewReader(page), "base/5/1", relation{}, 8192, pageRules{block: 8192, segment: 131072, checksum: true, sleep: noSleep},
		func(d Damage) { hurt = append(hurt, d) }), &ancestor{start: 9 * testSegment, first: testSegment}, repo.Entry{Paged: true, Size: 8192}, func(int64) {})
	if n, fresh, err := s.Chunk(t.Context(), 0, make([]byte, 65536)); n != 8192 || len(fresh) != 1 || err != nil || len(hurt) != 1 {
		t.Errorf("%d bytes, fresh %v, %v, damage %v", n, fresh, err, hurt)
	}
}

func TestParentsAreJudged(t *testing.T) {
	t.Parallel()
	const history2 = "1\t0/5000000\tno recovery target specified\n"
	old := Facts{System: 1, Timeline: 1, StartLSN: 0x3000000, StopLSN: 0x4000000, Checksums: true, BlockSize: 8192, Catalog: 7,
		Label: "parent", Lineage: &Lineage{NextXID: 1000, Databases: map[uint32]uint32{5: 700}, Origin: "clone"}}
	now := old
	now.StartLSN, now.StopLSN, now.Lineage = 0x8000000, 0, &Lineage{NextXID: 2000, Databases: map[uint32]uint32{5: 700}, Origin: "clone"}
	for name, c := range map[string]struct {
		change func(old, now *Facts)
		why    string
	}{
		"same timeline": {func(_, _ *Facts) {}, ""},
		"after a promotion": {func(_, n *Facts) {
			n.Timeline, n.Lineage.History = 2, history2
		}, ""},
		"grandchild": {func(_, n *Facts) {
			n.Timeline, n.Lineage.History = 4, history2+"2\t0/6000000\tx\n"
		}, ""},
		"both on a later timeline": {func(o, n *Facts) {
			o.Timeline, o.Lineage.History = 2, history2
			o.StartLSN, o.StopLSN = 0x5100000, 0x5200000
			n.Timeline, n.Lineage.History = 2, history2
		}, ""},
		"server went back before the parent's end": {func(_, n *Facts) {
			n.Timeline, n.Lineage.History = 2, "1\t0/3800000\tx\n"
		}, "left timeline 1 at"},
		"server went back before the parent": {func(_, n *Facts) {
			n.Timeline, n.Lineage.History = 2, "1\t0/2000000\tx\n"
		}, "left timeline 1 at"},
		"parent on a timeline that was given up": {func(o, n *Facts) {
			o.Timeline, o.Lineage.History = 2, history2
			n.Timeline, n.Lineage.History = 3, history2
		}, "no ancestor"},
		"another timeline of the same number": {func(o, n *Facts) {
			o.Timeline, o.Lineage.History = 2, history2
			n.Timeline, n.Lineage.History = 2, "1\t0/4800000\tx\n"
		}, "no ancestor"},
		"history unknown":                    {func(_, n *Facts) { n.Timeline = 2 }, "history of timeline 2"},
		"server behind on the same timeline": {func(_, n *Facts) { n.StartLSN = 0x3800000 }, "before its end"},
		"same restart point of a standby":    {func(_, n *Facts) { n.StartLSN, n.FromStandby = 0x3000000, true }, ""},
		"standby behind the parent":          {func(_, n *Facts) { n.StartLSN, n.FromStandby = 0x2000000, true }, "before its end"},
		"another cluster":                    {func(_, n *Facts) { n.System = 2 }, "cluster"},
		"upgraded":                           {func(_, n *Facts) { n.Catalog = 8 }, "another version"},
		"checksums switched":                 {func(_, n *Facts) { n.Checksums = false }, "checksums"},
		"no checksums":                       {func(o, n *Facts) { o.Checksums, n.Checksums = false, false }, "no page checksums"},
		"restored from the parent":           {func(o, n *Facts) { o.Lineage.Origin, n.Lineage.Origin = madeByInitdb, "parent" }, ""},
		"restored from another base":         {func(o, n *Facts) { n.Lineage.Origin = "older" }, "another data directory"},
		"a standby was made anew":            {func(o, n *Facts) { o.FromStandby, n.FromStandby, n.Lineage.Origin = true, true, "younger clone" }, "another data directory"},
		"of the primary":                     {func(o, n *Facts) { o.Lineage.Origin = madeByInitdb }, "another data directory"},
		"origin not recorded":                {func(o, n *Facts) { o.Lineage.Origin = "" }, "which data directory"},
		"the old label was tidied away": {func(o, n *Facts) {
			o.Lineage.Origin, n.Lineage.Origin = madeByInitdb, madeByInitdb
			n.Timeline, n.Lineage.History = 2, history2
		}, "restored from"},
		"older format":           {func(o, _ *Facts) { o.Lineage = nil }, "which databases"},
		"transactions wrapped":   {func(_, n *Facts) { n.Lineage.NextXID = 1000 + 1<<31 }, "transaction counter"},
		"transactions went back": {func(_, n *Facts) { n.Lineage.NextXID = 999 }, "transaction counter"},
	} {
		o, n := old, now
		ol, nl := *old.Lineage, *now.Lineage
		o.Lineage, n.Lineage = &ol, &nl
		c.change(&o, &n)
		if got := parentFault(o, n); (got == "") != (c.why == "") || !strings.Contains(got, c.why) {
			t.Errorf("%s: %q, want %q", name, got, c.why)
		}
	}
}

// A snapshot of which damage was found is nobody's parent: an older one is, or the next backup is a full one.
func TestDamagedSnapshotIsNoParent(t *testing.T) {
	t.Parallel()
	now := Facts{System: 1, Timeline: 1, StartLSN: 0x8000000, StopLSN: 0x8000000, SegmentSize: testSegment, Checksums: true, Lineage: &Lineage{NextXID: 1000, Origin: madeByInitdb}}
	snap := func(id relight.SnapshotID, start relight.LSN) repo.Manifest {
		f := now
		f.StartLSN, f.StopLSN = start, start+1
		b, err := json.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		return repo.Manifest{Snapshot: relight.Snapshot{ID: id, Facts: b}}
	}
	all := []repo.Manifest{snap("old", 0x3000000), snap("new", 0x4000000)}
	for _, want := range []relight.SnapshotID{"new", "old"} {
		if man, why := newestParent(all, now); man == nil || man.ID != want {
			t.Fatalf("found %v, want %s: %s", man, want, why)
		}
		all[slices.IndexFunc(all, func(m repo.Manifest) bool { return m.ID == want })].Damaged = true
	}
	if man, why := newestParent(all, now); man != nil || !strings.Contains(why, "new cannot be its parent") || !strings.Contains(why, "damaged") {
		t.Fatalf("found %v: %s", man, why)
	}
}

func TestOnlyMainForksOfKnownDatabasesAreJudgedByPosition(t *testing.T) {
	t.Parallel()
	a := &ancestor{databases: sameDatabases(
		Facts{Lineage: &Lineage{Databases: map[uint32]uint32{5: 700, 16384: 800, 16385: 801}}},
		Facts{Lineage: &Lineage{Databases: map[uint32]uint32{5: 700, 16384: 900, 16386: 802}}})}
	for p, want := range map[string]bool{
		"base/5/100": true, "base/5/100.3": true, "base/5/100_fsm": false, "base/5/100_vm.1": false, "base/5/100_init": false, "global/1262": true,
		"base/16384/100": false, "base/16385/1": false, "base/16386/1": false, "pg_tblspc/17/PG_15_1/5/1": true, "pg_tblspc/5/PG_15_1/16384/1": false,
	} {
		rel, ok := relationFile(p)
		if !ok || a.holds(p, rel) != want {
			t.Errorf("%s: %v", p, !want)
		}
	}
	if (*ancestor)(nil).holds("base/5/100", relation{}) {
		t.Error("a full backup took something over")
	}
}
