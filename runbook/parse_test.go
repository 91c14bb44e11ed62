package runbook

import (
	"os"
	"testing"
)

func TestScratch(t *testing.T) {
	src, err := os.ReadFile("testdata/good/design.md")
	if err != nil {
		t.Fatal(err)
	}
	rb, err := Compile(src, "design.md", lintRegistry(t))
	if err != nil {
		t.Fatal(err)
	}
	raw, _ := rb.Canonical()
	t.Log(string(raw))
	t.Log("\n" + Show(rb))
	p, err := rb.Plan(nil)
	t.Logf("%+v %v", p, err)
}
