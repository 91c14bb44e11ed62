package library_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/runbook"
	"github.com/toolboxai/relight/runbook/library"
)

func TestEveryBuiltInRunbookCompiles(t *testing.T) {
	t.Parallel()
	all, err := library.Compile(nil) // app's tests compile them against the real actions
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"database-corruption", "infrastructure-loss"} {
		rb := all[name]
		if rb == nil {
			t.Fatalf("%s is missing; there are %v", name, library.Names())
		}
		raw, err := rb.Canonical()
		if err != nil {
			t.Fatal(err)
		}
		again, err := runbook.Load(raw)
		if err != nil {
			t.Fatal(err)
		}
		if again.Hash != rb.Hash {
			t.Errorf("%s: the pinned form has hash %s, not %s", name, again.Hash, rb.Hash)
		}
	}
}

// TestClocksAreMarked: a recovery without these clocks would report no recovery time.
func TestClocksAreMarked(t *testing.T) {
	t.Parallel()
	all, err := library.Compile(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, rb := range all {
		marked := map[string]bool{}
		for _, p := range rb.Phases {
			for _, s := range p.Steps {
				marked[s.Clock] = true
			}
		}
		for _, clock := range []string{runbook.ClockRecovered, runbook.ClockVerified, runbook.ClockReprotected} {
			if !marked[clock] {
				t.Errorf("%s never marks the clock %s", name, clock)
			}
		}
	}
}

func TestUnknownNameSuggests(t *testing.T) {
	t.Parallel()
	_, err := library.Source("database-corruptoin")
	if relight.CodeOf(err) != relight.CodeUsage || !strings.Contains(err.Error(), `did you mean "database-corruption"`) {
		t.Errorf("error is %v", err)
	}
	text, err := library.Source("database-corruption")
	if err != nil || !bytes.HasPrefix(text, []byte("---\n")) {
		t.Errorf("source begins %.10q, %v", text, err)
	}
}
