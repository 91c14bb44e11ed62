package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/host"
)

// A tablespace lies outside the data directory, under an absolute path that the source chose. Restored in place it goes back there. Restored anywhere else, perhaps on
// the very host where the source lives on, it goes beside the directory instead, into DIRECTORY.tblspc/OID, or where it is mapped to: never to the source's path by
// itself. That holds for the tablespaces of the base backup and for those that the WAL creates, whose records are served without their path (see walPatches).

// findSpaces adds the tablespaces that WAL creates, and gives each its place.
func (r *restore) findSpaces(ctx context.Context) error {
	var err error
	if r.created, err = newPlannedWAL(r.r, r.s.c.Name, r.plan).creations(ctx); err != nil {
		if !r.inPlace() {
			return r.s.fail("restore", relight.CodeFailed, "restore in place, on a host where the cluster does not run: there every tablespace goes where it was", "%w", err)
		}
		r.s.log.Warn("tablespaces that the log creates cannot be foreseen", "error", err)
	}
	r.layout.addCreated(r.created)
	return r.placeSpaces()
}

// inPlace tells whether the target is the store's own data directory.
func (r *restore) inPlace() bool {
	if r.t.Sandbox || r.s.c.DataDir == "" {
		return false
	}
	a, aerr := host.RealPath(r.t.Directory)
	b, berr := host.RealPath(r.s.c.DataDir)
	return aerr == nil && berr == nil && a == b
}

// placeSpaces decides where each tablespace goes.
func (r *restore) placeSpaces() error {
	own := r.inPlace()
	for i := range r.layout.spaces {
		sp := &r.layout.spaces[i]
		sp.Place = filepath.Clean(sp.Location)
		if !own {
			sp.Place = filepath.Join(r.layout.beside(), sp.number())
		}
	}
	mapped := map[string]string{} // which location goes where by word, not by rule
	for _, old := range slices.Sorted(maps.Keys(r.t.Tablespaces)) {
		if err := r.mapSpace(old, r.t.Tablespaces[old], mapped); err != nil {
			return err
		}
	}
	from := map[string]string{}
	for _, sp := range r.layout.spaces {
		other, taken := from[sp.Place]
		switch {
		case !filepath.IsAbs(sp.Place):
			return r.unplaced("tablespace %s: %q is no absolute path", sp.label(), sp.Place)
		case taken && other != sp.Location:
			return r.unplaced("the tablespaces of %s and %s would both lie in %s", other, sp.Location, sp.Place)
		}
		from[sp.Place] = sp.Location
	}
	return nil
}

// mapSpace gives the tablespaces that are meant by old, a location, a name or an oid, a place of their own.
func (r *restore) mapSpace(old, place string, mapped map[string]string) error {
	if !filepath.IsAbs(place) {
		return r.unplaced("%q, where tablespace %s is to go, is no absolute path", place, old)
	}
	place = filepath.Clean(place)
	for _, dir := range []string{r.layout.dir, r.s.c.DataDir} {
		in, err := within(dir, place)
		if err != nil {
			return err
		}
		if in {
			return r.unplaced("%s, where tablespace %s is to go, lies inside the data directory %s", place, old, dir)
		}
	}
	found := false
	for i := range r.layout.spaces {
		sp := &r.layout.spaces[i]
		if filepath.Clean(old) != filepath.Clean(sp.Location) && old != sp.Name && old != sp.number() {
			continue
		}
		if other, twice := mapped[sp.Location]; twice && other != place {
			return r.unplaced("tablespace %s is to go to %s and to %s", sp.label(), other, place)
		}
		found, sp.Place, mapped[sp.Location] = true, place, place
	}
	if !found {
		return r.unplaced("there is no tablespace %s; there is %s", old, r.knownSpaces())
	}
	return nil
}

func (r *restore) unplaced(format string, args ...any) error {
	return r.s.fail("restore", relight.CodeUsage, "give each as --tablespace OLD=NEW: its location, name or oid in the source, and an absolute path here that is free", format, args...)
}

func (r *restore) knownSpaces() string {
	var all []string
	for _, sp := range r.layout.spaces {
		all = append(all, fmt.Sprintf("%s in %s", sp.label(), sp.Location))
	}
	if len(all) == 0 {
		return "none"
	}
	return strings.Join(all, ", ")
}

// within tells whether path is dir or lies inside it, whatever they are called.
func within(dir, path string) (bool, error) {
	if dir == "" {
		return false, nil
	}
	dir, err := host.RealPath(dir)
	if err != nil {
		return false, err
	}
	path, err = host.RealPath(path)
	return err == nil && !outside(dir, path), err
}

