package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	inside    = "RELIGHT_BENCH_INSIDE" // set in the child that has namespaces of its own
	mounted   = "/bench"               // the work directory as the programs see it
	ourBinary = mounted + "/bin/relight"
)

// enter starts this program again in mount and process namespaces of its own. When that child ends, the kernel ends all that it started and
// undoes its mounts.
func enter(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return errors.New("must be run as root: it makes a Debian root and works in it by chroot")
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	c := exec.CommandContext(ctx, self, os.Args[1:]...)
	c.Env = append(os.Environ(), inside+"=1")
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
	c.WaitDelay = time.Minute
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGTERM}
	return c.Run()
}

// jail is a Debian root, the work directory mounted in it, and its user postgres.
type jail struct {
	root, work string
	uid, gid   int
	verbose    bool
}

func newJail(ctx context.Context, o options) (*jail, error) {
	j := &jail{root: filepath.Join(o.cache, o.suite), work: o.work, verbose: o.verbose}
	if err := j.make(ctx, o.suite); err != nil {
		return nil, err
	}
	if left, err := os.ReadDir(o.work); err == nil && (len(left) > 0) != o.reuse {
		return nil, fmt.Errorf("%s must be empty, or with -reuse hold what an earlier run kept", o.work)
	}
	if err := j.user(); err != nil {
		return nil, err
	}
	for _, dir := range []string{o.work, filepath.Join(o.work, "bin"), filepath.Join(o.work, "tmp"), filepath.Join(j.root, mounted)} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
		if err := os.Chown(dir, j.uid, j.gid); err != nil {
			return nil, err
		}
	}
	if err := copyFile(o.binary, filepath.Join(o.work, "bin", "relight"), 0o755); err != nil {
		return nil, fmt.Errorf("%w (make build makes it)", err)
	}
	return j, j.mount()
}

// make builds the root once. A root is complete when it has its final name.
func (j *jail) make(ctx context.Context, suite string) error {
	if _, err := os.Stat(j.root); err == nil {
		return nil
	}
	note("making a Debian root (%s) in %s", suite, j.root)
	if err := os.MkdirAll(filepath.Dir(j.root), 0o755); err != nil {
		return err
	}
	part := j.root + ".part"
	if err := os.RemoveAll(part); err != nil {
		return err
	}
	c := exec.CommandContext(ctx, "mmdebstrap", "--quiet", "--variant=minbase", "--include=postgresql,pgbackrest,zstd", suite, part)
	c.Stderr = os.Stderr
	if err := c.Run(); err != nil {
		return fmt.Errorf("mmdebstrap: %w", err)
	}
	return os.Rename(part, j.root)
}

func (j *jail) user() error {
	text, err := os.ReadFile(filepath.Join(j.root, "etc/passwd"))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Split(line, ":")
		if f[0] != "postgres" {
			continue
		}
		var gerr error
		j.uid, err = strconv.Atoi(f[2])
		j.gid, gerr = strconv.Atoi(f[3])
		return errors.Join(err, gerr)
	}
	return fmt.Errorf("%s has no user postgres", j.root)
}

