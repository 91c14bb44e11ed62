package postgres

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/action"
)

// Killed between the report and the copy's name, the step is not done; killed after both, it is, so that no second copy is made.
func TestEvidenceIsThereOnlyWithItsCopy(t *testing.T) {
	t.Parallel()
	data, dir := damaged(t), t.TempDir()
	moment := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	s := New(Config{Name: "main"}, Deps{Now: func() time.Time { return moment }})
	e, err := s.KeepEvidence(t.Context(), data, dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	if p, err := evidenceSince(dir, moment); err != nil || p.State != action.Done {
		t.Errorf("with its copy: %+v, %v", p, err)
	}
	if err := os.Rename(e.Path, e.Path+".partial"); err != nil {
		t.Fatal(err)
	}
	if p, err := evidenceSince(dir, moment); err != nil || p.State != action.NotDone {
		t.Errorf("without its copy: %+v, %v", p, err)
	}
}

// What a killed process left of a copy would take the room of the next one; what a living one writes is not touched.
func TestEvidenceDropsWhatTheDeadLeft(t *testing.T) {
	t.Parallel()
	data, dir := damaged(t), t.TempDir()
	dead, living := filepath.Join(dir, "corrupted-20260101-000000.tar.gz.partial"), filepath.Join(dir, "corrupted-20260101-000001.tar.gz.partial")
	if err := os.WriteFile(dead, make([]byte, 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := openPartial(living)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }() // nothing was written
	if _, err := New(Config{Name: "main"}, Deps{}).KeepEvidence(t.Context(), data, dir, func(relight.Progress) {}); err != nil {
		t.Fatal(err)
	}
	if exists(dead) || !exists(living) {
		t.Errorf("of the dead: %v; of the living: %v", exists(dead), exists(living))
	}
}

// What the server's links lead to is kept as well, beside the directory and not below the links: whoever unpacks the copy must not write into a live tablespace. One
// that is lost is named, and keeps nothing else from being kept.
func TestEvidenceHoldsWhatLinksLeadTo(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	data, space, wal := filepath.Join(root, "data"), filepath.Join(root, "space"), filepath.Join(root, "wal")
	for name, text := range map[string]string{"data/PG_VERSION": "15", "space/PG_15_1/5/16384": "rows", "wal/000000010000000000000001": "log"} {
		path := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	err := errors.Join(os.Mkdir(filepath.Join(data, tblspcDir), 0o700), os.Symlink(space, filepath.Join(data, tblspcDir, "16400")), os.Symlink(filepath.Join(root, "lost"), filepath.Join(data, tblspcDir, "16401")),
		os.Symlink(wal, filepath.Join(data, walDir)), os.Symlink(data, filepath.Join(root, "main")))
	if err != nil {
		t.Fatal(err)
	}
	e, err := New(Config{Name: "main"}, Deps{}).KeepEvidence(t.Context(), filepath.Join(root, "main"), filepath.Join(root, "evidence"), nil)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"PG_VERSION": "15", "pg_wal": "→ " + wal, "pg_tblspc/16400": "→ " + space, "pg_tblspc/16401": "→ " + filepath.Join(root, "lost"),
		"linked/pg_tblspc/16400/PG_15_1/5/16384": "rows", "linked/pg_wal/000000010000000000000001": "log"}
	if got := unpackEvidence(t, e.Path); !maps.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if e.Files != 3 || !slices.Equal(e.Missing, []string{"pg_tblspc/16401"}) {
		t.Errorf("%+v", e)
	}
}
