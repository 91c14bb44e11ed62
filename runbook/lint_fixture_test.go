package runbook

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/toolboxai/relight"
)

var update = flag.Bool("update", false, "write the expected files anew")

// golden compares with a file; -update writes it.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s:\ngot\n%s\nwant\n%s", file, got, want)
	}
}

// Every bad file is paired with all of its messages.
func TestBadFixtures(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/bad/*.md")
	if err != nil || len(files) < 70 {
		t.Fatalf("%d fixtures, %v", len(files), err)
	}
	reg := lintRegistry(t)
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".md"), func(t *testing.T) {
			t.Parallel()
			src, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			rb, err := Compile(src, filepath.Base(f), reg)
			if err == nil || rb != nil {
				t.Fatal("it compiles")
			}
			if relight.CodeOf(err) != relight.CodeUsage || relight.HintOf(err) == "" {
				t.Errorf("code %q, hint %q", relight.CodeOf(err), relight.HintOf(err))
			}
			list := ProblemsOf(err)
			if len(list) == 0 || len(list) != len(Lint(src, filepath.Base(f), reg)) {
				t.Fatalf("no problems, or Lint gives others: %v", err)
			}
			lines := strings.Count(string(src), "\n") + 1
			for _, p := range list {
				if p.Line < 1 || p.Line > lines || p.Column < 1 {
					t.Errorf("%s lies outside of the file's %d lines", p, lines)
				}
			}
			golden(t, strings.TrimSuffix(f, ".md")+".txt", list.Error()+"\n")
		})
	}
}
