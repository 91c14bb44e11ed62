package repo

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob"
	"github.com/toolboxai/relight/blob/mem"
	"pgregory.net/rapid"
)

const testPage = 8192

// changedPages is a PageSource that knows the parent's bytes.
type changedPages struct{ now, old []byte }

func (c changedPages) Chunk(_ context.Context, i int64, buf []byte) (int, []Stretch, error) {
	off := min(int(i)*len(buf), len(c.now))
	n := copy(buf, c.now[off:])
	var fresh []Stretch
	for at := 0; at < n; at += testPage {
		end := min(at+testPage, n)
		if off+end <= len(c.old) && bytes.Equal(c.now[off+at:off+end], c.old[off+at:off+end]) {
			continue
		}
		fresh = append(fresh, Stretch{at, end})
	}
	if n < len(buf) {
		return n, fresh, io.EOF
	}
	return n, fresh, nil
}

// chain is snapshots of one paged file, each the parent of the next.
type chain struct {
	v    *vault
	m    *Meta
	e    Entry
	body [][]byte
	mans []Manifest
	into []Entry
}

func newChain(t testing.TB, s blob.Storage) *chain {
	v := newVault(t, s)
	return &chain{v: v, m: v.writer(t, s, ""), e: Entry{Path: "base/1/2", Mode: 0o600, ModTime: testTime, Paged: true}}
}

// add takes the next snapshot, and gives what it stored.
func (c *chain) add(ctx context.Context, body []byte) (int64, error) {
	o := SnapshotOptions{Kind: "full", Workers: 1}
	if n := len(c.mans); n > 0 {
		o.Kind, o.Parent = "incremental", &c.mans[n-1]
	}
	w, err := c.m.NewSnapshot(ctx, "main", o)
	if err != nil {
		return 0, err
	}
	defer w.Abort(ctx)
	var e Entry
	if o.Parent == nil {
		e, err = w.AddFile(ctx, c.e, bytes.NewReader(body))
	} else {
		e, err = w.AddPages(ctx, c.e, changedPages{body, c.body[len(c.body)-1]})
	}
	if err != nil {
		return 0, err
	}
	snap, err := w.Commit(ctx, relight.Snapshot{})
	if err != nil {
		return 0, err
	}
	man, err := c.m.Manifest(ctx, "main", snap.ID)
	c.body, c.mans, c.into = append(c.body, slices.Clone(body)), append(c.mans, man), append(c.into, e)
	return snap.Stored, err
}

func (c *chain) mustAdd(t testing.TB, body []byte) int64 {
	t.Helper()
	return must(c.add(t.Context(), body))(t)
}

// slots gives the slots of the newest file.
func (c *chain) slots(t testing.TB) (out []mapped) {
	t.Helper()
	r := must(c.m.chunkReader(t.Context()))(t)
	defer c.m.content.release(r)
	_ = must(c.m.index(t.Context(), c.mans[len(c.mans)-1].ID))(t)
	cursor := newSlotCursor(c.into[len(c.into)-1], r.load)
	for {
		s, more, err := cursor.next(t.Context())
		ok(t, err)
		if !more {
			return out
		}
		out = append(out, s)
	}
}

// compare restores every snapshot, and verifies the newest.
func (c *chain) compare(ctx context.Context, r *Reader) error {
	for i, man := range c.mans {
		var b bytes.Buffer
		if err := r.Copy(ctx, man, c.into[i], &b); err != nil {
			return err
		}
		if !bytes.Equal(b.Bytes(), c.body[i]) {
			return fmt.Errorf("snapshot %d of %d differs", i, len(c.mans))
		}
	}
	return r.VerifySnapshot(ctx, c.mans[len(c.mans)-1], 2, nil)
}

