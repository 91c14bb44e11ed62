package demo

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/toolboxai/relight"
)

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// furnish puts something into every place that a demonstration makes.
func furnish(t *testing.T, l layout) {
	t.Helper()
	for _, path := range []string{l.config(), filepath.Join(l.data(), "PG_VERSION"), filepath.Join(l.run(), "socket"), filepath.Join(l.vault(), "head"), l.identity(),
		filepath.Join(l.evidence(), "salvage.json"), l.ledger()} {
		ok(t, os.MkdirAll(filepath.Dir(path), 0o755))
		ok(t, os.WriteFile(path, []byte("x"), 0o600))
	}
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	ok(t, err)
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

func TestOnlyWhatWasMadeIsRemoved(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		dir   func(t *testing.T, home string) string
		stays bool
	}{
		"none given": {func(*testing.T, string) string { return "" }, false},
		"missing":    {func(_ *testing.T, home string) string { return filepath.Join(home, "new") }, false},
		"empty":      {func(_ *testing.T, home string) string { return home }, true},
		"a link to an empty one": {func(t *testing.T, home string) string {
			t.Helper()
			link := filepath.Join(t.TempDir(), "link")
			ok(t, os.Symlink(home, link))
			return link
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, err := claim(c.dir(t, t.TempDir()))
			ok(t, err)
			furnish(t, l)
			ok(t, l.remove())
			_, err = os.Stat(l.root)
			if stayed := err == nil; stayed != c.stays || stayed && len(names(t, l.root)) > 0 {
				t.Errorf("%s: %v", l.root, err)
			}
		})
	}
}

func TestWhatOthersPutThereStays(t *testing.T) {
	t.Parallel()
	l, err := claim(filepath.Join(t.TempDir(), "new"))
	ok(t, err)
	furnish(t, l)
	ok(t, os.WriteFile(filepath.Join(l.root, "letters"), nil, 0o600))
	if err := l.remove(); err == nil {
		t.Error("nothing was said of what is left")
	}
	if left := names(t, l.root); len(left) != 1 || left[0] != "letters" {
		t.Errorf("left: %q", left)
	}
}

func TestWhatIsSomebodysIsRefused(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	ok(t, os.Mkdir(filepath.Join(home, "occupied"), 0o755))
	ok(t, os.WriteFile(filepath.Join(home, "occupied", ".hidden"), nil, 0o600))
	ok(t, os.Symlink("nowhere", filepath.Join(home, "dangling")))
	for _, dir := range []string{home, "occupied", "occupied/.hidden", "dangling", "no/parent"} {
		if !filepath.IsAbs(dir) {
			dir = filepath.Join(home, dir)
		}
		if _, err := claim(dir); relight.CodeOf(err) != relight.CodeUsage || relight.HintOf(err) == "" {
			t.Errorf("%s: %v", dir, err)
		}
	}
	if left := names(t, home); len(left) != 2 {
		t.Errorf("left: %q", left)
	}
}
