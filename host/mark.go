package host

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// What descends from a started process is marked twice, so that it is found wherever it wandered after its parent's death.
// Each mark survives what removes the other: a program that closes inherited descriptors keeps its environment, and one
// that writes its title over its environment, as PostgreSQL's processes do, each in a session of its own, keeps descriptors.
const (
	markVariable   = "RELIGHT_HANDLE"
	markDescriptor = 3 // the first of exec.Cmd.ExtraFiles
)

// makeMark gives an empty file in memory that shows the token as its name.
func makeMark(token string) (*os.File, error) {
	fd, err := unix.MemfdCreate("relight-"+token, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make the mark: %w", err)
	}
	return os.NewFile(uintptr(fd), "relight-"+token), nil
}

// marked is false also where a process may not be looked into.
func marked(pid int, token string) bool {
	proc := "/proc/" + strconv.Itoa(pid)
	link, err := os.Readlink(proc + "/fd/" + strconv.Itoa(markDescriptor))
	if err == nil && link == "/memfd:relight-"+token+" (deleted)" {
		return true
	}
	want := []byte(markVariable + "=" + token)
	for kv := range bytes.SplitSeq(environment(pid), []byte{0}) {
		if bytes.Equal(kv, want) {
			return true
		}
	}
	return false
}

// environment is what a process was started with. While it becomes another program, the kernel shows none for a moment.
func environment(pid int) []byte {
	path := "/proc/" + strconv.Itoa(pid) + "/environ"
	env, err := os.ReadFile(path)
	if err != nil || len(env) > 0 {
		return env
	}
	for range 100 {
		if st, err := readStat(pid); err != nil || !st.replacing {
			break
		}
		time.Sleep(time.Millisecond)
	}
	env, _ = os.ReadFile(path)
	return env
}