// patch mends a file that has the bytes of have, and gives what was written.
func (c *chain) patch(ctx context.Context, r *Reader, i int, have []byte, dir string) (int64, error) {
	path := filepath.Join(dir, "file")
	if err := os.WriteFile(path, have, 0o600); err != nil {
		return 0, err
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	n, err := r.Patch(ctx, c.mans[i], c.into[i], f, int64(len(have)))
	if err != nil {
		return n, err
	}
	got, err := os.ReadFile(path)
	if err == nil && !bytes.Equal(got, c.body[i]) {
		err = fmt.Errorf("snapshot %d: the mended file differs", i)
	}
	return n, err
}

// scribble changes whole pages of a file.
func scribble(body []byte, seed uint64, pages ...int) []byte {
	body = slices.Clone(body)
	for _, p := range pages {
		copy(body[p*testPage:min(len(body), (p+1)*testPage)], noise(seed+uint64(p)*3, testPage))
	}
	return body
}

// Whatever happens to a file between the snapshots of a chain, each of them is the file as it was.
func TestEverySnapshotOfAChainIsWhole(t *testing.T) {
	t.Parallel()
	much(t)
	dir := t.TempDir()
	mosaics := 0
	rapid.Check(t, func(rt *rapid.T) {
		ctx := context.Background()
		c := newChain(t, mem.New())
		body := noise(1, rapid.IntRange(0, 24*8).Draw(rt, "pages")*testPage)
		for round := range rapid.IntRange(2, 6).Draw(rt, "rounds") {
			if _, err := c.add(ctx, body); err != nil {
				rt.Fatal(err)
			}
			for _, s := range c.slots(t) {
				if s.isMosaic() {
					mosaics++
				}
			}
			n := len(body) / testPage
			switch rapid.IntRange(0, 5).Draw(rt, "what") {
			case 0:
				body = slices.Concat(body, noise(uint64(round)+7, rapid.IntRange(1, 30).Draw(rt, "grow")*testPage))
			case 1:
				body = body[:rapid.IntRange(0, n).Draw(rt, "cut")*testPage]
			case 2: // a length that no mosaic can have
				body = append(slices.Clone(body), noise(9, rapid.IntRange(1, testPage).Draw(rt, "odd"))...)
			default:
				for range rapid.IntRange(0, 1+n/16).Draw(rt, "changes") {
					if n > 0 {
						body = scribble(body, uint64(round)*1000, rapid.IntRange(0, n-1).Draw(rt, "page"))
					}
				}
			}
		}
		r := c.v.reader(t, c.v.s, "")
		if err := c.compare(ctx, r); err != nil {
			rt.Fatal(err)
		}
		last := len(c.mans) - 1
		if _, err := c.patch(ctx, r, last, c.body[rapid.IntRange(0, last).Draw(rt, "from")], dir); err != nil {
			rt.Fatal(err)
		}
	})
	if mosaics == 0 {
		t.Error("no mosaic was made: the test shows nothing")
	}
}

// A mosaic takes from mosaics; what is changed again and again becomes a whole chunk, and so does what is half new.
func TestMosaicsStayFew(t *testing.T) {
	t.Parallel()
	c := newChain(t, mem.New())
	body := noise(1, 20*defaultPage)
	whole := c.mustAdd(t, body)
	most := 0
	for round := range 12 {
		body = scribble(body, uint64(round+50), 8*3+round%8) // slot 3
		stored := c.mustAdd(t, body)
		for i, s := range c.slots(t) {
			if i != 3 && s.isMosaic() {
				t.Fatalf("slot %d did not change", i)
			}
			n := 0
			ok(t, s.chunks(func(ChunkID, int) error { n++; return nil }))
			most = max(most, n)
		}
		if stored > whole/2 {
			t.Errorf("one page stored %d bytes", stored)
		}
	}
	if most != maxTiled {
		t.Errorf("a mosaic took from %d chunks at most, and may from %d", most, maxTiled)
	}
	body = scribble(body, 99, 40, 41, 42, 43)
	c.mustAdd(t, body)
	if c.slots(t)[5].isMosaic() {
		t.Error("a slot of which half is new is a mosaic")
	}
	ok(t, c.compare(t.Context(), c.v.reader(t, c.v.s, "")))
}

// Many leaves: pages are changed on both sides of a leaf's end, and the file grows and shrinks over it.
func TestMosaicsAtTheEndsOfLeaves(t *testing.T) {
	t.Parallel()
	much(t)
	ctx := t.Context()
	c := newChain(t, mem.New())
	const edge = leafIDs * defaultPage
	body := bytes.Repeat(noise(1, 16*defaultPage), leafIDs/16+1)[:edge+3*defaultPage]
	c.mustAdd(t, body)
	e := edge / testPage
	for _, next := range []func(b []byte) []byte{
		func(b []byte) []byte { return scribble(b, 10, 0, 5, e-9, e-1, e, e+1, e+9) },
		func(b []byte) []byte { return scribble(b[:edge-testPage], 20, e-9, e-2) },
		func(b []byte) []byte { return append(scribble(b, 30, e-10), noise(31, 2*testPage)...) },
		func(b []byte) []byte { return b[:3*defaultPage+testPage] },
		func(b []byte) []byte { return append(scribble(b, 40, 1), noise(41, 20*defaultPage)...) },
	} {
		body = next(slices.Clip(body))
		if stored := c.mustAdd(t, body); stored > 20*defaultPage+200<<10 {
			t.Errorf("%d bytes stored", stored)
		}
	}
	r := c.v.reader(t, c.v.s, "")
	for i := range c.mans[1:] {
		must(c.patch(ctx, r, i+1, c.body[i], t.TempDir()))(t)
	}
	must(c.patch(ctx, r, len(c.mans)-1, nil, t.TempDir()))(t)
}

// One page in a hundred is changed, and about that much is stored and, in a delta restore, written.
func TestChangedPagesCostWhatTheyAre(t *testing.T) {
	t.Parallel()
	much(t)
	c := newChain(t, mem.New())
	rng := rand.New(rand.NewPCG(3, 4))
	const n = 200 * 8
	body := noise(1, n*testPage)
	c.mustAdd(t, body)
	for round := range 3 {
		var changed []int
		for range n / 100 {
			changed = append(changed, rng.IntN(n))
		}
		body = scribble(body, uint64(round+1)*7, changed...)
		stored, most := c.mustAdd(t, body), int64(n/100*testPage+90<<10)
		if stored > most {
			t.Errorf("%d bytes stored, want at most %d", stored, most)
		}
	}
	r := c.v.reader(t, c.v.s, "")
	ok(t, c.compare(t.Context(), r))
	written := must(c.patch(t.Context(), r, 3, c.body[2], t.TempDir()))(t)
	if written == 0 || written > n/100*defaultPage {
		t.Errorf("a delta restore wrote %d bytes", written)
	}
}

// packOf is the pack in which a chunk lies.
func (c *chain) packOf(t testing.TB, id ChunkID) string {
	t.Helper()
	x := must(c.m.freshIndex(t.Context()))(t)
	return must(x.find(id))(t).pack.name()
}

// A flipped bit in what a mosaic takes from, of the parent or of its own, is found and named, and no wrong byte is delivered.
func TestDamageUnderAMosaicIsNamed(t *testing.T) {
	t.Parallel()
	for _, own := range []bool{true, false} {
		t.Run(fmt.Sprintf("own=%v", own), func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			c := newChain(t, mem.New())
			body := noise(1, 20*defaultPage)
			c.mustAdd(t, body)
			c.mustAdd(t, scribble(body, 5, 3))
			s := c.slots(t)[0]
			if !s.isMosaic() {
				t.Fatal("no mosaic")
			}
			r := c.v.reader(t, c.v.s, "")
			for _, p := range s.pieces {
				if (p.source == s.primary()) == own {
					continue
				}
				pack := c.packOf(t, s.leaf.source(p.source))
				b := raw(t, c.v.s, pack)
				if own {
					b[len(b)/2] ^= 1
				} else {
					b[400] ^= 1 // inside the first chunk, behind the seal's head
				}
				overwrite(t, c.v.s, pack, b)
				var out bytes.Buffer
				err := r.Copy(ctx, c.mans[1], c.into[1], &out)
				wantError(t, err, pack, c.e.Path)
				if !bytes.HasPrefix(c.body[1], out.Bytes()) {
					t.Error("wrong bytes were delivered")
				}
				wantError(t, r.VerifySnapshot(ctx, c.mans[1], 2, nil), pack, c.e.Path)
				rep, err := r.Meta().Check(ctx, r, func(Finding) {})
				ok(t, err)
				if !slices.Contains(rep.Damaged, c.mans[1].ID) || slices.Contains(rep.Untouched, c.mans[0].ID) == !own {
					t.Errorf("damaged %v, untouched %v", rep.Damaged, rep.Untouched)
				}
				break
			}
		})
	}
}

