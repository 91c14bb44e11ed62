package file

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/toolboxai/relight/blob"
)

// List calls fn for the objects below prefix in byte order of their whole names. Files that no object can be called are
// passed over: temporary files, a file system's own directories.
func (s *Storage) List(ctx context.Context, prefix string, fn func(blob.Info) error) error {
	if err := blob.CheckPrefix(prefix); err != nil {
		return s.fail("list", prefix, err)
	}
	if err := errors.Join(ctx.Err(), s.present()); err != nil {
		return s.fail("list", prefix, err)
	}
	cut := strings.LastIndexByte(prefix, '/') + 1
	return s.walk(ctx, prefix[:cut], prefix[cut:], fn)
}

// walk lists the directory dir, "" or ending in a slash, as far as its entries begin with base.
func (s *Storage) walk(ctx context.Context, dir, base string, fn func(blob.Info) error) error {
	entries, err := os.ReadDir(s.path(dir))
	if missing(err) {
		return nil // nothing there, or removed as empty meanwhile
	}
	if err != nil {
		return s.fail("list", dir, err)
	}
	entries = slices.DeleteFunc(entries, func(e fs.DirEntry) bool {
		return !strings.HasPrefix(e.Name(), base) || blob.CheckName(dir+e.Name()) != nil
	})
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(sortKey(a), sortKey(b)) })
	for _, e := range entries {
		if err := s.visit(ctx, dir, e, fn); err != nil {
			return err
		}
	}
	return nil
}

func (s *Storage) visit(ctx context.Context, dir string, e fs.DirEntry, fn func(blob.Info) error) error {
	name := dir + e.Name()
	if err := ctx.Err(); err != nil {
		return s.fail("list", dir, err)
	}
	if e.IsDir() {
		return s.walk(ctx, name+"/", "", fn)
	}
	info, err := e.Info()
	if missing(err) {
		return nil // deleted meanwhile
	}
	if err != nil {
		return s.fail("list", name, err)
	}
	if !info.Mode().IsRegular() {
		return s.fail("list", name, errForeign)
	}
	return fn(blob.Info{Name: name, Size: info.Size(), Modified: info.ModTime()})
}

// sortKey makes directories sort as what they hold: "a-b" comes before "a/b", though "a" comes before "a-b".
func sortKey(e fs.DirEntry) string {
	if e.IsDir() {
		return e.Name() + "/"
	}
	return e.Name()
}
