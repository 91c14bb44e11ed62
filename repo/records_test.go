package repo

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob"
)

func TestEstateBundle(t *testing.T) {
	t.Parallel()
	st := newStand(t)
	w := st.writer(st.s)
	r := st.reader(st.s)
	if _, err := r.Meta().LatestEstate(t.Context(), r); relight.CodeOf(err) != relight.CodeNotFound || relight.HintOf(err) == "" {
		t.Fatal(err)
	}
	first := must(w.PutEstate(t.Context(), []byte("one")))(t)
	st.clock.add(time.Second)
	if again := must(w.PutEstate(t.Context(), []byte("one")))(t); again != first {
		t.Fatalf("the same bundle was stored twice: %s", again)
	}
	second := must(w.PutEstate(t.Context(), []byte("two")))(t)
	b := must(r.Meta().LatestEstate(t.Context(), r))(t)
	if string(b.Data) != "two" || !b.At.Equal(st.clock.now()) {
		t.Fatalf("%+v", b)
	}
	if b := must(r.Meta().Estate(t.Context(), r, first))(t); string(b.Data) != "one" {
		t.Fatalf("%+v", b)
	}
	if err := w.Records(t.Context(), "estate", estatePrefix, func(Signed) error { return nil }); relight.CodeOf(err) != relight.CodeUsage {
		t.Fatalf("a writer read the estate's secrets: %v", err)
	}
	if bytes.Contains(raw(t, st.s, second), []byte("two")) {
		t.Fatal("the bundle is not sealed")
	}
	flip(t, st.s, second)
	_, err := r.Meta().LatestEstate(t.Context(), r)
	wantError(t, err, second, "damaged")
}

func TestProofs(t *testing.T) {
	t.Parallel()
	st := newStand(t)
	w := st.writer(st.s)
	p := relight.Proof{Store: "main", Snapshot: "20251002T143000Z-main-1", At: st.clock.now(), OK: true}
	ok(t, w.PutProof(t.Context(), p))
	ok(t, w.PutProof(t.Context(), p))
	changed := p
	changed.OK = false
	if err := w.PutProof(t.Context(), changed); !errors.Is(err, blob.ErrExists) {
		t.Fatalf("a proof was rewritten: %v", err)
	}
	got := must(w.Proofs(t.Context(), "main"))(t)
	if len(got) != 1 || !got[0].OK || got[0].Snapshot != p.Snapshot {
		t.Fatalf("%+v", got)
	}
	flip(t, st.s, proofName(p))
	_, err := w.Proofs(t.Context(), "main")
	wantError(t, err, proofName(p), "damaged")
	wantError(t, w.PutRecord(t.Context(), "proof", "proof/../x", p), "cannot be part")
}

// A host enrolled while another process runs is believed without a restart; one revoked is refused.
func TestTrustIsLookedUpAgain(t *testing.T) {
	t.Parallel()
	st := newStand(t)
	longRunning := st.writer(st.s)
	theirs := JournalID{Host: "db2", Journal: "b2"}
	c := must(EnrolHost(t.Context(), st.recovery(st.s), "db2", RoleWriter))(t)
	st.clock.add(2 * time.Second)
	m2 := must(Open(t.Context(), st.s, must(c.Keyring())(t), st.options()))(t)
	ok(t, m2.PutAnchor(t.Context(), Anchor{JournalID: theirs, Seq: 1, Hash: "x"}))
	if as := must(longRunning.Anchors(t.Context(), theirs))(t); len(as) != 1 {
		t.Fatalf("%v", as)
	}
	ok(t, RevokeHost(t.Context(), st.recovery(st.s), "db2", time.Time{}, "stolen"))
	st.clock.add(2 * trustAge)
	_, err := longRunning.Anchors(t.Context(), theirs)
	wantError(t, err, "db2 is revoked")
	st.clock.add(2 * trustAge)
	wantError(t, m2.PutAnchor(t.Context(), Anchor{JournalID: theirs, Seq: 2, Hash: "x"}), "revoked")
}
