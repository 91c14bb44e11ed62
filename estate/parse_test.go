package estate

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/toolboxai/relight"
)

// Every bad fixture is paired with the message that it must get.
func TestBadFiles(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(files) < 15 {
		t.Fatal(files, err)
	}
	for _, path := range files {
		src, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(strings.TrimSuffix(path, ".yaml") + ".txt")
		if err != nil {
			t.Fatal(err)
		}
		_, got := Parse("/etc/relight/relight.yaml", src)
		if got == nil {
			t.Errorf("%s: no error", path)
			continue
		}
		if got.Error() != strings.TrimSpace(string(want)) {
			t.Errorf("%s:\ngot:\n%s\nwant:\n%s", path, got, want)
		}
		if relight.CodeOf(got) != relight.CodeUsage || relight.HintOf(got) == "" {
			t.Errorf("%s: code %q, hint %q", path, relight.CodeOf(got), relight.HintOf(got))
		}
	}
}

func TestExampleUsesEveryKey(t *testing.T) {
	t.Parallel()
	e, err := Parse("/etc/relight/relight.yaml", []byte(Example))
	if err != nil {
		t.Fatal(err)
	}
	main := e.Stores["main"]
	if main.SpoolLimit != 4<<30 || main.Slot != (Slot{Limit: 16 << 30, KeepFree: 2 << 30}) || main.BaseBackup != 24*time.Hour || main.FullBackup != 7*24*time.Hour || main.MarkEvery != 15*time.Minute || main.Objective.RTO != 2*time.Hour || main.Objective.RPO != 15*time.Minute {
		t.Errorf("%+v", main)
	}
	if len(main.Invariants) != 1 || main.Invariants[0].Expect != "0" || e.Services["shop"].Tier != 2 || e.Services["db"].Process.StopAfter != time.Minute {
		t.Errorf("%+v %+v", main.Invariants, e.Services)
	}
	if e.Runbooks[0] != "/etc/relight/runbooks" {
		t.Errorf("runbooks %v", e.Runbooks)
	}
}

const small = `
estate: shop
repositories:
  vault: {url: backup}
  attic: {url: "file:///attic", credential: c.json}
stores:
  main: {kind: postgres, data: data, service: db}
services:
  db: {process: {command: [postgres]}}
`

func TestDefaults(t *testing.T) {
	t.Parallel()
	e, err := Parse("/etc/shop/relight.yaml", []byte(small))
	if err != nil {
		t.Fatal(err)
	}
	s := e.Stores["main"]
	for _, c := range []struct{ what, got, want string }{
		{"state", e.State, "/var/lib/relight"}, {"zone", e.Zone.String(), "UTC"}, {"platform", e.Platform, "process"},
		{"relative url", e.Repositories["vault"].URL, "file:///etc/shop/backup"}, {"absolute url", e.Repositories["attic"].URL, "file:///attic"},
		{"credential", e.Repositories["vault"].Credential, "/var/lib/relight/credentials/vault.json"},
		{"own credential", e.Repositories["attic"].Credential, "/etc/shop/c.json"},
		{"data", s.Data, "/etc/shop/data"}, {"repositories", strings.Join(s.Repositories, " "), "attic vault"},
		{"evidence", s.Evidence, "/var/lib/relight/evidence"}, {"sandbox", s.Sandbox, "/var/lib/relight/sandbox"},
		{"rto", s.Objective.RTO.String(), "2h0m0s"}, {"rpo", s.Objective.RPO.String(), "15m0s"}, {"base backup", s.BaseBackup.String(), "24h0m0s"},
		{"full backup", s.FullBackup.String(), "168h0m0s"}, {"restore point", s.MarkEvery.String(), "0s"},
		{"signal", e.Services["db"].Process.Signal, "TERM"}, {"log", e.Services["db"].Process.Log, "/var/lib/relight/services/db.log"},
	} {
		if c.got != c.want {
			t.Errorf("%s is %q, not %q", c.what, c.got, c.want)
		}
	}
	if s.SpoolLimit != 4<<30 || s.Slot != (Slot{Limit: 16 << 30, KeepFree: 2 << 30}) || e.Services["db"].Tier != 3 {
		t.Errorf("spool %d, tier %d", s.SpoolLimit, e.Services["db"].Tier)
	}
}

