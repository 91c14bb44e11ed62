package repo

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

var (
	former = JournalID{Host: "db1", Journal: "0a"}
	latter = JournalID{Host: "db1", Journal: "ff"}
)

func TestAnchors(t *testing.T) {
	t.Parallel()
	st := newStand(t)
	w := st.writer(st.s)
	for _, seq := range []int64{2, 10, 9} {
		ok(t, w.PutAnchor(t.Context(), Anchor{JournalID: former, Seq: seq, Hash: "aa", Public: []byte("key"), Head: []byte(`{"seq":1}`)}))
	}
	ok(t, w.PutAnchor(t.Context(), Anchor{JournalID: former, Seq: 9, Hash: "aa", At: st.clock.now()}))
	if err := w.PutAnchor(t.Context(), Anchor{JournalID: former, Seq: 9, Hash: "bb"}); !errors.Is(err, ErrConflict) {
		t.Fatalf("a rewritten journal was anchored: %v", err)
	}
	// The host's next journal begins at 1 again.
	ok(t, w.PutAnchor(t.Context(), Anchor{JournalID: latter, Seq: 9, Hash: "bb"}))
	as := must(w.Anchors(t.Context(), former))(t)
	if len(as) != 3 || as[0].Seq != 2 || as[2].Seq != 10 || string(as[0].Public) != "key" || string(as[0].Head) != `{"seq":1}` {
		t.Fatalf("%+v", as)
	}
	if as := must(w.Anchors(t.Context(), latter))(t); len(as) != 1 || as[0].Hash != "bb" {
		t.Fatalf("%+v", as)
	}
	wantError(t, w.PutAnchor(t.Context(), Anchor{JournalID: JournalID{Host: "db1", Journal: "../x"}, Seq: 1}), "cannot be part")
}

func TestJournalSegments(t *testing.T) {
	t.Parallel()
	st := newStand(t)
	w := st.writer(st.s)
	put := func(j JournalID, first, last int64) {
		t.Helper()
		ok(t, w.PutJournal(t.Context(), JournalSegment{JournalID: j, First: first, Last: last, Data: fmt.Appendf(nil, "%d", first)}))
	}
	put(former, 1, 9)
	put(former, 10, 20)
	put(latter, 1, 9)
	ok(t, w.PutAnchor(t.Context(), Anchor{JournalID: former, Seq: 25, Hash: "aa"}))
	if got := readJournal(t, w, former); got != "1-9=1 10-20=10 " {
		t.Fatal(got)
	}
	if end := must(w.JournalEnd(t.Context(), former))(t); end != 20 {
		t.Fatalf("an anchor counted as a stretch: %d", end)
	}
	if end := must(w.JournalEnd(t.Context(), JournalID{Host: "db1", Journal: "none"}))(t); end != 0 {
		t.Fatal(end)
	}
	if all := must(w.Journals(t.Context()))(t); !slices.Equal(all, []JournalID{former, latter}) {
		t.Fatalf("%+v", all)
	}
	for _, bad := range [][2]int64{{0, 3}, {4, 3}} {
		if w.PutJournal(t.Context(), JournalSegment{JournalID: former, First: bad[0], Last: bad[1]}) == nil {
			t.Fatalf("%v was stored", bad)
		}
	}
}

func readJournal(t *testing.T, m *Meta, j JournalID) string {
	t.Helper()
	var b strings.Builder
	ok(t, m.Journal(t.Context(), j, func(s JournalSegment) error {
		fmt.Fprintf(&b, "%d-%d=%s ", s.First, s.Last, s.Data)
		return nil
	}))
	return b.String()
}

