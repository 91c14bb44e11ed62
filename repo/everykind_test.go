package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob/mem"
)

// A repository is damaged in each of its kinds of object: a bit flips, an object is deleted, another one lies in its place. The kinds are
// the rows of the layout in docs/format.md: a row without a case here fails, and so does a case without a row.

// exhibit is one kind of object.
type exhibit struct {
	row    string                 // the first cell of its row in docs/format.md
	match  string                 // a regular expression that finds an object of this kind
	gone   string                 // "": that it was deleted is named; else what is said instead, "nothing" where nothing remembers it
	notice func(*museum, *museum) // who notices the deletion instead, before and after; nil: nobody does
	keyed  bool                   // only the identity that it is sealed to tells that it is damaged: without it, the check says what it skipped
}

var exhibits = []exhibit{ //nolint:gochecknoglobals // a table of this test
	{row: "`relight.json`", match: `^relight\.json$`},
	{row: "`keys/epoch/<epoch>/<recipient>-<random>`", match: `^keys/epoch/`, keyed: true},
	{row: "`keys/epochs/<epoch>-<id8>`", match: `^keys/epochs/`},
	{row: "`keys/recipients/<time>-<recipient>`", match: `^keys/recipients/`},
	{row: "`keys/hosts/<host>-<key>`", match: `^keys/hosts/db1-`},
	{row: "`keys/revoked/<host>-<key>`", match: `^keys/revoked/`},
	{row: "`keys/tested/<time>-<recipient>`", match: `^keys/tested/`, notice: func(was, is *museum) {
		if _, tested, err := is.writer(is.s).LastKeyTest(is.t.Context()); err != nil || tested {
			is.t.Fatalf("the offline key still passes for tested: %v", err)
		}
	}},
	{row: "`pack/data/<id>`", match: `^pack/data/`},
	{row: "`pack/meta/<id>`", match: `^pack/meta/`},
	{row: "`index/<id>`", match: `^index/`},
	{row: "`snap/<store>/<snapshot>`", match: `^snap/main/`},
	{row: "`wal/<store>/system.<n>`", match: `^wal/main/system\.1$`},
	{row: "`wal/<store>/<system>/<timeline>/<segment>.<random>`", match: `^wal/.*/00000001/000000010000000000000003\.[0-9a-f]{16}$`},
	{row: "`wal/<store>/<system>/<timeline>/<segment>.meta`", match: `/00000001/000000010000000000000003\.meta$`},
	{row: "`wal/<store>/<system>/<timeline>/live/<segment>/<start>-<end>.<random>` and `….meta`", match: `/live/.*\.[0-9a-f]{16}$`},
	{row: "`wal/<store>/<system>/<timeline>/live/<segment>/<start>-<end>.<random>` and `….meta`", match: `/live/.*\.meta$`},
	{row: "`wal/<store>/<system>/<timeline>/<timeline>.history.<random>` and `….meta`", match: `\.history\.[0-9a-f]{16}$`},
	{row: "`wal/<store>/<system>/<timeline>/<timeline>.history.<random>` and `….meta`", match: `\.history\.meta$`},
	{row: "`wal/<store>/<system>/<timeline>/gap/<from>-<to>`", match: `/gap/`},
	{row: "`wal/<store>/<system>/coverage.beat`", match: `^wal/.*/coverage\.beat$`, notice: func(was, is *museum) {
		p, err := is.writer(is.s).Coverage(is.t.Context(), "main", testKey.System)
		if err != nil || p.LSN != 0 {
			is.t.Fatalf("covered to %s, %v", p.LSN, err)
		}
	}},
	{row: "`proof/<store>/<snapshot>/<time>`", match: `^proof/`, notice: lowerState},
	{row: "`checked/<store>/<snapshot>/<time>`", match: `^checked/.*00Z$`, notice: lowerState},
	{row: "`damaged/<time>-<random>`", match: `^damaged/`, notice: func(was, is *museum) {
		if packs := must(is.writer(is.s).readDamaged(is.t.Context()))(is.t); len(packs) > 0 {
			is.t.Fatalf("%d packs are still on record", len(packs))
		}
	}},
	{row: "`estate/<time>-<digest>`", match: `^estate/`, keyed: true, notice: func(was, is *museum) {
		m := is.recovery(is.s)
		_, err := m.LatestEstate(is.t.Context(), must(m.Reader())(is.t))
		wantError(is.t, err, "no estate was stored here")
	}},
	{row: "`set/<name>`", match: `^set/`, notice: func(was, is *museum) {
		if _, found, err := is.writer(is.s).Set(is.t.Context(), "before-release"); found || err != nil {
			is.t.Fatalf("the set is still there: %v", err)
		}
	}},
	{row: "`journal/<host>/<journal id>/<first>-<last>`", match: `^journal/db1/0a/0+1-`},
	{row: "`journal/<host>/<journal id>/anchor/<seq>`", match: `^journal/.*/anchor/`, notice: func(was, is *museum) {
		if a := must(is.writer(is.s).Anchors(is.t.Context(), former))(is.t); len(a) != 0 {
			is.t.Fatalf("anchors %v", a)
		}
	}},
	{row: "`wal/<store>/<system>/<timeline>/expired/<from>-<to>`", match: `/expired/`},
	{row: "`pending/<snapshot>`", match: `^pending/[^.]*Z[^.]*$|^pending/[^.]*$`, gone: "nothing", notice: func(was, is *museum) {
		w := &Writer{m: is.writer(is.s), id: was.underWay.id, store: was.underWay.store}
		wantError(is.t, w.mayCommit(is.t.Context()), pendingName(w.id)+" is gone")
	}},
	{row: "`pending/<snapshot>.fenced`", match: `^pending/.*\.fenced$`},
	{row: "`trash/<epoch>/marks.<n>`, `trash/<epoch>/thin`, `trash/<epoch>/sealed`, `trash/<epoch>/due`", match: `^trash/.*/marks\.0$`, notice: unsealed},
	{row: "`trash/<epoch>/marks.<n>`, `trash/<epoch>/thin`, `trash/<epoch>/sealed`, `trash/<epoch>/due`", match: `^trash/.*/thin$`},
	{row: "`trash/<epoch>/marks.<n>`, `trash/<epoch>/thin`, `trash/<epoch>/sealed`, `trash/<epoch>/due`", match: `^trash/.*/sealed$`, notice: unsealed},
	{row: "`trash/<epoch>/marks.<n>`, `trash/<epoch>/thin`, `trash/<epoch>/sealed`, `trash/<epoch>/due`", match: `^trash/.*/due$`, notice: func(was, is *museum) {
		if going := must(is.writer(is.s).readTrash(is.t.Context()))(is.t).announced(); len(slices.Collect(going)) > 0 {
			is.t.Fatalf("still announced: %v", slices.Collect(going))
		}
	}},
	{row: "`trash/<epoch>/snap/<store>/<snapshot>`", match: `^trash/\d+/snap/`, gone: saidDeleted},
	{row: "`lease/<what>/<epoch>` and `….beat`", match: `^lease/run/main/1$`, notice: func(was, is *museum) {
		wantError(is.t, is.renew(was.lease), "took over")
	}},
	{row: "`lease/<what>/<epoch>` and `….beat`", match: `^lease/run/main/1\.beat$`},
	{row: "`witness/<name>`", match: `^witness/snap/main/`},
}

