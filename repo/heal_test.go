package repo

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/toolboxai/relight/blob"
)

// flipAll flips a bit in every object under a prefix.
func flipAll(t *testing.T, s blob.Storage, prefix string) (names []string) {
	t.Helper()
	for _, name := range objectNames(t, s, prefix) {
		flip(t, s, name)
		names = append(names, name)
	}
	return names
}

// finders are those who notice what is damaged, and put it on record.
var finders = map[string]func(t *testing.T, s *shop) []string{ //nolint:gochecknoglobals // a table of this test
	"verification": func(t *testing.T, s *shop) (named []string) {
		m := s.recovery(s.s)
		r := must(m.Reader())(t)
		for _, man := range must(m.Snapshots(t.Context(), "main"))(t) {
			var d *Damage
			if err := r.VerifySnapshot(t.Context(), man, 2, nil); errors.As(err, &d) {
				named = append(named, d.Objects...)
			} else if err != nil {
				t.Fatal(err)
			}
		}
		return named
	},
	"check": func(t *testing.T, s *shop) []string {
		m := s.recovery(s.s)
		return namedBy(t, m, must(m.Reader())(t))
	},
	"check without the key": func(t *testing.T, s *shop) []string { return namedBy(t, s.writer(s.s), nil) },
}

func namedBy(t *testing.T, m *Meta, r *Reader) (named []string) {
	t.Helper()
	must(m.Check(t.Context(), r, func(f Finding) { named = append(named, f.Object) }))(t)
	return named
}

// verified demands that every snapshot reads back whole.
func (s *shop) verified() {
	s.t.Helper()
	m := s.recovery(s.s)
	r := must(m.Reader())(s.t)
	for _, man := range must(m.Snapshots(s.t.Context(), "main"))(s.t) {
		ok(s.t, r.VerifySnapshot(s.t.Context(), man, 2, nil))
	}
}

// Packs whose bits flipped are there by name and size. Once somebody has found them damaged, the next backup stores again what it has of them, and older
// snapshots restore from it too.
func TestFullBackupHealsAFlippedPack(t *testing.T) {
	exhaustive(t)
	t.Parallel()
	for name, find := range finders {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newShop(t)
			s.mustTake(packEach(), 1, 2)
			s.mustTake(packEach(), 2, 3)
			flipped := flipAll(t, s.s, dataPack.prefix())
			named := find(t, s)
			for _, p := range flipped {
				if !slices.Contains(named, p) {
					t.Errorf("%s is not named", p)
				}
			}
			s.mustTake(packEach(), 1, 2, 3)
			s.verified()
			s.restoreAll("main")
			rep := must(s.recovery(s.s).Check(t.Context(), must(s.recovery(s.s).Reader())(t), func(Finding) {}))(t)
			if len(rep.Untouched) != 3 || len(rep.Damaged) > 0 || rep.Errors == 0 {
				t.Fatalf("%+v", rep)
			}
			if rep = must(s.writer(s.s).Check(t.Context(), nil, func(Finding) {}))(t); len(rep.Untouched) != 3 {
				t.Fatalf("without the key: %+v", rep)
			}
			s.retire(flipped)
		})
	}
}

// retire demands that retention takes damaged packs away, and then the record of them, for nothing needs them any more.
func (s *shop) retire(damaged []string) {
	s.t.Helper()
	s.mustPrune(6)
	left := objectNames(s.t, s.s, "")
	for _, p := range damaged {
		if slices.Contains(left, p) {
			s.t.Errorf("%s is still there", p)
		}
	}
	if records := objectNames(s.t, s.s, damagedPrefix); len(records) > 0 {
		s.t.Errorf("on record still: %v", records)
	}
	s.restoreAll("main")
	s.clean()
}

// What leads to the content is healed as the content is. A verification does not come to what a damaged tree would lead it to: it takes another round.
func TestFullBackupHealsTreesAndMaps(t *testing.T) {
	exhaustive(t)
	t.Parallel()
	for name, find := range finders {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newShop(t)
			s.mustTake(packEach(), 1, 2)
			flipped := flipAll(t, s.s, "pack/")
			for find(t, s); name == "verification"; name = "once more" {
				s.mustTake(packEach(), 1, 2)
				find(t, s)
			}
			s.mustTake(packEach(), 1, 2)
			s.verified()
			s.restoreAll("main")
			s.retire(flipped)
		})
	}
}

