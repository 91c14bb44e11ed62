package secret_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/url"
	"strings"
	"testing"

	"github.com/toolboxai/relight/secret"
	"pgregory.net/rapid"
)

func TestSpellings(t *testing.T) {
	t.Parallel()
	s := `p@ss "w<rd>/+&` + "\t1"
	r := &secret.Redactor{}
	if !r.Add(secret.New(s)) || r.Add(secret.New("abc")) {
		t.Fatal("add")
	}
	quoted, _ := json.Marshal(s)
	u := url.URL{Scheme: "postgres", User: url.UserPassword("me", s), Host: "h"}
	texts := map[string]string{
		"plain": s, "json": string(quoted), "query": url.QueryEscape(s), "path": url.PathEscape(s), "url": u.String(),
		"hex": hex.EncodeToString([]byte(s)), "HEX": strings.ToUpper(hex.EncodeToString([]byte(s))),
		"base64": base64.StdEncoding.EncodeToString([]byte(s)), "basic": base64.StdEncoding.EncodeToString([]byte("user:" + s)),
		"basic2": base64.URLEncoding.EncodeToString([]byte("user2:" + s + "tail")), "basic3": base64.StdEncoding.EncodeToString([]byte("me22:" + s)),
	}
	for name, text := range texts {
		if got := string(r.Redact([]byte("a " + text + " z"))); !strings.Contains(got, secret.Mask) {
			t.Errorf("%s: %s", name, got)
		}
	}
	b := []byte("nothing here")
	if got := r.Redact(b); !bytes.Equal(got, b) {
		t.Error(string(got))
	}
}

func TestLinesOfALongSecret(t *testing.T) {
	t.Parallel()
	r := &secret.Redactor{}
	r.Add(secret.New("-----BEGIN-----\nMIIEvQIBADANBgkqhkiG9w0B\nAQEFAASCBKcwggSjAgEAAoIB\n"))
	if got := string(r.Redact([]byte("leaked: AQEFAASCBKcwggSjAgEAAoIB"))); got != "leaked: "+secret.Mask {
		t.Fatal(got)
	}
}

func TestOverlapsLeaveNoEnd(t *testing.T) {
	t.Parallel()
	r := &secret.Redactor{}
	r.Add(secret.New("abcdef"))
	r.Add(secret.New("defghi"))
	if got := string(r.Redact([]byte("1abcdefghi2"))); got != "1"+secret.Mask+"2" {
		t.Fatal(got)
	}
}

// However a stream is cut, the result is that of the whole text.
func TestWriterIsIndependentOfCuts(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		r := &secret.Redactor{}
		word := rapid.StringMatching(`[abc]{4,7}`)
		for range rapid.IntRange(1, 4).Draw(t, "secrets") {
			r.Add(secret.New(word.Draw(t, "secret")))
		}
		text := []byte(rapid.StringMatching(`[abcx]{0,60}`).Draw(t, "text"))
		want := string(r.Redact(text))
		var out bytes.Buffer
		w := r.Writer(&out)
		for rest := text; len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "cut")
			if m, err := w.Write(rest[:n]); m != n || err != nil {
				t.Fatal(m, err)
			}
			rest = rest[n:]
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if out.String() != want {
			t.Fatalf("whole %q, cut %q", want, out.String())
		}
	})
}

func FuzzParseRef(f *testing.F) {
	for _, s := range []string{"env:A", "file:/x", `exec:a 'b c' "d\""`, "age:x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := secret.ParseRef(s)
		if err == nil && r.String() != s {
			t.Fatalf("%q became %q", s, r)
		}
	})
}
