package repo

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob"
	"github.com/toolboxai/relight/blob/fault"
	"github.com/toolboxai/relight/blob/file"
	"github.com/toolboxai/relight/blob/mem"
)

func identity(t testing.TB, postQuantum bool) (age.Identity, Recipient) {
	t.Helper()
	if postQuantum {
		id := must(age.GenerateHybridIdentity())(t)
		return id, must(RecipientOf(id))(t)
	}
	id := must(age.GenerateX25519Identity())(t)
	return id, must(RecipientOf(id))(t)
}

func TestEveryRecipientOpensTheRepository(t *testing.T) {
	t.Parallel()
	for name, kinds := range map[string][]bool{"classical": {false}, "hybrid": {true}, "mixed": {false, true, true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := mem.New()
			var ids []age.Identity
			var rs []Recipient
			for _, pq := range kinds {
				id, r := identity(t, pq)
				ids, rs = append(ids, id), append(rs, r)
			}
			res := must(Init(t.Context(), s, InitOptions{Recipients: rs, Host: "db1"}))(t)
			for _, id := range ids {
				k := must(Unlock(t.Context(), s, id))(t)
				if !k.CanRead() || !k.CanEnrol() || k.Epoch() != 1 || k.Host() != "recovery" {
					t.Fatalf("the recovery side's keyring: %s", k)
				}
				m := must(Open(t.Context(), s, k, Options{}))(t)
				if got := must(m.Recipients(t.Context()))(t); len(got) != len(rs) {
					t.Fatalf("%d recipients are listed, want %d", len(got), len(rs))
				}
			}
			k := must(res.Credential.Keyring())(t)
			if hybrid := k.epochs[1].dataR.PostQuantum(); hybrid != (name == "hybrid") {
				t.Fatalf("the data recipient is hybrid: %v", hybrid)
			}
			var sealed bytes.Buffer
			w := must(k.sealData(&sealed))(t)
			must(io.WriteString(w, "content"))(t)
			ok(t, w.Close())
			if _, err := k.openData(bytes.NewReader(sealed.Bytes())); relight.CodeOf(err) != relight.CodeUsage {
				t.Fatalf("a writer opened content: %v", err)
			}
			r := must(res.Keyring.openData(bytes.NewReader(sealed.Bytes())))(t)
			if got := must(io.ReadAll(r))(t); string(got) != "content" {
				t.Fatalf("opened %q", got)
			}
		})
	}
}

func TestUnlockWithWrongIdentityTouchesNothing(t *testing.T) {
	t.Parallel()
	st := newStand(t)
	s := fault.New(st.s, nil)
	stranger, _ := identity(t, false)
	_, err := Unlock(t.Context(), s, stranger)
	wantError(t, err, "opens none of its keys")
	if relight.CodeOf(err) != relight.CodeUsage || relight.HintOf(err) == "" {
		t.Fatalf("code %q, hint %q", relight.CodeOf(err), relight.HintOf(err))
	}
	if n := writes(s); n != 0 {
		t.Fatalf("%d writes", n)
	}
}

func TestOpenRefusesAnotherRepositorysKeys(t *testing.T) {
	t.Parallel()
	st, other := newStand(t), newStand(t)
	s := fault.New(st.s, nil)
	_, err := Open(t.Context(), s, must(other.init.Credential.Keyring())(t), Options{})
	wantError(t, err, "belong to repository", other.init.Descriptor.ID[:8], st.init.Descriptor.ID[:8])
	if relight.CodeOf(err) != relight.CodeUsage || relight.HintOf(err) == "" || writes(s) != 0 {
		t.Fatalf("code %q, hint %q, %d writes", relight.CodeOf(err), relight.HintOf(err), writes(s))
	}
}

func TestOpenWithoutRepository(t *testing.T) {
	t.Parallel()
	_, err := Unlock(t.Context(), mem.New(), must(age.GenerateX25519Identity())(t))
	wantError(t, err, "there is no repository here")
	if relight.CodeOf(err) != relight.CodeUsage {
		t.Fatalf("code %q", relight.CodeOf(err))
	}
}

