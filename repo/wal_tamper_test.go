package repo

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/toolboxai/relight/blob"
)

func TestTamperedWALIsRefusedByName(t *testing.T) {
	t.Parallel()
	base := testKey.prefix() + segmentName(1, 3)
	for name, c := range map[string]struct {
		spoil func(t *testing.T, st *stand)
		say   []string
	}{
		"body deleted": {func(t *testing.T, st *stand) { removeBody(t, st.s, base) }, []string{base, "missing although its sidecar is there"}},
		"body flipped": {func(t *testing.T, st *stand) { flip(t, st.s, bodyOf(t, st.s, base)) }, []string{base, "damaged"}},
		"body cut": {func(t *testing.T, st *stand) {
			n := bodyOf(t, st.s, base)
			overwrite(t, st.s, n, raw(t, st.s, n)[:1000])
		}, []string{base, "damaged"}},
		"body extended": {func(t *testing.T, st *stand) {
			n := bodyOf(t, st.s, base)
			overwrite(t, st.s, n, append(raw(t, st.s, n), 1))
		}, []string{base, "damaged"}},
		"body swapped": {func(t *testing.T, st *stand) {
			overwrite(t, st.s, bodyOf(t, st.s, base), raw(t, st.s, bodyOf(t, st.s, testKey.prefix()+segmentName(1, 4))))
		}, []string{base, "damaged"}},
		"sidecar flipped": {func(t *testing.T, st *stand) { flip(t, st.s, base+metaSuffix) }, []string{base + metaSuffix, "damaged"}},
		"sidecar renamed": {func(t *testing.T, st *stand) {
			overwrite(t, st.s, base+metaSuffix, raw(t, st.s, testKey.prefix()+segmentName(1, 4)+metaSuffix))
		}, []string{base + metaSuffix, "refused", "signed as"}},
		"sidecar unsigned": {func(t *testing.T, st *stand) {
			reseal(t, st, base+metaSuffix, func(s *Signed) { s.Sig = nil })
		}, []string{base + metaSuffix, "not signed"}},
		"sidecar edited": {func(t *testing.T, st *stand) {
			reseal(t, st, base+metaSuffix, func(s *Signed) {
				s.Payload = bytes.Replace(s.Payload, []byte(`"server_version":15`), []byte(`"server_version":16`), 1)
			})
		}, []string{base + metaSuffix, "not that of host"}},
		"sidecar of another kind": {func(t *testing.T, st *stand) {
			reseal(t, st, base+metaSuffix, func(s *Signed) { s.Kind = "gap" })
		}, []string{base + metaSuffix, "should be a sidecar"}},
		"sidecar by a stranger": {func(t *testing.T, st *stand) {
			other := newStand(t)
			b := must(other.writer(other.s).keys.sign("sidecar", base+metaSuffix, st.clock.now(), Sidecar{}))(t)
			overwrite(t, st.s, base+metaSuffix, must(st.writer(st.s).keys.sealBytes(b, sealedMeta))(t))
		}, []string{base + metaSuffix, "not that of host"}},
		"sidecar by an unknown host": {func(t *testing.T, st *stand) {
			reseal(t, st, base+metaSuffix, func(s *Signed) { s.Signer = "db9" })
		}, []string{base + metaSuffix, `"db9" is not enrolled`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			st := newStand(t)
			s := st.writer(st.s).Sink("main")
			ok(t, putSegment(t.Context(), s, testKey, 3))
			ok(t, putSegment(t.Context(), s, testKey, 4))
			c.spoil(t, st)
			_, err := readSegment(t.Context(), st.reader(st.s), 1, 3)
			wantError(t, err, c.say...)
			if errors.Is(err, blob.ErrNotFound) {
				t.Fatalf("it passes for absent: %v", err)
			}
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrRefused) {
				t.Fatalf("neither damaged nor refused: %v", err)
			}
			seen := 0
			ok(t, st.writer(st.s).Sidecars(t.Context(), "main", func(WALKey, Sidecar, bool) error { seen++; return nil }))
			problems := must(st.writer(st.s).WALProblems(t.Context(), "main"))(t)
			if strings.HasPrefix(name, "sidecar") && (seen != 1 || len(problems) != 1) {
				t.Fatalf("%d sidecars count, problems %v", seen, problems)
			}
		})
	}
}

func flip(t *testing.T, s blob.Storage, name string) {
	t.Helper()
	b := bytes.Clone(raw(t, s, name))
	b[len(b)/2] ^= 1
	overwrite(t, s, name, b)
}

