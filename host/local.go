package host

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/toolboxai/relight"
)

// gate waits for a word on descriptor 4 and then becomes the program. When relight dies before it spoke, read fails
// and the program never runs. Descriptor 3 is the mark.
const gate = `read -r go <&4 || exit 125; exec "$@" 4<&-`

const gateName = "relight-gate"

const pipesLinger = 2 * time.Second // for output of a child whose own children keep its pipes open

// Options of a Local.
type Options struct {
	Log  *slog.Logger // nil: discard
	Rand io.Reader    // nil: crypto/rand
}

// Local runs programs on this host. It is safe for concurrent use.
//
// The kernel ties a parent-death signal to the thread that created the child, not to the process; Go moves and ends
// threads as it likes. Therefore one thread, which lives as long as the Local, creates all children.
type Local struct {
	log    *slog.Logger
	rand   io.Reader
	starts chan func()
	thread chan struct{} // closed when the thread has ended
	stop   chan struct{} // closed by Close
	wait   sync.WaitGroup

	mu     sync.Mutex
	closed bool
	live   map[*Process]struct{}
}

var errClosed = errors.New("host: closed")

// NewLocal starts the thread that will be every child's parent. Close ends it.
func NewLocal(o Options) *Local {
	l := &Local{log: o.Log, rand: o.Rand, starts: make(chan func()), thread: make(chan struct{}),
		stop: make(chan struct{}), live: map[*Process]struct{}{}}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	if l.rand == nil {
		l.rand = rand.Reader
	}
	go l.parent()
	return l
}

func (l *Local) parent() {
	runtime.LockOSThread() // never unlocked: the thread ends with this function
	defer close(l.thread)
	for f := range l.starts {
		f()
	}
}

// Close kills every child that is not detached, waits for all of them, and ends the thread.
func (l *Local) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		<-l.thread
		return nil
	}
	l.closed = true
	left := make([]*Process, 0, len(l.live))
	for p := range l.live {
		left = append(left, p)
	}
	l.mu.Unlock()
	close(l.stop)
	var errs []error
	for _, p := range left {
		errs = append(errs, p.Stop(context.Background(), 0))
	}
	l.wait.Wait()
	close(l.starts)
	<-l.thread
	return errors.Join(errs...)
}

// Start creates the process, shows its handle to c.Started while the program is held back, and lets it go. ctx bounds
// only the start.
func (l *Local) Start(ctx context.Context, c Command) (*Process, error) {
	cmd, token, err := l.prepare(c)
	if err != nil {
		return nil, err
	}
	cmd.SysProcAttr.Setpgid = true
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	cmd.WaitDelay = pipesLinger
	if err := l.enter(); err != nil {
		return nil, c.failed(err, "")
	}
	open, err := l.spawn(cmd, token, c.Started != nil)
	if err != nil {
		l.wait.Done()
		return nil, c.failed(err, "")
	}
	h, err := l.describe(cmd.Process.Pid, token, c)
	p, adopted := l.adopt(cmd, h, c)
	if err = errors.Join(err, adopted); err == nil {
		err = passGate(ctx, open, h, c.Started)
	}
	if err != nil {
		_ = open.Close() // the gate reads the end of the pipe and exits
		_ = cmd.Process.Kill()
		<-p.done
		return nil, c.failed(err, "")
	}
	return p, nil
}

// enter counts a start, so that Close waits for it.
func (l *Local) enter() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return errClosed
	}
	l.wait.Add(1)
	return nil
}

func (l *Local) prepare(c Command) (*exec.Cmd, string, error) {
	if err := c.check(); err != nil {
		return nil, "", err
	}
	cred, err := c.User.credential()
	if err != nil {
		return nil, "", err
	}
	var id [12]byte
	if _, err := io.ReadFull(l.rand, id[:]); err != nil {
		return nil, "", c.failed(fmt.Errorf("make a handle: %w", err), "")
	}
	token := hex.EncodeToString(id[:])
	env := c.environment(token)
	path, err := c.find(env)
	if err != nil {
		return nil, "", err
	}
	return &exec.Cmd{Path: path, Args: c.Argv, Env: env, Dir: c.Dir, Stdin: c.Stdin, Stdout: c.Stdout, Stderr: c.Stderr,
		SysProcAttr: &syscall.SysProcAttr{Credential: cred}}, token, nil
}

// spawn creates the process on the parent thread, behind a gate if one is asked for; closing or writing to the result
// decides what the gate does.
func (l *Local) spawn(cmd *exec.Cmd, token string, gated bool) (*gateKey, error) {
	mark, err := makeMark(token)
	if err != nil {
		return nil, err
	}
	defer mark.Close()
	cmd.ExtraFiles = []*os.File{mark}
	key := &gateKey{}
	if gated {
		r, w, err := os.Pipe()
		if err != nil {
			return nil, fmt.Errorf("make the gate: %w", err)
		}
		defer r.Close()
		key.w = w
		cmd.Args = append([]string{"/bin/sh", "-c", gate, gateName, cmd.Path}, cmd.Args[1:]...)
		cmd.Path = "/bin/sh"
		cmd.ExtraFiles = append(cmd.ExtraFiles, r)
	}
	result := make(chan error, 1)
	l.starts <- func() { result <- cmd.Start() }
	if err := <-result; err != nil {
		_ = key.Close()
		return nil, err
	}
	return key, nil
}

func (l *Local) describe(pid int, token string, c Command) (relight.Handle, error) {
	h, err := handleOf(pid, c.name())
	h.Label = token
	return h, err
}

func (l *Local) adopt(cmd *exec.Cmd, h relight.Handle, c Command) (*Process, error) {
	p := &Process{handle: h, cmd: cmd, stopBy: c.StopBy, done: make(chan struct{})}
	if p.stopBy == 0 {
		p.stopBy = syscall.SIGTERM
	}
	l.mu.Lock()
	closed := l.closed
	l.live[p] = struct{}{}
	l.mu.Unlock()
	go func() {
		defer l.wait.Done()
		p.reap()
		l.mu.Lock()
		delete(l.live, p)
		l.mu.Unlock()
	}()
	if closed { // Close has not seen this one
		return p, errClosed
	}
	return p, nil
}

// gateKey holds the writing end of a gate; without a gate it does nothing.
type gateKey struct{ w *os.File }

func (k *gateKey) Close() error {
	if k.w == nil {
		return nil
	}
	err := k.w.Close()
	k.w = nil
	return err
}

func (k *gateKey) open() error {
	if k.w == nil {
		return nil
	}
	_, err := k.w.WriteString("go\n")
	if cerr := k.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("open the gate: %w", err)
	}
	return nil
}

func passGate(ctx context.Context, k *gateKey, h relight.Handle, started func(context.Context, relight.Handle) error) error {
	if started != nil {
		if err := started(ctx, h); err != nil {
			return fmt.Errorf("record the handle: %w", err)
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return k.open()
}
