package journal_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/journal"
)

func segment(t *testing.T, j *journal.Journal, first, last int64) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := j.Export(t.Context(), first, last, &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestSegmentsReadAndVerifyWithoutTheHost(t *testing.T) {
	t.Parallel()
	j, _ := fresh(t)
	fill(t, j, 1200)
	anchor, err := j.Anchor(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	a, b := segment(t, j, 1, 700), segment(t, j, 701, 1200)
	r, err := journal.VerifySegments(trust(anchor), bytes.NewReader(a), bytes.NewReader(b))
	if err != nil || !r.OK() || r.Events != 1200 || r.Anchored != 1200 || r.Head.Hash != anchor.Hash {
		t.Fatalf("%+v, %v", r, err)
	}
	var n int
	s, err := journal.ReadSegment(bytes.NewReader(b), func(e relight.Event) error { n++; return nil })
	if err != nil || n != 500 || s.First != 701 || s.Host != "db1" {
		t.Fatal(s, n, err)
	}
	path := filepath.Join(t.TempDir(), "701-1200")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	r, err = journal.VerifyFile(t.Context(), path, trust(anchor))
	if err != nil || !r.OK() || len(r.Notes) != 1 || r.First != 701 {
		t.Fatalf("%+v, %v", r, err)
	}
	for _, c := range [][2]int64{{0, 1}, {5, 4}, {1, 1201}} {
		if err := j.Export(t.Context(), c[0], c[1], io.Discard); err == nil {
			t.Errorf("exported %v", c)
		}
	}
}

func TestTamperedSegments(t *testing.T) {
	t.Parallel()
	j, _ := fresh(t)
	fill(t, j, 10)
	anchor, err := j.Anchor(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	whole := segment(t, j, 1, 10)
	lines := strings.SplitAfter(string(whole), "\n")
	for name, c := range map[string]struct{ text, want string }{
		"edit":    {strings.Replace(string(whole), `{"n":4}`, `{"n":5}`, 1), "chain is broken"},
		"reorder": {strings.Join(append(append(append([]string{}, lines[:4]...), lines[5], lines[4]), lines[6:]...), ""), "put in its place"},
		"delete":  {strings.Join(append(append([]string{}, lines[:4]...), lines[5:]...), ""), "put in its place"},
		"cut":     {strings.Join(lines[:8], ""), "cut off"},
		"prev":    {strings.Replace(string(whole), `"prev":"`, `"prev":"00`, 1), ""},
	} {
		r, err := journal.VerifySegments(trust(anchor), strings.NewReader(c.text))
		if c.want == "" {
			if err == nil {
				t.Errorf("%s: read", name)
			}
			continue
		}
		if err != nil || !strings.Contains(fmt.Sprint(r.Findings), c.want) {
			t.Errorf("%s: %+v, %v", name, r.Findings, err)
		}
	}
	a, c := segment(t, j, 1, 3), segment(t, j, 6, 10)
	if r, err := journal.VerifySegments(trust(), bytes.NewReader(a), bytes.NewReader(c)); err != nil || r.OK() {
		t.Errorf("a missing segment passed: %+v, %v", r, err)
	}
	for _, text := range []string{"", "x", "{}\n", `{"format":2,"first":1,"last":1}`, lines[0] + "x\n", lines[0] + strings.TrimSuffix(lines[1], "\n") + "}\n"} {
		if _, err := journal.VerifySegments(trust(), strings.NewReader(text)); err == nil {
			t.Errorf("%q was read", text)
		}
	}
}

// The bytes are fixed: whoever changes them changes the format.
func TestFormatIsPinned(t *testing.T) {
	t.Parallel()
	j, _ := fresh(t, func(o *journal.Options) { o.Rand = strings.NewReader("sixteen bytes!!!") })
	if _, err := j.Append(t.Context(), relight.Event{Run: "r-1", Step: "s", Kind: "step.started", Data: json.RawMessage(`{"a":"<ü>"}`)}, journal.Expect{}); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("testdata/segment.golden")
	if err != nil {
		t.Fatal(err)
	}
	if got := segment(t, j, 1, 1); !bytes.Equal(got, want) {
		t.Fatalf("got:\n%swant:\n%s", got, want)
	}
}

func TestDatabaseOfAnotherMachine(t *testing.T) {
	t.Parallel()
	j, path := fresh(t)
	fill(t, j, 5)
	r, err := journal.VerifyFile(t.Context(), path, trust()) // while it is being written, with its -wal
	if err != nil || !r.OK() || r.Events != 5 {
		t.Fatalf("%+v, %v", r, err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	before, _ := os.ReadFile(path)
	r, err = journal.VerifyFile(t.Context(), path, trust())
	if err != nil || !r.OK() || r.Events != 5 {
		t.Fatalf("%+v, %v", r, err)
	}
	if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
		t.Fatal("verification changed the file")
	}
	if _, err := journal.VerifyFile(t.Context(), path+"x", trust()); err == nil {
		t.Fatal("verified nothing")
	}
	damaged := bytes.Clone(before)
	for i := 8192; i < 8192+600; i++ {
		damaged[i] ^= 0x5A
	}
	if err := os.WriteFile(path, damaged, 0o600); err != nil {
		t.Fatal(err)
	}
	if r, err := journal.VerifyFile(t.Context(), path, trust()); err == nil && r.OK() {
		t.Fatal("a damaged database passed")
	}
}

func FuzzSegment(f *testing.F) {
	golden, err := os.ReadFile("testdata/segment.golden")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(golden)
	body := golden[bytes.Index(golden, []byte(`{"seq":1`)):bytes.LastIndex(golden, []byte("}\n"))]
	f.Add([]byte("{}\n{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := journal.VerifySegments(trust(), bytes.NewReader(b))
		if err == nil && r.OK() && r.Events > 0 && !bytes.Contains(b, body) {
			t.Fatalf("signed by nobody and believed: %q", b)
		}
	})
}
