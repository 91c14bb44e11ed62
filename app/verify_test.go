package app

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/toolboxai/relight"
)

// What is read back whole is intact; a flipped bit takes that back, and the object is named. What a snapshot was found to be is seen by all who list.
func TestVerifyGivesAndTakesTheState(t *testing.T) {
	t.Parallel()
	st := kept(t, 2*time.Hour, time.Hour)
	state := func() []string {
		var out []string
		for _, man := range st.snapshots(st.app()) {
			out = append(out, string(man.State))
		}
		return out
	}
	_, _, err := run(t, st.app(st.recovering), "backup.verify", map[string]any{"latest": "true"})
	ok(t, err)
	if got := state(); !slices.Equal(got, []string{"complete", "intact"}) {
		t.Fatal(got)
	}
	all := st.snapshots(st.app())
	_, _, err = run(t, st.app(st.recovering), "backup.verify", map[string]any{"snapshot": string(all[0].ID)})
	ok(t, err)
	if got := state(); !slices.Equal(got, []string{"intact", "intact"}) {
		t.Fatal(got)
	}
	packs, err := filepath.Glob(filepath.Join(st.vault, "pack", "data", "*"))
	if ok(t, err); len(packs) == 0 {
		t.Fatal("no packs")
	}
	for _, pack := range packs {
		b, err := os.ReadFile(pack)
		ok(t, err)
		b[len(b)-1] ^= 1
		ok(t, os.Chmod(pack, 0o600))
		ok(t, os.WriteFile(pack, b, 0o600))
	}
	_, _, err = run(t, st.app(st.recovering), "backup.verify", map[string]any{"latest": "true"})
	refused(t, err, relight.CodeVerification, "pack/data/")
	if got := state(); !slices.Equal(got, []string{"intact", "complete"}) {
		t.Fatal(got)
	}
	_, _, err = run(t, st.app(st.recovering), "backup.verify", map[string]any{"latest": "true", "snapshot": string(all[0].ID)})
	refused(t, err, relight.CodeUsage, "newest and a certain one")
}

func TestListNarrows(t *testing.T) {
	t.Parallel()
	const d = 24 * time.Hour
	st := kept(t, 3*d, 2*d, d)
	all := st.snapshots(st.app())
	var l BackupList
	for _, man := range all {
		l.Snapshots = append(l.Snapshots, man.Snapshot)
	}
	l.Snapshots[0].State = relight.Proven
	for name, c := range map[string]struct {
		in     listInput
		before time.Time
		want   []relight.SnapshotID
	}{
		"all":               {listInput{}, time.Time{}, []relight.SnapshotID{all[0].ID, all[1].ID, all[2].ID}},
		"latest":            {listInput{Latest: true}, time.Time{}, []relight.SnapshotID{all[2].ID}},
		"before":            {listInput{}, all[1].Finished, []relight.SnapshotID{all[0].ID}},
		"the latest before": {listInput{Latest: true}, all[2].Finished, []relight.SnapshotID{all[1].ID}},
		"proven":            {listInput{Verified: true, Latest: true}, time.Time{}, []relight.SnapshotID{all[0].ID}},
		"none before":       {listInput{Verified: true}, all[0].Finished, nil},
	} {
		got := BackupList{Snapshots: slices.Clone(l.Snapshots)}
		got.narrow(c.in, c.before)
		var ids []relight.SnapshotID
		for _, s := range got.Snapshots {
			ids = append(ids, s.ID)
		}
		if !slices.Equal(ids, c.want) {
			t.Errorf("%s: %v, want %v", name, ids, c.want)
		}
		if stream, records := got.Records(); stream != "backups" || len(records) != len(c.want) {
			t.Errorf("%s: %d records of %s", name, len(records), stream)
		}
	}
	out, _, err := run(t, st.app(), "backup.show", map[string]any{"snapshot": string(all[1].ID)})
	ok(t, err)
	if s := out.(BackupShown).Snapshot; s == nil || s.ID != all[1].ID || s.State != relight.Complete || s.Facts != nil || out.(BackupShown).Set != nil {
		t.Errorf("%+v", out)
	}
	_, _, err = run(t, st.app(), "backup.show", map[string]any{"snapshot": "nope"})
	refused(t, err, relight.CodeNotFound, "nope")
	_, _, err = run(t, st.app(), "backup.show", map[string]any{"snapshot": "set:nope"})
	refused(t, err, relight.CodeNotFound, "nope")
}

func TestSetIsAskedForRightly(t *testing.T) {
	t.Parallel()
	st := kept(t)
	for what, in := range map[string]map[string]any{
		"give either a name or a set":    {},
		"either a name":                  {"name": "a", "set": "b"},
		"belong to --set":                {"name": "a", "keep": "1h"},
		"each with its own repositories": {"set": "a", "store": "main"},
		"cannot be part of":              {"set": "two words"},
		"too long":                       {"set": strings.Repeat("x", 60)},
	} {
		_, _, err := run(t, st.app(), "backup.mark", in)
		refused(t, err, relight.CodeUsage, what)
	}
}