// reseal plays a thief of the metadata identity, who can open and seal but not sign.
func reseal(t *testing.T, st *stand, name string, change func(*Signed)) {
	t.Helper()
	m := st.writer(st.s)
	plain := must(m.openBytes(name, raw(t, st.s, name), sealedMeta))(t)
	var s Signed
	ok(t, json.Unmarshal(plain, &s))
	change(&s)
	overwrite(t, st.s, name, must(m.keys.sealBytes(must(json.Marshal(s))(t), sealedMeta))(t))
}

func TestRevokedHost(t *testing.T) {
	t.Parallel()
	st := newStand(t)
	s := st.writer(st.s).Sink("main")
	ok(t, putSegment(t.Context(), s, testKey, 3))
	info := must(st.s.Stat(t.Context(), testKey.prefix()+segmentName(1, 3)+metaSuffix))(t)
	early := st.s.Clone()

	// Nothing of it counts any more.
	ok(t, RevokeHost(t.Context(), st.recovery(st.s), "db1", time.Time{}, "stolen"))
	_, err := readSegment(t.Context(), st.reader(st.s), 1, 3)
	wantError(t, err, segmentName(1, 3)+metaSuffix, "db1 is revoked", "stolen")
	wantError(t, putSegment(t.Context(), st.writer(st.s).Sink("main"), testKey, 4), "host db1 is revoked")
	ok(t, RevokeHost(t.Context(), st.recovery(st.s), "db1", time.Time{}, "again")) // nothing left to do
	wantError(t, RevokeHost(t.Context(), st.recovery(st.s), "db7", time.Time{}, ""), "db7")
	wantError(t, RevokeHost(t.Context(), st.writer(early), "db1", time.Time{}, ""), "only the recovery side")

	// What the storage received before the theft stays; the thief's backdating does not help him. The memory
	// storage's clock runs far behind the signer's, so the signed time is what limits here.
	st.s = early
	keep := st.clock.now().Add(time.Second)
	ok(t, RevokeHost(t.Context(), st.recovery(early), "db1", keep, "stolen"))
	if info.Modified.After(keep) {
		t.Fatal("the test's clocks are not as assumed")
	}
	must(readSegment(t.Context(), st.reader(early), 1, 3))(t)

	// A new enrolment writes on.
	c := must(EnrolHost(t.Context(), st.recovery(early), "db1", RoleWriter))(t)
	st.init.Credential = c
	ok(t, putSegment(t.Context(), st.writer(early).Sink("main"), testKey, 4))
	must(readSegment(t.Context(), st.reader(early), 1, 4))(t)
}

func TestBackdatedObjectsOfARevokedHostAreRefused(t *testing.T) {
	t.Parallel()
	st := newStand(t)
	st.clock.t = time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC) // the thief's clock is set back; the storage's is not
	ok(t, putSegment(t.Context(), st.writer(st.s).Sink("main"), testKey, 3))
	ok(t, RevokeHost(t.Context(), st.recovery(st.s), "db1", time.Date(2024, 6, 1, 0, 0, 0, 0, time.UTC), "stolen"))
	_, err := readSegment(t.Context(), st.reader(st.s), 1, 3)
	wantError(t, err, "the storage received the object at or after")
}

func TestSpoiledRevocationStillRevokes(t *testing.T) {
	t.Parallel()
	st := newStand(t)
	ok(t, putSegment(t.Context(), st.writer(st.s).Sink("main"), testKey, 3))
	ok(t, RevokeHost(t.Context(), st.recovery(st.s), "db1", time.Time{}, "stolen"))
	flip(t, st.s, objectNames(t, st.s, revokedPrefix)[0])
	_, err := readSegment(t.Context(), st.reader(st.s), 1, 3)
	wantError(t, err, segmentName(1, 3)+metaSuffix, "cannot be verified")
}

func TestForgedEnrolmentEnrolsNobody(t *testing.T) {
	t.Parallel()
	st, attacker := newStand(t), newStand(t)
	for _, n := range objectNames(t, attacker.s, hostPrefix) {
		overwrite(t, st.s, n, raw(t, attacker.s, n))
	}
	hosts, problems := st.recovery(st.s).Hosts()
	if len(hosts) != 1 || len(problems) != 1 {
		t.Fatalf("hosts %v, problems %v", hosts, problems)
	}
	wantError(t, problems[0], hostPrefix, "authority did not sign")
}