// A pack that is gone is seen to be gone without any reading.
func TestFullBackupHealsADeletedPack(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.mustTake(packEach(), 1, 2)
	for _, name := range objectNames(t, s.s, "pack/") {
		ok(t, s.s.Delete(t.Context(), name))
	}
	s.mustTake(packEach(), 1, 2)
	s.verified()
	s.restoreAll("main")
	s.mustPrune(4)
	s.restoreAll("main")
	s.clean()
}

// An incremental backup has every byte at hand: what its parent lost, or holds damaged, it stores again.
func TestIncrementalHealsItsParent(t *testing.T) {
	t.Parallel()
	much(t)
	for _, prefix := range []string{"pack/data/", "pack/meta/", "pack/"} {
		for _, deleted := range []bool{false, true} {
			s := newShop(t)
			c := &chain{v: &vault{s: s.s}, m: s.writer(s.s), e: Entry{Path: "file", Mode: 0o600, ModTime: testTime, Paged: true}}
			body := noise(1, 20*defaultPage)
			c.mustAdd(t, body)
			c.mustAdd(t, scribble(body, 5, 3, 70)) // with mosaics
			for _, name := range objectNames(t, s.s, prefix) {
				spoil(t, s.s, name, deleted)
			}
			finders["check"](t, s)
			c.m = s.writer(s.s)
			c.mustAdd(t, scribble(c.body[1], 6, 100))
			r := must(s.recovery(s.s).Reader())(t)
			var b bytes.Buffer
			ok(t, r.VerifySnapshot(t.Context(), c.mans[2], 2, nil))
			if ok(t, r.Copy(t.Context(), c.mans[2], c.into[2], &b)); !bytes.Equal(b.Bytes(), c.body[2]) {
				t.Errorf("%s deleted %v: it differs", prefix, deleted)
			}
		}
	}
}

// Nobody builds upon a snapshot that was found damaged, until it was found whole again.
func TestDamagedSnapshotSaysSo(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	id := s.mustTake(packEach(), 1)
	damaged := func() bool {
		t.Helper()
		one := must(s.writer(s.s).Manifest(t.Context(), "main", id))(t)
		all := must(s.writer(s.s).Snapshots(t.Context(), "main"))(t)
		if all[0].Damaged != one.Damaged {
			t.Fatal("the list says otherwise")
		}
		return one.Damaged
	}
	for _, find := range []string{"verification", "check"} {
		before := s.s.Clone()
		if damaged() {
			t.Fatal("damaged from the beginning")
		}
		flipAll(t, s.s, dataPack.prefix())
		s.clock.add(1)
		if finders[find](t, s); !damaged() {
			t.Fatalf("what the %s found is not seen", find)
		}
		s.mustTake(packEach(), 1)
		s.clock.add(1)
		if s.verified(); damaged() {
			t.Fatal("it is whole again")
		}
		s.s = before
	}
}

// A record of damage counts as any other: not when it was changed, not from a stranger, and it never takes anything away.
func TestRecordOfDamageOnlyAddsCopies(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.mustTake(packEach(), 1, 2)
	thief := s.writer(s.s)
	ok(t, thief.putDamaged(t.Context(), objectNames(t, s.s, "pack/"))) // all of them, he says
	s.mustTake(packEach(), 2, 3)
	s.mustPrune(4)
	s.restoreAll("main")
	s.clean()
	ok(t, thief.putDamaged(t.Context(), objectNames(t, s.s, "pack/")))
	name := objectNames(t, s.s, damagedPrefix)[0]
	flip(t, s.s, name)
	if got := must(s.writer(s.s).readDamaged(t.Context()))(t); len(got) > 0 {
		t.Fatalf("a spoiled record counts: %v", got)
	}
}

// A repeated check adds no record of what is on record.
func TestDamageIsRecordedOnce(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.mustTake(packEach(), 1, 2)
	flipAll(t, s.s, dataPack.prefix())
	for range 3 {
		finders["check"](t, s)
		finders["verification"](t, s)
	}
	if got := objectNames(t, s.s, damagedPrefix); len(got) != 1 {
		t.Fatalf("records %v", got)
	}
}
