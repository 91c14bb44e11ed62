package postgres

import (
	"reflect"
	"testing"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/store/postgres/walfile"
)

// What says that it creates no tablespace is not read for them, unless the next segment's first record may begin in it.
func TestSuspects(t *testing.T) {
	t.Parallel()
	const size = 1 << 20
	none, one := new(int), new(int)
	*one = 1
	segment := func(n int, spaces *int) piece {
		return piece{Timeline: 1, Start: relight.LSN(n * size), End: relight.LSN((n + 1) * size), Segment: size, Tablespaces: spaces}
	}
	name := func(n int) string { return walfile.SegmentName(1, relight.LSN(n*size), size) }
	live := func(from, to int, spaces *int) piece {
		return piece{Timeline: 1, Start: relight.LSN(from), End: relight.LSN(to), Segment: size, Tablespaces: spaces}
	}
	for _, c := range []struct {
		name   string
		pieces []piece
		want   [][]string
	}{
		{"nothing", []piece{segment(1, none), segment(2, none)}, nil},
		{"nobody has looked", []piece{segment(1, nil), segment(2, nil), segment(3, none)}, [][]string{{name(1), name(2)}}},
		{"two apart", []piece{segment(1, none), segment(2, one), segment(3, none), segment(4, none), segment(5, one)}, [][]string{{name(1), name(2)}, {name(4), name(5)}}},
		{"the first", []piece{segment(1, one), segment(2, none)}, [][]string{{name(1)}}},
		{"live ranges", []piece{segment(1, none), live(2*size, 2*size+500, none), live(2*size+500, 2*size+900, nil)}, [][]string{{name(1), name(2)}}},
	} {
		w := &plannedWAL{plan: plan{Base: base{Facts: Facts{SegmentSize: size}}, Timeline: 1, Pieces: pointers(c.pieces)}}
		if got := w.suspects(); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func pointers(all []piece) (out []*piece) {
	for i := range all {
		out = append(out, &all[i])
	}
	return out
}
