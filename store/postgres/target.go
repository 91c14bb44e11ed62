package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/host"
	"github.com/toolboxai/relight/store/postgres/postmaster"
)

// Progress of a restore into a directory, as its state file says.
const (
	restoreCopying   = "copying"   // files are coming in; there is no pg_control
	restoreReplaying = "replaying" // a server replays WAL
	restoreFailed    = "failed"    // it ended with a verdict against it
	restoreDone      = "done"
)

// restoreState is the state file of a restored directory. It makes a restore repeatable: a directory that says of itself
// that it is half restored may be emptied and filled again.
type restoreState struct {
	Point    relight.RecoveryPoint `json:"point"`
	Snapshot relight.SnapshotID    `json:"snapshot"`
	System   relight.SystemID      `json:"system"`
	Progress string                `json:"progress"`
	Started  time.Time             `json:"started"`
	Finished time.Time             `json:"finished,omitzero"`
	Restored *relight.Restored     `json:"restored,omitempty"`
	Why      string                `json:"why,omitempty"`
	Aside    string                `json:"aside,omitempty"` // a delta restore moves there what it finds and does not need
	// Spaces recognise what the restore made or took over outside the directory: the number (inode) of a tablespace's version directory, by its path.
	Spaces map[string]uint64 `json:"tablespaces,omitempty"`
	// Server and Checkpoint recognise what our own server left: its process id, which a server that is killed leaves in
	// postmaster.pid, and the checkpoint of its clean shutdown.
	Server     int         `json:"server,omitempty"`
	Checkpoint relight.LSN `json:"checkpoint,omitempty"`
}

func readState(dir string) (restoreState, error) {
	var st restoreState
	b, err := os.ReadFile(filepath.Join(dir, stateFile))
	if err != nil {
		return st, err
	}
	if err := json.Unmarshal(b, &st); err != nil {
		return st, fmt.Errorf("%s: %w", filepath.Join(dir, stateFile), err)
	}
	return st, nil
}

func (st restoreState) write(d targetDisk, dir string) error {
	b, err := json.MarshalIndent(st, "", "  ")
	if err != nil {
		return err
	}
	if err := replace(d, filepath.Join(dir, stateFile), append(b, '\n'), 0o644); err != nil {
		return fmt.Errorf("note how far the restore is: %w", err)
	}
	return nil
}

// Restoration says how far a restore of one point into a directory has come.
type Restoration struct {
	State    string            // "done", "not-done", "unknown"
	Detail   string            // for people
	Restored *relight.Restored // when done
	Finished time.Time         // when done
}

// RestoreState tells whether dir holds the finished restore of exactly this point. It only reads. Of an unfinished
// one it says not-done: restoring again is safe, as long as nobody else is at it, which is unknown.
func RestoreState(dir string, p relight.RecoveryPoint) (Restoration, error) {
	st, err := readState(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return Restoration{State: "not-done", Detail: "no restore was begun in " + dir}, nil
	}
	if err != nil {
		return Restoration{}, err
	}
	lock, err := host.Lock(lockPath(dir), "looking at "+dir, time.Now)
	if relight.CodeOf(err) == relight.CodeLeaseHeld {
		return Restoration{State: "unknown", Detail: err.Error()}, nil
	}
	if err != nil {
		return Restoration{}, err
	}
	defer func() { _ = lock.Unlock() }()
	if st.Progress != restoreDone || !samePoint(st.Point, p) {
		return Restoration{State: "not-done", Detail: fmt.Sprintf("%s of %s in %s is %s", st.Point.Target, st.Point.Store, dir, st.Progress)}, nil
	}
	c, err := readControl(dir)
	if err != nil || c.System != st.System {
		return Restoration{State: "unknown", Detail: "the restore was finished, and pg_control is not what it left"}, nil
	}
	return Restoration{State: "done", Detail: "restored at " + st.Finished.Format(time.RFC3339), Restored: st.Restored, Finished: st.Finished}, nil
}

func samePoint(a, b relight.RecoveryPoint) bool {
	at, bt := a.Target.Time, b.Target.Time
	a.Target.Time, b.Target.Time = time.Time{}, time.Time{}
	return a == b && at.Equal(bt)
}

