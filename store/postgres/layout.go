package postgres

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/repo"
	"github.com/toolboxai/relight/store"
)

// layout places the entries of a snapshot on this host.
type layout struct {
	dir     string
	sandbox bool
	mapping map[string]string // old tablespace location → new one
	spaces  []placedSpace
	bytes   int64
	files   int64
	version int // server_version_num
	catalog uint32
}

// placedSpace is one tablespace with its place here.
type placedSpace struct {
	Tablespace
	Place string
}

// newLayout reads the list of entries once, for sizes and tablespaces.
func newLayout(ctx context.Context, m *repo.Meta, man repo.Manifest, f Facts, t store.Target) (*layout, error) {
	l := &layout{dir: filepath.Clean(t.Directory), sandbox: t.Sandbox, mapping: t.Tablespaces, version: f.Version, catalog: f.Catalog}
	err := m.Entries(ctx, man, func(e repo.Entry) error {
		l.bytes += e.Size
		if e.Mode.IsRegular() {
			l.files++
		}
		if e.Mode&fs.ModeSymlink != 0 && tablespaceRoot(e.Path) {
			return l.place(f, e)
		}
		return nil
	})
	if err != nil {
		return nil, &relight.Error{Op: "read the list of files of snapshot", Subject: string(man.ID), Err: err,
			Hint: "`relight repo check` names what is damaged; choose another base backup with --snapshot, or another repository with --repository"}
	}
	return l, nil
}

func (l *layout) place(f Facts, e repo.Entry) error {
	number, err := strconv.ParseUint(filepath.Base(e.Path), 10, 32)
	if err != nil {
		return fmt.Errorf("tablespace %s: %w", e.Path, err)
	}
	sp := placedSpace{Tablespace: Tablespace{OID: uint32(number), Location: e.Link}, Place: e.Link}
	for _, t := range f.Tablespaces {
		if t.OID == sp.OID {
			sp.Tablespace = t
		}
	}
	switch to := l.mapping[sp.Location]; {
	case to != "":
		sp.Place = to
	case l.sandbox:
		sp.Place = filepath.Join(l.dir+".tblspc", strconv.Itoa(int(sp.OID)))
	}
	if !filepath.IsAbs(sp.Place) {
		return fmt.Errorf("tablespace %s: location %q is not an absolute path", e.Path, sp.Place)
	}
	l.spaces = append(l.spaces, sp)
	return nil
}

// to is where an entry goes: below the directory, or below its tablespace.
func (l *layout) to(path string) string {
	for _, sp := range l.spaces {
		prefix := tblspcDir + "/" + strconv.Itoa(int(sp.OID)) + "/"
		if rest, ok := strings.CutPrefix(path, prefix); ok {
			return filepath.Join(sp.Place, rest)
		}
	}
	return filepath.Join(l.dir, path)
}

// link is the new target of a symbolic link.
func (l *layout) link(e repo.Entry) string {
	for _, sp := range l.spaces {
		if e.Path == tblspcDir+"/"+strconv.Itoa(int(sp.OID)) {
			return sp.Place
		}
	}
	return e.Link
}

// versionDir is the directory inside a tablespace that belongs to this major version.
func (l *layout) versionDir() string { return fmt.Sprintf("PG_%d_%d", l.version/10000, l.catalog) }

// spaceMap is the tablespace_map for the places here; the server makes its links from it.
func (l *layout) spaceMap() string {
	var b strings.Builder
	escape := strings.NewReplacer("\\", "\\\\", "\n", "\\\n", "\r", "\\\r")
	for _, sp := range l.spaces {
		fmt.Fprintf(&b, "%d %s\n", sp.OID, escape.Replace(sp.Place))
	}
	return b.String()
}

// moved tells whether any tablespace gets a new place.
func (l *layout) moved() bool {
	for _, sp := range l.spaces {
		if sp.Place != sp.Location {
			return true
		}
	}
	return false
}
