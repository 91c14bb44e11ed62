package repo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob"
	"github.com/toolboxai/relight/blob/fault"
)

// shop takes snapshots of made-up files and remembers what each must bring back.
type shop struct {
	*stand
	want map[relight.SnapshotID]map[string][]byte
}

func newShop(t testing.TB) *shop {
	return &shop{stand: newStand(t), want: map[relight.SnapshotID]map[string][]byte{}}
}

// goods is a file's content, the same for the same number; it does not compress.
func goods(n uint64) []byte {
	b := make([]byte, 3*defaultPage+100)
	_, _ = rand.NewChaCha8([32]byte{byte(n), byte(n >> 8), 1}).Read(b)
	return b
}

func files(ns ...uint64) map[string][]byte {
	out := map[string][]byte{}
	for _, n := range ns {
		out[fmt.Sprintf("file-%03d", n)] = goods(n)
	}
	return out
}

// packEach makes every file a pack and every pack an index, so that each of them can go alone.
func packEach() SnapshotOptions {
	return SnapshotOptions{Kind: "full", Workers: 1, packBytes: 2 * defaultPage, flushAt: 1}
}

func (s *shop) take(ctx context.Context, m *Meta, store string, content map[string][]byte, o SnapshotOptions) (relight.SnapshotID, error) {
	w, err := m.NewSnapshot(ctx, store, o)
	if err != nil {
		return "", err
	}
	for _, name := range slices.Sorted(mapsKeys(content)) {
		e := Entry{Path: name, Mode: 0o600, ModTime: testTime, Paged: true}
		if _, err := w.AddFile(ctx, e, bytes.NewReader(content[name])); err != nil {
			w.Abort(ctx)
			return "", err
		}
	}
	snap, err := w.Commit(ctx, relight.Snapshot{})
	if err != nil {
		return "", err
	}
	s.want[snap.ID] = content
	return snap.ID, nil
}

func mapsKeys[V any](m map[string]V) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// base takes an empty base backup in the middle of a segment.
func (s *shop) base(m *Meta, no int) {
	s.t.Helper()
	w := must(m.NewSnapshot(s.t.Context(), "main", packEach()))(s.t)
	facts := must(json.Marshal(walFacts{System: testKey.System, Timeline: 1, Start: segmentStart(no) + 40, Stop: segmentStart(no) + 80, StopTime: s.clock.now()}))(s.t)
	s.want[must(w.Commit(s.t.Context(), relight.Snapshot{Facts: facts}))(s.t).ID] = nil
}

// restoreAll restores every snapshot that is listed, and gives their ids.
func (s *shop) restoreAll(store string) []relight.SnapshotID {
	s.t.Helper()
	m := s.recovery(s.s)
	r := must(m.Reader())(s.t)
	var ids []relight.SnapshotID
	for _, man := range must(m.Snapshots(s.t.Context(), store))(s.t) {
		ids = append(ids, man.ID)
		s.compare(r, man)
	}
	return ids
}

func (s *shop) compare(r *Reader, man Manifest) {
	s.t.Helper()
	want, n := s.want[man.ID], 0
	ok(s.t, r.Meta().Entries(s.t.Context(), man, func(e Entry) error {
		var b bytes.Buffer
		if err := r.Copy(s.t.Context(), man, e, &b); err != nil {
			return err
		}
		if !bytes.Equal(b.Bytes(), want[e.Path]) {
			return fmt.Errorf("%s of %s has other bytes", e.Path, man.ID)
		}
		n++
		return nil
	}))
	if n != len(want) {
		s.t.Fatalf("snapshot %s has %d files instead of %d", man.ID, n, len(want))
	}
}

const testGrace = time.Second // the storage's clock ticks a second with each write

func (s *shop) prune(s2 blob.Storage, policies ...Policy) (Pruned, error) {
	s.clock.add(2 * testGrace)
	return s.recovery(s2).Prune(context.Background(), PruneOptions{Policies: map[string][]Policy{"main": policies}, Grace: testGrace})
}

// lastOnly wants nothing but what is always kept.
var lastOnly = Policy{Every: time.Hour, For: time.Minute}

