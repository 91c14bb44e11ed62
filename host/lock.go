package host

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/toolboxai/relight"
	"golang.org/x/sys/unix"
)

// FileLock is a kernel lock on a file: it ends with its holder, however that ends. The file itself stays.
type FileLock struct{ f *os.File }

// holder is what a lock file says of who holds it.
type holder struct {
	PID   int       `json:"pid"`
	What  string    `json:"what"`
	Since time.Time `json:"since"`
}

// Lock takes the lock at path without waiting. A held lock is an error of code lease_held that names the holder.
func Lock(path, what string, now func() time.Time) (*FileLock, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o640)
	if err != nil {
		return nil, fmt.Errorf("lock for %s: %w", what, err)
	}
	if err := take(f, path); err != nil {
		defer f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, held(path, what)
		}
		return nil, fmt.Errorf("lock %s for %s: %w", path, what, err)
	}
	b, err := json.Marshal(holder{PID: os.Getpid(), What: what, Since: now().UTC()})
	if err == nil {
		err = overwrite(f, b)
	}
	if err != nil {
		return nil, fmt.Errorf("lock %s for %s: %w", path, what, errors.Join(err, f.Close()))
	}
	return &FileLock{f: f}, nil
}

// take locks f. A process that was killed while it created a child leaves its lock with that child, until this becomes another program: so long it is waited for.
func take(f *os.File, path string) error {
	for left := 2 * time.Second; ; left -= lockStep {
		err := flock(f, unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) || left <= 0 {
			return err
		}
		if h, ok := readHolder(path); !ok || !gone(h.PID) {
			return err
		}
		time.Sleep(lockStep)
	}
}

const lockStep = 10 * time.Millisecond

// readHolder gives what a lock file says; ok is false when it says nothing: nobody holds the lock, or somebody takes it at this moment.
func readHolder(path string) (h holder, ok bool) {
	b, err := os.ReadFile(path)
	return h, err == nil && json.Unmarshal(b, &h) == nil && h.PID > 0
}

// gone tells whether a process is no more.
func gone(pid int) bool {
	st, err := readStat(pid)
	return errors.Is(err, fs.ErrNotExist) || err == nil && st.ended()
}

func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func overwrite(f *os.File, b []byte) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.WriteAt(append(b, '\n'), 0)
	return err
}

// Locked tells whether a process has taken the lock at path, by what its holder wrote there: unlike taking it, that is in nobody's way. Where another process was given
// the number of a holder that died, it errs on the side of yes.
func Locked(path string) bool {
	h, ok := readHolder(path)
	return ok && !gone(h.PID)
}

func held(path, what string) error {
	e := &relight.Error{Op: "lock", Subject: path + " for " + what, Code: relight.CodeLeaseHeld,
		Err: errors.New("another process holds it"), Hint: "wait until it is done; lslocks shows who it is"}
	if h, ok := readHolder(path); ok {
		e.Err = fmt.Errorf("process %d holds it for %s since %s", h.PID, h.What, h.Since.Format(time.RFC3339))
		e.Hint = fmt.Sprintf("wait until process %d is done", h.PID)
	}
	return e
}

// Unlock gives the lock back. A second call does nothing.
func (l *FileLock) Unlock() error {
	if l.f == nil {
		return nil
	}
	f := l.f
	l.f = nil
	// Said aloud: a child that is just being created may share the descriptor for a moment.
	return errors.Join(f.Truncate(0), flock(f, unix.LOCK_UN), f.Close())
}
