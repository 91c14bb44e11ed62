package postgres

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/host"
	"github.com/toolboxai/relight/repo"
)

// free makes sure that the target may be written, the directory and the place of every tablespace: no server works there, nobody's data is there unless it is forced, and
// there is enough space.
func (r *restore) free(ctx context.Context) error {
	if err := r.mayWrite(ctx); err != nil {
		return err
	}
	return r.room(ctx)
}

// mayWrite makes sure that no server works there, and that nobody's data is there unless it is forced.
func (r *restore) mayWrite(ctx context.Context) error {
	if err := r.idle(ctx); err != nil {
		return err
	}
	if err := r.unclaimed(); err != nil {
		return err
	}
	if r.held == occupied && r.o.Delta {
		if err := r.mayPatch(); err != nil {
			return err
		}
	}
	for _, sp := range r.layout.spaces {
		if err := r.mayWriteSpace(sp); err != nil {
			return err
		}
	}
	return nil
}

// unclaimed makes sure that nobody's data is in the directory unless the restore is forced. A plan asks too: nobody should type a name only to be refused.
func (r *restore) unclaimed() error {
	if err := r.look(); err != nil {
		return err
	}
	if r.held == occupied && !r.o.Force {
		return r.s.fail("restore", relight.CodeUsage, "salvage it first if it may hold newer commits; then force the restore, which renames it aside, or choose another directory",
			"%s is occupied (%s)", r.layout.dir, r.what)
	}
	return nil
}

// idle makes sure that no server works in what is about to be written.
func (r *restore) idle(ctx context.Context) error {
	if err := r.s.awaitIdle(ctx, "restore", r.layout.dir); err != nil {
		return err
	}
	for _, sp := range r.layout.spaces {
		pid, err := serverIn(r.layout.inner(sp))
		if err != nil {
			return fmt.Errorf("look for a server in tablespace %s: %w", sp.label(), err)
		}
		if pid != 0 {
			return r.s.fail("restore", relight.CodeLeaseHeld, fmt.Sprintf("stop that server first, or give the tablespace another place: --tablespace %s=DIRECTORY", sp.Location),
				"process %d works in %s, where tablespace %s is to go", pid, sp.Place, sp.label())
		}
	}
	return nil
}

// look finds out what the directory and the tablespaces' places hold.
func (r *restore) look() (err error) {
	if r.held, r.what, err = occupant(r.layout.dir); err != nil {
		return r.explain(err)
	}
	if r.held == unfinished {
		if r.before, err = readState(r.layout.dir); err != nil {
			return err
		}
	}
	for i := range r.layout.spaces {
		sp := &r.layout.spaces[i]
		if sp.held, err = r.occupantOf(*sp); err != nil {
			return r.explain(err)
		}
	}
	return nil
}

// mayWriteSpace makes sure that a tablespace's place may be written.
func (r *restore) mayWriteSpace(sp placedSpace) error {
	elsewhere := fmt.Sprintf("give the tablespace another place: --tablespace %s=DIRECTORY", sp.Location)
	if sp.held == occupied && !r.o.Force {
		return r.s.fail("restore", relight.CodeUsage, elsewhere+"; or force the restore, which sets aside what is there", "the place of tablespace %s is occupied: %s", sp.label(), r.layout.inner(sp))
	}
	at := nearest(sp.Place)
	if err := unix.Access(at, unix.W_OK|unix.X_OK); err != nil {
		return r.s.fail("restore", relight.CodeUsage, "run relight as root, make "+sp.Place+" and give it to the server's user, or "+elsewhere, "tablespace %s cannot go to %s: %s: %w", sp.label(), sp.Place, at, err)
	}
	return nil
}

// room makes sure that there is enough space on every file system.
func (r *restore) room(ctx context.Context) error {
	needs, err := r.needs(ctx)
	if err != nil {
		return err
	}
	dirs := append([]string{r.layout.dir}, r.spaceDirs()...)
	sum, shown := map[uint64]int64{}, map[uint64]string{} // by file system
	for _, dir := range dirs {
		fs, err := host.FileSystem(dir)
		if err != nil {
			return err
		}
		sum[fs] += needs[dir]
		if shown[fs] == "" {
			shown[fs] = dir
		}
	}
	for fs, need := range sum {
		have, err := host.FreeSpace(shown[fs])
		if err != nil {
			return err
		}
		if have < need {
			return r.s.fail("restore", relight.CodeFailed, r.roomHint(), "%s has %d MB free and needs %d MB", shown[fs], have>>20, need>>20)
		}
	}
	return nil
}

func (r *restore) roomHint() string {
	const hint = "free some space or restore into another directory; what is there is never deleted"
	if r.held != occupied || r.o.Delta {
		return hint
	}
	return "restore with --delta, which needs no room for a second copy: it changes what is there in place; or " + hint
}

// spaceDirs are the tablespaces' places, each once.
func (r *restore) spaceDirs() []string {
	var dirs []string
	for _, sp := range r.layout.spaces {
		if !slices.Contains(dirs, sp.Place) {
			dirs = append(dirs, sp.Place)
		}
	}
	return dirs
}

// needs is how much more space the directory and each tablespace's place need than they take now; what is going to be set aside stays where it is.
func (r *restore) needs(ctx context.Context) (map[string]int64, error) {
	kept := map[string]bool{r.layout.dir: r.held == unfinished || r.held == occupied && r.o.Delta}
	for _, sp := range r.layout.spaces {
		kept[sp.Place] = r.patches(sp)
	}
	needs := map[string]int64{r.layout.dir: 4 * r.plan.Base.Facts.SegmentSize}
	err := r.m.Entries(ctx, r.man, func(e repo.Entry) error {
		if !e.Mode.IsRegular() {
			return nil
		}
		dir, rest := r.layout.root(e.Path)
		grow := e.Size
		if kept[dir] {
			grow = max(0, grow-allocated(filepath.Join(dir, rest)))
		}
		needs[dir] += grow
		return nil
	})
	return needs, err
}

// allocated is how much a file takes; 0 when there is none.
func allocated(path string) int64 {
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() {
		return 0
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0
	}
	return st.Blocks * 512
}
