package postgres

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/repo"
	"github.com/toolboxai/relight/store/postgres/postmaster"
)

// makeRoom renames aside what is there, or prepares to change it in place: our own half restore, and with Delta anything. Nothing that relight
// did not write is deleted.
func (r *restore) makeRoom(ctx context.Context) error {
	if err := r.mayWrite(ctx); err != nil { // once more: reading everything before may have taken long
		return err
	}
	return r.clear(ctx)
}

// clear is makeRoom where nobody is in the way.
func (r *restore) clear(ctx context.Context) error {
	if r.held != vacant {
		r.s.releaseMemory(r.layout.dir)
	}
	suffix := r.asideSuffix()
	switch {
	case r.held == unfinished:
		if err := r.resume(); err != nil {
			return err
		}
	case r.held == occupied && r.o.Delta:
		if err := r.enter(ctx, r.layout.dir+suffix); err != nil {
			return r.explain(err)
		}
	case r.held == occupied:
		aside := r.layout.dir + suffix
		if err := r.disk.Move(r.layout.dir, aside); err != nil {
			return r.explain(err)
		}
		r.out.SetAside = aside
		r.s.log.Info("what was there is set aside", "directory", aside)
	}
	if err := r.setSpacesAside(suffix); err != nil {
		return r.explain(err)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := r.makeDir(r.layout.dir, r.plan.Base.Facts.DirMode); err != nil {
		return r.explain(err)
	}
	r.state.Progress, r.state.Spaces = restoreCopying, r.before.Spaces
	if err := r.note(); err != nil {
		return r.explain(err)
	}
	return r.makeSpaces()
}

// asideMark is in the names of what is set aside.
const asideMark = ".damaged-"

// asideSuffix makes names of what is set aside that nothing has yet.
func (r *restore) asideSuffix() string {
	suffix := asideMark + r.clock().UTC().Format("20060102T150405Z")
	for slices.ContainsFunc(r.layout.places(), func(place string) bool { return exists(place + suffix) }) {
		suffix += "~"
	}
	return suffix
}

func (r *restore) makeDir(path string, mode fs.FileMode) error {
	if mode == 0 {
		mode = 0o700
	}
	if err := mkdirAll(r.disk, filepath.Dir(path), 0o755); err != nil { // the server's user must get through
		return err
	}
	if err := mkdir(r.disk, path, mode); err != nil {
		return err
	}
	return r.own(path)
}

func (r *restore) own(path string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	return os.Lchown(path, int(r.owner.UID), int(r.owner.GID))
}

// copyFiles writes the base backup. Directories come first, by the order of entries; pg_control comes last, under a temporary name,
// after everything else is on disk: until then no server can start from the directory.
func (r *restore) copyFiles(ctx context.Context) (err error) {
	disks, err := openFileSystems(r.disk, append([]string{r.layout.dir}, r.spaceDirs()...))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, disks.Close()) }()
	control, err := r.copyEntries(ctx)
	if err != nil {
		return err
	}
	if err := r.dropExtras(ctx); err != nil {
		return err
	}
	if control == nil || !exists(filepath.Join(r.layout.dir, labelName)) {
		return r.s.fail("restore", relight.CodeVerification, "use another snapshot", "snapshot %s lacks pg_control or backup_label", r.man.ID)
	}
	return r.seal(ctx, *control, disks)
}

// copyEntries writes all but pg_control, which it gives; nil when there is none.
func (r *restore) copyEntries(ctx context.Context) (control *repo.Entry, err error) {
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(workers(r.o.Workers))
	var done atomic.Int64
	err = r.m.Entries(gctx, r.man, func(e repo.Entry) error {
		switch {
		case e.Path == ".":
			return nil
		case e.Path == controlName:
			control = &e
			return nil
		}
		if err := r.settle(e); err != nil {
			return err
		}
		switch {
		case e.Mode.IsDir():
			return r.addDir(e)
		case e.Mode&fs.ModeSymlink != 0:
			return r.addLink(e)
		case e.Path == mapName && r.layout.moved():
			return r.addText(e, r.layout.spaceMap())
		}
		group.Go(func() error {
			if err := r.addFile(gctx, e, r.layout.to(e.Path)); err != nil {
				return err
			}
			r.report("copy", done.Add(e.Size), r.layout.bytes, "bytes")
			return nil
		})
		return gctx.Err()
	})
	if werr := group.Wait(); werr != nil {
		return nil, werr // the cause; err is only that the list was given up
	}
	return control, err
}