// lockPath is the kernel lock of a data directory: beside it, so that it survives renames of the directory.
func lockPath(dir string) string {
	return filepath.Join(filepath.Dir(filepath.Clean(dir)), "."+filepath.Base(dir)+".relight-lock")
}

// epochPath says which run, and which holder of it, was last admitted to a data directory.
func epochPath(dir string) string {
	return filepath.Join(filepath.Dir(filepath.Clean(dir)), "."+filepath.Base(dir)+".relight-epoch")
}

// occupancy is what a target directory holds.
type occupancy int

const (
	vacant     occupancy = iota // absent or empty
	unfinished                  // our own half restore: may be emptied
	occupied                    // someone's data
)

// occupant looks at a directory.
func occupant(dir string) (occupancy, string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0 {
		return vacant, "", nil
	}
	if err != nil {
		return occupied, "", err
	}
	if !slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() != "lost+found" && e.Name() != stateFile+tempSuffix }) {
		return vacant, "", nil // a new file system, or ours before its first note
	}
	st, serr := readState(dir)
	c, cerr := readControl(dir)
	switch {
	case serr == nil && st.Progress != restoreDone && ours(dir, st, c, cerr):
		return unfinished, "", nil
	case cerr == nil:
		return occupied, fmt.Sprintf("cluster %s, %s, last written %s", c.System, c.State, c.Time.Format(time.RFC3339)), nil
	}
	return occupied, "files that are no whole cluster", nil
}

// ours tells whether nobody but an unfinished restore has worked on a directory: no server can have started without pg_control, none
// could have done anything but recover while recovery.signal is there, the last one to run was our own, or it was shut down by us and never started again.
func ours(dir string, st restoreState, c control, cerr error) bool {
	switch {
	case errors.Is(cerr, fs.ErrNotExist), exists(filepath.Join(dir, "recovery.signal")):
		return true
	case st.Server != 0 && postmaster.PID(dir) == st.Server:
		return true
	}
	return cerr == nil && st.Checkpoint != 0 && c.State == stateShutdown && c.Checkpoint == st.Checkpoint
}

// running tells which process works on a data directory: the server of its pid file, or any process that stands in it, as all
// of a server's processes do. 0: none.
func running(dir string) (int, error) {
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if pid := postmaster.PID(dir); pid > 0 && standsIn(pid, info) {
		return pid, nil
	}
	found := 0
	err = eachServer(func(pid int) bool {
		if standsIn(pid, info) {
			found = pid
		}
		return found == 0
	})
	return found, err
}

// eachServer calls fn with each process of any PostgreSQL server on this host until it says that it has enough.
func eachServer(fn func(pid int) bool) error {
	procs, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	for _, p := range procs {
		if pid, err := strconv.Atoi(p.Name()); err == nil && isPostgres(pid) && !fn(pid) {
			return nil
		}
	}
	return nil
}

// releaseMemory gives back what the kernel keeps of a server that was killed: it is dead for certain, and no server will start over its directory any more, which
// would do the same. Where it cannot be had, a few bytes are lost until the next boot.
func (s *Store) releaseMemory(dir string) {
	if err := postmaster.ReleaseMemory(dir); err != nil {
		s.log.Info("shared memory of a dead server is left until the next boot", "directory", dir, "error", err)
	}
}

// standsIn tells whether the process's working directory is dir, by whatever name; a process of another user cannot be seen by an ordinary one
// and counts as elsewhere.
func standsIn(pid int, dir fs.FileInfo) bool {
	cwd, err := os.Stat(fmt.Sprintf("/proc/%d/cwd", pid))
	return err == nil && os.SameFile(cwd, dir)
}

func isPostgres(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	return err == nil && strings.HasPrefix(strings.TrimSpace(string(b)), "postgres")
}

// awaitIdle waits a moment for the last processes of a dead server to go, and refuses when one stays.
func (s *Store) awaitIdle(ctx context.Context, op, dir string) error {
	for try := 0; ; try++ {
		pid, err := running(dir)
		if err != nil {
			return fmt.Errorf("look for a server in %s: %w", dir, err)
		}
		if pid == 0 {
			return nil
		}
		if try == 40 {
			return s.fail(op, relight.CodeLeaseHeld, "stop the server first", "process %d works in %s", pid, dir)
		}
		if err := s.d.Sleep(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}