func TestEveryKindOfObjectHasItsExhibit(t *testing.T) {
	t.Parallel()
	rows := layoutRows(t)
	cases := map[string]int{}
	for _, x := range exhibits {
		cases[x.row]++
	}
	for row, kinds := range rows {
		if cases[row] != kinds {
			t.Errorf("the layout's row %s names %d kinds of object, and there are %d exhibits of it", row, kinds, cases[row])
		}
	}
	for row := range cases {
		if rows[row] == 0 {
			t.Errorf("the layout has no row %s", row)
		}
	}
}

// layoutRows reads the first cells of the layout's table, and how many kinds of object each names.
func layoutRows(t *testing.T) map[string]int {
	t.Helper()
	page := string(must(os.ReadFile("../docs/format.md"))(t))
	_, page, _ = strings.Cut(page, "\n## Layout\n")
	page, _, _ = strings.Cut(page, "\n## ")
	rows := map[string]int{}
	for line := range strings.Lines(page) {
		if !strings.HasPrefix(line, "| `") {
			continue
		}
		cell, _, _ := strings.Cut(line[2:], " | ")
		rows[cell] = strings.Count(cell, "`") / 2
	}
	if len(rows) < 25 {
		t.Fatalf("the page's table has %d rows only", len(rows))
	}
	return rows
}

