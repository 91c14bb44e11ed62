package app

import (
	"strings"
	"testing"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/repo"
)

func TestFullBackupIsDueByAge(t *testing.T) {
	t.Parallel()
	now := time.Date(2025, 10, 9, 12, 0, 0, 0, time.UTC)
	taken := func(kind string, ago time.Duration) repo.Manifest {
		return repo.Manifest{Snapshot: relight.Snapshot{Kind: kind, Finished: now.Add(-ago)}}
	}
	const week = 7 * 24 * time.Hour
	for name, c := range map[string]struct {
		all []repo.Manifest
		why string
	}{
		"none":                         {nil, "none yet"},
		"only incremental ones":        {[]repo.Manifest{taken("incremental", time.Hour)}, "none yet"},
		"young":                        {[]repo.Manifest{taken("full", week-time.Second), taken("incremental", time.Hour), taken("restore-point", time.Minute)}, ""},
		"old, behind incremental ones": {[]repo.Manifest{taken("full", week), taken("incremental", time.Hour)}, "168h0m0s old"},
		"the newest counts":            {[]repo.Manifest{taken("full", 2*week), taken("full", time.Hour)}, ""},
	} {
		if got := fullDue(c.all, week, now); (got == "") != (c.why == "") || !strings.Contains(got, c.why) {
			t.Errorf("%s: %q, want %q", name, got, c.why)
		}
	}
}
