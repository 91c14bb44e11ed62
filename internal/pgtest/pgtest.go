// Package pgtest gives tests throw-away PostgreSQL servers: real ones, with page checksums, reachable over a
// unix socket only, owned by the user postgres when the test runs as root.
//
// It promises that a server ends with its test, whether the test passes, fails or is killed, that it is ended by its own
// process id and by nothing broader, and that a missing PostgreSQL is a failure and never a skipped test.
package pgtest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/toolboxai/relight/host"
)

// Server is one throw-away PostgreSQL server.
type Server struct {
	Dir    string // the data directory
	Root   string // everything that belongs to the server; traversable by its user
	BinDir string
	User   string // operating system user that runs it; "" is the test's own

	t    testing.TB
	sock string
	uid  int
	gid  int
	args []string

	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{}
	log  *bytes.Buffer
}

// Place is where servers are made, reachable for PostgreSQL's user, with a path that is short enough for sockets. Memory will do where there is enough: a killed
// process loses nothing that it had written, so that the disk adds only its waiting.
func Place() string {
	if free, err := host.FreeSpace("/dev/shm"); err == nil && free > 4<<30 {
		return "/dev/shm"
	}
	return "/tmp"
}

// Root makes a directory, traversable by every user and removed with the test.
func Root(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(Place(), "rlpg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		Forget(dir)
		_ = os.RemoveAll(dir)
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// New initialises a server of the default version in its own directory, without starting it. Options go to initdb.
func New(t testing.TB, options ...string) *Server {
	t.Helper()
	bin, err := BinDir()
	if err != nil {
		t.Fatal(err)
	}
	return initialise(t, bin, options)
}

// NewMajor is New with a server of one of Majors.
func NewMajor(t testing.TB, major int, options ...string) *Server {
	t.Helper()
	bin, err := Binaries(major)
	if err != nil {
		t.Fatal(err)
	}
	return initialise(t, bin, options)
}

func initialise(t testing.TB, bin string, options []string) *Server {
	t.Helper()
	root := Root(t)
	s := newServer(t, bin, root, filepath.Join(root, "data"))
	s.chown(root)
	if err := MakeCluster(bin, s.User, s.Dir, options...); err != nil {
		t.Fatal(err)
	}
	return s
}

// At is a server over an existing data directory, for example a restored one, with the binaries of the directory's version; over
// none yet, with the default ones.
func At(t testing.TB, root, dir string) *Server {
	t.Helper()
	bin, err := binariesFor(dir)
	if err != nil {
		t.Fatal(err)
	}
	return newServer(t, bin, root, dir)
}

func newServer(t testing.TB, bin, root, dir string) *Server {
	t.Helper()
	s := &Server{Dir: dir, Root: root, BinDir: bin, t: t, sock: filepath.Join(root, "s")}
	if os.Geteuid() == 0 {
		s.User = "postgres"
		s.uid, s.gid = ids(t, s.User)
	}
	if err := os.MkdirAll(s.sock, 0o755); err != nil {
		t.Fatal(err)
	}
	s.chown(s.sock)
	return s
}

func ids(t testing.TB, name string) (int, int) {
	t.Helper()
	u, err := user.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	return uid, gid
}

// Own gives a path to the server's user.
func (s *Server) Own(path string) error {
	if s.User == "" {
		return nil
	}
	return os.Chown(path, s.uid, s.gid)
}

func (s *Server) chown(path string) {
	if err := s.Own(path); err != nil {
		s.t.Fatal(err)
	}
}

// Command prepares one of PostgreSQL's own programs, run as the server's user.
func (s *Server) Command(ctx context.Context, program string, args ...string) *exec.Cmd {
	var as *syscall.Credential
	if s.User != "" {
		as = &syscall.Credential{Uid: uint32(s.uid), Gid: uint32(s.gid)}
	}
	return prepare(exec.CommandContext(ctx, filepath.Join(s.BinDir, program), args...), s.Root, as)
}

// Start starts the server with settings like "wal_keep_size=64MB" and waits until it answers.
func (s *Server) Start(settings ...string) {
	s.t.Helper()
	args := []string{"-D", s.Dir, "-c", "listen_addresses=", "-c", "unix_socket_directories=" + s.sock, "-c", "port=5432",
		"-c", "fsync=off", "-c", "dynamic_shared_memory_type=mmap", "-c", "timezone=UTC", "-c", "lc_messages=C"}
	for _, set := range settings {
		args = append(args, "-c", set)
	}
	s.args = args
	s.start()
	s.t.Cleanup(s.Stop)
}

// Restart starts a stopped or killed server again with the settings of the last Start.
func (s *Server) Restart() {
	s.t.Helper()
	s.start()
}

func (s *Server) start() {
	s.t.Helper()
	cmd := s.Command(context.Background(), "postgres", s.args...)
	log := &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr.Pdeathsig = syscall.SIGQUIT
	done := make(chan struct{})
	if err := launch(cmd, done); err != nil {
		s.t.Fatalf("start postgres: %v", err)
	}
	s.mu.Lock()
	s.cmd, s.done, s.log = cmd, done, log
	s.mu.Unlock()
	s.wait()
}

// launch starts cmd and closes done when it has ended. The kernel sends the parent-death signal when the thread that
// created the child ends, not the process: so one goroutine keeps that thread for the child's whole life.
func launch(cmd *exec.Cmd, done chan struct{}) error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
			close(done)
		}
	}()
	return <-started
}

