package postgres

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"
)

// each walks and hands every item to one of n workers. The walk keeps ahead of them by a bounded number of items; the first error ends all.
func (s *scan) each(ctx context.Context, n int, do func(context.Context, item) error) error {
	group, ctx := errgroup.WithContext(ctx)
	queue := make(chan item, 4*n)
	s.fn = func(it item) error {
		select {
		case queue <- it:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	group.Go(func() error {
		defer close(queue)
		return s.run(ctx)
	})
	for range n {
		group.Go(func() error {
			for it := range queue {
				if err := do(ctx, it); err != nil {
					return fmt.Errorf("%s: %w", it.path, err)
				}
			}
			return nil
		})
	}
	return group.Wait()
}