func (s *shop) mustPrune(n int) (out Pruned) {
	s.t.Helper()
	for range n {
		out = must(s.prune(s.s, lastOnly))(s.t)
	}
	return out
}

func (s *shop) mustTake(o SnapshotOptions, ns ...uint64) relight.SnapshotID {
	s.t.Helper()
	s.clock.add(10 * time.Hour)
	return must(s.take(s.t.Context(), s.writer(s.s), "main", files(ns...), o))(s.t)
}

// clean checks that the repository is without a finding.
func (s *shop) clean() Report {
	s.t.Helper()
	m := s.recovery(s.s)
	return must(m.Check(s.t.Context(), must(m.Reader())(s.t), func(f Finding) { s.t.Errorf("finding: %+v", f) }))(s.t)
}

func TestPruneInTwoSteps(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.mustTake(packEach(), 1, 2, 3)
	b := s.mustTake(packEach(), 2, 4)
	packs := len(objectNames(t, s.s, "pack/"))
	first := s.mustPrune(1)
	if got := objectNames(t, s.s, "pack/"); len(got) != packs || first.Marked.Objects == 0 || first.Deleted.Objects != 0 {
		t.Fatalf("the first run leaves %d of %d packs: %+v", len(got), packs, first)
	}
	if ids := s.restoreAll("main"); !slices.Equal(ids, []relight.SnapshotID{b}) {
		t.Fatalf("after the first run there are %v", ids)
	}
	second := s.mustPrune(1)
	if second.Deleted.Objects == 0 {
		t.Fatalf("the second run deletes nothing: %+v", second)
	}
	s.restoreAll("main")
	if rep := s.clean(); rep.Orphans != 0 {
		t.Fatalf("%d orphans", rep.Orphans)
	}
	left := len(objectNames(t, s.s, "pack/"))
	if left >= packs {
		t.Fatalf("%d packs of %d are left", left, packs)
	}
	if third := s.mustPrune(1); third.Deleted.Objects != 0 || third.Marked.Objects != 0 {
		t.Fatalf("nothing changed, and a run finds %+v; trash %v", third, objectNames(t, s.s, "trash/"))
	}
	// What is left serves the next backups.
	c := s.mustTake(packEach(), 1, 2, 4)
	if ids := s.restoreAll("main"); !slices.Equal(ids, []relight.SnapshotID{b, c}) {
		t.Fatalf("there are %v", ids)
	}
	s.clean()
}

func TestPruneNeedsTheRightKeys(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.mustTake(packEach(), 1)
	_, err := s.writer(s.s).Prune(t.Context(), PruneOptions{Policies: map[string][]Policy{"main": {lastOnly}}})
	if wantError(t, err, "may not remove"); relight.HintOf(err) == "" || relight.CodeOf(err) != relight.CodeUsage {
		t.Fatal(err)
	}
	c := must(EnrolHost(t.Context(), s.recovery(s.s), "prover1", RoleProver))(t)
	m := must(Open(t.Context(), s.s, must(c.Keyring())(t), s.options()))(t)
	_, err = m.Prune(t.Context(), PruneOptions{})
	wantError(t, err, "may not remove")
}

func TestPlanChangesNothing(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	a := s.mustTake(packEach(), 1, 2)
	s.mustTake(packEach(), 2, 4)
	before := objectNames(t, s.s, "")
	counted := fault.New(s.s, nil)
	p := must(s.recovery(counted).PlanPrune(t.Context(), PruneOptions{Policies: map[string][]Policy{"main": {lastOnly}}}))(t)
	if writes(counted) != 0 || !slices.Equal(before, objectNames(t, s.s, "")) {
		t.Fatal("a plan writes")
	}
	lines := strings.Join(p.Lines(), "\n")
	for _, want := range []string{"snapshot " + string(a) + " goes", "1 because of: the newest snapshot", "are unneeded as of now"} {
		if !strings.Contains(lines, want) {
			t.Errorf("the plan does not say %q:\n%s", want, lines)
		}
	}
	if out := s.mustPrune(1); out.Marked != p.Marked {
		t.Fatalf("planned %+v, marked %+v", p.Marked, out.Marked)
	}
}

