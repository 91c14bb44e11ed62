package host

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/toolboxai/relight"
)

func TestFence(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "epoch")
	for _, step := range []struct {
		run   relight.RunID
		epoch int64
		want  relight.Code
	}{
		{"a", 1, ""}, {"a", 1, ""}, {"a", 3, ""}, {"a", 2, relight.CodeLeaseHeld}, {"a", 3, ""},
		{"b", 1, ""}, // another run begins to count anew
		{"b", 2, ""}, {"b", 1, relight.CodeLeaseHeld},
	} {
		if got := relight.CodeOf(Fence(path, step.run, step.epoch)); got != step.want {
			t.Fatalf("epoch %d of run %s: %q, want %q", step.epoch, step.run, got, step.want)
		}
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Fence(path, "b", 9); err == nil || relight.HintOf(err) == "" {
		t.Fatalf("a broken fence admits: %v", err)
	}
}
