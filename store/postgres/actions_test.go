package postgres

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/zeebo/blake3"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/action"
)

func TestParseTarget(t *testing.T) {
	t.Parallel()
	noon := time.Date(2025, 10, 2, 12, 0, 0, 0, time.UTC)
	parse := func(text string) (time.Time, error) {
		if text == "noon" {
			return noon, nil
		}
		return time.Time{}, errors.New("it is not a time")
	}
	for text, want := range map[string]relight.RecoveryTarget{
		"":                      {Kind: relight.TargetLatest},
		"latest":                {Kind: relight.TargetLatest},
		"immediate":             {Kind: relight.TargetImmediate},
		"lsn:16/B374D848":       {Kind: relight.TargetLSN, LSN: 0x16_B374D848},
		"xid:4711":              {Kind: relight.TargetXID, XID: 4711},
		"name:before-migration": {Kind: relight.TargetName, Name: "before-migration"},
		"name:a:b":              {Kind: relight.TargetName, Name: "a:b"},
		"noon":                  {Kind: relight.TargetTime, Time: noon},
		"time:noon":             {Kind: relight.TargetTime, Time: noon},
	} {
		for _, exclusive := range []bool{false, true} {
			want.Exclusive = exclusive
			if got, err := ParseTarget(text, exclusive, parse); err != nil || got != want {
				t.Errorf("%q: %+v %v", text, got, err)
			}
		}
	}
	for _, text := range []string{"yesterday", "lsn:", "lsn:16", "lsn:x/y", "xid:", "xid:-1", "xid:4294967296", "time:", "Latest"} {
		got, err := ParseTarget(text, false, parse)
		if relight.CodeOf(err) != relight.CodeUsage || relight.HintOf(err) == "" || !strings.Contains(err.Error(), text) {
			t.Errorf("%q: %+v %v", text, got, err)
		}
	}
	twice := &relight.Error{Err: errors.New("that hour occurs twice"), Hint: "give the offset"}
	if _, err := ParseTarget("02:30", false, func(string) (time.Time, error) { return time.Time{}, twice }); relight.HintOf(err) != twice.Hint {
		t.Errorf("the better hint is lost: %v", err)
	}
}