// Another enrolled host cannot speak for this one, and the check names what it did.
func TestJournalOfAnotherHost(t *testing.T) {
	t.Parallel()
	st := newStand(t)
	w := st.writer(st.s)
	c := must(EnrolHost(t.Context(), st.recovery(st.s), "db2", RoleWriter))(t)
	st.clock.add(2 * trustAge) // the writer looks enrolments up again
	m2 := must(Open(t.Context(), st.s, must(c.Keyring())(t), st.options()))(t)
	before, _ := checked(t, w) // it counts the records of keys too
	ok(t, w.PutAnchor(t.Context(), Anchor{JournalID: former, Seq: 1, Hash: "good"}))
	ok(t, w.PutJournal(t.Context(), JournalSegment{JournalID: former, First: 1, Last: 1}))
	if rep, found := checked(t, w); len(found) != 0 || rep.Records != before.Records+3 { // the witness of the anchor too
		t.Fatalf("%+v %+v", rep, found)
	}
	forged := Anchor{JournalID: former, Seq: 11, Hash: "forged"}
	ok(t, m2.PutAnchor(t.Context(), forged))
	_, err := w.Anchors(t.Context(), former)
	wantError(t, err, forged.name(), "host db2 signed in the journal of host db1")
	segment := JournalSegment{JournalID: former, First: 21, Last: 22}
	ok(t, m2.PutJournal(t.Context(), segment))
	wantError(t, w.Journal(t.Context(), former, func(JournalSegment) error { return nil }), "host db2 signed")
	moved := Anchor{JournalID: latter, Seq: 3, Hash: "x"}
	ok(t, w.PutRecord(t.Context(), "anchor", former.anchors()+"0000000000000003", moved))
	ok(t, w.PutRecord(t.Context(), "journal", former.prefix()+"notes", "x"))
	_, found := checked(t, w)
	var got []string
	for _, f := range found {
		got = append(got, f.Object)
	}
	slices.Sort(got)
	// The journal itself is named too: events 2 to 20 are not there, or nobody would have written 21.
	want := []string{former.prefix(), former.anchors() + "0000000000000003", forged.name(), segment.name(), former.prefix() + "notes"}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Fatalf("found %q, want %q", got, want)
	}
}

func checked(t *testing.T, m *Meta) (Report, []Finding) {
	t.Helper()
	var found []Finding
	rep := must(m.Check(t.Context(), nil, func(f Finding) {
		if f.Severity == SeverityWarning && !strings.HasPrefix(f.Object, journalPrefix) {
			return
		}
		found = append(found, f)
	}))(t)
	return rep, found
}

func TestDamagedJournalIsFound(t *testing.T) {
	t.Parallel()
	st := newStand(t)
	w := st.writer(st.s)
	s := JournalSegment{JournalID: former, First: 1, Last: 4}
	ok(t, w.PutJournal(t.Context(), s))
	flip(t, st.s, s.name())
	if _, found := checked(t, w); len(found) != 1 || found[0].Object != s.name() || !strings.Contains(found[0].What, "damaged") {
		t.Fatalf("%+v", found)
	}
}

// However many processes ship at the same time, as long as each begins behind an end that it saw, the chain is whole.
func TestChainOfOverlappingSegments(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		ends, all := []int64{0}, []JournalSegment(nil)
		for range rapid.IntRange(1, 30).Draw(t, "segments") {
			seen := rapid.SampledFrom(ends).Draw(t, "seen")
			s := JournalSegment{First: seen + 1, Last: seen + rapid.Int64Range(1, 9).Draw(t, "length")}
			all, ends = append(all, s), append(ends, s.Last)
		}
		next := int64(1)
		for _, s := range chainOf(rapid.Permutation(all).Draw(t, "order")) {
			if s.First != next {
				t.Fatalf("%+v does not follow event %d", s, next-1)
			}
			next = s.Last + 1
		}
		if next-1 != slices.Max(ends) {
			t.Fatalf("the chain ends at %d, not at %d", next-1, slices.Max(ends))
		}
	})
}

// A stretch that is gone leaves a hole that the reader sees, and does not hide what follows.
func TestChainWithAHole(t *testing.T) {
	t.Parallel()
	got := chainOf([]JournalSegment{{First: 1, Last: 3}, {First: 9, Last: 12}, {First: 4, Last: 5}})
	if fmt.Sprint(len(got), got[1].Last, got[2].First) != "3 5 9" {
		t.Fatalf("%+v", got)
	}
}

func FuzzParseJournalName(f *testing.F) {
	f.Add("journal/db1/0a/0000000000000001-0000000000000009")
	f.Add("journal/db1/0a/anchor/0000000000000001")
	f.Add("journal/db1/anchor/0000000000000001")
	f.Add("journal/db1/0a/anchor/x")
	f.Fuzz(func(t *testing.T, name string) {
		s, ok := parseJournalName(name)
		if !ok {
			return
		}
		if s.Last == 0 && !strings.HasPrefix(name, s.anchors()) || s.Last > 0 && s.name() != name {
			t.Fatalf("%q was read as %+v", name, s)
		}
	})
}
