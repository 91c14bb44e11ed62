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
	refused(t, err, relight.CodeUsage, "a certain one is named")
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
		in     selection
		before time.Time
		want   []relight.SnapshotID
	}{
		"all":               {selection{}, time.Time{}, []relight.SnapshotID{all[0].ID, all[1].ID, all[2].ID}},
		"latest":            {selection{Latest: true}, time.Time{}, []relight.SnapshotID{all[2].ID}},
		"before":            {selection{}, all[1].Finished, []relight.SnapshotID{all[0].ID}},
		"the latest before": {selection{Latest: true}, all[2].Finished, []relight.SnapshotID{all[1].ID}},
		"proven":            {selection{Verified: true, Latest: true}, time.Time{}, []relight.SnapshotID{all[0].ID}},
		"none before":       {selection{Verified: true}, all[0].Finished, nil},
	} {
		got := BackupList{Snapshots: slices.Clone(l.Snapshots)}
		got.narrow(filter{c.in, c.before})
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

// What is shown, verified and proven is selected as in the list.
func TestOneIsSelected(t *testing.T) {
	t.Parallel()
	const d = 24 * time.Hour
	st := kept(t, 3*d, 2*d, d)
	all := st.snapshots(st.app())
	before := all[2].Finished.Format(time.RFC3339Nano)
	for name, c := range map[string]struct {
		in   map[string]any
		want relight.SnapshotID
	}{
		"nothing":           {nil, all[2].ID},
		"latest":            {map[string]any{"latest": true}, all[2].ID},
		"before":            {map[string]any{"before": before}, all[1].ID},
		"the latest before": {map[string]any{"before": before, "latest": true}, all[1].ID},
		"id":                {map[string]any{"snapshot": string(all[0].ID)}, all[0].ID},
	} {
		out, _, err := run(t, st.app(), "backup.show", c.in)
		if ok(t, err); out.(BackupShown).Snapshot.ID != c.want {
			t.Errorf("%s: shown is %s, want %s", name, out.(BackupShown).Snapshot.ID, c.want)
		}
		out, _, err = run(t, st.app(st.recovering), "backup.verify", c.in)
		if ok(t, err); out.(BackupVerified).Snapshot != c.want {
			t.Errorf("%s: verified is %s, want %s", name, out.(BackupVerified).Snapshot, c.want)
		}
	}
	for _, action := range []string{"backup.show", "backup.verify", "backup.prove"} {
		_, _, err := run(t, st.app(st.recovering), action, map[string]any{"verified": true})
		refused(t, err, relight.CodeNotFound, "none such")
		_, _, err = run(t, st.app(st.recovering), action, map[string]any{"before": "noon"})
		refused(t, err, relight.CodeUsage, "noon")
		for _, filter := range []map[string]any{{"latest": true}, {"verified": true}, {"before": before}} {
			filter["snapshot"] = string(all[0].ID)
			_, _, err = run(t, st.app(st.recovering), action, filter)
			refused(t, err, relight.CodeUsage, "a certain one is named")
		}
	}
	_, _, err := run(t, st.app(), "backup.show", map[string]any{"snapshot": "set:x", "latest": true})
	refused(t, err, relight.CodeUsage, "a certain one is named")
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