func TestViewShowsReferencesAndNoSecret(t *testing.T) {
	t.Parallel()
	e, err := Parse("/etc/relight/relight.yaml", []byte(Example))
	if err != nil {
		t.Fatal(err)
	}
	v := e.View()
	if v.Stores["main"].Password != "file:/etc/relight/password.txt" || v.Contacts["hotline"] != "+1 555 0100" || v.Repositories["vault"].URL != "file:///backup/relight" ||
		v.Stores["main"].RTO != "2h0m0s" || !slices.Equal(v.Stores["main"].Invariants, []string{"no order without a customer"}) || v.Services["shop"].Tier != 2 {
		t.Errorf("%+v", v)
	}
}

func TestLoad(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, FileName)
	_, err := Load(path)
	if !errors.Is(err, os.ErrNotExist) || relight.CodeOf(err) != relight.CodeUsage || relight.HintOf(err) == "" {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(small), 0o600); err != nil {
		t.Fatal(err)
	}
	e, err := Load(path)
	if err != nil || e.Directory != dir || e.File != path {
		t.Fatal(e, err)
	}
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	t.Setenv("RELIGHT_CONFIG", "")
	if got, err := Find("x.yaml"); err != nil || got != filepath.Join(dir, "x.yaml") {
		t.Errorf("given: %s %v", got, err)
	}
	if err := os.WriteFile(FileName, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := Find(""); err != nil || got != filepath.Join(dir, FileName) {
		t.Errorf("here: %s %v", got, err)
	}
	t.Setenv("RELIGHT_CONFIG", "/srv/other.yaml")
	if got, err := Find(""); err != nil || got != "/srv/other.yaml" {
		t.Errorf("environment: %s %v", got, err)
	}
}

func TestParseDuration(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{"90s": 90 * time.Second, "15m": 15 * time.Minute, "36h": 36 * time.Hour, "30d": 720 * time.Hour, "0d": 0, "1h30m": 90 * time.Minute} {
		if got, err := ParseDuration(text); err != nil || got != want {
			t.Errorf("%s: %s %v", text, got, err)
		}
	}
	for _, text := range []string{"", "15", "-1h", "-3d", "1.5d", "d", "a while", "999999999d"} {
		if got, err := ParseDuration(text); err == nil {
			t.Errorf("%q was read as %s", text, got)
		}
	}
}

func TestParseSize(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{"1000": 1000, "4GiB": 4 << 30, "512 MiB": 512 << 20, "1KiB": 1024, "2TiB": 2 << 40, "0": 0} {
		if got, err := ParseSize(text); err != nil || got != want {
			t.Errorf("%s: %d %v", text, got, err)
		}
	}
	for _, text := range []string{"", "4GB", "4 gigs", "-1GiB", "GiB", "4Gi", "1.5GiB", "9999999999999TiB", "4iB"} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("%q was read as %d", text, got)
		}
	}
}

// Whatever the file, it is read whole or refused with a code; never a panic, never half an estate.
func FuzzParse(f *testing.F) {
	f.Add([]byte(Example))
	f.Add([]byte(small))
	bad, _ := filepath.Glob("testdata/bad/*.yaml") // an empty list only means fewer seeds
	for _, path := range bad {
		if src, err := os.ReadFile(path); err == nil {
			f.Add(src)
		}
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		e, err := Parse("/etc/relight/relight.yaml", src)
		if err != nil {
			if e != nil || relight.CodeOf(err) != relight.CodeUsage {
				t.Fatalf("%v %v", e, err)
			}
			return
		}
		if e.Name == "" || e.Zone == nil || !filepath.IsAbs(e.State) {
			t.Fatalf("%+v", e)
		}
		for name, s := range e.Stores {
			if s.Kind != "postgres" || !filepath.IsAbs(s.Data) || s.SpoolLimit < 0 || s.BaseBackup < 0 || len(s.Repositories) == 0 {
				t.Fatalf("store %s: %+v", name, s)
			}
		}
		e.View()
	})
}