// museum is a repository that holds something of every kind.
type museum struct {
	*shop
	lease    *Lease
	underWay *Writer
	newest   []string // what the newest snapshot added
}

func newMuseum(t *testing.T) *museum {
	m := &museum{shop: dangerous(t)}
	ctx, w := t.Context(), m.writer(m.s)
	m.furnishWAL(w)
	must(EnrolHost(ctx, m.recovery(m.s), "db2", RoleWriter))(t)
	ok(t, RevokeHost(ctx, m.recovery(m.s), "db2", time.Time{}, "sold"))
	must(KeyTest(ctx, m.s, m.options(), m.id))(t)
	must(w.PutEstate(ctx, []byte("the estate")))(t)
	ok(t, w.PutSet(ctx, testSet("before-release", time.Time{}, "main")))
	for _, j := range []JournalSegment{{JournalID: former, First: 1, Last: 9}, {JournalID: former, First: 10, Last: 20}} {
		ok(t, w.PutJournal(ctx, j))
	}
	ok(t, w.PutAnchor(ctx, Anchor{JournalID: former, Seq: 20, Hash: "aa"}))
	m.clock.add(10 * time.Hour)
	m.mustPrune(1) // the first snapshot expires; marks and the manifest lie in the trash
	_, name, _ := strings.Cut(objectNames(t, m.s, trashPrefix)[0], "/")
	epoch, _, _ := strings.Cut(name, "/")
	ok(t, m.recovery(m.s).putSigned(ctx, "trash", trashPrefix+epoch+"/thin", trashRecord{Epoch: int64(must(parseDecimal(epoch))(t)), Packs: nil}, sealedMeta))
	ok(t, m.recovery(m.s).putSigned(ctx, "trash", trashPrefix+epoch+"/"+dueMark, trashRecord{Epoch: int64(must(parseDecimal(epoch))(t))}, sealedMeta))
	must(m.take(ctx, w, "main", files(8), packEach()))(t)
	m.clock.add(time.Minute)
	before := objectNames(t, m.s, "")
	id := must(m.take(ctx, w, "main", files(5, 6), packEach()))(t)
	m.newest = slices.DeleteFunc(objectNames(t, m.s, ""), func(n string) bool { return slices.Contains(before, n) })
	ok(t, w.PutChecked(ctx, Checked{Store: "main", Snapshot: id, At: m.clock.now(), OK: true}))
	ok(t, w.PutProof(ctx, relight.Proof{Store: "main", Snapshot: id, At: m.clock.now(), OK: true}))
	ok(t, w.putDamaged(ctx, objectNames(t, m.s, dataPack.prefix())[:1]))
	dead := must(w.NewSnapshot(ctx, "main", packEach()))(t)
	must(w.giveUp(ctx, dead.pending(), "it died"))(t)
	m.underWay = must(m.writer(m.s).NewSnapshot(ctx, "main", packEach()))(t)
	m.lease = must(m.writer(m.s).Acquire(ctx, "run/main", 30*time.Second))(t)
	for range 60 { // the storage's clock goes a second on with each
		ok(t, m.lease.Renew(ctx))
	}
	c, okay := w.Sink("main").(*sink)
	if !okay {
		t.Fatal("the sink takes no coverage")
	}
	ok(t, c.Cover(ctx, onTimeline(2), relight.Point{Timeline: 2, LSN: segmentStart(9), Time: m.clock.now()}))
	return m
}

func parseDecimal(s string) (n int, err error) {
	_, err = fmt.Sscanf(s, "%d", &n)
	return n, err
}