// A backup that died long ago is taken for dead; should its process only have slept, what it commits does not count.
func TestDeadBackupIsFenced(t *testing.T) {
	t.Parallel()
	s := dangerous(t)
	m := s.writer(s.s)
	w := must(m.NewSnapshot(t.Context(), "main", packEach()))(t)
	must(w.AddFile(t.Context(), Entry{Path: "file-001", Mode: 0o600, Paged: true}, bytes.NewReader(goods(1))))(t)
	s.clock.add(8 * day)
	out := s.mustPrune(1)
	if !slices.Contains(out.GivenUp, w.ID()) {
		t.Fatalf("%+v", out)
	}
	s.mustPrune(3)
	_, err := w.Commit(t.Context(), relight.Snapshot{})
	wantError(t, err, "given up", "taken for dead")
	if ids := s.restoreAll("main"); slices.Contains(ids, w.ID()) {
		t.Fatal("a fenced snapshot is listed")
	}
	// Even a manifest that is stored in spite of all, in the moment after the last look, does not count.
	man := w.manifest(relight.Snapshot{}, nil)
	ok(t, m.putSigned(t.Context(), "manifest", snapName("main", w.ID()), man, sealedMeta))
	if ids := s.restoreAll("main"); slices.Contains(ids, w.ID()) {
		t.Fatal("a fenced snapshot is listed")
	}
	_, err = s.recovery(s.s).Manifest(t.Context(), "main", w.ID())
	wantError(t, err, "taken for dead")
	s.mustPrune(3)
	if left := objectNames(t, s.s, "snap/main/"); len(left) != 1 {
		t.Fatalf("left: %v", left)
	}
}

// A thief of a writer's key can neither fence what is committed, nor mark it, nor push it out by snapshots that he dates back.
func TestStolenWriterKeyCannotMakeRetentionDelete(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	var ids []relight.SnapshotID
	for i := range uint64(5) {
		ids = append(ids, s.mustTake(packEach(), 1, 10+i))
	}
	thief := s.writer(s.s)
	for _, id := range ids {
		p := pendingRecord{Snapshot: id, Store: "main", Host: "db1", Fenced: "by a thief"}
		ok(t, thief.putSigned(t.Context(), "pending", fenceName(id), p, sealedMeta))
	}
	ok(t, thief.putSigned(t.Context(), "trash", trashDir(7)+"marks.0", trashRecord{Epoch: 7, Objects: objectNames(t, s.s, "pack/")}, sealedMeta))
	ok(t, thief.putSigned(t.Context(), "trash", trashDir(7)+"sealed", trashRecord{Epoch: 7, Parts: 1}, sealedMeta))
	for _, man := range must(thief.Snapshots(t.Context(), "main"))(t) {
		forged := man
		forged.ID, forged.Finished = "0"+man.ID, man.Finished.Add(-time.Minute)
		ok(t, thief.putSigned(t.Context(), "manifest", snapName("main", forged.ID), forged, sealedMeta))
		s.want[forged.ID] = s.want[man.ID]
	}
	for range 3 {
		must(s.prune(s.s, Policy{Every: time.Hour, For: 100 * day}))(t)
	}
	left := s.restoreAll("main")
	for _, id := range ids {
		if !slices.Contains(left, id) {
			t.Errorf("snapshot %s is gone", id)
		}
	}
}

// Packs under half used count as absent for the next backup, and go in time.
func TestThinPacksAreStoredAnewAndGo(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	big := SnapshotOptions{Kind: "full", Workers: 1} // all files in one pack
	s.mustTake(big, 1, 2, 3, 4, 5, 6, 7, 8)
	s.mustTake(big, 1, 20)
	fat := objectNames(t, s.s, "pack/data/")
	if out := s.mustPrune(1); out.Thin != 1 {
		t.Fatalf("%+v", out)
	}
	s.mustTake(big, 1, 20)
	s.mustPrune(3)
	s.restoreAll("main")
	left := objectNames(t, s.s, "pack/data/")
	gone := slices.DeleteFunc(fat, func(n string) bool { return slices.Contains(left, n) })
	if len(gone) != 1 {
		t.Fatalf("of the first packs %v are gone; left: %v", gone, left)
	}
	s.clean()
}

