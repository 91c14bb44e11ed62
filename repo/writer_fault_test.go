package repo

import (
	"context"
	"fmt"
	"testing"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob"
	"github.com/toolboxai/relight/blob/fault"
	"github.com/toolboxai/relight/blob/mem"
)

// faultTree is small enough to be stored hundreds of times, and fills several packs and indexes.
func faultTree(seed uint64) []testFile {
	file := func(path string, paged bool, body []byte) testFile {
		return testFile{Entry{Path: path, Mode: 0o600, ModTime: testTime, Paged: paged}, body}
	}
	return []testFile{
		file("a", true, noise(uint64(byte(seed)), 5*defaultPage)),
		file("b", false, noise(uint64(byte(seed+1)), 150<<10)),
		file("c", true, pages(seed+2, 8*defaultPage)),
		file("d", false, []byte("small")),
		{e: Entry{Path: "e", Mode: 0o777, ModTime: testTime, Link: "d"}},
	}
}

var smallPacks = SnapshotOptions{Kind: "full", Workers: 1, packBytes: 150 << 10, flushAt: 2}

func init0(tree []testFile) []testFile {
	for i := range tree {
		if tree[i].e.Link != "" {
			tree[i].e.Mode |= 1 << 27 // fs.ModeSymlink
		}
	}
	return tree
}

// serialBackup stores the files one after the other, so that the operations come in one order.
func serialBackup(ctx context.Context, m *Meta, tree []testFile) (relight.Snapshot, error) {
	w, err := m.NewSnapshot(ctx, "main", smallPacks)
	if err != nil {
		return relight.Snapshot{}, err
	}
	defer w.Abort(ctx)
	for _, f := range tree {
		if err := addTree(ctx, w, []testFile{f}); err != nil {
			return relight.Snapshot{}, err
		}
	}
	return w.Commit(ctx, relight.Snapshot{})
}

// eachFault lets every operation of work suffer every fault, each time on a copy of base. Names are random, so
// operations are told apart by their number.
func eachFault(base *mem.Storage, faults []fault.Fault, work func(blob.Storage) error, after func(fault.Case) error) error {
	counting := fault.New(base.Clone(), nil)
	if err := work(counting); err != nil {
		return fmt.Errorf("run without faults: %w", err)
	}
	all := counting.Ops()
	total := len(all)
	for seq := 1; seq <= total; seq += everyCase {
		for _, f := range faults {
			if all[seq-1].Kind == fault.Read && (f.Effect == fault.Lose || f.Effect == fault.Die) {
				continue // for a Read these are what Refuse and DieLate are
			}
			c := fault.Case{Fault: f, Storage: base.Clone()}
			faulty := fault.New(c.Storage, fault.At(seq, f))
			c.Err = work(faulty)
			ops := faulty.Ops()
			if len(ops) < seq {
				return fmt.Errorf("operation %d of %d did not come again", seq, total)
			}
			c.Op = ops[seq-1]
			if err := after(c); err != nil {
				return err
			}
		}
	}
	return nil
}

func TestEveryOperationOfABackupMayFail(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	base := mem.New()
	v := newVault(t, base)
	first, second, third := init0(faultTree(1)), init0(faultTree(10)), init0(faultTree(20))
	if _, err := serialBackup(ctx, v.writer(t, base, ""), first); err != nil {
		t.Fatal(err)
	}
	k, err := v.init.Credential.Keyring()
	if err != nil {
		t.Fatal(err)
	}
	work := func(s blob.Storage) error {
		m, err := Open(ctx, s, k, Options{Name: "vault"})
		if err != nil {
			return err
		}
		_, err = serialBackup(ctx, m, second)
		return err
	}
	var kinds = map[fault.Kind]int{}
	faults := []fault.Fault{{Effect: fault.Refuse}, {Effect: fault.Lose}, {Effect: fault.Tear}, {Effect: fault.Die}, {Effect: fault.DieLate}}
	err = eachFault(base, faults, work, func(c fault.Case) error {
		kinds[c.Op.Kind]++
		return v.afterFault(t, c, [][]testFile{first, second, third})
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("faults by operation: %v", kinds)
	if kinds[fault.Put] < 5*8/everyCase || everyCase == 1 && (kinds[fault.List] == 0 || kinds[fault.Delete] == 0) {
		t.Errorf("too few operations were tried: %v", kinds)
	}
}

// afterFault demands that what is listed can be restored, that success was true, and that the next backup works.
func (v *vault) afterFault(t *testing.T, c fault.Case, trees [][]testFile) error {
	ctx := t.Context()
	r := v.reader(t, c.Storage, "")
	all, err := r.Meta().Snapshots(ctx, "main")
	if err != nil {
		return fmt.Errorf("%s: list: %w", c, err)
	}
	if len(all) < 1 || len(all) > 2 || c.Err == nil && len(all) != 2 {
		return fmt.Errorf("%s: the backup said %v and %d snapshots are there", c, c.Err, len(all))
	}
	if _, err := serialBackup(ctx, v.writer(t, c.Storage, ""), trees[2]); err != nil {
		return fmt.Errorf("%s: the next backup: %w", c, err)
	}
	if all, err = r.Meta().Snapshots(ctx, "main"); err != nil {
		return fmt.Errorf("%s: list: %w", c, err)
	}
	want := trees
	if len(all) == 2 {
		want = [][]testFile{trees[0], trees[2]}
	}
	if len(all) != len(want) {
		return fmt.Errorf("%s: %d snapshots after the next backup", c, len(all))
	}
	for i, man := range all {
		if err := compareTree(ctx, r, man, want[i]); err != nil {
			return fmt.Errorf("%s: snapshot %d: %w", c, i, err)
		}
	}
	return nil
}

func TestSilentlyChangedObjectsAreNeverTakenForGood(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	base := mem.New()
	v := newVault(t, base)
	tree := init0(faultTree(1))
	k, err := v.init.Credential.Keyring()
	if err != nil {
		t.Fatal(err)
	}
	work := func(s blob.Storage) error {
		m, err := Open(ctx, s, k, Options{Name: "vault"})
		if err != nil {
			return err
		}
		_, err = serialBackup(ctx, m, tree)
		return err
	}
	noticed := 0
	err = eachFault(base, []fault.Fault{{Effect: fault.Flip}}, work, func(c fault.Case) error {
		if c.Op.Kind != fault.Put {
			return nil
		}
		r := v.reader(t, c.Storage, "")
		findings := 0
		if _, err := r.Meta().Check(ctx, r, func(Finding) { findings++ }); err != nil {
			return fmt.Errorf("%s: check: %w", c, err)
		}
		all, err := r.Meta().Snapshots(ctx, "main")
		if err != nil {
			return fmt.Errorf("%s: %w", c, err)
		}
		whole := false
		if len(all) == 1 {
			verr := r.VerifySnapshot(ctx, all[0], 2, nil)
			cerr := compareTree(ctx, r, all[0], tree)
			if (verr == nil) != (cerr == nil) {
				return fmt.Errorf("%s: verify says %v, restore says %v", c, verr, cerr)
			}
			whole = verr == nil
		}
		if !whole {
			noticed++
			if findings == 0 {
				return fmt.Errorf("%s: the snapshot is not whole and the check found nothing", c)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if noticed < 5/everyCase {
		t.Errorf("only %d changed objects mattered", noticed)
	}
}
