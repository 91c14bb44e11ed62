package host

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/toolboxai/relight"
	"golang.org/x/sys/unix"
)

// Detached says where a service that outlives relight leaves its traces.
type Detached struct {
	Log    string // its output is appended here
	Handle string // its handle is written here, durably, before the program runs; ReadHandle reads it
}

// StartDetached starts c as the leader of a session of its own. It outlives relight and this Local; Stdin, Stdout and
// Stderr of c are not used.
func (l *Local) StartDetached(ctx context.Context, c Command, d Detached) (relight.Handle, error) {
	cmd, token, err := l.prepare(c)
	if err != nil {
		return relight.Handle{}, err
	}
	log, err := os.OpenFile(d.Log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o640)
	if err != nil {
		return relight.Handle{}, c.failed(fmt.Errorf("open the log: %w", err), "")
	}
	defer log.Close()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = nil, log, log
	cmd.SysProcAttr.Setsid = true
	if err := l.enter(); err != nil {
		return relight.Handle{}, c.failed(err, "")
	}
	key, err := l.spawn(cmd, token, true)
	if err != nil {
		l.wait.Done()
		return relight.Handle{}, c.failed(err, "")
	}
	pid := cmd.Process.Pid
	h, err := l.describe(pid, token, c)
	h.Detached = true
	_ = cmd.Process.Release()
	go l.reapDetached(pid)
	if err == nil {
		err = passGate(ctx, key, h, recordIn(d.Handle, c.Started))
	}
	if err != nil {
		_ = key.Close()
		return relight.Handle{}, c.failed(errors.Join(err, EndBy(context.WithoutCancel(ctx), h, unix.SIGKILL, 0)), "")
	}
	return h, nil
}

func recordIn(path string, next func(context.Context, relight.Handle) error) func(context.Context, relight.Handle) error {
	return func(ctx context.Context, h relight.Handle) error {
		b, err := json.Marshal(h)
		if err != nil {
			return err
		}
		if err := WriteFileDurable(path, append(b, '\n'), 0o640); err != nil {
			return err
		}
		if next == nil {
			return nil
		}
		return next(ctx, h)
	}
}

// ReadHandle reads the file that StartDetached wrote. A missing file is fs.ErrNotExist.
func ReadHandle(path string) (relight.Handle, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return relight.Handle{}, fmt.Errorf("read a handle: %w", err)
	}
	var h relight.Handle
	if err := json.Unmarshal(b, &h); err != nil || h.Kind == "" || h.PID <= 0 {
		return relight.Handle{}, &relight.Error{Op: "read a handle", Subject: path, Code: relight.CodeFailed,
			Err:  errors.Join(errors.New("the file holds no handle"), err),
			Hint: "end the service by hand if it runs, then remove " + filepath.Base(path)}
	}
	return h, nil
}

// reapDetached takes the exit status of a service that ends while this Local lives; afterwards init does.
func (l *Local) reapDetached(pid int) {
	defer l.wait.Done()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		l.log.Error("cannot watch a detached process", "pid", pid, "error", err)
		return
	}
	defer unix.Close(fd)
	for {
		ended, err := pollEnd(fd)
		if err != nil {
			l.log.Error("cannot watch a detached process", "pid", pid, "error", err)
			return
		}
		if ended {
			var ws unix.WaitStatus
			_, _ = unix.Wait4(pid, &ws, 0, nil)
			return
		}
		select {
		case <-l.stop:
			return
		default:
		}
	}
}

// Passed tells whether h's process lives as the program that it was to become. One that is still held at its gate will be that program, or, when its
// relight has died, end: Passed waits for the one or the other, but no longer than patience.
func Passed(h relight.Handle, patience time.Duration) (bool, error) {
	for step := 10 * time.Millisecond; ; patience -= step {
		held := atGate(h.PID) // before Alive: what has left the gate does not come back to it
		alive, err := Alive(h)
		if err != nil || !alive || !held {
			return alive, err
		}
		if patience <= 0 {
			return false, &relight.Error{Op: "look at", Subject: h.What, Err: fmt.Errorf("process %d is still being started", h.PID), Hint: "try again in a moment"}
		}
		time.Sleep(step)
	}
}

// atGate is true also for a process that shows no arguments: it is on its way into another program or out of the world.
func atGate(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err == nil && (len(b) == 0 || bytes.HasPrefix(b, []byte("/bin/sh\x00-c\x00"+gate+"\x00"+gateName+"\x00")))
}
