package postgres

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/repo"
)

// A delta restore works on a directory that is there. It takes pg_control away first, so that no server can start, compares every file with the
// snapshot by the ids of its chunks, writes only those that differ, and moves what the snapshot does not have into a directory beside:
// nothing of the damaged cluster's log or newer files is lost, only the blocks that differ are.

// mayPatch refuses directories that are not a damaged or outdated copy of this very cluster.
func (r *restore) mayPatch() error {
	const hint = "restore without delta, which renames the directory aside, or choose another directory"
	c, err := readControl(r.layout.dir)
	if err == nil && c.System != r.plan.Base.Facts.System {
		return r.s.fail("restore", relight.CodeUsage, hint, "%s belongs to cluster %s, and the snapshot is of cluster %s", r.layout.dir, c.System, r.plan.Base.Facts.System)
	}
	for _, name := range []string{"base", "global"} {
		info, serr := os.Stat(filepath.Join(r.layout.dir, name))
		if err != nil && (serr != nil || !info.IsDir()) {
			return r.s.fail("restore", relight.CodeUsage, hint, "%s is not recognised as a data directory: %w", r.layout.dir, err)
		}
	}
	return nil
}

// enter takes possession of an occupied directory.
func (r *restore) enter(ctx context.Context, aside string) error {
	r.state.Aside, r.state.Progress, r.there = aside, restoreCopying, true
	if err := mkdirAll(r.disk, aside, 0o700); err != nil {
		return err
	}
	if err := r.own(aside); err != nil {
		return err
	}
	r.out.SetAside = aside
	if err := r.note(); err != nil { // from here on a crash leads to resume
		return err
	}
	if err := r.takeControl(); err != nil {
		return err
	}
	// Without pg_control none can start any more; one that started since we looked is noticed here.
	if err := r.s.awaitIdle(ctx, "restore", r.layout.dir); err != nil {
		return errors.Join(err, r.leave())
	}
	r.s.log.Info("the directory is changed in place; what the snapshot does not have is moved aside", "directory", r.layout.dir, "aside", aside)
	return nil
}

// takeControl takes pg_control away, durably, before anything else is changed: from here on no server can start. It is kept aside even where it may be our own, of a
// restore that had come to replay.
func (r *restore) takeControl() error {
	control := filepath.Join(r.layout.dir, controlName)
	if err := r.displace(control); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	dirs := []string{filepath.Dir(control)} // also where it is gone: who took it may have died before this
	if to, ok := r.asideOf(control); ok {
		dirs = []string{filepath.Dir(to), r.state.Aside, filepath.Dir(r.state.Aside), filepath.Dir(control)}
	}
	for _, dir := range dirs {
		if !exists(dir) {
			continue
		}
		if err := r.disk.SyncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

// leave undoes enter.
func (r *restore) leave() error {
	err := r.disk.Move(filepath.Join(r.state.Aside, controlName), filepath.Join(r.layout.dir, controlName))
	return errors.Join(err, drop(r.disk, filepath.Join(r.layout.dir, stateFile)))
}

// resume goes on in what an earlier restore left, with its own idea of what must not be lost.
func (r *restore) resume() error {
	r.there, r.state.Aside, r.out.SetAside = true, r.before.Aside, r.before.Aside
	r.s.log.Info("an unfinished restore is continued", "directory", r.layout.dir, "begun", r.before.Started)
	return r.takeControl()
}

// settle remembers what belongs into the directory, and moves away what stands there as something else.
func (r *restore) settle(e repo.Entry) error {
	if !r.there {
		return nil
	}
	if r.wanted == nil {
		r.wanted = map[string]bool{}
	}
	path := r.layout.to(e.Path)
	r.wanted[path] = true
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() == e.Mode.Type() && !shared(info) {
		return nil
	}
	return r.displace(path)
}

// shared tells whether a file has another name, whose content must not change with this one: pg_upgrade --link leaves such.
func shared(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && info.Mode().IsRegular() && st.Nlink > 1
}

// openFile opens what is there to be mended, or makes a new file.
func (r *restore) openFile(path string) (f targetFile, size int64, err error) {
	if r.there {
		f, err = r.disk.Open(path)
		if err == nil {
			info, err := f.Stat()
			if err == nil && r.held == unfinished {
				err = f.Forget()
			}
			if err != nil {
				return nil, 0, errors.Join(err, f.Close())
			}
			return f, info.Size(), nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, 0, err
		}
	}
	f, err = r.disk.Create(path)
	return f, 0, err
}

// displace moves something aside, or removes it when an unfinished restore of ours made it.
func (r *restore) displace(path string) error {
	if _, err := os.Lstat(path); err != nil {
		return err
	}
	to, ok := r.asideOf(path)
	if !ok {
		return r.disk.RemoveAll(path)
	}
	if err := mkdirAll(r.disk, filepath.Dir(to), 0o700); err != nil {
		return err
	}
	for exists(to) { // moved there before a crash
		to += "~"
	}
	return r.disk.Rename(path, to)
}

// asideOf is where something of the directory goes. A tablespace's things stay on its own file system, beside it.
func (r *restore) asideOf(path string) (string, bool) {
	if r.state.Aside == "" {
		return "", false
	}
	suffix := strings.TrimPrefix(r.state.Aside, r.layout.dir)
	for _, sp := range r.layout.spaces {
		inner := r.layout.inner(sp)
		if rest, ok := strings.CutPrefix(path, inner); ok {
			return inner + suffix + rest, true
		}
	}
	rel, err := filepath.Rel(r.layout.dir, path)
	return filepath.Join(r.state.Aside, rel), err == nil
}

// dropExtras moves away what the snapshot does not have: relations that were made since, and the log.
func (r *restore) dropExtras(ctx context.Context) error {
	if !r.there {
		return nil
	}
	for _, place := range r.layout.places() {
		if !exists(place) {
			continue
		}
		err := filepath.WalkDir(place, func(path string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case path == place || r.wanted[path] || d.Name() == stateFile:
				return ctx.Err()
			case path != filepath.Join(r.layout.dir, "lost+found"):
				err = r.displace(path)
			}
			if err == nil && d.IsDir() {
				return fs.SkipDir
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}