func TestForgedDescriptorIsNoticed(t *testing.T) {
	t.Parallel()
	st, attacker := newStand(t), newStand(t)
	forged := bytes.ReplaceAll(raw(t, attacker.s, descriptorName), []byte(attacker.init.Descriptor.ID), []byte(st.init.Descriptor.ID))
	overwrite(t, st.s, descriptorName, forged)
	_, err := Open(t.Context(), st.s, must(st.init.Credential.Keyring())(t), Options{})
	wantError(t, err, descriptorName, "another authority")
	_, err = Unlock(t.Context(), st.s, st.id)
	wantError(t, err, "keys/epoch/1/", "another authority")
	d := must(ReadDescriptor(t.Context(), st.s))(t)
	if d.Fingerprint() == st.init.Fingerprint {
		t.Fatal("the forged repository has the same fingerprint")
	}
}

// Anybody can seal to a public recipient: what is planted must not be taken for keys.
func TestPlantedEpochIsRefused(t *testing.T) {
	t.Parallel()
	st, attacker := newStand(t), newStand(t)
	r := must(RecipientOf(st.id))(t)
	ak := attacker.init.Keyring
	es := ak.epochs[1].secrets()
	es.Epoch = 2
	ok(t, wrapEpoch(t.Context(), st.s, st.init.Descriptor.ID, ak.root, es, r, strings.NewReader("12345678")))
	k := must(Unlock(t.Context(), st.s, st.id))(t)
	if k.Epoch() != 1 || len(k.epochs) != 1 || !slices.Equal(k.Missing(), []int{2}) {
		t.Fatalf("epoch %d of %d, missing %v", k.Epoch(), len(k.epochs), k.Missing())
	}
}

func TestInitInterruptedAnywhereCanBeRepeated(t *testing.T) {
	t.Parallel()
	id, r := identity(t, false)
	opts := InitOptions{Recipients: []Recipient{r}, Host: "db1"}
	fresh := func() blob.Storage { return mem.New() }
	work := func(s blob.Storage) error {
		_, err := Init(t.Context(), s, opts)
		return err
	}
	faults := []fault.Fault{{Effect: fault.Refuse}, {Effect: fault.Die}, {Effect: fault.DieLate}, {Effect: fault.Lose}}
	// Names of keys are random, so operations are counted by hand instead of by fault.Each.
	for seq := 1; seq <= 7; seq++ {
		for _, f := range faults {
			s := fresh()
			faulty := fault.New(s, fault.At(seq, f))
			err := work(faulty)
			if len(faulty.Ops()) < seq {
				continue
			}
			if _, derr := ReadDescriptor(t.Context(), s); derr == nil {
				if err != nil { // the answer to the last write was lost: the repository is whole
					must(Unlock(t.Context(), s, id))(t)
				}
				continue
			}
			if err == nil {
				t.Fatalf("op %d %v: init succeeded without a descriptor", seq, f.Effect)
			}
			must(Init(t.Context(), s, opts))(t)
			must(Open(t.Context(), s, must(Unlock(t.Context(), s, id))(t), Options{}))(t)
		}
	}
}

func TestInitRefusesExistingRepositoryAndBadOptions(t *testing.T) {
	t.Parallel()
	st := newStand(t)
	r := must(RecipientOf(st.id))(t)
	_, err := Init(t.Context(), st.s, InitOptions{Recipients: []Recipient{r}, Host: "db1"})
	wantError(t, err, "already a repository")
	for name, o := range map[string]InitOptions{
		"no recovery recipient": {Host: "db1"},
		"is empty":              {Host: "db1", Recipients: []Recipient{{}}},
		"recovery side":         {Host: "recovery", Recipients: []Recipient{r}},
		"object's name":         {Host: "a/b", Recipients: []Recipient{r}},
		"32 nor 64":             {Host: "db1", Recipients: []Recipient{r}, Chunk: 100},
		"out of range":          {Host: "db1", Recipients: []Recipient{r}, LiveInterval: -1},
	} {
		s := fault.New(mem.New(), nil)
		_, err := Init(t.Context(), s, o)
		wantError(t, err, name)
		if relight.CodeOf(err) != relight.CodeUsage || writes(s) != 0 {
			t.Fatalf("%s: code %q, %d writes", name, relight.CodeOf(err), writes(s))
		}
	}
}