// occupantOf looks at a tablespace's place.
func (r *restore) occupantOf(sp placedSpace) (occupancy, error) {
	inner := r.layout.inner(sp)
	entries, err := os.ReadDir(inner)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return vacant, nil
	case err != nil:
		return occupied, err
	case len(entries) == 0:
		return vacant, nil
	}
	if mine, known := r.before.Spaces[inner]; known && mine == inode(inner) {
		return unfinished, nil
	}
	return occupied, nil
}

func inode(path string) uint64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	st, _ := info.Sys().(*syscall.Stat_t)
	return st.Ino
}

// serverIn finds a process of any server that has dir as a tablespace's version directory; 0: none. Every server's data directory links to its tablespaces, and each of its
// processes stands in that directory; what the links mean is seen through the process's own root, which may be a container's.
func serverIn(dir string) (int, error) {
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	found, seen := 0, map[string]bool{}
	err = eachServer(func(pid int) bool {
		proc := fmt.Sprintf("/proc/%d", pid)
		if cwd, err := os.Readlink(proc + "/cwd"); err != nil || seen[cwd] {
			return true
		} else {
			seen[cwd] = true
		}
		if linksTo(proc, info, filepath.Base(dir)) {
			found = pid
		}
		return found == 0
	})
	return found, err
}

// linksTo tells whether one of a server's tablespaces has dir as its version directory.
func linksTo(proc string, dir fs.FileInfo, version string) bool {
	entries, err := os.ReadDir(proc + "/cwd/" + tblspcDir)
	if err != nil {
		return false // it stands nowhere where tablespaces are
	}
	for _, e := range entries {
		at := filepath.Join(proc, "cwd", tblspcDir)
		to, err := os.Readlink(filepath.Join(at, e.Name()))
		if err != nil {
			continue
		}
		if filepath.IsAbs(to) {
			at = proc + "/root"
		}
		if info, err := os.Stat(at + "/" + to + "/" + version); err == nil && os.SameFile(info, dir) {
			return true
		}
	}
	return false
}

// patches tells whether what lies in a tablespace's place is changed where it is: our own half restore, and with Delta anything, as long as there is a place beside for
// what the snapshot does not have.
func (r *restore) patches(sp placedSpace) bool {
	return sp.held == unfinished || sp.held == occupied && r.o.Delta && (r.held == occupied || r.before.Aside != "")
}

// setSpacesAside renames what is in the way in the tablespaces' places. The links of the directory that was set aside follow it: whoever starts a server over that must not
// get to the restored one's files.
func (r *restore) setSpacesAside(suffix string) error {
	for _, sp := range r.layout.spaces {
		inner := r.layout.inner(sp)
		if sp.held != occupied || r.patches(sp) || !exists(inner) {
			continue
		}
		aside := inner + suffix
		if err := r.makeDir(aside, r.plan.Base.Facts.DirMode); err != nil {
			return err
		}
		if err := r.relink(sp, aside); err != nil {
			return err
		}
		if err := r.disk.Move(inner, filepath.Join(aside, r.layout.versionDir())); err != nil {
			return err
		}
		r.s.log.Info("what was there is set aside", "directory", aside)
	}
	return nil
}

// relink points the links of directories that were set aside, by this restore or by one that died since, from a tablespace's place to another.
func (r *restore) relink(sp placedSpace, to string) error {
	dirs, err := os.ReadDir(filepath.Dir(r.layout.dir))
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		if !strings.HasPrefix(dir.Name(), filepath.Base(r.layout.dir)+asideMark) {
			continue
		}
		if err := r.relinkIn(filepath.Join(filepath.Dir(r.layout.dir), dir.Name(), tblspcDir), sp, to); err != nil {
			return err
		}
	}
	return nil
}

func (r *restore) relinkIn(links string, sp placedSpace, to string) error {
	entries, err := os.ReadDir(links)
	if err != nil {
		return nil //nolint:nilerr // it is no data directory, or none that has tablespaces
	}
	for _, e := range entries {
		link := filepath.Join(links, e.Name())
		if !r.leadsTo(link, sp) {
			continue
		}
		temp := link + tempSuffix
		err := errors.Join(drop(r.disk, temp), r.disk.Symlink(to, temp), r.own(temp))
		if err == nil {
			err = r.disk.Rename(temp, link)
		}
		if err != nil {
			return fmt.Errorf("point %s to what is set aside: %w", link, err)
		}
	}
	return r.disk.SyncDir(links)
}

