package app

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/toolboxai/relight/blob"
	"github.com/toolboxai/relight/repo"
)

// shippedUpTo reads from the names of journal segments how far a journal is kept.
func shippedUpTo(ctx context.Context, m *repo.Meta, prefix string) (int64, error) {
	var last int64
	err := m.Storage().List(ctx, prefix, func(i blob.Info) error {
		_, to, ok := strings.Cut(strings.TrimPrefix(i.Name, prefix), "-")
		if !ok {
			return nil // an anchor
		}
		n, err := strconv.ParseInt(to, 10, 64)
		if err != nil {
			return nil // not a segment's name
		}
		last = max(last, n)
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("list journal segments: %w", err)
	}
	return last, nil
}
