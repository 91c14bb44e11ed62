package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/host"
	"github.com/toolboxai/relight/repo"
	"github.com/toolboxai/relight/store"
	"github.com/toolboxai/relight/store/postgres/walfile"
)

// Restore brings a point back into a directory: it resolves the target, checks that it can succeed, writes the base backup, replays WAL under a
// server of its own, checks, and leaves the directory with its server shut down, ready for the platform to start.
//
// An unreachable target, a wrong version, too little space, a running server or an occupied directory (without Force) is refused
// before anything is touched; so is a tablespace's place. With Force what is occupied is renamed aside; with Delta besides, it is changed in place, and only what is in
// the way is moved aside. Called again after a crash, it goes on in the half-restored directory.
func (s *Store) Restore(ctx context.Context, r *repo.Reader, p relight.RecoveryPoint, t store.Target, o store.RestoreOptions) (relight.Restored, error) {
	if t.Directory == "" {
		return relight.Restored{}, s.fail("restore", relight.CodeUsage, "name the directory to restore into", "no directory is given")
	}
	run := s.newRestore(r, p, t, o)
	err := run.all(ctx)
	return run.out, run.hinted(err)
}

// hinted says what to do when the disk filled under the restore; any other error stays as it is.
func (r *restore) hinted(err error) error {
	if relight.HintOf(err) != "" || !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) {
		return err
	}
	return &relight.Error{Err: err, Hint: fmt.Sprintf("free space on the file system of %s (df -h %[1]s), then run the same restore again: it goes on from what is there", r.t.Directory)}
}

// Blast is what a restore is about to do, found out without touching anything.
type Blast struct {
	Snapshot   relight.SnapshotID
	Target     relight.RecoveryTarget // as the server will be told
	Bytes      int64                  // to be written
	WAL        int64                  // bytes to be replayed, at most
	Occupied   string                 // what the directory holds; "" when it is free
	Spaces     []SpaceBlast           // of the base backup, then those that the WAL creates
	LastCommit time.Time              // that the end of the WAL holds
	Warnings   []string
}

// SpaceBlast is where one tablespace goes.
type SpaceBlast struct {
	Name      string // or its oid where the name is not known
	Location  string // in the source
	Place     string // here
	Directory string // inside Place: what is written, and set aside or changed where it is
	Occupied  bool   // Directory holds something that is not this restore's own
}

// PlanRestore resolves and checks like Restore, and stops before the first effect.
func (s *Store) PlanRestore(ctx context.Context, r *repo.Reader, p relight.RecoveryPoint, t store.Target, o store.RestoreOptions) (Blast, error) {
	run := s.newRestore(r, p, t, o)
	if err := run.choose(ctx); err != nil {
		return Blast{}, err
	}
	if err := run.unclaimed(); err != nil {
		return Blast{}, err
	}
	return Blast{
		Snapshot: run.plan.Base.ID, Target: run.plan.Server, Bytes: run.layout.bytes, WAL: int64(run.plan.End - run.plan.Base.Facts.StartLSN),
		Occupied: run.what, Spaces: run.spaceBlasts(), LastCommit: run.plan.reach.LastCommit, Warnings: run.plan.Warnings,
	}, nil
}

func (r *restore) spaceBlasts() []SpaceBlast {
	var out []SpaceBlast
	for _, sp := range r.layout.spaces {
		out = append(out, SpaceBlast{Name: sp.label(), Location: sp.Location, Place: sp.Place, Directory: r.layout.inner(sp), Occupied: sp.held == occupied})
	}
	return out
}

// restore is one restore under way.
type restore struct {
	s     *Store
	r     *repo.Reader
	m     *repo.Meta
	t     store.Target
	o     store.RestoreOptions
	point relight.RecoveryPoint
	clock func() time.Time
	disk  targetDisk

	plan   plan
	man    repo.Manifest
	layout *layout
	owner  host.User
	bin    string
	state  restoreState
	lent   string          // relight itself, or the copy of it that the server's user can run; "" where none is needed
	used   []*host.Private // where the server works besides
	out    relight.Restored
	checks []relight.Check
	since  time.Time

	held   occupancy // what the directory holds
	what   string    // in words, when it is occupied
	before restoreState

	created []walfile.Event // records of CREATE TABLESPACE that replay may come upon
	have    []uint32        // the tablespaces that the recovered server has

	there   bool // something is there that may be kept: see restore_delta.go
	wanted  map[string]bool
	patched atomic.Int64 // bytes written
}

func (s *Store) newRestore(r *repo.Reader, p relight.RecoveryPoint, t store.Target, o store.RestoreOptions) *restore {
	return &restore{s: s, r: r, m: r.Meta(), t: t, o: o, point: p, clock: s.now, disk: systemTarget{}}
}

func (r *restore) all(ctx context.Context) error {
	r.since = r.clock()
	lock, err := host.Lock(lockPath(r.t.Directory), "restoring store "+r.s.c.Name, r.clock)
	if err != nil {
		return r.explain(err)
	}
	defer func() { _ = lock.Unlock() }()
	if r.o.Run != "" {
		if err := host.Fence(epochPath(r.t.Directory), r.o.Run, r.o.Epoch); err != nil {
			return r.explain(err)
		}
	}
	if err := r.choose(ctx); err != nil {
		return err
	}
	if err := r.free(ctx); err != nil {
		return err
	}
	if err := r.reachable(ctx); err != nil {
		return err
	}
	r.phase("select", 0)
	if r.o.VerifyBefore {
		if err := r.verifyBefore(ctx); err != nil {
			return err
		}
		r.phase("verify", r.layout.bytes)
	}
	if err := r.makeRoom(ctx); err != nil {
		return err
	}
	if err := r.copyFiles(ctx); err != nil {
		return fmt.Errorf("restore store %s: %w", r.s.c.Name, err)
	}
	r.phase("copy", r.patched.Load())
	if err := r.recover(ctx); err != nil {
		return r.failed(err)
	}
	return r.finish()
}

