package app

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/repo"
	"github.com/toolboxai/relight/store/postgres"
)

func TestFullBackupIsDueByAge(t *testing.T) {
	t.Parallel()
	now := time.Date(2025, 10, 9, 12, 0, 0, 0, time.UTC)
	taken := func(kind string, ago time.Duration) repo.Manifest {
		return repo.Manifest{Snapshot: relight.Snapshot{Kind: kind, Finished: now.Add(-ago)}}
	}
	damaged := func(m repo.Manifest) repo.Manifest { m.Damaged = true; return m }
	const week = 7 * 24 * time.Hour
	for name, c := range map[string]struct {
		all []repo.Manifest
		why string
	}{
		"none":                         {nil, "none yet"},
		"only incremental ones":        {[]repo.Manifest{taken("incremental", time.Hour)}, "none yet"},
		"young":                        {[]repo.Manifest{taken("full", week-time.Second), taken("incremental", time.Hour), taken("restore-point", time.Minute)}, ""},
		"old, behind incremental ones": {[]repo.Manifest{taken("full", week), taken("incremental", time.Hour)}, "168h0m0s old"},
		"damaged":                      {[]repo.Manifest{taken("full", 2*time.Hour), damaged(taken("full", time.Hour))}, "is damaged"},
		"a damaged one before":         {[]repo.Manifest{damaged(taken("full", 2*time.Hour)), taken("full", time.Hour)}, ""},
		"one of the future does not":   {[]repo.Manifest{taken("full", 2*week), taken("full", -week)}, "336h0m0s old"},
		"the newest counts":            {[]repo.Manifest{taken("full", 2*week), taken("full", time.Hour)}, ""},
	} {
		if got := fullDue(c.all, week, now); (got == "") != (c.why == "") || !strings.Contains(got, c.why) {
			t.Errorf("%s: %q, want %q", name, got, c.why)
		}
	}
}

// What was lost of a cluster that the store had before, and the backups of it, say nothing about the one that it has now: the positions of two clusters cannot be compared.
func TestABaseLooksOnlyAtTheClusterOfToday(t *testing.T) {
	t.Parallel()
	st := newStand(t)
	m := st.repository(st.app())
	backup := func(system relight.SystemID) {
		facts, err := json.Marshal(postgres.Facts{System: system, Timeline: 1, StopLSN: 100, SegmentSize: 16 << 20})
		ok(t, err)
		w, err := m.NewSnapshot(t.Context(), "main", repo.SnapshotOptions{Kind: "full"})
		ok(t, err)
		_, err = w.Commit(t.Context(), relight.Snapshot{Facts: facts})
		ok(t, err)
	}
	gap := func(system relight.SystemID) {
		k := repo.WALKey{Store: "main", System: system, Timeline: 1}
		ok(t, m.Sink("main").Gap(t.Context(), k, relight.Gap{Timeline: 1, From: 1000, To: 2000, Why: "the slot was lost"}))
	}
	b := base{meta: m, name: "main", now: time.Now}
	backup(7)
	gap(7)
	ok(t, m.AdoptCluster(t.Context(), "main", 8, "initdb"))
	if _, any, err := b.Newest(t.Context()); err != nil || any {
		t.Fatalf("a backup of the former cluster counts: %v %v", any, err)
	}
	backup(8)
	newest, any, err := b.Newest(t.Context())
	ok(t, err)
	if f, err := postgres.FactsOf(newest); !any || err != nil || f.System != 8 {
		t.Fatalf("the newest is of cluster %s: %v", f.System, err)
	}
	if why, err := b.Gap(t.Context(), newest); err != nil || why != "" {
		t.Fatalf("a gap of the former cluster wants a new base: %q %v", why, err)
	}
	gap(8)
	if why, err := b.Gap(t.Context(), newest); err != nil || !strings.Contains(why, "is lost") {
		t.Fatalf("its own gap does not: %q %v", why, err)
	}
}
