//go:build pg

package host_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/toolboxai/relight/host"
)

// PostgreSQL's processes leave their group and write over their environment. One that is stuck when the postmaster dies
// must still be found, or a successor would restore under its feet.
func TestOrphanOfAPostmasterIsFoundAndEnded(t *testing.T) {
	l, ctx := local(t), within(t)
	u, err := host.LookupUser("postgres")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("/tmp", "relight-host-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chown(dir, int(u.UID), int(u.GID)); err != nil {
		t.Fatal(err)
	}
	bins, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	if len(bins) == 0 {
		t.Fatal("PostgreSQL is not installed: apt-get install postgresql")
	}
	data := filepath.Join(dir, "data")
	if _, err := host.Output(ctx, l, host.Command{Argv: []string{bins[0] + "/initdb", "-D", data, "--no-sync"}, User: &u, Dir: "/"}); err != nil {
		t.Fatal(err)
	}
	p, err := l.Start(ctx, host.Command{Argv: []string{bins[0] + "/postgres", "-D", data, "-c", "listen_addresses=", "-c", "dynamic_shared_memory_type=mmap", "-c",
		"unix_socket_directories=" + dir}, User: &u, Dir: "/"})
	if err != nil {
		t.Fatal(err)
	}
	h := p.Handle()
	stuck := 0
	for stuck == 0 && ctx.Err() == nil {
		stuck = childNamed(h.PID, "checkpointer")
		time.Sleep(20 * time.Millisecond)
	}
	if err := syscall.Kill(stuck, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := p.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = p.Wait(ctx)
	time.Sleep(300 * time.Millisecond) // the others notice and leave
	if alive, err := host.Alive(h); err != nil || !alive {
		t.Fatalf("the stuck process is not found: alive=%v, %v", alive, err)
	}
	if err := host.End(ctx, h, 100*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if state := stateOf(stuck); state != 0 && state != 'Z' && state != 'X' {
		t.Fatalf("the stuck process lives, in state %c", state)
	}
}

func childNamed(parent int, title string) int {
	all, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range all {
		stat, _ := os.ReadFile(path)
		line, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
		if strings.Contains(string(stat), fmt.Sprintf(" S %d ", parent)) && strings.Contains(string(line), title) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			return pid
		}
	}
	return 0
}

// stateOf is 0 for a process that has left the process table.
func stateOf(pid int) byte {
	stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, state, _ := strings.Cut(string(stat), ") ")
	if state == "" {
		return 0
	}
	return state[0]
}
