package runbook

import (
	"os"
	"path/filepath"
	"testing"
)

// The built-in scenarios compile against the shapes of the actions that they call.
func TestLibraryCompiles(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("library/*.md")
	if err != nil || len(files) < 2 {
		t.Fatalf("the built-in scenarios are missing: %v, %v", files, err)
	}
	for _, f := range files {
		src, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		rb, err := Compile(src, f, lintRegistry(t))
		if err != nil {
			t.Error(err)
			continue
		}
		if name := rb.Name + ".md"; name != filepath.Base(f) {
			t.Errorf("%s holds the runbook %s", f, rb.Name)
		}
		p, err := rb.Plan(nil)
		if err != nil || p.NoWay != "restore" {
			t.Errorf("%s: the point of no return is %q, %v", f, p.NoWay, err)
		}
	}
}