func (r *restore) addDir(e repo.Entry) error {
	path := r.layout.to(e.Path)
	if err := mkdir(r.disk, path, e.Mode.Perm()); err != nil {
		return err
	}
	return r.own(path)
}

func (r *restore) addLink(e repo.Entry) error {
	path := filepath.Join(r.layout.dir, e.Path)
	if to, err := os.Readlink(path); err == nil && to == r.layout.linkTo(e) {
		return r.own(path)
	}
	if err := r.displace(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := r.disk.Symlink(r.layout.linkTo(e), path); err != nil {
		return err
	}
	return r.own(path)
}

func (r *restore) addText(e repo.Entry, text string) error {
	path := filepath.Join(r.layout.dir, e.Path)
	if err := put(r.disk, path, []byte(text), e.Mode.Perm()); err != nil {
		return err
	}
	return r.own(path)
}

func (r *restore) addFile(ctx context.Context, e repo.Entry, path string) (err error) {
	f, size, err := r.openFile(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if size > 0 {
		n, err := r.r.Patch(ctx, r.man, e, f, size)
		r.patched.Add(n)
		if err != nil {
			return err
		}
	} else {
		r.patched.Add(e.Size)
		if err := r.r.Restore(ctx, r.man, e, f.Behind()); err != nil {
			return err
		}
	}
	if err := f.Chmod(e.Mode.Perm()); err != nil {
		return err
	}
	return r.own(path)
}

// seal makes everything durable and then, only then, puts pg_control in place.
func (r *restore) seal(ctx context.Context, e repo.Entry, disks fileSystems) error {
	if err := r.dropResidue(); err != nil {
		return err
	}
	if err := r.touch("recovery.signal"); err != nil { // before pg_control: whatever starts from here can only recover
		return err
	}
	if err := r.linkCreated(); err != nil {
		return err
	}
	temp := filepath.Join(r.layout.dir, controlName+".relight")
	if err := r.addFile(ctx, e, temp); err != nil {
		return err
	}
	if err := disks.Sync(); err != nil {
		return err
	}
	r.out.Files, r.out.Bytes = r.layout.files, r.layout.bytes
	if err := r.disk.Rename(temp, filepath.Join(r.layout.dir, controlName)); err != nil {
		return err
	}
	return r.disk.SyncDir(filepath.Join(r.layout.dir, "global"))
}

func (r *restore) touch(name string) error {
	path := filepath.Join(r.layout.dir, name)
	if err := put(r.disk, path, nil, 0o600); err != nil {
		return err
	}
	return r.own(path)
}

// dropResidue removes what would make the recovered server a standby, or send it to the source's archive, once it is
// started by others: signal files, and recovery settings of ALTER SYSTEM; or let its commits hang.
func (r *restore) dropResidue() error {
	for _, name := range []string{"standby.signal", "recovery.signal", postmaster.File} {
		if err := drop(r.disk, filepath.Join(r.layout.dir, name)); err != nil {
			return err
		}
	}
	path := filepath.Join(r.layout.dir, "postgresql.auto.conf")
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	kept, dropped := withoutRecovery(string(b))
	if len(dropped) == 0 {
		return nil
	}
	r.s.log.Info("recovery settings of the source are left out", "settings", strings.Join(dropped, ", "))
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if err := put(r.disk, path, []byte(kept), info.Mode().Perm()); err != nil {
		return err
	}
	return r.own(path)
}

// withoutRecovery drops the lines that set anything about recovery, and what makes commits wait for relight: nobody streams from the recovered server yet.
func withoutRecovery(text string) (kept string, dropped []string) {
	var b strings.Builder
	for line := range strings.Lines(text) {
		name, _, _ := strings.Cut(strings.TrimSpace(line), "=")
		name = strings.ToLower(strings.TrimSpace(name))
		switch {
		case strings.HasPrefix(name, "recovery_"), name == "restore_command", name == "archive_cleanup_command",
			name == "primary_conninfo", name == "primary_slot_name", name == "promote_trigger_file",
			name == "synchronous_standby_names" && strings.Contains(line, receiverApplication("")):
			dropped = append(dropped, name)
		default:
			b.WriteString(line)
		}
	}
	return b.String(), dropped
}

// stamp is a time as a server reads it, always with its offset, cut to the server's microseconds.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.999999") + "+00" }
