package postgres

import (
	"os"
	"path/filepath"
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
