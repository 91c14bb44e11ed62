package pgtest

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/toolboxai/relight/host"
)

// Forget gives back what the kernel keeps of servers that were killed, wherever below root their directories lie: a segment of shared memory each, of which there
// can be some thousands before no server starts any more.
func Forget(root string) {
	_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() != "postmaster.pid" {
			return nil //nolint:nilerr // what cannot be looked at holds nothing to forget
		}
		b, _ := os.ReadFile(path)
		var key, id int
		if lines := strings.Split(string(b), "\n"); len(lines) < 7 {
			return nil
		} else if _, err := fmt.Sscan(lines[6], &key, &id); err != nil {
			return nil //nolint:nilerr // a server that had not got so far
		}
		_ = host.RemoveSharedMemory(id) // where another user's cannot be removed, it stays
		return nil
	})
}
