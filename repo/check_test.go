package repo

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob"
	"github.com/toolboxai/relight/blob/mem"
)

// spoil changes one bit in the middle of an object, or removes it.
func spoil(t *testing.T, s blob.Storage, name string, remove bool) {
	t.Helper()
	ctx := context.Background()
	b, err := getAll(ctx, s, name, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(ctx, name); err != nil || remove {
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	b[len(b)/2] ^= 4
	if err := s.Put(ctx, name, bytes.NewReader(b), blob.PutOptions{}); err != nil {
		t.Fatal(err)
	}
}

// TestDamageIsNamed spoils each kind of object in turn. The first snapshot is never touched.
func TestDamageIsNamed(t *testing.T) {
	exhaustive(t)
	t.Parallel()
	ctx := t.Context()
	base := mem.New()
	v := newVault(t, base)
	good, tree := init0(faultTree(30)), init0(faultTree(60))
	first, err := serialBackup(ctx, v.writer(t, base, ""), good)
	if err != nil {
		t.Fatal(err)
	}
	before := names(t, base, "")
	second, err := serialBackup(ctx, v.writer(t, base, ""), tree)
	if err != nil {
		t.Fatal(err)
	}
	for _, prefix := range []string{"pack/data/", "pack/meta/", "index/", "snap/main/"} {
		for _, remove := range []bool{false, true} {
			for _, name := range names(t, base, prefix) {
				if slices.Contains(before, name) {
					continue
				}
				s := base.Clone()
				spoil(t, s, name, remove)
				v.checkDamage(t, s, name, remove, first.ID, second.ID)
			}
		}
	}
}

func (v *vault) checkDamage(t *testing.T, s blob.Storage, name string, removed bool, first, second relight.SnapshotID) {
	ctx := t.Context()
	for _, withKey := range []bool{true, false} {
		r := v.reader(t, s, "")
		m := r.Meta()
		if !withKey {
			r, m = nil, v.writer(t, s, "")
		}
		var found []Finding
		rep, err := m.Check(ctx, r, func(f Finding) { found = append(found, f) })
		if err != nil {
			t.Errorf("%s: %v", name, err)
			return
		}
		named := slices.ContainsFunc(found, func(f Finding) bool {
			return f.Severity == SeverityError && (f.Object == name || strings.Contains(f.What, name) || strings.HasPrefix(name, "index/")) && f.Remains != ""
		})
		if !named || rep.Errors == 0 {
			t.Errorf("%s (removed %v, key %v): not named in %+v", name, removed, withKey, found)
		}
		if !slices.Contains(rep.Untouched, first) || slices.Contains(rep.Untouched, second) {
			t.Errorf("%s (removed %v, key %v): untouched %v, damaged %v", name, removed, withKey, rep.Untouched, rep.Damaged)
		}
	}
	if strings.HasPrefix(name, "snap/") {
		return
	}
	r := v.reader(t, s, "")
	man, err := r.Meta().Manifest(ctx, "main", second)
	if err != nil {
		t.Fatal(err)
	}
	err = r.VerifySnapshot(ctx, man, 2, nil)
	var d *Damage
	if !errors.As(err, &d) || relight.CodeOf(err) != relight.CodeVerification || relight.HintOf(err) == "" || len(d.Files) == 0 {
		t.Errorf("%s: verify says %v", name, err)
	} else if strings.HasPrefix(name, "pack/") && !slices.Contains(d.Objects, name) {
		t.Errorf("%s: not among the damaged objects %v", name, d.Objects)
	}
}

func TestCheckOfAWholeRepositoryFindsNothing(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	base := mem.New()
	v := newVault(t, base)
	tree := init0(faultTree(1))
	if _, err := serialBackup(ctx, v.writer(t, base, ""), tree); err != nil {
		t.Fatal(err)
	}
	// A backup that was given up leaves packs in no index.
	w, err := v.writer(t, base, "").NewSnapshot(ctx, "main", SnapshotOptions{Workers: 1, packBytes: 100 << 10})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.AddFile(ctx, Entry{Path: "x"}, bytes.NewReader(noise(77, 3<<20))); err != nil {
		t.Fatal(err)
	}
	w.uploads.Wait()
	w.Abort(ctx)
	r := v.reader(t, base, "")
	rep, err := r.Meta().Check(ctx, r, func(f Finding) { t.Errorf("finding %+v", f) })
	if err != nil {
		t.Fatal(err)
	}
	if rep.Snapshots != 1 || rep.Packs == 0 || rep.Chunks == 0 || rep.Orphans == 0 || rep.Errors != 0 || len(rep.Untouched) != 1 || len(rep.Skipped) != 0 {
		t.Errorf("report %+v", rep)
	}
	if rep, err = v.writer(t, base, "").Check(ctx, nil, func(f Finding) { t.Errorf("finding %+v", f) }); err != nil || len(rep.Skipped) == 0 {
		t.Errorf("report %+v, %v", rep, err)
	}
}

func TestStateIsEarned(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	base := mem.New()
	v := newVault(t, base)
	snap, err := serialBackup(ctx, v.writer(t, base, ""), init0(faultTree(1)))
	if err != nil {
		t.Fatal(err)
	}
	cache := t.TempDir()
	state := func() relight.SnapshotState {
		t.Helper()
		all, err := v.writer(t, base, cache).Snapshots(ctx, "main")
		if err != nil || len(all) != 1 {
			t.Fatal(all, err)
		}
		return all[0].State
	}
	if s := state(); s != relight.Complete {
		t.Errorf("state %s", s)
	}
	r := v.reader(t, base, "")
	man, err := r.Meta().Manifest(ctx, "main", snap.ID)
	if err != nil {
		t.Fatal(err)
	}
	var last relight.Progress
	if err := r.VerifySnapshot(ctx, man, 2, func(p relight.Progress) { last = p }); err != nil || last.Done == 0 || last.Done > last.Total {
		t.Fatal(err, last)
	}
	if r.Meta().Keyring().CanWrite() {
		if s := state(); s != relight.Intact {
			t.Errorf("state %s after verification", s)
		}
	}
	w := v.writer(t, base, "")
	if err := w.PutProof(ctx, relight.Proof{Store: "main", Snapshot: snap.ID, At: time.Now(), OK: true}); err != nil {
		t.Fatal(err)
	}
	if s := state(); s != relight.Proven {
		t.Errorf("state %s after proof", s)
	}
	if err := w.PutChecked(ctx, Checked{Store: "main", Snapshot: snap.ID, At: time.Now(), OK: false}); err != nil {
		t.Fatal(err)
	}
	if s := state(); s != relight.Complete {
		t.Errorf("state %s after a failed reading", s)
	}
}

// flaky fails every read of packs: a storage that is away, not a repository that is damaged.
type flaky struct{ blob.Storage }

var errAway = errors.New("the network is away")

func (f flaky) Get(ctx context.Context, name string, off, n int64) (io.ReadCloser, error) {
	if strings.HasPrefix(name, "pack/data/") {
		return nil, errAway
	}
	return f.Storage.Get(ctx, name, off, n)
}

func TestAFailingStorageIsNotDamage(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	base := mem.New()
	v := newVault(t, base)
	snap, err := serialBackup(ctx, v.writer(t, base, ""), init0(faultTree(1)))
	if err != nil {
		t.Fatal(err)
	}
	r := v.reader(t, flaky{base}, "")
	man, err := r.Meta().Manifest(ctx, "main", snap.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.VerifySnapshot(ctx, man, 2, nil); !errors.Is(err, errAway) || errors.Is(err, ErrCorrupt) {
		t.Errorf("verify says %v", err)
	}
	if left := names(t, base, checkedPrefix); len(left) > 0 {
		t.Errorf("recorded: %v", left)
	}
}
