package app

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/journal"
	"github.com/toolboxai/relight/repo"
)

func (st *stand) append(a *App, n int) {
	st.t.Helper()
	j, err := a.Journal(st.t.Context())
	ok(st.t, err)
	events := make([]relight.Event, n)
	for i := range events {
		events[i] = relight.Event{Kind: "test.event", Data: json.RawMessage(`{"n":1}`)}
	}
	_, err = j.AppendBatch(st.t.Context(), events, journal.Expect{})
	ok(st.t, err)
}

// lose removes the host's journal, as the loss of the host does.
func (st *stand) lose() {
	st.t.Helper()
	ok(st.t, os.RemoveAll(st.state("journal")))
}

func (st *stand) verify(a *App) []JournalReport {
	st.t.Helper()
	reports, err := a.VerifyJournals(st.t.Context())
	ok(st.t, err)
	return reports
}

func clean(t *testing.T, reports []JournalReport, want int) {
	t.Helper()
	if len(reports) != want {
		t.Fatalf("%d reports, not %d: %+v", len(reports), want, reports)
	}
	for _, r := range reports {
		if !r.OK() {
			t.Fatalf("journal %s in %q: %+v", r.Journal, r.Repository, r.Findings)
		}
	}
}

func found(t *testing.T, reports []JournalReport, repository, detail string) {
	t.Helper()
	for _, r := range reports {
		for _, f := range r.Findings {
			if r.Repository == repository && strings.Contains(f.Detail, detail) {
				return
			}
		}
	}
	t.Fatalf("nobody found %q in %q: %+v", detail, repository, reports)
}

func TestJournalIsShippedAndAnchored(t *testing.T) {
	t.Parallel()
	st := newStand(t)
	a := st.app()
	st.append(a, 5)
	r := st.verify(a)
	clean(t, r, 1)
	if r[0].Anchored != 0 || len(r[0].Notes) == 0 {
		t.Fatalf("nothing is anchored, and nothing says so: %+v", r[0])
	}
	ok(t, a.KeepJournal(t.Context()))
	ok(t, a.KeepJournal(t.Context())) // nothing new: nothing to do
	st.append(a, 5000)                // more than one segment
	ok(t, a.KeepJournal(t.Context()))
	r = st.verify(a)
	clean(t, r, 1)
	if r[0].Events != 5005 || r[0].Anchored != 5005 || len(r[0].Notes) != 0 {
		t.Fatalf("%+v", r[0])
	}
	m := st.repository(a)
	ids, err := m.Journals(t.Context())
	if err != nil || len(ids) != 1 || ids[0].Host != "db1" {
		t.Fatal(ids, err)
	}
	if end, err := m.JournalEnd(t.Context(), ids[0]); err != nil || end != 5005 {
		t.Fatal(end, err)
	}
}

