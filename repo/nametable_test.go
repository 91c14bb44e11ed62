package repo

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// A table tells what was put into it, in order, and nothing else.
func TestNameTable(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.MapOf(rapid.StringMatching(`[ab/.]{0,20}`), rapid.Int64()).Draw(t, "names")
		var table nameTable
		for _, name := range slices.Sorted(maps.Keys(want)) {
			table.add(name, want[name])
		}
		if got := maps.Collect(table.all()); !maps.Equal(got, want) {
			t.Fatalf("%v instead of %v", got, want)
		}
		names := slices.Sorted(maps.Keys(want))
		for place, name := range names {
			if got, size := table.at(int32(place)); got != name || size != want[name] {
				t.Fatalf("place %d: %q, %d", place, got, size)
			}
		}
		for _, name := range append(names, rapid.StringMatching(`[ab/.]{0,4}`).Draw(t, "other")) {
			size, ok := table.get(name)
			if _, there := want[name]; ok != there || table.has(name) != there || size != want[name] && ok {
				t.Fatalf("%q: %d, %v", name, size, ok)
			}
			if place := table.place(name); place != int32(slices.Index(names, name)) {
				t.Fatalf("%q has place %d", name, place)
			}
			begin := func(n string) bool { return strings.HasPrefix(n, name) }
			if got := slices.Collect(table.under(name)); !slices.Equal(got, filter(names, begin)) {
				t.Fatalf("under %q: %q", name, got)
			}
		}
	})
}

func filter(all []string, want func(string) bool) (out []string) {
	for _, s := range all {
		if want(s) {
			out = append(out, s)
		}
	}
	return out
}

// Half a million sidecars are a listing of 80 MB: the test's are fewer, and as large each.
func TestListingOfManySidecarsIsSmall(t *testing.T) {
	much(t)
	const segments, most = 100_000, 160 // bytes each
	st := newStand(t)
	m := st.writer(newLongLog(st, segments))
	l, each := heapFor(segments, func() walListing { return must(m.listWAL(t.Context(), walPrefix("main")))(t) })
	t.Logf("%d bytes for each segment", each)
	if len(l.sidecars) != segments || l.objects.count < 2*segments || each > most {
		t.Errorf("%d sidecars, %d objects, %d bytes each", len(l.sidecars), l.objects.count, each)
	}
}