func (j *jail) mount() error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keep mounts to ourselves: %w", err)
	}
	for _, m := range []struct {
		source, target, kind string
		flags                uintptr
	}{
		{j.work, mounted, "", syscall.MS_BIND}, {"proc", "/proc", "proc", 0}, {"/dev", "/dev", "", syscall.MS_BIND | syscall.MS_REC},
		{filepath.Join(j.work, "tmp"), "/tmp", "", syscall.MS_BIND},
	} {
		if err := syscall.Mount(m.source, filepath.Join(j.root, m.target), m.kind, m.flags, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	// Ours too: pids of this namespace are looked up there.
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	return nil
}

// host is where a path of the programs lies for us.
func (j *jail) host(path string) string {
	return filepath.Join(j.work, strings.TrimPrefix(path, mounted))
}

// command prepares a program of the root, to be run as its user postgres.
func (j *jail) command(ctx context.Context, argv ...string) *exec.Cmd {
	if j.verbose {
		note("  $ %s", strings.Join(argv, " "))
	}
	c := exec.CommandContext(ctx, argv[0])
	c.Path, c.Args, c.Err = argv[0], argv, nil // looked up in the root, not here
	c.Dir = mounted
	c.Env = []string{"PATH=/usr/bin:/bin:/usr/sbin:/sbin", "HOME=" + mounted, "LC_ALL=C", "TZ=UTC", "TMPDIR=/tmp"}
	c.SysProcAttr = &syscall.SysProcAttr{Chroot: j.root, Credential: &syscall.Credential{Uid: uint32(j.uid), Gid: uint32(j.gid)}, Setpgid: true}
	return c
}

// output runs a program and gives its stdout; an error carries what it said.
func (j *jail) output(ctx context.Context, argv ...string) (string, error) {
	u, err := j.use(ctx, argv...)
	return u.stdout, err
}

// usage is what a program took.
type usage struct {
	wall, cpu float64 // seconds
	memory    int64   // bytes, most at one time, of the process or of its largest child
	stdout    string
	began     time.Time
}

// use runs a program to its end and measures it.
func (j *jail) use(ctx context.Context, argv ...string) (usage, error) {
	var stdout, stderr bytes.Buffer
	c := j.command(ctx, argv...)
	c.Stdout, c.Stderr = &stdout, &stderr
	u := usage{began: time.Now()}
	err := c.Run()
	u.wall, u.stdout = time.Since(u.began).Seconds(), stdout.String()
	if c.ProcessState != nil {
		u.cpu = (c.ProcessState.UserTime() + c.ProcessState.SystemTime()).Seconds()
		if r, ok := c.ProcessState.SysUsage().(*syscall.Rusage); ok {
			u.memory = r.Maxrss << 10
		}
	}
	if err != nil {
		said := strings.TrimSpace(stderr.String() + "\n" + stdout.String())
		if len(said) > 2000 {
			said = "… " + said[len(said)-2000:]
		}
		return u, fmt.Errorf("%s: %w\n%s", strings.Join(argv, " "), err, said)
	}
	return u, nil
}

// daemon is a program that runs beside us.
type daemon struct {
	cmd  *exec.Cmd
	done chan struct{}
	sig  syscall.Signal
	log  string
}

func (j *jail) start(ctx context.Context, log string, sig syscall.Signal, argv ...string) (*daemon, error) {
	f, err := os.OpenFile(j.host(log), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	d := &daemon{cmd: j.command(context.WithoutCancel(ctx), argv...), done: make(chan struct{}), sig: sig, log: j.host(log)}
	d.cmd.Stdout, d.cmd.Stderr = f, f
	if err := d.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = d.cmd.Wait() // what was told to stop may say so with its exit code
		close(d.done)
	}()
	return d, nil
}

// stop ends it and waits.
func (d *daemon) stop() error {
	if d == nil || d.cmd.ProcessState != nil {
		return nil
	}
	_ = d.cmd.Process.Signal(d.sig)
	select {
	case <-d.done:
		return nil
	case <-time.After(2 * time.Minute):
		return errors.Join(fmt.Errorf("%s does not end", d.cmd.Path), d.cmd.Process.Kill())
	}
}

// memory is the most that the process has held at one time.
func (d *daemon) memory() (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return n << 10, err
		}
	}
	return 0, errors.New("no VmHWM")
}

func copyFile(from, to string, mode os.FileMode) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// remove deletes directories of the programs.
func (j *jail) remove(paths ...string) error {
	var errs []error
	for _, p := range paths {
		errs = append(errs, os.RemoveAll(j.host(p)))
	}
	return errors.Join(errs...)
}

// sizeOf adds up the files below the paths of the programs.
func (j *jail) sizeOf(paths ...string) (int64, error) {
	var sum int64
	for _, p := range paths {
		err := filepath.WalkDir(j.host(p), func(_ string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				if errors.Is(err, os.ErrNotExist) {
					return nil
				}
				return err
			}
			info, err := d.Info()
			if err == nil {
				sum += info.Size()
			}
			return nil
		})
		if err != nil {
			return 0, err
		}
	}
	return sum, nil
}

// settle lets the disk finish what earlier work left, and reads what is about to be read, so that nobody pays for another or for being the first.
func (j *jail) settle(paths ...string) error {
	syscall.Sync()
	for _, p := range paths {
		err := filepath.WalkDir(j.host(p), func(path string, d os.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				if errors.Is(err, os.ErrNotExist) {
					return nil
				}
				return err
			}
			return j.read(path)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (j *jail) read(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, f)
	return errors.Join(err, f.Close())
}