func (s *Server) wait() {
	s.t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for time.Now().Before(deadline) {
		select {
		case <-s.done:
			s.t.Fatalf("postgres ended while starting:\n%s", s.log)
		default:
		}
		conn, err := pgx.Connect(context.Background(), s.DSN("postgres"))
		if err == nil {
			_ = conn.Close(context.Background())
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	s.Kill()
	s.t.Fatalf("postgres does not answer:\n%s", s.log)
}

// Stop shuts the server down cleanly; a stopped server stays stopped.
func (s *Server) Stop() { s.end(syscall.SIGINT) }

// Kill ends the server as a crash does: the postmaster gets SIGKILL, and its children are gone when Kill returns.
func (s *Server) Kill() {
	s.t.Helper()
	s.mu.Lock()
	cmd := s.cmd
	s.mu.Unlock()
	if cmd == nil {
		return
	}
	children := childrenOf(cmd.Process.Pid)
	s.end(syscall.SIGKILL)
	for _, pid := range children {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	for _, pid := range children {
		for syscall.Kill(pid, 0) == nil && !zombie(pid) {
			time.Sleep(5 * time.Millisecond)
		}
	}
}

func (s *Server) end(sig syscall.Signal) {
	s.mu.Lock()
	cmd, done := s.cmd, s.done
	s.cmd = nil
	s.mu.Unlock()
	if cmd == nil {
		return
	}
	_ = cmd.Process.Signal(sig)
	select {
	case <-done:
	case <-time.After(60 * time.Second):
		_ = cmd.Process.Kill()
		<-done
	}
}

// PID is the postmaster's process id; 0 when stopped.
func (s *Server) PID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return 0
	}
	return s.cmd.Process.Pid
}

// Log is what the server wrote. Call it when the server has stopped.
func (s *Server) Log() string { return s.log.String() }

// DSN connects to a database as the superuser postgres.
func (s *Server) DSN(database string) string {
	return fmt.Sprintf("host=%s port=5432 user=postgres dbname=%s sslmode=disable", s.sock, database)
}

// Exec runs statements in the database postgres, each in its own transaction.
func (s *Server) Exec(statements ...string) {
	s.t.Helper()
	conn, err := pgx.Connect(context.Background(), s.DSN("postgres"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	for _, q := range statements {
		if _, err := conn.Exec(context.Background(), q); err != nil {
			s.t.Fatalf("%s: %v", q, err)
		}
	}
}

// Query gives the single value of a query as text.
func (s *Server) Query(query string, args ...any) string {
	s.t.Helper()
	conn, err := pgx.Connect(context.Background(), s.DSN("postgres"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	var v any
	if err := conn.QueryRow(context.Background(), query, args...).Scan(&v); err != nil {
		s.t.Fatalf("%s: %v", query, err)
	}
	if at, ok := v.(time.Time); ok {
		return at.UTC().Format(time.RFC3339Nano)
	}
	return fmt.Sprint(v)
}

func childrenOf(pid int) []int {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return nil
	}
	var out []int
	for _, f := range strings.Fields(string(data)) {
		if n, err := strconv.Atoi(f); err == nil {
			out = append(out, n)
		}
	}
	return out
}

func zombie(pid int) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	_, rest, ok := strings.Cut(string(data), ") ")
	return ok && strings.HasPrefix(rest, "Z")
}
