package journal_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/journal"
)

func TestAppendGivesNumberClockAndHost(t *testing.T) {
	t.Parallel()
	j, path := fresh(t)
	e, err := j.Append(t.Context(), relight.Event{Seq: 99, Host: "liar", Kind: "run.started", Run: "r-1", Step: "s",
		Data: json.RawMessage(`{ "a" : "<é>" }`)}, journal.Expect{})
	if err != nil {
		t.Fatal(err)
	}
	if e.Seq != 1 || e.Host != "db1" || e.Actor != "alice" || e.At.IsZero() || e.At.Location() != time.UTC {
		t.Fatalf("%+v", e)
	}
	fill(t, j, 3)
	var got []relight.Event
	if err := open(t, path).Read(t.Context(), journal.Filter{}, func(e relight.Event) error { got = append(got, e); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(got) != 4 || string(got[0].Data) != string(e.Data) || !got[0].At.Equal(e.At) || got[3].Seq != 4 {
		t.Fatalf("%+v", got)
	}
	var v struct{ A string }
	if err := json.Unmarshal(got[0].Data, &v); err != nil || v.A != "<é>" {
		t.Fatal(v, err)
	}
}

func TestAppendRefuses(t *testing.T) {
	t.Parallel()
	j, _ := fresh(t)
	for name, e := range map[string]relight.Event{
		"kind":  {Kind: "Step Started"},
		"none":  {},
		"json":  {Kind: "a", Data: json.RawMessage(`{"a":`)},
		"utf8":  {Kind: "a", Data: json.RawMessage("\"\xff\"")},
		"large": {Kind: "a", Data: json.RawMessage(`"` + strings.Repeat("x", 1<<20) + `"`)},
	} {
		if _, err := j.AppendBatch(t.Context(), []relight.Event{{Kind: "good"}, e}, journal.Expect{}); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	if h, err := j.Head(t.Context()); err != nil || h.Seq != 0 {
		t.Fatalf("a refused batch left %d events, %v", h.Seq, err)
	}
}

func TestFilterLimitAndAppendWhileReading(t *testing.T) {
	t.Parallel()
	j, _ := fresh(t)
	var batch []relight.Event
	for i := range 1500 {
		batch = append(batch, event([]string{"r-a", "r-b", ""}[i%3], []string{"one", "two"}[i%2], i))
	}
	if _, err := j.AppendBatch(t.Context(), batch, journal.Expect{}); err != nil {
		t.Fatal(err)
	}
	count := func(f journal.Filter) (n int, last int64) {
		if err := j.Read(t.Context(), f, func(e relight.Event) error {
			if e.Seq <= last {
				t.Errorf("event %d after %d", e.Seq, last)
			}
			n, last = n+1, e.Seq
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return n, last
	}
	for want, f := range map[int]journal.Filter{1500: {}, 500: {Run: "r-b"}, 250: {Run: "r-b", Kinds: []string{"one"}},
		750: {Kinds: []string{"two"}}, 11: {FromSeq: 1490}, 700: {Limit: 700}, 513: {Limit: 513, FromSeq: 3}, 0: {Run: "none"}} {
		if n, _ := count(f); n != want {
			t.Errorf("%+v: %d events, want %d", f, n, want)
		}
	}
	stop := errors.New("enough")
	err := j.Read(t.Context(), journal.Filter{}, func(e relight.Event) error {
		if _, err := j.Append(t.Context(), event("r-c", "nested", 0), journal.Expect{}); err != nil {
			t.Fatal(err)
		}
		return stop
	})
	if !errors.Is(err, stop) {
		t.Fatal(err)
	}
	runs, err := j.Runs(t.Context())
	if err != nil || len(runs) != 3 || runs[0].Run != "r-c" || runs[2].Run != "r-a" || runs[2].Events != 500 || runs[2].Last != 1498 || runs[2].Began.IsZero() {
		t.Fatalf("%+v, %v", runs, err)
	}
}

func TestOnlyOneContinuesARun(t *testing.T) {
	t.Parallel()
	a, path := fresh(t)
	b := open(t, path)
	first, err := a.Append(t.Context(), event("r-1", "run.started", 0), journal.After("r-1", 0))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Append(t.Context(), event("r-2", "run.started", 0), journal.After("r-2", 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Append(t.Context(), event("r-1", "step.started", 1), journal.After("r-1", first.Seq)); err != nil {
		t.Fatal(err)
	}
	_, err = a.Append(t.Context(), event("r-1", "step.started", 2), journal.After("r-1", first.Seq))
	if !errors.Is(err, journal.ErrConflict) || relight.CodeOf(err) != relight.CodeLeaseHeld || relight.HintOf(err) == "" {
		t.Fatal(err)
	}
	if _, err := a.Append(t.Context(), event("r-1", "run.started", 2), journal.After("r-1", 0)); !errors.Is(err, journal.ErrConflict) {
		t.Fatal(err)
	}
}

func TestWatchSeesOtherWriters(t *testing.T) {
	t.Parallel()
	a, path := fresh(t)
	b := open(t, path)
	fill(t, a, 5)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	seen := make(chan int64, 100)
	done := make(chan error, 1)
	go func() {
		done <- a.Watch(ctx, journal.Filter{FromSeq: 3, Kinds: []string{"step.done"}, Limit: 8}, func(e relight.Event) error { seen <- e.Seq; return nil })
	}()
	for range 3 {
		<-seen
	}
	for range 5 {
		if _, err := b.AppendBatch(ctx, []relight.Event{event("r-2", "other", 0), event("r-1", "step.done", 9)}, journal.Expect{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	close(seen)
	var got []int64
	for s := range seen {
		got = append(got, s)
	}
	if len(got) != 5 || got[0] != 7 || got[4] != 15 {
		t.Fatal(got)
	}
	go func() { done <- a.Watch(ctx, journal.Filter{}, func(relight.Event) error { return nil }) }()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

func TestSecretsAreTakenOutBeforeHashing(t *testing.T) {
	t.Parallel()
	j, path := fresh(t, func(o *journal.Options) {
		o.Scrub = func(b []byte) []byte { return bytes.ReplaceAll(b, []byte("hush"), []byte("•••")) }
	})
	e, err := j.Append(t.Context(), relight.Event{Kind: "run.output", Step: "a hush", Actor: "hush", Data: json.RawMessage(`{"out":"pw=hush","hush":1}`)}, journal.Expect{})
	if err != nil {
		t.Fatal(err)
	}
	if string(e.Data) != `{"out":"pw=•••","•••":1}` || e.Actor != "•••" {
		t.Fatalf("%s", e.Data)
	}
	if _, err := j.Append(t.Context(), relight.Event{Kind: "a", Run: "r-hush"}, journal.Expect{}); err == nil {
		t.Fatal("a run named by a secret was accepted")
	}
	if r := verified(t, j, trust()); !r.OK() {
		t.Fatal(r.Findings)
	}
	for _, p := range []string{path, path + "-wal"} {
		if b, err := os.ReadFile(p); err != nil || bytes.Contains(b, []byte("hush")) {
			t.Fatal(p, err)
		}
	}
}

func TestOpenRefusesWhatIsNoJournalOfThisHost(t *testing.T) {
	t.Parallel()
	j, good := fresh(t)
	fill(t, j, 200)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	smashed := bytes.Clone(whole)
	copy(smashed[100:4096], bytes.Repeat([]byte{0xAA}, 3996))
	for name, c := range map[string]struct{ path, want string }{
		"text":           {write("text", []byte(strings.Repeat("not a database ", 100))), "damaged or no journal"},
		"first page":     {write("smashed", smashed), "damaged or no journal"},
		"cut":            {write("cut", whole[:len(whole)/2]), "damaged or no journal"},
		"no directory":   {filepath.Join(dir, "no", "journal.db"), "unable to open"},
		"is a directory": {dir, "unable to open"},
	} {
		_, err := journal.Open(t.Context(), c.path, options("a"))
		if err == nil || !strings.Contains(err.Error(), c.want) || relight.HintOf(err) == "" {
			t.Errorf("%s: %v (hint %q)", name, err, relight.HintOf(err))
		}
	}
	o := options("a")
	o.Host = "db2"
	if _, err := journal.Open(t.Context(), good, o); err == nil || !strings.Contains(err.Error(), "journal of host db1") || relight.HintOf(err) == "" {
		t.Error(err)
	}
	o.Signer = ed25519.PrivateKey{}
	if _, err := journal.Open(t.Context(), good, o); err == nil {
		t.Error("opened without a key")
	}
	tampered := open(t, good)
	execSQL(t, good, "CREATE TABLE x (y); DROP TABLE event")
	if _, err := tampered.Append(t.Context(), event("", "a", 1), journal.Expect{}); err == nil {
		t.Error("appended to nothing")
	}
}

func TestForeignDatabaseIsLeftAlone(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "app.db")
	execSQL(t, path, "CREATE TABLE x (y)")
	_, err := journal.Open(t.Context(), path, options("a"))
	if err == nil || !strings.Contains(err.Error(), "no journal") || relight.HintOf(err) == "" {
		t.Fatal(err)
	}
}
