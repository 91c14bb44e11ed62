package repo

import (
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// A set tells the same of a name whether a listing has it or not.
func TestObjectSet(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringMatching(`[ab]{0,4}`)
		sizes := rapid.MapOf(name, rapid.Int64()).Draw(t, "sizes")
		all := slices.Sorted(maps.Keys(sizes))
		var lists [2]nameTable
		for _, n := range all {
			if list := rapid.IntRange(0, 2).Draw(t, n); list < 2 {
				lists[list].add(n, sizes[n])
			}
		}
		first := newObjectSet()
		first.know(&lists[0])
		first.know(&lists[1])
		first.add("of another set", 1)
		set, want := first.another(), map[string]int64{}
		for _, n := range rapid.SliceOf(rapid.SampledFrom(append(all, "other"))).Draw(t, "touched") {
			if rapid.Bool().Draw(t, "add "+n) {
				set.add(n, sizes[n])
				want[n] = sizes[n]
			} else {
				set.drop(n)
				delete(want, n)
			}
		}
		if got := maps.Collect(set.all()); !maps.Equal(got, want) || set.count() != len(want) {
			t.Fatalf("%d: %v instead of %v", set.count(), got, want)
		}
		only := first.another()
		only.addListed("other")
		if only.count() != 0 {
			t.Fatal("what no listing has was added")
		}
		for _, n := range append(all, "other", "of another set") {
			size, ok := want[n]
			if got, has := set.get(n); has != ok || ok && got != size || set.has(n) != ok {
				t.Fatalf("%q: %d, %v instead of %d, %v", n, got, has, size, ok)
			}
		}
		for n := range set.all() {
			set.drop(n)
		}
		if left := maps.Collect(set.all()); len(left) > 0 || !first.has("of another set") {
			t.Fatalf("left: %v", left)
		}
	})
}