// Two processes that ship at the same time leave stretches that overlap, and a journal that verifies.
func TestJournalIsShippedByTwoAtOnce(t *testing.T) {
	t.Parallel()
	st := newStand(t)
	a, b := st.app(), st.app()
	for range 5 {
		st.append(a, 3)
		var wg sync.WaitGroup
		for _, process := range []*App{a, b} {
			wg.Go(func() {
				if err := process.KeepJournal(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
	st.lose()
	clean(t, st.verify(st.app()), 2)
}

func TestJournalOfALostHostIsVerifiedFromTheRepository(t *testing.T) {
	t.Parallel()
	st := newStand(t)
	first := st.app()
	st.append(first, 7)
	ok(t, first.KeepJournal(t.Context()))
	st.lose()
	second := st.app()
	st.append(second, 2)
	ok(t, second.KeepJournal(t.Context()))
	r := st.verify(second)
	clean(t, r, 2)
	if r[0].Repository != "" || r[0].Events != 2 || r[1].Repository != "vault" || r[1].Events != 7 || r[1].Anchored != 7 || r[0].Journal == r[1].Journal {
		t.Fatalf("%+v", r)
	}
	for _, name := range st.objects("journal/db1/" + r[1].Journal + "/0") {
		ok(t, os.Remove(name))
	}
	found(t, st.verify(second), "vault", "anchored up to event 7 and no segment of it is here")
}

// objects are the files of the repository whose names begin with prefix.
func (st *stand) objects(prefix string) []string {
	st.t.Helper()
	found, err := filepath.Glob(filepath.Join(st.vault, filepath.FromSlash(prefix)+"*"))
	ok(st.t, err)
	if len(found) == 0 {
		st.t.Fatalf("no object is called %s…", prefix)
	}
	return found
}

func TestAnchorWithAFalseHeadIsFound(t *testing.T) {
	t.Parallel()
	st := newStand(t)
	a := st.app()
	st.append(a, 7)
	j, err := a.Journal(t.Context())
	ok(t, err)
	ok(t, a.KeepJournal(t.Context()))
	// The host vouches for a head that its journal never signed.
	head, err := j.Anchor(t.Context())
	ok(t, err)
	head.Seq = 9
	signed, err := json.Marshal(head)
	ok(t, err)
	e, err := a.Estate()
	ok(t, err)
	public, err := publicKey(e)
	ok(t, err)
	m := st.repository(a)
	ok(t, m.PutAnchor(t.Context(), repo.Anchor{JournalID: repo.JournalID{Host: "db1", Journal: j.ID()}, Seq: 9, Hash: "x", Public: public, Head: signed}))
	found(t, st.verify(a), "", "is not valid")
}

// Whoever can add an object must not be able to switch the anchors off.
func TestForgedAnchorIsAFinding(t *testing.T) {
	t.Parallel()
	st := newStand(t)
	a := st.app()
	st.append(a, 3)
	ok(t, a.KeepJournal(t.Context()))
	j, err := a.Journal(t.Context())
	ok(t, err)
	thief := st.enrol("db2")
	ok(t, thief.PutAnchor(t.Context(), repo.Anchor{JournalID: repo.JournalID{Host: "db1", Journal: j.ID()}, Seq: 99, Hash: "x"}))
	found(t, st.verify(a), "", "db2")
}

// enrol gives another host a credential, and opens the repository as that host.
func (st *stand) enrol(host string) *repo.Meta {
	st.t.Helper()
	a := st.app(st.recovering)
	s, err := a.OpenStorage("file://" + st.vault)
	ok(st.t, err)
	root, err := a.RecoverySide(st.t.Context(), s)
	ok(st.t, err)
	c, err := repo.EnrolHost(st.t.Context(), root, host, repo.RoleWriter)
	ok(st.t, err)
	ok(st.t, root.Close())
	k, err := c.Keyring()
	ok(st.t, err)
	m, err := repo.Open(st.t.Context(), s, k, repo.Options{})
	ok(st.t, err)
	st.t.Cleanup(func() { ok(st.t, m.Close()) })
	return m
}

func TestUnreachableRepositoryIsANoteAndNotSilence(t *testing.T) {
	t.Parallel()
	st := newStand(t)
	a := st.app()
	st.append(a, 3)
	ok(t, os.Remove(st.state("credentials", "vault.json")))
	r := st.verify(a)
	clean(t, r, 1)
	if notes := strings.Join(r[0].Notes, "\n"); !strings.Contains(notes, "repository vault was not asked") || !strings.Contains(notes, "this host's own key only") {
		t.Fatal(notes)
	}
	if err := a.KeepJournal(t.Context()); err == nil || !strings.Contains(err.Error(), "vault") {
		t.Fatal(err)
	}
}

func TestSigningKey(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "signing.key")
	keys := make([]string, 8)
	var wg sync.WaitGroup
	for i := range keys {
		wg.Go(func() {
			k, err := signingKey(path)
			if err != nil {
				t.Error(err)
			}
			keys[i] = string(k)
		})
	}
	wg.Wait()
	for _, k := range keys {
		if k != keys[0] || k == "" {
			t.Fatal("two processes that began at the same time hold different keys")
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatal(info, err)
	}
	ok(t, os.WriteFile(path, []byte("not hex"), 0o600))
	_, err := signingKey(path)
	refused(t, err, relight.CodeFailed, path)
}
