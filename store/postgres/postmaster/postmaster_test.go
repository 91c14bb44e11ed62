package postmaster_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/toolboxai/relight/store/postgres/postmaster"
)

func TestReads(t *testing.T) {
	t.Parallel()
	whole := "4711\n/srv/main\n1764360000\n5432\n/run\n\n  5432001    98307\nready   \n"
	for name, x := range map[string]struct {
		text   string
		pid    int
		memory int
		ok     bool
	}{
		"whole":             {whole, 4711, 98307, true},
		"the first segment": {"4711\n\n\n\n\n\n5432001 0\n", 4711, 0, true},
		"begun":             {"4711\n/srv/main\n1764360000\n", 4711, 0, false},
		"empty":             {"", 0, 0, false},
		"nonsense":          {"pid\n\n\n\n\n\nnone\n", 0, 0, false},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, postmaster.File), []byte(x.text), 0o600); err != nil {
			t.Fatal(err)
		}
		id, ok := postmaster.Memory(dir)
		if pid := postmaster.PID(dir); pid != x.pid || id != x.memory || ok != x.ok {
			t.Errorf("%s: pid %d, memory %d %v", name, pid, id, ok)
		}
	}
	none := t.TempDir()
	if _, ok := postmaster.Memory(none); ok || postmaster.PID(none) != 0 || postmaster.ReleaseMemory(none) != nil {
		t.Error("no file tells something")
	}
}