func (r *restore) explain(err error) error {
	if errors.Is(err, os.ErrPermission) {
		return r.s.fail("restore", relight.CodeUsage, "run relight as root or as the owner of "+filepath.Dir(r.t.Directory), "%w", err)
	}
	if errors.Is(err, os.ErrNotExist) {
		return r.s.fail("restore", relight.CodeUsage, "make the parent directory first", "%w", err)
	}
	if errors.Is(err, syscall.ENOTDIR) {
		return r.s.fail("restore", relight.CodeUsage, "name a directory", "%w", err)
	}
	return err
}

// phase closes a measured part.
func (r *restore) phase(name string, bytes int64) {
	now := r.clock()
	r.out.Phases = append(r.out.Phases, relight.Phase{Name: name, Seconds: now.Sub(r.since).Seconds(), Bytes: bytes})
	r.since = now
}

// choose resolves the target and makes sure that nothing known speaks against success.
func (r *restore) choose(ctx context.Context) error {
	a, err := loadArchive(ctx, r.m, r.s.c.Name)
	if err != nil {
		return err
	}
	if r.plan, err = resolve(ctx, a, r.point, &walFinder{r: r.r, store: r.s.c.Name}); err != nil {
		return err
	}
	for _, w := range r.plan.Warnings {
		r.s.log.Warn(w)
	}
	f := r.plan.Base.Facts
	if f.Architecture != "" && f.Architecture != runtime.GOARCH {
		return r.s.fail("restore", relight.CodeUsage, "restore on a host of that architecture", "the backup is of %s and this host is %s", f.Architecture, runtime.GOARCH)
	}
	if r.bin, err = FindBinaries(r.s.c.BinDir, f.Major()); err != nil {
		return err
	}
	if r.man, err = r.m.Manifest(ctx, r.s.c.Name, r.plan.Base.ID); err != nil {
		return err
	}
	if r.layout, err = newLayout(ctx, r.m, r.man, f, r.t.Directory); err != nil {
		return err
	}
	if err := r.findSpaces(ctx); err != nil {
		return err
	}
	if err := r.findOwner(); err != nil {
		return err
	}
	r.state = restoreState{Point: r.point, Snapshot: r.plan.Base.ID, System: f.System, Started: r.clock().UTC()}
	r.out.Store, r.out.Snapshot, r.out.Target, r.out.Directory = r.s.c.Name, r.plan.Base.ID, r.point, r.layout.dir
	return nil
}

// findOwner decides who must own the files, and whether this process can make them so.
func (r *restore) findOwner() error {
	name, err := r.t.Owner, error(nil)
	if name == "" {
		name = r.s.c.Owner
	}
	switch {
	case name != "":
		r.owner, err = host.LookupUser(name)
	case exists(r.layout.dir):
		r.owner, err = host.OwnerOf(r.layout.dir)
	default:
		r.owner, err = host.OwnerOf(filepath.Dir(r.layout.dir))
	}
	if err != nil {
		return r.explain(err)
	}
	if r.owner.UID == 0 {
		if r.owner, err = host.LookupUser("postgres"); err != nil {
			return r.s.fail("restore", relight.CodeUsage, "name the user that is to own the files", "PostgreSQL does not run as root, and %s belongs to root", filepath.Dir(r.layout.dir))
		}
	}
	if euid := os.Geteuid(); euid != 0 && euid != int(r.owner.UID) {
		return r.s.fail("restore", relight.CodeUsage, "run relight as root or as that user", "the files must belong to user %d, and relight runs as user %d", r.owner.UID, euid)
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// verifyBefore reads everything that the restore will read.
func (r *restore) verifyBefore(ctx context.Context) error {
	if err := r.r.VerifySnapshot(ctx, r.man, workers(r.o.Workers), r.o.Progress); err != nil {
		return r.s.fail("verify before restoring", relight.CodeVerification, "use another snapshot or another repository; the target was not touched", "%w", err)
	}
	source := newPlannedWAL(r.r, r.s.c.Name, r.plan)
	for i, name := range source.names() {
		if err := source.read(ctx, name, io.Discard); err != nil {
			return r.s.fail("verify before restoring", relight.CodeVerification, "use another target or another repository; the target was not touched", "WAL segment %s: %w", name, err)
		}
		r.report("verify WAL", int64(i+1), int64(len(source.names())), "segments")
	}
	return nil
}

func (r *restore) report(phase string, done, total int64, unit string) {
	if r.o.Progress != nil {
		r.o.Progress(relight.Progress{Phase: phase, Done: done, Total: total, Unit: unit})
	}
}

// note writes down, durably, how far the restore is.
func (r *restore) note() error { return r.state.write(r.disk, r.layout.dir) }

// failed records the verdict in the directory, which stays as it is, its server stopped.
func (r *restore) failed(err error) error {
	r.state.Progress, r.state.Why = restoreFailed, err.Error()
	if werr := r.note(); werr != nil {
		r.s.log.Warn("the failed restore could not be marked", "error", werr)
	}
	return fmt.Errorf("restore store %s into %s: %w", r.s.c.Name, r.layout.dir, err)
}

func (r *restore) finish() error {
	r.state.Progress, r.state.Finished, r.state.Restored = restoreDone, r.clock().UTC(), &r.out
	if err := r.note(); err != nil {
		return err
	}
	r.s.log.Info("restored", "directory", r.layout.dir, "reached", r.out.Reached.LSN.String(), "timeline", int(r.out.NewLine),
		slog.Time("last_commit", r.out.LastCommit))
	return nil
}
