// Package postmaster reads postmaster.pid, the lock file of a PostgreSQL data directory, which tells of the server that runs there or was killed there.
//
// It promises to write nothing, and to take a file that is not there, or not whole, for one that tells nothing. Whether the server that it names still lives is for
// the caller to find out.
package postmaster

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/toolboxai/relight/host"
)

// File is the lock file's name.
const File = "postmaster.pid"

// Lines of the file.
const (
	pidLine    = 0
	memoryLine = 6 // key and id of the segment
)

// PID is the process id of the directory's server; 0 when the file does not tell.
func PID(dir string) int {
	pid, err := strconv.Atoi(strings.TrimSpace(line(dir, pidLine)))
	if err != nil {
		return 0
	}
	return pid
}

// Memory is the id of the server's System V shared memory segment. ok is false when the file does not tell: the server had not got so far.
func Memory(dir string) (id int, ok bool) {
	var key int
	_, err := fmt.Sscan(line(dir, memoryLine), &key, &id)
	return id, err == nil
}

// ReleaseMemory gives back the shared memory of a server that was killed. It must be dead for certain.
func ReleaseMemory(dir string) error {
	id, ok := Memory(dir)
	if !ok {
		return nil
	}
	return host.RemoveSharedMemory(id)
}

func line(dir string, n int) string {
	b, _ := os.ReadFile(filepath.Join(dir, File)) // what cannot be read tells nothing
	lines := strings.Split(string(b), "\n")
	if n >= len(lines) {
		return ""
	}
	return lines[n]
}