func TestCredentialFile(t *testing.T) {
	t.Parallel()
	st := newStand(t)
	path := filepath.Join(t.TempDir(), "vault.json")
	ok(t, st.init.Credential.Write(path))
	if fi := must(os.Stat(path))(t); fi.Mode().Perm() != 0o600 {
		t.Fatalf("mode %o", fi.Mode().Perm())
	}
	c := must(ReadCredential(path))(t)
	k := must(c.Keyring())(t)
	if c.Role() != RoleWriter || c.Host() != "db1" || k.CanRead() || !k.CanWrite() || k.CanEnrol() {
		t.Fatalf("%s: reads %v, writes %v", c, k.CanRead(), k.CanWrite())
	}
	if text := string(must(os.ReadFile(path))(t)); strings.Contains(text, identityText(st.init.Keyring.epochs[1].data)) {
		t.Fatal("the writer's file holds the data identity")
	}
	for _, shown := range []string{fmt.Sprintf("%v %+v %#v", c, c, c), fmt.Sprintf("%v %#v", k, k)} {
		if strings.Contains(shown, "AGE-SECRET-KEY") || strings.Contains(shown, "seed") {
			t.Fatalf("a secret is printed: %s", shown)
		}
	}
	ok(t, os.Chmod(path, 0o640))
	_, err := ReadCredential(path)
	wantError(t, err, "others can read it")
	_, err = ReadCredential(path + ".absent")
	wantError(t, err, "there is no such file")
	for _, bad := range []string{"", "{}", `{"format":9}`, `{"format":1,"repository":"x"}`, "AGE-SECRET-KEY-1SECRET"} {
		ok(t, os.WriteFile(path, []byte(bad), 0o600))
		ok(t, os.Chmod(path, 0o600))
		_, err := ReadCredential(path)
		if relight.CodeOf(err) != relight.CodeUsage || relight.HintOf(err) == "" || strings.Contains(err.Error(), "SECRET") {
			t.Fatalf("%q: %v", bad, err)
		}
	}
}

func TestBadRecipientsAndIdentities(t *testing.T) {
	t.Parallel()
	id, r := identity(t, false)
	for in, say := range map[string]string{
		"":                     "it is empty",
		identityText(id):       "secret identity",
		"ssh-ed25519 AAAA":     "SSH",
		r.text + "\n" + r.text: "more than one line",
		r.text[:20]:            "not an age recipient",
		"age1pq1notarecipient": "not an age recipient",
	} {
		_, err := ParseRecipient(in)
		wantError(t, err, say)
		if relight.CodeOf(err) != relight.CodeUsage || relight.HintOf(err) == "" || strings.Contains(err.Error(), "AGE-SECRET-KEY") {
			t.Fatalf("%q: %v", in, err)
		}
	}
	for in, say := range map[string]string{
		"":                                       "empty",
		"# only a comment":                       "no age identity",
		r.text:                                   "public recipient",
		"age-encryption.org/v1\n-> x":            "itself encrypted",
		"-----BEGIN OPENSSH PRIVATE KEY-----\nx": "PEM private key",
		"AGE-SECRET-KEY-1QQQQQQQQQQ":             "no age identity",
	} {
		_, err := ParseIdentities(strings.NewReader(in))
		wantError(t, err, say)
		if relight.CodeOf(err) != relight.CodeUsage || relight.HintOf(err) == "" || strings.Contains(err.Error(), "QQQQ") {
			t.Fatalf("%q: %v", in, err)
		}
	}
	ids := must(ParseIdentities(strings.NewReader("# mine\n" + identityText(id) + "\n")))(t)
	if len(ids) != 1 {
		t.Fatal("a good file was not read")
	}
}

func TestAddRecipientOpensThePast(t *testing.T) {
	t.Parallel()
	st := newStand(t)
	ok(t, putSegment(t.Context(), st.writer(st.s).Sink("main"), testKey, 3))
	id, r := identity(t, true)
	m := st.recovery(st.s)
	ok(t, AddRecipient(t.Context(), m, r))
	wantError(t, AddRecipient(t.Context(), m, r), "already")
	wantError(t, AddRecipient(t.Context(), st.writer(st.s), r), "only the recovery side")
	k := must(Unlock(t.Context(), st.s, id))(t)
	rd := must(must(Open(t.Context(), st.s, k, st.options()))(t).Reader())(t)
	var b bytes.Buffer
	ok(t, rd.WALSegment(t.Context(), testKey, segmentName(1, 3), &b))
	if !bytes.Equal(b.Bytes(), walBytes(1, 3)) {
		t.Fatal("the new recipient reads other bytes")
	}
}

