package app

import (
	"crypto/rand"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/repo"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// stand is an estate with one repository and no stores, on one host.
type stand struct {
	t        *testing.T
	dir      string // where relight.yaml lies
	vault    string
	identity string // file with the recovery key
}

func newStand(t *testing.T) *stand {
	t.Helper()
	root := t.TempDir()
	st := &stand{t: t, dir: filepath.Join(root, "estate"), vault: filepath.Join(root, "vault"), identity: filepath.Join(root, "recovery.key")}
	st.write("relight.yaml", "estate: shop\nstate: state\nrepositories:\n  vault: {url: "+st.vault+"}\nsecrets: {token: \"file:token.txt\"}\nrunbooks: [runbooks]\n", 0o644)
	st.write("token.txt", "s3cr3t-t0ken\n", 0o600)
	st.write("runbooks/own.md", "# own\n", 0o644)
	recipient, err := GenerateIdentity(st.identity, false)
	ok(t, err)
	r, err := repo.ParseRecipient(recipient)
	ok(t, err)
	a := st.app()
	s, err := a.CreateStorage("file://" + st.vault)
	ok(t, err)
	made, err := repo.Init(t.Context(), s, repo.InitOptions{Recipients: []repo.Recipient{r}, Host: "db1", Now: time.Now, Rand: rand.Reader})
	ok(t, err)
	ok(t, WriteCredential(made.Credential, st.state("credentials", "vault.json")))
	return st
}

func (st *stand) write(name, text string, mode os.FileMode) {
	st.t.Helper()
	path := filepath.Join(st.dir, name)
	ok(st.t, os.MkdirAll(filepath.Dir(path), 0o755))
	ok(st.t, os.WriteFile(path, []byte(text), mode))
}

func (st *stand) state(elements ...string) string {
	return filepath.Join(append([]string{st.dir, "state"}, elements...)...)
}

// app is another process of the host; change adjusts what it is started with.
func (st *stand) app(change ...func(*Options)) *App {
	st.t.Helper()
	o := Options{Config: filepath.Join(st.dir, "relight.yaml"), Actor: "alice", Log: slog.New(slog.DiscardHandler), Now: time.Now}
	for _, f := range change {
		f(&o)
	}
	a := New(o)
	st.t.Cleanup(func() { ok(st.t, a.Close()) })
	return a
}

// recovering gives a process the recovery key.
func (st *stand) recovering(o *Options) { o.Identities = []string{st.identity} }

func (st *stand) repository(a *App) *repo.Meta {
	st.t.Helper()
	m, err := a.Repository(st.t.Context(), "vault")
	ok(st.t, err)
	return m
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// refused checks that an error has a code, a hint, and says words.
func refused(t *testing.T, err error, code relight.Code, words ...string) {
	t.Helper()
	if relight.CodeOf(err) != code || relight.HintOf(err) == "" {
		t.Fatalf("%v: code %q, hint %q", err, relight.CodeOf(err), relight.HintOf(err))
	}
	for _, w := range words {
		if !strings.Contains(fmt.Sprint(err), w) {
			t.Fatalf("%v does not say %q", err, w)
		}
	}
}
