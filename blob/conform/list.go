package conform

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/toolboxai/relight/blob"
)

// tricky orders differently by directory than by byte: '-' and '.' come before '/', which comes before digits.
func tricky() []string {
	return []string{
		"A/z", "Z", "a-b", "a-b-", "a.b", "a.c/x", "a/b", "a/b-c", "a/b.c", "a/c/d/e", "a/c0", "a0/b", "a_/b", "ab",
		"b/00000001", "b/00000001.beat", "b/00000002", "lower/a", "lower-", "lower.", "lower0",
	}
}

func putAll(ctx context.Context, p place, elems []string) ([]string, error) {
	var names []string
	for i, elem := range elems {
		if err := put(ctx, p, p.name(elem), bytesOf(uint64(i), int64(i))); err != nil {
			return nil, err
		}
		names = append(names, p.name(elem))
	}
	slices.Sort(names)
	return names, nil
}

func listsInOrder(ctx context.Context, p place) error {
	want, err := putAll(ctx, p, tricky())
	if err != nil {
		return err
	}
	got, err := listed(ctx, p, p.dir)
	if err != nil {
		return err
	}
	if !slices.Equal(got, want) {
		return fmt.Errorf("listed %s\nstored %s", strings.Join(got, " "), strings.Join(want, " "))
	}
	return nil
}

func listsByPrefix(ctx context.Context, p place) error {
	all, err := putAll(ctx, p, tricky())
	if err != nil {
		return err
	}
	for _, elem := range []string{"a", "a/", "a/b", "a-", "a/c/d/e", "b/0000000", "b/00000001.", "lower", "lower/", "none", "a/b/", "Z/"} {
		prefix := p.name(elem)
		got, err := listed(ctx, p, prefix)
		if err != nil {
			return fmt.Errorf("prefix %q: %w", elem, err)
		}
		want := slices.DeleteFunc(slices.Clone(all), func(n string) bool { return !strings.HasPrefix(n, prefix) })
		if !slices.Equal(got, want) {
			return fmt.Errorf("prefix %q: listed %q, stored %q", elem, got, want)
		}
	}
	return nil
}

func stopsListing(ctx context.Context, p place) error {
	if _, err := putAll(ctx, p, []string{"a", "b", "c"}); err != nil {
		return err
	}
	stop, calls := errors.New("told to stop"), 0
	err := p.List(ctx, p.dir, func(blob.Info) error {
		calls++
		if calls == 2 {
			return stop
		}
		return nil
	})
	if err := must(err, stop, "list until told to stop"); err != nil {
		return err
	}
	if calls != 2 {
		return fmt.Errorf("went on for %d objects after it was told to stop at the second", calls)
	}
	return nil
}