// An index is not signed: what a thief says about another copy of a chunk must not cost the good one.
func TestForgedCopyDoesNotReplaceTheGoodOne(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	big := SnapshotOptions{Kind: "full", Workers: 1}
	s.mustTake(big, 1, 2, 3, 4, 5, 6, 7, 8)
	s.mustTake(big, 1, 20)
	s.mustPrune(1) // the first pack is thin now, so that another copy is preferred
	m := s.writer(s.s)
	x := must(m.freshIndex(t.Context()))(t)
	var packs []packInfo
	var recs []record
	for i, p := range x.st.packs { // all that the good ones hold lies in the other one, he says
		packs = append(packs, p)
		for _, run := range x.st.runs {
			src := newRowSource(run.f, run.count*recordSize, recordSize)
			for {
				more := must(src.next())(t)
				if !more {
					break
				}
				if r := decodeRecord(src.row); int(r.pack) != i {
					r.pack, r.off, r.frame = uint32(i), 0, 64
					recs = append(recs, r)
				}
			}
		}
	}
	slices.SortFunc(recs, compareRecords)
	recs = slices.CompactFunc(recs, func(a, b record) bool { return compareRecords(a, b) == 0 })
	_, _, err := m.putIndex(t.Context(), packs, recs)
	ok(t, err)
	s.mustPrune(4)
	k := must(newMarker(s.recovery(s.s), must(s.recovery(s.s).freshIndex(t.Context()))(t), nil))(t)
	man := must(s.recovery(s.s).Snapshots(t.Context(), "main"))(t)[0]
	if err := k.snapshot(t.Context(), man); err != nil || k.lost > 0 {
		t.Fatalf("%d chunks are lost: %v", k.lost, err)
	}
	for _, ps := range [][]uint64{{1}} {
		for _, n := range ps {
			all := must((&follower{x: k.x}).find(m.keys.chunkID(goods(n)[:defaultPage]), nil))(t)
			good := 0
			for _, p := range all {
				if k.x.there[p.pack] && must(k.readable(t.Context(), m.keys.chunkID(goods(n)[:defaultPage]), p))(t) {
					good++
				}
			}
			if good == 0 {
				t.Fatal("the good copy was deleted")
			}
		}
	}
}

func TestOrphansGo(t *testing.T) {
	t.Parallel()
	s := dangerous(t)
	m := s.writer(s.s)
	f := fault.New(s.s, func(op fault.Op) fault.Fault {
		if op.Kind == fault.Put && (strings.HasPrefix(op.Name, indexPrefix) || strings.HasSuffix(op.Name, metaSuffix)) {
			return fault.Fault{Effect: fault.Die}
		}
		return fault.Fault{}
	})
	m.storage = f
	if _, err := s.take(t.Context(), m, "main", files(30, 31), packEach()); err == nil {
		t.Fatal("the writer did not die")
	}
	f = fault.New(s.s, func(op fault.Op) fault.Fault {
		if op.Kind == fault.Put && strings.HasSuffix(op.Name, metaSuffix) {
			return fault.Fault{Effect: fault.Die}
		}
		return fault.Fault{}
	})
	m = s.writer(s.s)
	m.storage = f
	if err := putSegment(t.Context(), m.Sink("main"), testKey, 1); err == nil {
		t.Fatal("the writer did not die")
	}
	ok(t, putSegment(t.Context(), s.writer(s.s).Sink("main"), testKey, 1))
	bodies := len(objectNames(t, s.s, testKey.prefix()))
	s.clock.add(8 * day)
	s.mustPrune(3)
	if rep := s.clean(); rep.Orphans != 0 {
		t.Fatalf("%d orphan packs", rep.Orphans)
	}
	if got := len(objectNames(t, s.s, testKey.prefix())); got != bodies-1 {
		t.Fatalf("%d of %d WAL objects are left", got, bodies)
	}
	ok(t, must(s.recovery(s.s).Reader())(t).WALSegment(t.Context(), testKey, segmentName(1, 1), io.Discard))
}