// What a parent lost is stored whole, whether it changed or not: no mosaic takes from a chunk that is gone.
func TestMosaicOfALostParent(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	hurt := mem.New()
	c := newChain(t, hurt)
	body := noise(1, 20*defaultPage)
	c.mustAdd(t, body)
	c.mustAdd(t, scribble(body, 5, 3))
	s := c.slots(t)[0]
	for _, p := range s.pieces {
		if p.source != s.primary() {
			ok(t, c.v.s.Delete(ctx, c.packOf(t, s.leaf.source(p.source))))
			break
		}
	}
	for _, body := range [][]byte{c.body[1], scribble(c.body[1], 9, 1)} { // the same slot
		healed := hurt.Clone()
		two := &chain{v: &vault{s: healed, id: c.v.id, init: c.v.init}, e: c.e, body: slices.Clone(c.body), mans: slices.Clone(c.mans), into: slices.Clone(c.into)}
		two.m = two.v.writer(t, healed, "")
		two.mustAdd(t, body)
		if two.slots(t)[0].isMosaic() {
			t.Error("a mosaic takes from a chunk that is gone")
		}
		r := two.v.reader(t, healed, "")
		var b bytes.Buffer
		if ok(t, r.Copy(ctx, two.mans[2], two.into[2], &b)); !bytes.Equal(b.Bytes(), body) {
			t.Error("it differs")
		}
	}
}

