package host

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/toolboxai/relight"
	"golang.org/x/sys/unix"
)

// slice is how long a wait for a death goes without looking at its context. A death itself is noticed at once.
const slice = 50 * time.Millisecond

// Alive says whether the process that h names, or anything left of what it started, still runs.
func Alive(h relight.Handle) (bool, error) {
	m, err := members(h)
	return len(m) > 0, err
}

// End asks with SIGTERM; see EndBy.
func End(ctx context.Context, h relight.Handle, grace time.Duration) error {
	return EndBy(ctx, h, syscall.SIGTERM, grace)
}

// EndBy sends ask to the process that h names and to what it started, kills whatever is left after grace, and returns nil
// only when all of it is dead. A handle that is dead already is no error.
func EndBy(ctx context.Context, h relight.Handle, ask syscall.Signal, grace time.Duration) error {
	if grace > 0 {
		asked, err := signalAll(h, ask)
		if err != nil || len(asked) == 0 {
			return err
		}
		patience, cancel := context.WithTimeout(ctx, grace)
		err = awaitAll(patience, h, asked)
		cancel()
		if err == nil || ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
	}
	return kill(ctx, h)
}

// kill repeats, because a process may fork while it is being killed.
func kill(ctx context.Context, h relight.Handle) error {
	for {
		killed, err := signalAll(h, syscall.SIGKILL)
		if err != nil || len(killed) == 0 {
			return err
		}
		round, cancel := context.WithTimeout(ctx, time.Second)
		err = awaitAll(round, h, killed)
		cancel()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("end %s (pid %d): %w", h.What, h.PID, err)
		}
	}
}

// Await returns nil when the process that h names and all that it started have ended.
func Await(ctx context.Context, h relight.Handle) error {
	return awaitAll(ctx, h, nil)
}

// awaitAll waits for those that are known, then for whatever else there is. A process that is on its way out has lost its marks before it is dead, and would not
// be found again.
func awaitAll(ctx context.Context, h relight.Handle, known []stat) error {
	for {
		for _, st := range known {
			if err := awaitOne(ctx, st); err != nil {
				return err
			}
		}
		var err error
		if known, err = members(h); err != nil || len(known) == 0 {
			return err
		}
	}
}

// signalAll tells which processes were there to signal.
func signalAll(h relight.Handle, sig syscall.Signal) ([]stat, error) {
	m, err := members(h)
	if err != nil {
		return nil, err
	}
	for _, st := range m {
		if err := signalOne(st, sig); err != nil {
			return nil, fmt.Errorf("signal %s (pid %d): %w", h.What, st.pid, err)
		}
	}
	return m, nil
}

func signalOne(st stat, sig syscall.Signal) error {
	fd, ok, err := pin(st)
	if err != nil || !ok {
		return err
	}
	defer unix.Close(fd)
	err = unix.PidfdSendSignal(fd, unix.Signal(sig), nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

// pin opens a descriptor that stands for exactly the process st describes, whatever happens to its number afterwards.
func pin(st stat) (fd int, ok bool, err error) {
	fd, err = unix.PidfdOpen(st.pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return -1, false, nil
	}
	if err != nil {
		return -1, false, fmt.Errorf("open a descriptor of process %d: %w", st.pid, err)
	}
	again, err := readStat(st.pid)
	if err != nil || again.started != st.started {
		unix.Close(fd)
		return -1, false, ignoreGone(err)
	}
	return fd, true, nil
}

func awaitOne(ctx context.Context, st stat) error {
	fd, ok, err := pin(st)
	if err != nil || !ok {
		return err
	}
	defer unix.Close(fd)
	for {
		ended, err := pollEnd(fd)
		if err != nil || ended {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

// pollEnd waits one slice for the process behind fd to end.
func pollEnd(fd int) (bool, error) {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(slice/time.Millisecond))
	if err != nil && !errors.Is(err, unix.EINTR) {
		return false, fmt.Errorf("wait for a process: %w", err)
	}
	return n > 0, nil
}
