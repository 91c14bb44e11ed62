package host

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/toolboxai/relight"
)

// BootID is the kernel's identity of this boot.
func BootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read the boot id: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// Self is the handle of this process.
func Self(what string) (relight.Handle, error) { return handleOf(os.Getpid(), what) }

func handleOf(pid int, what string) (relight.Handle, error) {
	boot, err := BootID()
	if err != nil {
		return relight.Handle{}, err
	}
	st, err := readStat(pid)
	if err != nil {
		return relight.Handle{}, err
	}
	return relight.Handle{Kind: "process", PID: pid, Started: st.started, Boot: boot, What: what}, nil
}

// stat is what /proc/<pid>/stat says of a process.
type stat struct {
	pid     int
	state   byte
	group   int
	threads int
	started uint64 // clock ticks after boot

	replacing bool // the process becomes another program: it has memory, and no environment in it yet
}

// ended: a zombie whose last thread is gone only waits to be reaped.
func (s stat) ended() bool { return s.state == 'X' || s.state == 'Z' && s.threads <= 1 }

func readStat(pid int) (stat, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return stat{}, fmt.Errorf("read process %d: %w", pid, err)
	}
	return parseStat(pid, b)
}

// parseStat skips the program's name, which may itself hold spaces and parentheses.
func parseStat(pid int, b []byte) (stat, error) {
	i := bytes.LastIndexByte(b, ')')
	f := strings.Fields(string(b[i+1:]))
	if i < 0 || len(f) < 49 {
		return stat{}, fmt.Errorf("read process %d: unexpected form of /proc/%d/stat", pid, pid)
	}
	s := stat{pid: pid, state: f[0][0], replacing: f[20] != "0" && f[48] == "0"}
	var errs [3]error
	s.group, errs[0] = strconv.Atoi(f[2])
	s.threads, errs[1] = strconv.Atoi(f[17])
	s.started, errs[2] = strconv.ParseUint(f[19], 10, 64)
	if err := errors.Join(errs[:]...); err != nil {
		return stat{}, fmt.Errorf("read process %d: %w", pid, err)
	}
	return s, nil
}

// members are the living processes that h stands for: the process itself and, when relight made it (a label is set),
// its group and every process that carries its mark in the environment. Relight itself is never one of them.
func members(h relight.Handle) ([]stat, error) {
	if h.Kind != "process" || h.PID <= 0 || h.Host != "" {
		return nil, fmt.Errorf("handle %q of kind %q is no process of this host", h.What, h.Kind)
	}
	boot, err := BootID()
	if err != nil {
		return nil, err
	}
	if h.Boot != boot {
		return nil, nil
	}
	if h.Label != "" {
		return family(h)
	}
	st, err := readStat(h.PID)
	if err != nil {
		return nil, ignoreGone(err)
	}
	if st.started != h.Started || st.ended() {
		return nil, nil
	}
	return []stat{st}, nil
}

func family(h relight.Handle) ([]stat, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var all []stat
	reused := false
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		st, err := readStat(pid)
		if err != nil {
			if ignoreGone(err) != nil {
				return nil, err
			}
			continue
		}
		if pid == h.PID && st.started != h.Started {
			reused = true // and so the old group is empty: the kernel gives no pid away that is still a group's number
		}
		if !st.ended() && st.started >= h.Started && (pid == h.PID || st.group == h.PID || marked(pid, h.Label)) {
			all = append(all, st)
		}
	}
	if !reused {
		return all, nil
	}
	kept := all[:0]
	for _, st := range all {
		if marked(st.pid, h.Label) {
			kept = append(kept, st)
		}
	}
	return kept, nil
}

func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return nil
	}
	return err
}
