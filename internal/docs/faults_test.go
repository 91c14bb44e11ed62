package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The tests that docs/faults.md names exist, and each row of its tables of tests names one.
func TestFaultsNameTheirTests(t *testing.T) {
	t.Parallel()
	source := testFunctions(t)
	page := read(t, "docs/faults.md")
	for _, m := range regexp.MustCompile("`(Test[A-Za-z0-9]+)`").FindAllStringSubmatch(page, -1) {
		if source[m[1]] == 0 {
			t.Errorf("docs/faults.md names %s, which no package has", m[1])
		}
	}
	rows := 0
	for _, heading := range []string{"Storage", "Several parties", "PostgreSQL", "Processes"} {
		section, err := Section(page, heading)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(section) {
			if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| injected") {
				continue
			}
			rows++
			if !strings.Contains(line, "`Test") {
				t.Errorf("no test shows it: %s", line)
			}
		}
	}
	if rows < 20 {
		t.Errorf("only %d rows", rows)
	}
}

// testFunctions counts the tests of the module, whatever their build tags.
func testFunctions(t *testing.T) map[string]int {
	t.Helper()
	found := map[string]int{}
	declared := regexp.MustCompile(`(?m)^func (Test[A-Za-z0-9]+)\(t \*testing\.T\)`)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == ".git" || d.Name() == "bin") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		b, err := os.ReadFile(path)
		for _, m := range declared.FindAllSubmatch(b, -1) {
			found[string(m[1])]++
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
