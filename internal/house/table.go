// Package house checks that the source keeps the rules of the house, so that the picture in docs/architecture.md cannot
// drift from the code. It promises to name the file or package, the rule and the offender, and to take the ranks of the
// rooms from that page's own table and from nowhere else. It serves tests only.
package house

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Room is a row of the table: a package, and those below it that have no row of their own.
type Room struct {
	Rank int
	Path string // relative to the module; "" is the root package alone
}

// Table is the rooms, the longest path first.
type Table []Room

var row = regexp.MustCompile("^\\|\\s*([0-9]+)\\s*\\|\\s*`([^`]+)`")

// ReadTable finds the rank table in a Markdown page: the rows that begin with a rank and a room in backquotes.
func ReadTable(r io.Reader) (Table, error) {
	var t Table
	seen := map[string]bool{}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		m := row.FindStringSubmatch(lines.Text())
		if m == nil {
			continue
		}
		rank, err := strconv.Atoi(m[1])
		if err != nil {
			return nil, fmt.Errorf("rank table: %w", err)
		}
		room := Room{Rank: rank, Path: strings.TrimSuffix(m[2], "/…")}
		if room.Path == "relight" {
			room.Path = ""
		}
		if seen[room.Path] {
			return nil, fmt.Errorf("rank table: room %q has two rows", room.Path)
		}
		seen[room.Path] = true
		t = append(t, room)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("rank table: %w", err)
	}
	if len(t) == 0 {
		return nil, fmt.Errorf("rank table: no row found")
	}
	slices.SortStableFunc(t, func(a, b Room) int { return cmp.Compare(len(b.Path), len(a.Path)) })
	return t, nil
}

// Of finds the room that a package belongs to.
func (t Table) Of(path string) (Room, bool) {
	for _, room := range t {
		if path == room.Path || room.Path != "" && strings.HasPrefix(path, room.Path+"/") {
			return room, true
		}
	}
	return Room{}, false
}
