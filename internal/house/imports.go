package house

import (
	"fmt"
	"path"
	"strings"
)

// Package is what the import rules look at. Paths are relative to the module, "" is its root.
type Package struct {
	Path    string
	Imports []string // of this module, without those of tests
}

// Support says that a package serves tests only: it lies in internal/ or is called …test.
func Support(pkg string) bool {
	return pkg == "internal" || strings.HasPrefix(pkg, "internal/") || strings.HasSuffix(path.Base(pkg), "test")
}

// CheckImports returns a sentence for every import that the table forbids. Imports point to a lower rank; rooms of one
// rank never import one another, nor do the children of one room; a room never imports its children; and nothing but
// tests imports what serves tests.
func (t Table) CheckImports(pkgs []Package) []string {
	var found []string
	for _, p := range pkgs {
		if Support(p.Path) {
			continue
		}
		from, ok := t.Of(p.Path)
		if !ok {
			found = append(found, fmt.Sprintf("%s has no row in the rank table", name(p.Path)))
			continue
		}
		for _, target := range p.Imports {
			if why := t.forbidden(from, p.Path, target); why != "" {
				found = append(found, fmt.Sprintf("%s imports %s: %s", name(p.Path), name(target), why))
			}
		}
	}
	return found
}

// forbidden says why an import is, "" if it is allowed.
func (t Table) forbidden(from Room, importer, target string) string {
	if Support(target) {
		return "only tests may import what serves tests"
	}
	to, ok := t.Of(target)
	switch {
	case !ok:
		return "it has no row in the rank table"
	case from == to:
		return insideRoom(from, importer, target)
	case to.Rank > from.Rank:
		return fmt.Sprintf("rank %d may not import rank %d", from.Rank, to.Rank)
	case to.Rank == from.Rank:
		return fmt.Sprintf("rooms of one rank (%d) may not import one another", from.Rank)
	}
	return ""
}

func insideRoom(room Room, importer, target string) string {
	mine, theirs := child(room, importer), child(room, target)
	switch {
	case theirs == "" || mine == theirs:
		return "" // a child imports its room, or its own parts
	case mine == "":
		return "a room may not import its children"
	}
	return "children of one room may not import one another"
}

// child is the first element below the room: "postgres" of "store/postgres/walfile".
func child(room Room, pkg string) string {
	rest := strings.TrimPrefix(strings.TrimPrefix(pkg, room.Path), "/")
	first, _, _ := strings.Cut(rest, "/")
	return first
}

func name(pkg string) string {
	if pkg == "" {
		return "relight"
	}
	return pkg
}