// leadsTo tells whether a link leads to a tablespace's place, or to where what is in it was about to be set aside.
func (r *restore) leadsTo(link string, sp placedSpace) bool {
	to, err := os.Readlink(link)
	if err != nil || strings.HasSuffix(link, tempSuffix) {
		return false
	}
	if strings.HasPrefix(to, r.layout.inner(sp)+asideMark) {
		return !exists(filepath.Join(to, r.layout.versionDir()))
	}
	info, err := os.Stat(link)
	place, perr := os.Stat(sp.Place)
	return err == nil && perr == nil && os.SameFile(info, place)
}

// makeSpaces makes the tablespaces' places. What lies in them now is ours or is changed in place.
func (r *restore) makeSpaces() error {
	if len(r.layout.spaces) > 0 && !r.inPlace() {
		if err := r.makeDir(r.layout.beside(), 0o700); err != nil {
			return r.explain(err)
		}
	}
	mine := map[string]uint64{}
	for _, sp := range r.layout.spaces {
		r.there = r.there || r.patches(sp)
		inner := r.layout.inner(sp)
		for _, dir := range []string{sp.Place, inner} {
			if err := r.makeDir(dir, r.plan.Base.Facts.DirMode); err != nil {
				return r.explain(err)
			}
		}
		mine[inner] = inode(inner)
	}
	r.state.Spaces = mine
	return r.note()
}

// linkCreated lays the links through which the server will create what WAL creates, where that is to lie elsewhere.
func (r *restore) linkCreated() error {
	for _, sp := range r.layout.spaces {
		if !sp.created || !sp.moved() {
			continue
		}
		link := filepath.Join(r.layout.dir, sp.link())
		if err := r.disk.Symlink(sp.Place, link); err != nil {
			return fmt.Errorf("link tablespace %s: %w", sp.label(), err)
		}
		if err := r.own(link); err != nil {
			return err
		}
	}
	return nil
}

// spacePatches changes the records of tablespaces that are to lie elsewhere than they say.
func (r *restore) spacePatches() (walPatches, error) {
	patches := walPatches{}
	for _, e := range r.created {
		i := slices.IndexFunc(r.layout.spaces, func(sp placedSpace) bool { return sp.OID == e.Tablespace })
		if e.Name == "" || i < 0 || !r.layout.spaces[i].moved() {
			continue
		}
		p, err := e.WithoutDirectory(r.plan.Base.Facts.SegmentSize)
		if err != nil {
			return nil, fmt.Errorf("move the tablespace that the log creates in %s: %w", e.Name, err)
		}
		maps.Copy(patches, p)
	}
	return patches, nil
}

// askSpaces finds out which tablespaces the recovered server has: the log may create some after the point, and drop others.
func (r *restore) askSpaces(ctx context.Context, conn *pgx.Conn) error {
	rows, err := conn.Query(ctx, `select oid from pg_tablespace`)
	if err != nil {
		return fmt.Errorf("ask for the tablespaces: %w", err)
	}
	if r.have, err = pgx.CollectRows(rows, pgx.RowTo[uint32]); err != nil {
		return fmt.Errorf("ask for the tablespaces: %w", err)
	}
	for _, sp := range r.layout.spaces {
		if !sp.moved() || !slices.Contains(r.have, sp.OID) {
			continue
		}
		if r.out.Tablespaces == nil {
			r.out.Tablespaces = map[string]string{}
		}
		r.out.Tablespaces[sp.Location] = sp.Place
	}
	return nil
}

// tidySpaces removes the links and the empty directories of tablespaces that the recovered server does not have.
func (r *restore) tidySpaces() error {
	if r.have == nil {
		return nil // it was not asked
	}
	gone := func(sp placedSpace) bool { return !slices.Contains(r.have, sp.OID) }
	var errs []error
	for _, sp := range r.layout.spaces {
		if !gone(sp) {
			continue
		}
		errs = append(errs, drop(r.disk, filepath.Join(r.layout.dir, sp.link())))
		if slices.ContainsFunc(r.layout.spaces, func(o placedSpace) bool { return o.Place == sp.Place && !gone(o) }) {
			continue // a location that was used again
		}
		_ = r.disk.Remove(r.layout.inner(sp)) // what is not empty stays
		if filepath.Dir(sp.Place) == r.layout.beside() {
			_ = r.disk.Remove(sp.Place)
		}
	}
	_ = r.disk.Remove(r.layout.beside())
	return errors.Join(errs...)
}
