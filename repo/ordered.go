package repo

import (
	"context"
	"errors"

	"golang.org/x/sync/errgroup"
)

// errOrderedEnded says that a worker ended without a result; its error is the group's.
var errOrderedEnded = errors.New("work ended")

// inOrder works on items in parallel and delivers the results in the items' order, from the caller's
// goroutine. Only a few results wait at a time. The first error ends it, and all that was started is awaited.
func inOrder[T, R any](ctx context.Context, workers int, items []T, work func(context.Context, T) (R, error), deliver func(R) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	pending := make(chan chan R, 4*workers)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(workers + 1) // the workers, and the one that feeds them
	g.Go(func() error {
		defer close(pending)
		for _, item := range items {
			ch := make(chan R, 1)
			select {
			case pending <- ch:
			case <-gctx.Done():
				return gctx.Err()
			}
			g.Go(func() error {
				defer close(ch)
				r, err := work(gctx, item)
				if err == nil {
					ch <- r
				}
				return err
			})
		}
		return nil
	})
	err := drain(pending, deliver)
	if err != nil {
		cancel()
	}
	for range pending { //nolint:revive // emptied, so that the feeder ends
	}
	if werr := g.Wait(); err == nil || errors.Is(err, errOrderedEnded) {
		err = werr
	}
	return err
}

func drain[R any](pending <-chan chan R, deliver func(R) error) error {
	for ch := range pending {
		r, ok := <-ch
		if !ok {
			return errOrderedEnded
		}
		if err := deliver(r); err != nil {
			return err
		}
	}
	return nil
}