func TestRemoveRecipientOpensAnEpoch(t *testing.T) {
	t.Parallel()
	st := newStand(t)
	old := st.writer(st.s)
	ok(t, putSegment(t.Context(), old.Sink("main"), testKey, 3))
	id2, r2 := identity(t, false)
	m := st.recovery(st.s)
	_, err := RemoveRecipient(t.Context(), m, must(RecipientOf(st.id))(t))
	wantError(t, err, "last recovery recipient")
	ok(t, AddRecipient(t.Context(), m, r2))
	st.clock.add(-time.Hour) // another machine's clock: the order of the records must hold all the same
	k2 := must(RemoveRecipient(t.Context(), m, must(RecipientOf(st.id))(t)))(t)
	if k2.Epoch() != 2 {
		t.Fatalf("epoch %d", k2.Epoch())
	}
	if rs := must(m.Recipients(t.Context()))(t); len(rs) != 1 || rs[0].text != r2.text {
		t.Fatalf("recipients %v", rs)
	}
	// A credential that was not refreshed learns that it is behind, and goes on.
	if w := st.writer(st.s); w.NewestEpoch() != 2 || w.Keyring().Epoch() != 1 {
		t.Fatalf("newest %d, own %d", w.NewestEpoch(), w.Keyring().Epoch())
	}
	ok(t, k2.Refresh(st.init.Credential))
	w := st.writer(st.s)
	ok(t, putSegment(t.Context(), w.Sink("main"), testKey, 4))

	removed := must(Unlock(t.Context(), st.s, st.id))(t)
	if !slices.Equal(removed.Missing(), []int{2}) {
		t.Fatalf("the removed identity misses %v", removed.Missing())
	}
	rd := must(must(Open(t.Context(), st.s, removed, st.options()))(t).Reader())(t)
	ok(t, rd.WALSegment(t.Context(), testKey, segmentName(1, 3), io.Discard))
	err = rd.WALSegment(t.Context(), testKey, segmentName(1, 4), io.Discard)
	wantError(t, err, segmentName(1, 4), "a key that is not at hand")
	if errors.Is(err, blob.ErrNotFound) {
		t.Fatal("a locked segment passes for absent")
	}
	kept := must(Open(t.Context(), st.s, must(Unlock(t.Context(), st.s, id2))(t), st.options()))(t)
	rd = must(kept.Reader())(t)
	for _, no := range []int{3, 4} {
		ok(t, rd.WALSegment(t.Context(), testKey, segmentName(1, no), io.Discard))
	}
}

func TestKeyTest(t *testing.T) {
	t.Parallel()
	st := newStand(t)
	w := st.writer(st.s)
	if _, tested, err := w.LastKeyTest(t.Context()); err != nil || tested {
		t.Fatalf("tested %v, %v", tested, err)
	}
	ok(t, putSegment(t.Context(), w.Sink("main"), testKey, 3))
	got := must(KeyTest(t.Context(), st.s, st.options(), st.id))(t)
	if !strings.Contains(got.Sample, segmentName(1, 3)) || !got.Covers(1) || got.Covers(2) {
		t.Fatalf("%+v", got)
	}
	last, tested, err := w.LastKeyTest(t.Context())
	if err != nil || !tested || !last.At.Equal(got.At) {
		t.Fatalf("%+v %v %v", last, tested, err)
	}
	stranger, _ := identity(t, false)
	if _, err := KeyTest(t.Context(), st.s, st.options(), stranger); err == nil {
		t.Fatal("a stranger's key passed the test")
	}
	// A record that the authority did not sign proves nothing.
	overwrite(t, st.s, objectNames(t, st.s, testedPrefix)[0], []byte(`{"kind":"tested"}`))
	if _, tested, err := w.LastKeyTest(t.Context()); err != nil || tested {
		t.Fatalf("tested %v, %v", tested, err)
	}
}

func TestKeyTestFailsWhenContentIsSealedToAnotherKey(t *testing.T) {
	t.Parallel()
	st, other := newStand(t), newStand(t)
	ok(t, putSegment(t.Context(), other.writer(other.s).Sink("main"), testKey, 3))
	for _, n := range objectNames(t, other.s, "wal/main/7") {
		overwrite(t, st.s, n, raw(t, other.s, n))
	}
	_, err := KeyTest(t.Context(), st.s, st.options(), st.id)
	wantError(t, err, segmentName(1, 3), "does not open")
	if n := objectNames(t, st.s, testedPrefix); len(n) != 0 {
		t.Fatalf("a failed test was recorded: %v", n)
	}
}

