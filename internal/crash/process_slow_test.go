//go:build slow

package crash_test

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/toolboxai/relight/host"
)

// process is one that works in the estate.
type process struct {
	pid, parent int
	argv        []string
}

// postmaster tells whether it is a server's first process, which alone still has its arguments.
func (p process) postmaster() bool {
	return len(p.argv) > 2 && filepath.Base(p.argv[0]) == "postgres" && p.argv[1] == "-D"
}

// processes finds every process that runs in the estate or was told of it.
func (s *stand) processes() []process {
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		s.t.Fatal(err)
	}
	var out []process
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		p, ok := s.inspect(pid)
		if ok {
			out = append(out, p)
		}
	}
	return out
}

// inspect reads one process; one that ends meanwhile is none, and neither is a zombie.
func (s *stand) inspect(pid int) (process, bool) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	cmdline, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
	cwd, _ := os.Readlink(filepath.Join(dir, "cwd"))
	if !strings.Contains(string(cmdline), s.root()) && !strings.HasPrefix(cwd, s.root()) {
		return process{}, false
	}
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	if err != nil || len(fields) < 2 || fields[0] == "Z" || fields[0] == "X" {
		return process{}, false
	}
	parent, _ := strconv.Atoi(fields[1])
	argv := strings.Split(strings.TrimRight(string(cmdline), "\x00"), "\x00")
	if filepath.Base(argv[0]) == "cp" || filepath.Base(argv[0]) == "rm" {
		return process{}, false // ours
	}
	return process{pid: pid, parent: parent, argv: argv}, true
}

// strangers are the processes that are no service's: what a dead relight must not leave.
func (s *stand) strangers() []process {
	all := s.processes()
	services := map[int]bool{}
	for _, name := range []string{"postgres", "relight-serve"} {
		if h, err := host.ReadHandle(s.path("estate", "state", "services", name+".handle")); err == nil {
			if alive, err := host.Alive(h); err == nil && alive {
				services[h.PID] = true
			}
		}
	}
	for range all { // children of children, as deep as there are processes
		for _, p := range all {
			if services[p.parent] {
				services[p.pid] = true
			}
		}
	}
	var out []process
	for _, p := range all {
		if !services[p.pid] {
			out = append(out, p)
		}
	}
	return out
}

// awaitNobody waits until nothing of a dead relight is left. A server's backends notice their postmaster's death by themselves; ten seconds are generous.
func (s *stand) awaitNobody() {
	s.t.Helper()
	var left []process
	for range 200 {
		if left = s.strangers(); len(left) == 0 {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	s.t.Errorf("still there after their relight was killed: %v", left)
}

// endAll ends everything that works in the estate.
func (s *stand) endAll() {
	s.t.Helper()
	for range 200 {
		all := s.processes()
		if len(all) == 0 {
			return
		}
		for _, p := range all {
			_ = syscall.Kill(p.pid, syscall.SIGKILL) // it may have ended by itself
		}
		time.Sleep(20 * time.Millisecond)
	}
	s.t.Errorf("cannot end %v", s.processes())
}

// guard watches, until it is told to stop, that no two servers ever hold the data directory.
func (s *stand) guard(ctx context.Context) (stop func() (twice []process)) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	var twice []process
	wg.Go(func() {
		for ctx.Err() == nil {
			var masters []process
			for _, p := range s.processes() {
				if p.postmaster() && p.argv[2] == s.data() && !s.forked(p) {
					masters = append(masters, p)
				}
			}
			if len(masters) > 1 && len(twice) == 0 {
				twice = masters
			}
			time.Sleep(100 * time.Millisecond)
		}
	})
	return func() []process { cancel(); wg.Wait(); return twice }
}

// forked tells a child that has not yet renamed itself from a server of its own.
func (s *stand) forked(p process) bool {
	parent, ok := s.inspect(p.parent)
	return ok && parent.postmaster()
}