func TestParseTablespaces(t *testing.T) {
	t.Parallel()
	got, err := ParseTablespaces([]string{"/srv/fast=/mnt/fast", "archive=/mnt/a=b", "/srv/x=y=/mnt/x", "16400=/mnt/n"})
	want := map[string]string{"/srv/fast": "/mnt/fast", "archive": "/mnt/a=b", "/srv/x=y": "/mnt/x", "16400": "/mnt/n"}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range [][]string{{"/srv/fast"}, {"=/mnt"}, {"a=b"}, {""}, {"a=/x", "a=/y"}} {
		if _, err := ParseTablespaces(bad); relight.CodeOf(err) != relight.CodeUsage || relight.HintOf(err) == "" {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// What a person reads before typing the name says of every tablespace where it goes and what it replaces.
func TestSpacesOfABlast(t *testing.T) {
	t.Parallel()
	here := SpaceBlast{Name: "fast", Location: "/srv/fast", Place: "/srv/fast", Directory: "/srv/fast/PG_15_1"}
	there := SpaceBlast{Name: "16400", Location: "/srv/slow", Place: "/look.tblspc/16400", Directory: "/look.tblspc/16400/PG_15_1"}
	taken := here
	taken.Occupied = true
	for _, c := range []struct {
		s     SpaceBlast
		delta bool
		want  string
	}{
		{here, false, "tablespace fast goes to /srv/fast, where it was"},
		{there, true, "tablespace 16400, in the source /srv/slow, goes to /look.tblspc/16400"},
		{taken, false, "tablespace fast goes to /srv/fast, where it was: /srv/fast/PG_15_1, which is there, is set aside, not deleted"},
		{taken, true, "tablespace fast goes to /srv/fast, where it was: /srv/fast/PG_15_1 is changed in place"},
	} {
		if got := c.s.line(c.delta); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

func TestReportWindow(t *testing.T) {
	t.Parallel()
	if r := reportWindow(relight.Window{}); r.Earliest != "" || r.Latest != "" || r.CoveredAt != "" {
		t.Fatalf("a window of nothing: %+v", r)
	}
	r := reportWindow(relight.Window{
		Spans: []relight.Span{
			{From: relight.Point{LSN: 0x100}, To: relight.Point{Time: at(10)}, LastCommit: at(9), CoveredAt: at(10)},
			{From: relight.Point{Time: at(20)}, To: relight.Point{LSN: 0x900}, LastCommit: at(29)},
		},
		Gaps: []relight.Gap{{From: 1, To: 2}}, Names: []relight.NamedMark{{Name: "x"}},
	})
	if r.Earliest != "lsn:0/100" || r.Latest != "lsn:0/900" || r.LastCommit != clockText(at(29)) || r.CoveredAt != "" || len(r.Gaps) != 1 || len(r.Names) != 1 {
		t.Fatalf("%+v", r)
	}
}

func TestFailures(t *testing.T) {
	t.Parallel()
	checks := []relight.Check{{Name: "a", Verdict: relight.Passed}, {Name: "b", Verdict: relight.Failed, Detail: "page 7"}, {Name: "c", Verdict: relight.Skipped}, {Name: "d", Verdict: relight.Failed}}
	if got := failures(checks); got != "b: page 7 (and 1 more)" {
		t.Error(got)
	}
	s := New(Config{Name: "main"}, Deps{})
	if r, err := s.report("check", "h", checks); r.OK || relight.CodeOf(err) != relight.CodeVerification || relight.HintOf(err) != "h" || !strings.Contains(err.Error(), "b: page 7") {
		t.Errorf("%+v %v", r, err)
	}
	if r, err := s.report("check", "h", checks[:1]); !r.OK || err != nil {
		t.Errorf("%+v %v", r, err)
	}
}

// A report of an earlier disaster must not pass for this one's.
func TestReportSince(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	made := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	look := func(since time.Time) action.Probed {
		t.Helper()
		p, err := reportSince[SalvageReport](dir, salvageName, since)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	if p := look(made); p.State != action.NotDone {
		t.Fatalf("%+v", p)
	}
	if err := keepReport(filepath.Join(dir, made.Format(salvageName)), SalvageReport{Commits: 7}); err != nil {
		t.Fatal(err)
	}
	if p := look(made.Add(400 * time.Millisecond)); p.State != action.Done || p.Out.(SalvageReport).Commits != 7 { // names have whole seconds
		t.Fatalf("%+v", p)
	}
	for _, since := range []time.Time{made.Add(time.Second), {}} {
		if p := look(since); p.State != action.NotDone {
			t.Fatalf("since %s: %+v", since, p)
		}
	}
	torn := filepath.Join(dir, made.Add(time.Minute).Format(salvageName))
	if err := os.WriteFile(torn, []byte(`{"commits":`), 0o600); err != nil {
		t.Fatal(err)
	}
	if p := look(made.Add(time.Minute)); p.State != action.NotDone {
		t.Fatalf("a torn report counts: %+v", p)
	}
	if p, err := reportSince[SalvageReport](filepath.Join(dir, "none"), salvageName, made); err != nil || p.State != action.NotDone {
		t.Fatalf("%+v %v", p, err)
	}
}

func TestSalvageReportTakesTheMost(t *testing.T) {
	t.Parallel()
	var r SalvageReport
	r.add(Salvaged{Commits: 5, To: 500, Bytes: 50, Directory: "a", LastCommit: at(3), Broken: "a torn page"})
	r.add(Salvaged{Commits: 2, To: 400, Bytes: 20, Directory: "b"})
	if r.LastCommit != clockText(at(3)) || r.Broken != "a torn page" {
		t.Errorf("the second repository, which lacked less, made it forget: %+v", r)
	}
	if r.Commits != 5 || r.EndLSN != 500 || r.Directory != "a" || r.Bytes != 50 {
		t.Fatalf("%+v", r)
	}
}

// damaged is a stopped server's directory, with everything that one may hold.
func damaged(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	for name, text := range map[string]string{"PG_VERSION": "15\n", "base/5/1259": strings.Repeat("page", 5000), "base/5/empty": "", "pg_wal/000000010000000000000001": "wal"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/srv/elsewhere", filepath.Join(dir, "pg_tblspc")); err != nil {
		t.Fatal(err)
	}
	return dir
}

func unpackEvidence(t *testing.T, path string) map[string]string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	zip, err := gzip.NewReader(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for r := tar.NewReader(zip); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		switch h.Typeflag {
		case tar.TypeSymlink:
			out[h.Name] = "→ " + h.Linkname
		case tar.TypeReg:
			out[h.Name] = string(body)
		}
	}
}

func TestEvidenceIsTheWholeDirectory(t *testing.T) {
	t.Parallel()
	data, dir := damaged(t), filepath.Join(t.TempDir(), "evidence")
	moment := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	s := New(Config{Name: "main"}, Deps{Now: func() time.Time { return moment }})
	var last relight.Progress
	e, err := s.KeepEvidence(t.Context(), data, dir, func(p relight.Progress) { last = p })
	if err != nil {
		t.Fatal(err)
	}
	if filepath.Base(e.Path) != "corrupted-20260102-030405.tar.gz" || e.Files != 4 || last.Done != last.Total || last.Done == 0 {
		t.Fatalf("%+v %+v", e, last)
	}
	got := unpackEvidence(t, e.Path)
	if len(got) != 5 || got["base/5/1259"] != strings.Repeat("page", 5000) || got["pg_tblspc"] != "→ /srv/elsewhere" || got["PG_VERSION"] != "15\n" {
		t.Fatalf("%d entries", len(got))
	}
	raw, err := os.ReadFile(e.Path)
	if err != nil {
		t.Fatal(err)
	}
	if sum := blake3.Sum256(raw); hex.EncodeToString(sum[:]) != e.BLAKE3 || int64(len(raw)) != e.Bytes {
		t.Fatal("the digest is not the file's")
	}
	var kept Evidence
	text, err := os.ReadFile(e.Path + ".json")
	if err != nil || json.Unmarshal(text, &kept) != nil || !reflect.DeepEqual(kept, e) {
		t.Fatalf("%+v %v", kept, err)
	}
	p, err := reportSince[Evidence](dir, evidenceName+".json", moment)
	if err != nil || p.State != action.Done || !reflect.DeepEqual(p.Out, e) {
		t.Fatalf("%+v %v", p, err)
	}
}

func TestEvidenceIsRefused(t *testing.T) {
	t.Parallel()
	s := New(Config{Name: "main"}, Deps{})
	if err := s.roomFor(1<<60, t.TempDir()); err == nil || relight.HintOf(err) == "" || !strings.Contains(err.Error(), "MB free") {
		t.Errorf("an exabyte fits: %v", err)
	}
	if err := s.roomFor(1, t.TempDir()); err != nil {
		t.Error(err)
	}
	data := damaged(t)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.KeepEvidence(t.Context(), data, filepath.Join(file, "evidence"), nil); err == nil || relight.HintOf(err) == "" {
		t.Errorf("kept below a file: %v", err)
	}
	if _, err := s.KeepEvidence(t.Context(), filepath.Join(data, "none"), t.TempDir(), nil); err == nil {
		t.Error("kept what is not there")
	}
}

// A copy that was interrupted is never taken for a whole one.
func TestInterruptedEvidenceLeavesNothing(t *testing.T) {
	t.Parallel()
	data, dir := damaged(t), t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s := New(Config{Name: "main"}, Deps{})
	if _, err := s.KeepEvidence(ctx, data, dir, func(relight.Progress) { cancel() }); err == nil {
		t.Fatal("no error")
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 0 {
		t.Fatal(left, err)
	}
}
