package pgtest

import (
	"io/fs"
	"path/filepath"

	"github.com/toolboxai/relight/store/postgres/postmaster"
)

// Forget gives back what the kernel keeps of servers that were killed, wherever below root their directories lie: a segment of shared memory each, of which there
// can be some thousands before no server starts any more.
func Forget(root string) {
	_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == postmaster.File {
			_ = postmaster.ReleaseMemory(filepath.Dir(path)) // where another user's cannot be removed, it stays
		}
		return nil //nolint:nilerr // what cannot be looked at holds nothing to forget
	})
}