// Expired WAL goes with its live ranges, is on record, and neither check nor reader takes it for a hole that nobody knows of.
func TestExpiredWALGoes(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	m := s.writer(s.s)
	sink := m.Sink("main")
	for no := 1; no <= 40; no++ {
		s.clock.add(time.Hour)
		if no == 3 {
			ok(t, putLive(t.Context(), sink, testKey, no, 0, 5000))
		}
		ok(t, putSegment(t.Context(), sink, testKey, no))
		if no%10 == 0 {
			s.base(m, no)
		}
	}
	ok(t, putLive(t.Context(), sink, testKey, 41, 0, 5000))
	pit := Policy{Every: 1000 * time.Hour, For: 15 * time.Hour, PointInTime: true}
	for range 3 {
		must(s.prune(s.s, pit))(t)
	}
	names := strings.Join(objectNames(t, s.s, testKey.prefix()), "\n")
	for no := 1; no <= 40; no++ {
		// The first base is the first of its long stretch; the window begins after the second one.
		want := no == 10 || no >= 20
		if got := strings.Contains(names, segmentName(1, no)+metaSuffix); got != want {
			t.Errorf("segment %d: there %v", no, got)
		}
	}
	if strings.Contains(names, "live/"+segmentName(1, 3)) || !strings.Contains(names, "live/"+segmentName(1, 41)) {
		t.Errorf("live ranges:\n%s", names)
	}
	s.clean()
	r := must(s.recovery(s.s).Reader())(t)
	for _, no := range []int{10, 20, 40, 41} {
		ok(t, r.WALSegment(t.Context(), testKey, segmentName(1, no), io.Discard))
	}
	err := r.WALSegment(t.Context(), testKey, segmentName(1, 15), io.Discard)
	if err == nil || errors.Is(err, blob.ErrNotFound) {
		t.Fatalf("a hole in the middle is said to be the end: %v", err)
	}
	if got := objectNames(t, s.s, testKey.expiredPrefix()); len(got) != 2 {
		t.Errorf("on record: %v", got)
	}
}

func TestPruneStopsAtWhatItCannotRead(t *testing.T) {
	t.Parallel()
	s := dangerous(t)
	bad := objectNames(t, s.s, "snap/main/")[0]
	ok(t, s.s.Corrupt(bad, func(b []byte) []byte { b[len(b)/2] ^= 1; return b }))
	_, err := s.prune(s.s, lastOnly)
	wantError(t, err, bad)
	if len(objectNames(t, s.s, "trash/")) != 0 {
		t.Fatal("something was marked")
	}
	for range 3 {
		s.clock.add(2 * testGrace)
		must(s.recovery(s.s).Prune(t.Context(), PruneOptions{Policies: map[string][]Policy{"main": {lastOnly}}, Grace: testGrace, DropRefused: true}))(t)
	}
	if left := objectNames(t, s.s, "snap/main/"); len(left) != 1 || left[0] == bad {
		t.Fatalf("left: %v", left)
	}
	index := objectNames(t, s.s, indexPrefix)[0]
	ok(t, s.s.Corrupt(index, func(b []byte) []byte { b[len(b)/2] ^= 1; return b }))
	_, err = s.prune(s.s, lastOnly)
	wantError(t, err, index)
}

func TestPruneIsOnePartyAtATime(t *testing.T) {
	t.Parallel()
	s := dangerous(t)
	held := must(s.writer(s.s).Acquire(t.Context(), pruneLease, ttl))(t)
	o := s.options()
	o.Sleep = func(ctx context.Context, d time.Duration) error {
		s.clock.add(d)
		return held.Renew(ctx)
	}
	m := must(Open(t.Context(), s.s, must(Unlock(t.Context(), s.s, s.id))(t), o))(t)
	_, err := m.Prune(t.Context(), PruneOptions{})
	if !errors.Is(err, ErrLeaseHeld) {
		t.Fatal(err)
	}
}
