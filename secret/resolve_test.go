package secret_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
	"filippo.io/age/armor"
	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/secret"
)

func resolve(t *testing.T, o secret.Options, ref string) (secret.Value, error) {
	t.Helper()
	r, err := secret.ParseRef(ref)
	if err != nil {
		t.Fatal(err)
	}
	return secret.NewResolver(o).Resolve(context.Background(), r)
}

func TestParseIsStrictAndSilent(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"hunter2-s3cr3t":      "by reference",
		"":                    "by reference",
		"pass:s3cr3t":         "by reference",
		"postgres://u:s3cr3t": "by reference",
		"env:":                "nothing",
		"env: A":              "space",
		"env:s3cr3t!":         "no name",
		"file:":               "nothing",
		"exec:cat 's3cr3t":    "not closed",
		"exec:echo $s3cr3t":   "needs a shell",
		"exec:a|b":            "needs a shell",
		"exec:''":             "no program",
		"ENV:A":               "by reference",
	} {
		_, err := secret.ParseRef(in)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cr3t") ||
			relight.HintOf(err) == "" || relight.CodeOf(err) != relight.CodeUsage {
			t.Errorf("%q: %v (hint %q)", in, err, relight.HintOf(err))
		}
	}
	var r struct{ R secret.Ref }
	if err := json.Unmarshal([]byte(`{"R":"env:A_1"}`), &r); err != nil || r.R.String() != "env:A_1" {
		t.Fatal(r, err)
	}
	if b, _ := json.Marshal(r); string(b) != `{"R":"env:A_1"}` {
		t.Fatal(string(b))
	}
}

func TestEnvAndExec(t *testing.T) {
	t.Parallel()
	o := secret.Options{Env: func(n string) (string, bool) { return map[string]string{"A": hush, "E": ""}[n], n != "Z" }}
	if v, err := resolve(t, o, "env:A"); err != nil || v.Reveal() != hush {
		t.Fatal(err)
	}
	for _, ref := range []string{"env:Z", "env:E", "exec:false", "exec:/no/such", "exec:true"} {
		if _, err := resolve(t, o, ref); err == nil || relight.HintOf(err) == "" || !strings.Contains(err.Error(), ref) {
			t.Errorf("%s: %v, hint %q", ref, err, relight.HintOf(err))
		}
	}
	v, err := resolve(t, o, `exec:printf '%s-%s\n' "two words" a\ b`)
	if err != nil || v.Reveal() != "two words-a b" {
		t.Fatalf("%q %v", v.Reveal(), err)
	}
	_, err = resolve(t, o, "exec:ls --s3cr3t-option")
	if err == nil || strings.Contains(strings.TrimPrefix(err.Error(), "resolve secret exec:ls --s3cr3t-option"), "s3cr3t") {
		t.Fatal("standard error is repeated:", err)
	}
}

func TestFileModes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var log bytes.Buffer
	o := secret.Options{Dir: dir, Log: slog.New(slog.NewTextHandler(&log, nil))}
	for mode, ok := range map[os.FileMode]bool{0o600: true, 0o400: true, 0o640: true, 0o644: false, 0o660: false, 0o602: false, 0o604: false} {
		path := filepath.Join(dir, mode.String())
		if err := os.WriteFile(path, []byte(hush+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		v, err := resolve(t, o, "file:"+mode.String())
		if ok != (err == nil) || ok && v.Reveal() != hush {
			t.Errorf("mode %v: %v", mode, err)
		}
		if !ok && !strings.Contains(relight.HintOf(err), "chmod 600 "+path) {
			t.Errorf("mode %v: hint %q", mode, relight.HintOf(err))
		}
	}
	if !strings.Contains(log.String(), "readable by its group") || strings.Count(log.String(), "\n") != 1 {
		t.Errorf("log: %s", log.String())
	}
	for _, ref := range []string{"file:missing", "file:."} {
		if _, err := resolve(t, o, ref); err == nil || relight.HintOf(err) == "" {
			t.Errorf("%s: %v", ref, err)
		}
	}
}

func TestAge(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	other, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	seal := func(name string, armored bool) {
		var b bytes.Buffer
		w := armor.NewWriter(&b)
		var err error
		var e interface {
			Write([]byte) (int, error)
			Close() error
		}
		if armored {
			e, err = age.Encrypt(w, id.Recipient())
		} else {
			e, err = age.Encrypt(&b, id.Recipient())
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := e.Write([]byte(hush)); err != nil {
			t.Fatal(err)
		}
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		if armored {
			_ = w.Close()
		}
		if err := os.WriteFile(filepath.Join(dir, name), b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	seal("plain.age", false)
	seal("armored.age", true)
	with := func(ids ...age.Identity) secret.Options {
		return secret.Options{Dir: dir, Identities: func(context.Context) ([]age.Identity, error) { return ids, nil }}
	}
	for _, name := range []string{"plain.age", "armored.age"} {
		if v, err := resolve(t, with(id), "age:"+name); err != nil || v.Reveal() != hush {
			t.Error(name, err)
		}
		for _, o := range []secret.Options{with(other), {Dir: dir}} {
			if _, err := resolve(t, o, "age:"+name); err == nil || relight.HintOf(err) == "" {
				t.Error(name, err)
			}
		}
	}
	b, _ := os.ReadFile(filepath.Join(dir, "plain.age"))
	b[len(b)-1] ^= 1
	_ = os.WriteFile(filepath.Join(dir, "plain.age"), b, 0o644)
	if _, err := resolve(t, with(id), "age:plain.age"); err == nil {
		t.Error("a damaged file was opened")
	}
}

func TestResolvedIsRedacted(t *testing.T) {
	t.Parallel()
	r := &secret.Redactor{}
	o := secret.Options{Redactor: r, Env: func(string) (string, bool) { return hush, true }}
	if _, err := resolve(t, o, "env:A"); err != nil {
		t.Fatal(err)
	}
	if got := string(r.Redact([]byte("pw=" + hush + "."))); got != "pw="+secret.Mask+"." {
		t.Fatal(got)
	}
}