func TestRescueKit(t *testing.T) {
	t.Parallel()
	st := newStand(t)
	w := st.writer(st.s)
	ok(t, putSegment(t.Context(), w.Sink("main"), testKey, 3))
	var b bytes.Buffer
	ok(t, w.RescueKit(t.Context(), &b, KitFact{"hotline", "+49 30 1234567"}))
	for _, want := range []string{st.s.String(), st.init.Fingerprint, "PostgreSQL 15", "NEVER TESTED", "+49 30 1234567", "relight recover --repo", must(RecipientOf(st.id))(t).String()} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the kit does not say %q:\n%s", want, b.String())
		}
	}
	if strings.Contains(b.String(), "AGE-SECRET-KEY") {
		t.Error("the kit holds a secret")
	}
	must(KeyTest(t.Context(), st.s, st.options(), st.id))(t)
	b.Reset()
	ok(t, w.RescueKit(t.Context(), &b))
	if !strings.Contains(b.String(), "Last tested 2025-10-02") {
		t.Errorf("the kit does not say when the key was tested:\n%s", b.String())
	}
}

func TestSingleHostIsExplicit(t *testing.T) {
	t.Parallel()
	s := must(file.Open(t.TempDir()))(t)
	_, r := identity(t, false)
	res := must(Init(t.Context(), s, InitOptions{Recipients: []Recipient{r}, Host: "db1", SingleHost: true}))(t)
	if k := must(res.Credential.Keyring())(t); !k.CanRead() || !res.Descriptor.SingleHost {
		t.Fatal("single-host mode does not read")
	}
}

func TestRotateKeys(t *testing.T) {
	t.Parallel()
	st := newStand(t)
	ok(t, putSegment(t.Context(), st.writer(st.s).Sink("main"), testKey, 3))
	_, err := RotateKeys(t.Context(), st.writer(st.s))
	wantError(t, err, "only the recovery side")
	must(KeyTest(t.Context(), st.s, st.options(), st.id))(t)
	m := st.recovery(st.s)
	k := must(RotateKeys(t.Context(), m))(t)
	made := must(RenewCredential(t.Context(), m, k, st.init.Credential))(t)
	if k.Epoch() != 2 || len(must(m.Recipients(t.Context()))(t)) != 1 {
		t.Fatalf("epoch %d", k.Epoch())
	}
	if last, _, err := m.LastKeyTest(t.Context()); err != nil || last.Covers(2) {
		t.Fatalf("the new epoch passes for tested: %+v, %v", last, err)
	}
	old := st.writer(st.s) // a process that was not started anew goes on
	ok(t, putSegment(t.Context(), old.Sink("main"), testKey, 4))
	former := *st.init.Credential
	st.init.Credential = made
	w := st.writer(st.s)
	if w.Keyring().Epoch() != 2 || bytes.Equal(w.Keyring().signer, old.Keyring().signer) {
		t.Fatal("the credential is not renewed")
	}
	ok(t, putSegment(t.Context(), w.Sink("main"), testKey, 5))
	rd := must(st.recovery(st.s).Reader())(t)
	for no := 3; no <= 5; no++ {
		ok(t, rd.WALSegment(t.Context(), testKey, segmentName(1, no), io.Discard))
	}
	stolen := must(Open(t.Context(), st.s, must(former.Keyring())(t), st.options()))(t)
	if _, err := stolen.sidecar(t.Context(), walName{WALKey: testKey, class: walSegment, name: segmentName(1, 5)}); err == nil {
		t.Fatal("the former credential reads what the new epoch sealed")
	}
	other := newStand(t)
	_, err = RenewCredential(t.Context(), m, k, other.init.Credential)
	wantError(t, err, "not for repository")
	rep, err := st.recovery(st.s).Check(t.Context(), nil, func(f Finding) { t.Errorf("finding %+v", f) })
	if err != nil || rep.Errors+rep.Warnings != 0 {
		t.Fatalf("%+v, %v", rep, err)
	}
}