// forgeMosaic commits a snapshot with a slot whose pieces join to something else.
func forgeMosaic(t testing.TB, c *chain) Manifest {
	t.Helper()
	ctx := t.Context()
	w := must(c.m.NewSnapshot(ctx, "main", SnapshotOptions{Parent: &c.mans[0]}))(t)
	defer w.Abort(ctx)
	m := mapWriter{store: w.storeMeta, leaves: leavesPerRoot(w.page)}
	e := c.e
	for i, s := range c.slots(t) {
		e.Size += defaultPage
		if i == 7 {
			e.Size -= testPage
			ok(t, m.addMosaic(ctx, s.id, cutTiles(nil, mapped{id: s.id}, testPage, defaultPage)))
			continue
		}
		if s.isMosaic() || i == 40 {
			e.Size -= defaultPage
			continue
		}
		ok(t, m.add(ctx, s.id))
	}
	ok(t, m.finish(ctx, &e))
	ok(t, w.addEntry(e))
	snap := must(w.Commit(ctx, relight.Snapshot{}))(t)
	c.into = append(c.into, e)
	return must(c.m.Manifest(ctx, "main", snap.ID))(t)
}

// Pieces that are whole and join to something else are found, by a restore and by a verification.
func TestForgedMosaic(t *testing.T) {
	t.Parallel()
	c := newChain(t, mem.New())
	c.mustAdd(t, noise(1, 20*defaultPage))
	man := forgeMosaic(t, c)
	r := c.v.reader(t, c.v.s, "")
	wantError(t, r.Copy(t.Context(), man, c.into[1], io.Discard), errJoin.Error(), c.e.Path)
	wantError(t, r.VerifySnapshot(t.Context(), man, 1, nil), errJoin.Error(), c.e.Path)
}

func TestPageSourceThatLies(t *testing.T) {
	t.Parallel()
	for name, fresh := range map[string][]Stretch{
		"beyond":          {{0, 70000}},
		"backwards":       {{16384, 8192}},
		"overlapping":     {{0, 8192}, {4096, 16384}},
		"empty":           {{8192, 8192}},
		"parent shorter":  {{0, 8192}},
		"parent shorter2": {{8192, 49152}},
	} {
		if err := checkFresh(fresh, 3*testPage, defaultPage); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for _, fresh := range [][]Stretch{{{3 * testPage, defaultPage}}, {{0, defaultPage}}, {{0, 1}, {2 * testPage, defaultPage}}} {
		ok(t, checkFresh(fresh, 3*testPage, defaultPage))
	}
}

// Retention keeps what a mosaic takes from while a snapshot needs it, and frees it afterwards; a mirror holds it too.
func TestRetentionAndMirrorsKnowMosaics(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	m := s.writer(s.s)
	c := &chain{v: &vault{s: s.s}, m: m, e: Entry{Path: "file", Mode: 0o600, ModTime: testTime, Paged: true}}
	take := func(body []byte) relight.SnapshotID {
		t.Helper()
		c.mustAdd(t, body)
		id := c.mans[len(c.mans)-1].ID
		s.want[id] = map[string][]byte{"file": c.body[len(c.body)-1]}
		s.clock.add(48 * time.Hour)
		return id
	}
	body := noise(1, 20*defaultPage)
	take(body)
	take(scribble(body, 5, 3, 70))
	last := take(scribble(c.body[1], 6, 4))
	slot := c.slots(t)[0]
	if n := len(slot.leaf.mosaics); n != 2 {
		t.Fatalf("%d mosaics", n)
	}
	base := c.packOf(t, slot.leads())

	mirror := mem.New()
	must(s.mirror(s.s, mirror))(t)
	if ids := s.lastPlace(mirror).restoreAll("main"); len(ids) != 3 {
		t.Fatalf("the mirror holds %v", ids)
	}

	s.mustPrune(3)
	if ids := s.restoreAll("main"); len(ids) != 1 || ids[0] != last {
		t.Fatalf("there are %v", ids)
	}
	if !slices.Contains(objectNames(t, s.s, "pack/"), base) {
		t.Error("the chunk under the mosaics is gone")
	}
	s.clean()
	// A whole one takes its place: nothing of the chain is needed any more.
	other := &chain{v: c.v, m: s.writer(s.s), e: c.e}
	other.mustAdd(t, noise(77, 2*defaultPage))
	s.want[other.mans[0].ID] = map[string][]byte{"file": other.body[0]}
	s.clock.add(48 * time.Hour)
	s.mustPrune(3)
	if left := strings.Join(objectNames(t, s.s, "pack/data/"), " "); strings.Contains(left, base) || left == "" {
		t.Errorf("packs %s", left)
	}
	s.restoreAll("main")
	s.clean()
}
