package repo

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob"
	"github.com/toolboxai/relight/blob/fault"
)

// found runs the check as the recovery side.
func (s *shop) found() (rep Report, out []string) {
	s.t.Helper()
	m := s.recovery(s.s)
	rep = must(m.Check(s.t.Context(), must(m.Reader())(s.t), func(f Finding) { out = append(out, f.Object+": "+f.What) }))(s.t)
	return rep, out
}

// A manifest is deleted, the newest one too: the check says so until it is back, and retention takes nothing of what it needs before it is told to.
func TestRetentionStopsAtADeletedManifest(t *testing.T) {
	t.Parallel()
	shop := dangerous(t)
	for i, name := range objectNames(t, shop.s, snapPrefix) {
		s := shop.again(t)
		b, packs := raw(t, s.s, name), objectNames(t, s.s, "pack/")
		ok(t, s.s.Delete(t.Context(), name))
		if _, found := s.found(); len(found) != 1 || found[0] != name+": "+saidDeleted {
			t.Fatalf("manifest %d: %v", i, found)
		}
		for range 3 {
			_, err := s.prune(s.s, lastOnly)
			wantError(t, err, name, "witness")
			if !strings.Contains(relight.HintOf(err), "--drop-refused") {
				t.Fatalf("hint %q", relight.HintOf(err))
			}
		}
		if left := objectNames(t, s.s, "pack/"); !slices.Equal(left, packs) {
			t.Fatalf("manifest %d: %d packs of %d are left", i, len(left), len(packs))
		}
		back := s.again(t)
		ok(t, back.s.Put(t.Context(), name, bytes.NewReader(b), blob.PutOptions{}))
		back.clean()
		if ids := back.restoreAll("main"); len(ids) != 2 {
			t.Fatalf("manifest %d: put back, there are %v", i, ids)
		}
		back.mustPrune(3)
		back.clean()

		drop := PruneOptions{Policies: map[string][]Policy{"main": {lastOnly}}, Grace: testGrace, DropRefused: true}
		for range 3 {
			s.clock.add(2 * testGrace)
			must(s.recovery(s.s).Prune(t.Context(), drop))(t)
		}
		s.clean()
		if ids := s.restoreAll("main"); len(ids) != 1 {
			t.Fatalf("manifest %d: there are %v", i, ids)
		}
	}
}

// An older relight left no witnesses: the check says that it cannot know, creates them, and knows from then on. Those of a writer that died are created too.
func TestMissingWitnessesAreCreated(t *testing.T) {
	t.Parallel()
	s := dangerous(t)
	before := objectNames(t, s.s, witnessPrefix)
	for _, name := range before {
		ok(t, s.s.Delete(t.Context(), name))
	}
	for range 60 { // minutes pass in the storage
		overwrite(t, s.s, descriptorName, raw(t, s.s, descriptorName))
	}
	if rep, found := s.found(); len(found) > 0 || len(rep.Skipped) != 1 || !strings.Contains(rep.Skipped[0], "deleted") {
		t.Fatalf("%v, skipped %v", found, rep.Skipped)
	}
	if after := objectNames(t, s.s, witnessPrefix); !slices.Equal(before, after) {
		t.Fatalf("witnesses %v, and before %v", after, before)
	}
	ok(t, s.s.Delete(t.Context(), before[len(before)-1]))
	if _, found := s.found(); len(found) != 1 || !strings.HasPrefix(found[0], before[len(before)-1]) {
		t.Fatalf("a missing witness: %v", found)
	}
	if rep, found := s.found(); len(found)+len(rep.Skipped) > 0 {
		t.Fatalf("it was created, and the check finds %v, skips %v", found, rep.Skipped)
	}
}

// A backup ends between the witness and its manifest: refused, or dead. Nothing was deleted, and nobody says so, nor when it is given up.
func TestWitnessWithoutItsManifestIsNoDeletion(t *testing.T) {
	t.Parallel()
	shop := dangerous(t)
	for _, e := range []fault.Effect{fault.Refuse, fault.Die, fault.Lose} {
		s := shop.again(t)
		f := fault.New(s.s, func(op fault.Op) fault.Fault {
			if op.Kind == fault.Put && strings.HasPrefix(op.Name, snapPrefix) {
				return fault.Fault{Effect: e}
			}
			return fault.Fault{}
		})
		if _, err := s.take(t.Context(), s.writer(f), "main", files(7), packEach()); err == nil {
			t.Fatalf("%s: the backup succeeded", e)
		}
		witnesses := len(objectNames(t, s.s, witnessPrefix+snapPrefix))
		if dead := e == fault.Die; dead != (witnesses == 3) {
			t.Fatalf("%s: %d witnesses", e, witnesses)
		}
		s.clean()
		if e == fault.Lose {
			continue // the manifest is there, and counts
		}
		s.clock.add(8 * day)
		s.mustPrune(3)
		s.clean()
	}
}

// A process sleeps between a record and its witness, and meanwhile retention takes the record: the witness is taken back.
func TestWitnessThatComesLateIsTakenBack(t *testing.T) {
	t.Parallel()
	s := dangerous(t)
	old := must(s.writer(s.s).Snapshots(t.Context(), "main"))(t)[0]
	slept := false
	f := fault.New(s.s, func(op fault.Op) fault.Fault {
		if op.Kind == fault.Put && strings.HasPrefix(op.Name, witnessPrefix+checkedPrefix) {
			slept = true
			s.clock.add(time.Hour)
			s.mustPrune(3)
		}
		return fault.Fault{}
	})
	ok(t, s.writer(f).PutChecked(t.Context(), Checked{Store: "main", Snapshot: old.ID, At: s.clock.now(), OK: true}))
	if left := append(objectNames(t, s.s, checkedPrefix), objectNames(t, s.s, witnessPrefix+checkedPrefix)...); !slept || len(left) > 0 {
		t.Fatalf("slept %v, and there are %v", slept, left)
	}
	s.clean()
}
