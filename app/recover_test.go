package app

import (
	"crypto/rand"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/estate"
	"github.com/toolboxai/relight/repo"
)

// bare is a process on a machine that holds nothing but the recovery key.
func (st *stand) bare() *App {
	return st.app(st.recovering, func(o *Options) { o.Config = "" })
}

func (st *stand) keep() {
	st.t.Helper()
	a := st.app()
	ok(st.t, a.keepEstate(st.t.Context(), st.repository(a)))
}

func TestEstateComesBackOnABareMachine(t *testing.T) {
	t.Parallel()
	st := newStand(t)
	st.keep()
	elsewhere := filepath.Join(t.TempDir(), "new")
	a := st.bare()
	e, err := a.FromBare(t.Context(), Bare{URL: "file://" + st.vault, Directory: elsewhere, Host: "db2"})
	ok(t, err)
	if e.Name != "shop" || e.Directory != elsewhere || e.State != filepath.Join(elsewhere, "state") {
		t.Fatalf("%+v", e)
	}
	if text, err := os.ReadFile(filepath.Join(elsewhere, "runbooks", "own.md")); err != nil || string(text) != "# own\n" {
		t.Fatal(string(text), err)
	}
	c, err := repo.ReadCredential(e.Repositories["vault"].Credential)
	if err != nil || c.Host() != "db2" || c.Role() != repo.RoleWriter {
		t.Fatal(c, err)
	}
	// token.txt is no file of the estate: the value that the bundle brought serves.
	if _, err := os.Stat(filepath.Join(elsewhere, "token.txt")); err == nil {
		t.Fatal("the test is void: the reference still leads somewhere")
	}
	v, err := a.resolveSecret(t.Context(), "file:token.txt")
	if err != nil || strings.TrimSpace(v.Reveal()) != "s3cr3t-t0ken" {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(e.State, "secrets", "token"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatal(info, err)
	}
	// What is written from here on is believed by everyone.
	m, err := a.Repository(t.Context(), "vault")
	ok(t, err)
	ok(t, m.PutProof(t.Context(), relight.Proof{Store: "main", Snapshot: "s", At: time.Now()}))
	if _, err := st.repository(st.app()).Proofs(t.Context(), "main"); err != nil {
		t.Fatal(err)
	}
}

func TestRecoveryCanBeRepeated(t *testing.T) {
	t.Parallel()
	st := newStand(t)
	st.keep()
	o := Bare{URL: "file://" + st.vault, Directory: filepath.Join(t.TempDir(), "new"), Host: "db2"}
	first, err := st.bare().FromBare(t.Context(), o)
	ok(t, err)
	credential, err := os.ReadFile(first.Repositories["vault"].Credential)
	ok(t, err)
	_, err = st.bare().FromBare(t.Context(), o)
	ok(t, err)
	again, err := os.ReadFile(first.Repositories["vault"].Credential)
	if err != nil || string(again) != string(credential) {
		t.Fatal("the machine was enrolled a second time", err)
	}
	ok(t, os.WriteFile(first.File, []byte("estate: mine\n"), 0o600))
	_, err = st.bare().FromBare(t.Context(), o)
	refused(t, err, relight.CodeUsage, first.File, "a different file is there")
	o.Force = true
	_, err = st.bare().FromBare(t.Context(), o)
	ok(t, err)
}

func TestForeignCredentialIsNotOverwritten(t *testing.T) {
	t.Parallel()
	st := newStand(t)
	st.keep()
	dir := filepath.Join(t.TempDir(), "new")
	theirs := filepath.Join(dir, "state", "credentials", "vault.json")
	other := newStand(t)
	text, err := os.ReadFile(other.state("credentials", "vault.json"))
	ok(t, err)
	ok(t, os.MkdirAll(filepath.Dir(theirs), 0o700))
	ok(t, os.WriteFile(theirs, text, 0o600))
	_, err = st.bare().FromBare(t.Context(), Bare{URL: "file://" + st.vault, Directory: dir, Host: "db2"})
	refused(t, err, relight.CodeUsage, theirs)
	if now, err := os.ReadFile(theirs); err != nil || string(now) != string(text) {
		t.Fatal("it was touched all the same", err)
	}
}

func TestFromBareRefusals(t *testing.T) {
	t.Parallel()
	st := newStand(t)
	_, err := st.bare().FromBare(t.Context(), Bare{URL: "file://" + st.vault, Directory: t.TempDir(), Host: "x"})
	refused(t, err, relight.CodeNotFound, "bring the estate back")
	_, err = st.bare().FromBare(t.Context(), Bare{URL: "s3://bucket", Host: "x"})
	refused(t, err, relight.CodeUsage, `scheme "s3" is unknown`)
	_, err = st.app().FromBare(t.Context(), Bare{URL: "file://" + st.vault, Host: "x"})
	refused(t, err, relight.CodeUsage, "this needs the recovery key")
	_, err = newStand(t).bareOf(st).FromBare(t.Context(), Bare{URL: "file://" + st.vault, Host: "x"})
	if err == nil || relight.HintOf(err) == "" {
		t.Fatalf("a key of another repository opened it: %v", err)
	}
	if _, err := os.Stat(filepath.Join(st.dir, "state", "secrets")); err == nil {
		t.Fatal("a refused recovery wrote something")
	}
}

// bareOf is a bare machine of st with the key of another estate.
func (st *stand) bareOf(bare *stand) *App {
	return bare.app(st.recovering, func(o *Options) { o.Config = "" })
}

func TestRepositoryAt(t *testing.T) {
	t.Parallel()
	st := newStand(t)
	m := st.repository(st.app())
	at := m.Storage().String()
	vault, attic := estate.Repository{Name: "vault", URL: "file:///vault"}, estate.Repository{Name: "attic", URL: "file:///attic"}
	here := estate.Repository{Name: "here", URL: at}
	for _, c := range []struct {
		what string
		all  map[string]estate.Repository
		url  string
		want string
	}{
		{"by the address given", map[string]estate.Repository{"vault": vault, "attic": attic}, "file:///attic", "attic"},
		{"by the address opened", map[string]estate.Repository{"vault": vault, "here": here}, "file:///alias", "here"},
		{"the only one has moved", map[string]estate.Repository{"vault": vault}, "file:///moved", "vault"},
		{"none of several", map[string]estate.Repository{"vault": vault, "attic": attic}, "file:///moved", ""},
		{"none at all", nil, "file:///moved", ""},
	} {
		got, err := repositoryAt(&estate.Estate{Repositories: c.all}, m, c.url)
		if got.Name != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s: %q %v", c.what, got.Name, err)
		}
		if err != nil {
			refused(t, err, relight.CodeUsage)
		}
	}
}

