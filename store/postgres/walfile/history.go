package walfile

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/toolboxai/relight"
)

// Branch is one timeline of a history: it holds the WAL from Begin up to, not including, End.
type Branch struct {
	Timeline relight.TimelineID
	Begin    relight.LSN
	End      relight.LSN // MaxLSN for the timeline that the history belongs to
}

// MaxLSN stands for "not ended".
const MaxLSN = relight.LSN(math.MaxUint64)

// ParseHistory reads a timeline history file: the ancestors of tl, oldest first, and tl itself last. An empty
// text is the history of a first timeline.
func ParseHistory(tl relight.TimelineID, text string) ([]Branch, error) {
	var path []Branch
	var begin relight.LSN
	for n, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		b, err := parseBranch(line)
		if err != nil {
			return nil, fmt.Errorf("history of timeline %d, line %d: %w", tl, n+1, err)
		}
		if len(path) > 0 && b.Timeline <= path[len(path)-1].Timeline || b.Timeline >= tl {
			return nil, fmt.Errorf("history of timeline %d, line %d: timeline %d is out of order", tl, n+1, b.Timeline)
		}
		b.Begin, begin = begin, b.End
		path = append(path, b)
	}
	return append(path, Branch{Timeline: tl, Begin: begin, End: MaxLSN}), nil
}

func parseBranch(line string) (Branch, error) {
	f := strings.Fields(line)
	if len(f) < 2 {
		return Branch{}, fmt.Errorf("%q lacks a timeline and a switch point", line)
	}
	tl, err := strconv.ParseUint(f[0], 10, 32)
	if err != nil || tl == 0 {
		return Branch{}, fmt.Errorf("%q is not a timeline", f[0])
	}
	end, err := relight.ParseLSN(f[1])
	if err != nil {
		return Branch{}, err
	}
	return Branch{Timeline: relight.TimelineID(tl), End: end}, nil
}

// At gives the branch of path that holds the byte at lsn.
func At(path []Branch, lsn relight.LSN) (Branch, bool) {
	for _, b := range path {
		if lsn >= b.Begin && lsn < b.End {
			return b, true
		}
	}
	return Branch{}, false
}

// Find gives the branch of path with the timeline tl.
func Find(path []Branch, tl relight.TimelineID) (Branch, bool) {
	for _, b := range path {
		if b.Timeline == tl {
			return b, true
		}
	}
	return Branch{}, false
}
