package postgres

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/repo"
	"github.com/toolboxai/relight/store/postgres/walfile"
)

// layout places the entries of a snapshot on this host.
type layout struct {
	dir     string
	spaces  []placedSpace
	bytes   int64
	files   int64
	version int // server_version_num
	catalog uint32
}

// placedSpace is one tablespace with its place here.
type placedSpace struct {
	Tablespace
	Place   string
	created bool      // by WAL, so that the snapshot has nothing of it
	held    occupancy // what the place holds
}

func (sp placedSpace) moved() bool { return sp.Place != sp.Location }

func (sp placedSpace) number() string { return strconv.FormatUint(uint64(sp.OID), 10) }

// link is where the data directory's link to it lies.
func (sp placedSpace) link() string { return tblspcDir + "/" + sp.number() }

// label names it for people; of one that WAL creates the name is not known.
func (sp placedSpace) label() string {
	if sp.Name == "" {
		return sp.number()
	}
	return sp.Name
}

// newLayout reads the list of entries once, for sizes and tablespaces. Where these go is decided by placeSpaces.
func newLayout(ctx context.Context, m *repo.Meta, man repo.Manifest, f Facts, dir string) (*layout, error) {
	l := &layout{dir: filepath.Clean(dir), version: f.Version, catalog: f.Catalog}
	err := m.Entries(ctx, man, func(e repo.Entry) error {
		l.bytes += e.Size
		if e.Mode.IsRegular() {
			l.files++
		}
		if e.Mode&fs.ModeSymlink != 0 && tablespaceRoot(e.Path) {
			return l.addSpace(f, e)
		}
		return nil
	})
	if err != nil {
		return nil, &relight.Error{Op: "read the list of files of snapshot", Subject: string(man.ID), Err: err,
			Hint: "`relight repo check` names what is damaged; choose another base backup with --snapshot, or another repository with --repository"}
	}
	return l, nil
}

func (l *layout) addSpace(f Facts, e repo.Entry) error {
	number, err := strconv.ParseUint(filepath.Base(e.Path), 10, 32)
	if err != nil {
		return fmt.Errorf("tablespace %s: %w", e.Path, err)
	}
	sp := placedSpace{Tablespace: Tablespace{OID: uint32(number), Location: e.Link}}
	for _, t := range f.Tablespaces {
		if t.OID == sp.OID {
			sp.Name = t.Name
		}
	}
	l.spaces = append(l.spaces, sp)
	return nil
}

// addCreated adds the tablespaces that WAL creates. One without a directory lies inside its server's own, here as there.
func (l *layout) addCreated(events []walfile.Event) {
	for _, e := range events {
		known := slices.ContainsFunc(l.spaces, func(sp placedSpace) bool { return sp.OID == e.Tablespace })
		if e.Name != "" && !known {
			l.spaces = append(l.spaces, placedSpace{Tablespace: Tablespace{OID: e.Tablespace, Location: e.Name}, created: true})
		}
	}
}

// root is the directory that an entry belongs to, the data directory or a tablespace's place, with its path there.
func (l *layout) root(path string) (dir, rest string) {
	for _, sp := range l.spaces {
		if rest, ok := strings.CutPrefix(path, sp.link()+"/"); ok {
			return sp.Place, rest
		}
	}
	return l.dir, path
}

// to is where an entry goes.
func (l *layout) to(path string) string { return filepath.Join(l.root(path)) }

// linkTo is the new target of a symbolic link.
func (l *layout) linkTo(e repo.Entry) string {
	for _, sp := range l.spaces {
		if e.Path == sp.link() {
			return sp.Place
		}
	}
	return e.Link
}

// versionDir is the directory inside a tablespace that belongs to this major version.
func (l *layout) versionDir() string { return fmt.Sprintf("PG_%d_%d", l.version/10000, l.catalog) }

// inner is the version directory of a tablespace: nothing else in its place is ours.
func (l *layout) inner(sp placedSpace) string { return filepath.Join(sp.Place, l.versionDir()) }

// beside is where tablespaces go that must not go where they were.
func (l *layout) beside() string { return l.dir + ".tblspc" }

// places are the data directory and every tablespace's part of its place.
func (l *layout) places() []string {
	all := []string{l.dir}
	for _, sp := range l.spaces {
		all = append(all, l.inner(sp))
	}
	return all
}

// spaceMap is the tablespace_map for the places here; the server makes its links from it.
func (l *layout) spaceMap() string {
	var b strings.Builder
	escape := strings.NewReplacer("\\", "\\\\", "\n", "\\\n", "\r", "\\\r")
	for _, sp := range l.spaces {
		if !sp.created {
			fmt.Fprintf(&b, "%d %s\n", sp.OID, escape.Replace(sp.Place))
		}
	}
	return b.String()
}

// moved tells whether any tablespace gets a new place.
func (l *layout) moved() bool { return slices.ContainsFunc(l.spaces, placedSpace.moved) }