func TestIdentities(t *testing.T) {
	t.Parallel()
	st := newStand(t)
	none := filepath.Join(t.TempDir(), "none.key")
	_, err := ReadIdentities(none)
	refused(t, err, relight.CodeUsage, none)
	bad := filepath.Join(t.TempDir(), "bad.key")
	ok(t, os.WriteFile(bad, []byte("AGE-SECRET-KEY-1NOTAKEY\n"), 0o600))
	_, err = ReadIdentities(bad)
	refused(t, err, relight.CodeUsage, bad)
	if strings.Contains(err.Error(), "NOTAKEY") {
		t.Errorf("the error shows the key: %v", err)
	}
	ids, err := st.app(st.recovering).Identities()
	if err != nil || len(ids) != 1 {
		t.Fatal(ids, err)
	}
	_, err = GenerateIdentity(st.identity, false)
	refused(t, err, relight.CodeUsage, st.identity)
	s, err := st.app().OpenStorage("file://" + st.vault)
	ok(t, err)
	_, err = st.app().KeyTest(t.Context(), s)
	refused(t, err, relight.CodeUsage, "no identity was given")
	tested, err := st.app(st.recovering).KeyTest(t.Context(), s)
	if err != nil || tested.At.IsZero() {
		t.Fatal(tested, err)
	}
}

func TestHybridIdentityOpensItsRepository(t *testing.T) {
	t.Parallel()
	st := newStand(t)
	key := filepath.Join(t.TempDir(), "pq.key")
	recipient, err := GenerateIdentity(key, true)
	ok(t, err)
	r, err := repo.ParseRecipient(recipient)
	ok(t, err)
	a := st.app(func(o *Options) { o.Identities = []string{key} })
	s, err := a.CreateStorage("file://" + filepath.Join(t.TempDir(), "pq"))
	ok(t, err)
	_, err = repo.Init(t.Context(), s, repo.InitOptions{Recipients: []repo.Recipient{r}, Host: "db1", Now: time.Now, Rand: rand.Reader})
	ok(t, err)
	m, err := a.RecoverySide(t.Context(), s)
	ok(t, err)
	ok(t, m.Close())
}

// A writer's credential lists and writes; what it protects it cannot read.
func TestWriterCannotRead(t *testing.T) {
	t.Parallel()
	st := newStand(t)
	_, err := st.app().Reader(t.Context(), "vault")
	refused(t, err, relight.CodeUsage, "may write and list, not read")
	if _, err := st.app(st.recovering).Reader(t.Context(), "vault"); err != nil {
		t.Fatal(err)
	}
	_, err = st.app().Repository(t.Context(), "atic")
	refused(t, err, relight.CodeUsage, "no such repository")
}

func TestUnpackEstateRefusesNamesThatLeadElsewhere(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := estate.BundleFile{Path: estate.FileName, Mode: 0o600, Data: []byte("estate: shop\nstate: state\n")}
	for _, name := range []string{"../x", "a/b", "..", `a\b`, ""} {
		b := estate.Bundle{Format: 1, Files: []estate.BundleFile{file}, Secrets: map[string]string{name: "v"}}
		if _, err := unpackEstate(b, dir, true); err == nil {
			t.Errorf("a secret called %q was unpacked", name)
		}
	}
	if _, err := unpackEstate(estate.Bundle{Format: 1}, t.TempDir(), false); err == nil || !strings.Contains(err.Error(), "holds no relight.yaml") {
		t.Error(err)
	}
	left, err := fs.Glob(os.DirFS(dir), "state/secrets/*")
	if err != nil || len(left) != 0 {
		t.Error(left, err)
	}
}
