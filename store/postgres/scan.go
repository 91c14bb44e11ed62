package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// item is one thing of a data directory that a backup keeps.
type item struct {
	path string // relative, slash-separated, as in the snapshot
	abs  string // where it is read
	info fs.FileInfo
	link string // target of a symbolic link that is kept as one
}

// scan walks a data directory the way the server's own base backup does, and calls fn with every directory,
// link and file to keep, directories before what they hold. pg_control is left to the caller. What vanishes meanwhile is counted.
type scan struct {
	root     string
	log      *slog.Logger
	fn       func(item) error
	walLink  string // target of pg_wal when it is a symbolic link
	vanished int
	major    int
	catalog  uint32
}

func (s *scan) run(ctx context.Context) error {
	info, err := os.Stat(s.root)
	if err != nil {
		return err
	}
	if err := s.fn(item{path: ".", abs: s.root, info: info}); err != nil {
		return err
	}
	return s.dir(ctx, "")
}

func (s *scan) dir(ctx context.Context, dir string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	entries, err := os.ReadDir(filepath.Join(s.root, dir))
	if errors.Is(err, fs.ErrNotExist) && dir != "" {
		s.vanished++ // a dropped database
		return nil
	}
	if err != nil {
		return err
	}
	all, err := s.kept(dir, entries)
	if err != nil {
		return err
	}
	for _, info := range all {
		if err := s.entry(ctx, path.Join(dir, info.Name()), info); err != nil {
			return err
		}
	}
	return nil
}

// kept stats what a directory holds and a backup keeps, the longest first: whoever works on files in parallel is not left with a long one at the end.
func (s *scan) kept(dir string, entries []os.DirEntry) ([]fs.FileInfo, error) {
	drop := s.unlogged(dir, entries)
	var all []fs.FileInfo
	for _, e := range entries {
		if s.leaveOut(dir, e.Name(), drop) {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			s.vanished++
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, info)
	}
	slices.SortStableFunc(all, func(a, b fs.FileInfo) int { return cmp.Compare(b.Size(), a.Size()) })
	return all, nil
}

func (s *scan) unlogged(dir string, entries []os.DirEntry) map[string]bool {
	if !databaseDir(dir) {
		return nil
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return unlogged(names)
}

func (s *scan) leaveOut(dir, name string, drop map[string]bool) bool {
	if skipped(name) || path.Join(dir, name) == controlName || path.Join(dir, name) == "relight" {
		return true
	}
	if tablespaceRoot(dir) { // others' version directories may lie beside ours
		return name != fmt.Sprintf("PG_%d_%d", s.major, s.catalog)
	}
	if !databaseDir(dir) {
		return false
	}
	if temporary(name) {
		return true
	}
	r, ok := parseRelation(name)
	return ok && r.Fork != initFork && drop[r.Number]
}

// tablespaceRoot tells whether dir is pg_tblspc/<oid>.
func tablespaceRoot(dir string) bool {
	parent, name := path.Split(dir)
	return parent == tblspcDir+"/" && oid(name)
}

func (s *scan) entry(ctx context.Context, p string, info fs.FileInfo) error {
	abs := filepath.Join(s.root, p)
	switch {
	case emptiedDirs[p]:
		return s.emptied(p, abs, info)
	case info.Mode()&fs.ModeSymlink != 0:
		return s.symlink(ctx, p, abs, info)
	case info.IsDir():
		if err := s.fn(item{path: p, abs: abs, info: info}); err != nil {
			return err
		}
		return s.dir(ctx, p)
	case info.Mode().IsRegular():
		return s.fn(item{path: p, abs: abs, info: info})
	}
	s.log.Warn("special file is left out of the backup", "path", p, "mode", info.Mode().String())
	return nil
}

// emptied keeps a directory without its contents; a symbolic link to one becomes a directory.
func (s *scan) emptied(p, abs string, info fs.FileInfo) error {
	if info.Mode()&fs.ModeSymlink != 0 {
		target, err := os.Readlink(abs)
		if err != nil {
			return err
		}
		if p == walDir {
			s.walLink = target
		}
		if info, err = os.Stat(abs); err != nil {
			return err
		}
	}
	if err := s.fn(item{path: p, abs: abs, info: info}); err != nil || p != walDir {
		return err
	}
	for _, sub := range s.walSubdirs() {
		if err := s.fn(item{path: sub, abs: filepath.Join(s.root, sub), info: info}); err != nil {
			return err
		}
	}
	return nil
}

func (s *scan) walSubdirs() []string {
	if s.major >= 17 {
		return []string{walStatus, walSummary}
	}
	return []string{walStatus}
}

func (s *scan) symlink(ctx context.Context, p, abs string, info fs.FileInfo) error {
	target, err := os.Readlink(abs)
	if errors.Is(err, fs.ErrNotExist) {
		s.vanished++
		return nil
	}
	if err != nil {
		return err
	}
	if err := s.fn(item{path: p, abs: abs, info: info, link: target}); err != nil {
		return err
	}
	if !tablespaceRoot(p) || strings.HasPrefix(target, tblspcDir) {
		return nil
	}
	return s.dir(ctx, p)
}