// furnishWAL stores WAL of two timelines, with a piece that retention took and one that never came.
func (m *museum) furnishWAL(w *Meta) {
	t, ctx, sink := m.t, m.t.Context(), w.Sink("main")
	for _, no := range []int{1, 3, 4, 6} {
		ok(t, putSegment(ctx, sink, testKey, no))
	}
	ok(t, m.recovery(m.s).expire(ctx, testKey, []stretch{{segmentStart(2), segmentStart(3)}}))
	ok(t, sink.Gap(ctx, testKey, relight.Gap{Timeline: 1, From: segmentStart(5), To: segmentStart(6), Why: "the slot was lost"}))
	ok(t, putLive(ctx, sink, testKey, 7, 0, testSegment/2))
	ok(t, putHistory(ctx, sink, onTimeline(2), fmt.Sprintf("1\t%s\tfailover\n", segmentStart(7)+testSegment/2)))
	ok(t, putSegment(ctx, sink, onTimeline(2), 7))
	ok(t, putSegment(ctx, sink, onTimeline(2), 8))
}

// lowerState: a state without its evidence is not kept up.
func lowerState(was, is *museum) {
	states := func(m *museum) (out []relight.SnapshotState) {
		for _, man := range must(m.writer(m.s).Snapshots(is.t.Context(), "main"))(is.t) {
			out = append(out, man.State)
		}
		return out
	}
	if a, b := states(was), states(is); slices.Equal(a, b) && !slices.Contains(b, relight.Proven) {
		is.t.Fatalf("states %v, and before %v", b, a)
	}
	m := is.writer(is.s)
	evidence := len(objectNames(is.t, m.storage, "proof/")) + len(objectNames(is.t, m.storage, checkedPrefix))
	if evidence != 1 {
		is.t.Fatalf("%d pieces of evidence", evidence)
	}
}

// unsealed: marks that are not whole mark nothing for deletion.
func unsealed(_, is *museum) {
	for _, e := range must(is.recovery(is.s).readTrash(is.t.Context()))(is.t) {
		if e.sealed != nil {
			is.t.Fatalf("epoch %d would still be acted upon", e.epoch)
		}
	}
}

// on gives the same museum on another storage.
func (m *museum) on(t *testing.T, s *mem.Storage) *museum {
	st := *m.stand
	st.s, st.t = s, t
	return &museum{shop: &shop{stand: &st, want: m.want}}
}

// renew lets the holder of a lease beat in this museum.
func (m *museum) renew(l *Lease) error {
	held := &Lease{m: m.writer(m.s), what: l.what, epoch: l.epoch, ttl: l.ttl, beat: l.beat, last: l.last}
	return held.Renew(m.t.Context())
}

func TestDamageOfEveryKindIsNamed(t *testing.T) {
	exhaustive(t)
	t.Parallel()
	m := newMuseum(t)
	if rep, found := m.check(t, true); rep.Errors+rep.Warnings != 1 || !strings.Contains(found[0].What, "announced") {
		t.Fatalf("the undamaged museum: %+v", found)
	}
	damages := []string{"flipped", "deleted", "swapped"}
	for i, x := range exhibits {
		name := m.find(t, x.match)
		for j, damage := range damages {
			if (i*len(damages)+j)%everyCase != 0 {
				continue
			}
			t.Run(damage+" "+x.row+" "+x.match, func(t *testing.T) {
				t.Parallel()
				s := m.s.Clone()
				spoilAs(t, s, name, damage)
				is := m.on(t, s)
				if damage == "deleted" && x.notice != nil {
					x.notice(m, is)
				}
				is.examine(t, x, name, damage, true)
				if damage == "flipped" {
					is.examine(t, x, name, damage, false)
				}
			})
		}
	}
}

func (m *museum) find(t *testing.T, match string) string {
	t.Helper()
	re := regexp.MustCompile(match)
	all := append(slices.Clone(m.newest), objectNames(t, m.s, "")...)
	i := slices.IndexFunc(all, re.MatchString)
	if i < 0 {
		t.Fatalf("there is no object that matches %s", match)
	}
	return all[i]
}

func spoilAs(t *testing.T, s *mem.Storage, name, damage string) {
	t.Helper()
	switch damage {
	case "flipped":
		flip(t, s, name)
	case "deleted":
		ok(t, s.Delete(context.Background(), name))
	case "swapped":
		overwrite(t, s, name, raw(t, s, other(t, s, name)))
	}
}

// other is another object with other bytes, of the same kind where there is one.
func other(t *testing.T, s *mem.Storage, name string) string {
	t.Helper()
	last := ""
	for _, n := range objectNames(t, s, "") {
		if n == name || bytes.Equal(raw(t, s, n), raw(t, s, name)) {
			continue
		}
		if kindOf(n) == kindOf(name) {
			return n
		}
		last = n
	}
	return last
}

// check runs the check as the recovery side, or as a writer without its key.
func (m *museum) check(t *testing.T, withKey bool) (Report, []Finding) {
	t.Helper()
	rep, found, err := m.tryCheck(withKey)
	ok(t, err)
	return rep, found
}

func (m *museum) tryCheck(withKey bool) (rep Report, found []Finding, err error) {
	ctx := context.Background()
	k, err := m.init.Credential.Keyring()
	if withKey {
		k, err = Unlock(ctx, m.s, m.id)
	}
	if err != nil {
		return rep, nil, err
	}
	meta, err := Open(ctx, m.s, k, m.options())
	if err != nil {
		return rep, nil, err
	}
	var r *Reader
	if withKey {
		if r, err = meta.Reader(); err != nil {
			return rep, nil, err
		}
	}
	rep, err = meta.Check(ctx, r, func(f Finding) { found = append(found, f) })
	return rep, found, err
}

// examine demands that the check names the damage, and that what it says of the snapshots is true.
func (m *museum) examine(t *testing.T, x exhibit, name, damage string, withKey bool) {
	t.Helper()
	rep, found, err := m.tryCheck(withKey)
	if err != nil { // the repository does not even open
		if !strings.Contains(err.Error(), name) && !strings.Contains(err.Error(), "repository") && !strings.Contains(err.Error(), wrapPrefix) {
			t.Fatalf("key %v: %v", withKey, err)
		}
		if x.row != "`relight.json`" && !x.keyed {
			t.Fatalf("key %v: the check cannot go on: %v", withKey, err)
		}
		return
	}
	named := slices.ContainsFunc(found, func(f Finding) bool {
		return f.Object == name || strings.Contains(f.What, name) || f.Object != "" && strings.HasPrefix(name, f.Object) && !strings.Contains(f.What, "announced")
	})
	said := slices.ContainsFunc(found, func(f Finding) bool { return strings.Contains(f.What, x.gone) })
	switch {
	case damage == "deleted" && x.gone == "nothing":
		if len(found) != 1 {
			t.Errorf("key %v: it is said that nothing remembers %s, and the check found %+v", withKey, name, found)
		}
	case damage == "deleted" && x.gone != "":
		if !said {
			t.Errorf("key %v: %s: nobody says %q in %+v", withKey, name, x.gone, found)
		}
	case x.keyed && !withKey && len(rep.Skipped) > 2:
	case !named:
		t.Errorf("key %v: %s is not named in %+v", withKey, name, found)
	}
	for _, f := range found {
		if f.Remains == "" && !strings.Contains(f.What, "no pack has such a name") {
			t.Errorf("key %v: nobody says what remains: %+v", withKey, f)
		}
	}
	if withKey {
		m.judge(t, rep)
	}
}

// judge holds what the check says of the snapshots against what restoring them brings.
func (m *museum) judge(t *testing.T, rep Report) {
	t.Helper()
	meta := m.recovery(m.s)
	r := must(meta.Reader())(t)
	all := must(meta.Snapshots(t.Context(), "main"))(t)
	if len(rep.Untouched)+len(rep.Damaged) != len(all) {
		t.Errorf("%d snapshots are listed; the check knows %v and %v", len(all), rep.Untouched, rep.Damaged)
	}
	for _, man := range all {
		err := r.VerifySnapshot(t.Context(), man, 1, nil)
		if slices.Contains(rep.Untouched, man.ID) != (err == nil) {
			t.Errorf("snapshot %s: the check says untouched %v, reading it back says %v", man.ID, rep.Untouched, err)
		}
		if err == nil {
			m.compare(r, man)
		} else if !errors.Is(err, ErrCorrupt) {
			t.Errorf("snapshot %s: %v", man.ID, err)
		}
	}
}
