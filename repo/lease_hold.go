package repo

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Hold runs fn while the lease of what is held, and renews it meanwhile. fn's context ends when the lease is lost; the error then
// says so.
func (m *Meta) Hold(ctx context.Context, what string, ttl time.Duration, wait Waiting, fn func(ctx context.Context, l *Lease) error) error {
	l, err := m.acquire(ctx, what, ttl, wait)
	if err != nil {
		return err
	}
	work, cancel := context.WithCancelCause(ctx)
	renewed := make(chan struct{})
	go func() {
		defer close(renewed)
		l.keepAlive(work, cancel)
	}()
	err = fn(work, l)
	lost := context.Cause(work)
	cancel(nil)
	<-renewed
	if rerr := l.leave(ctx); rerr != nil {
		m.log.WarnContext(ctx, "lease is not released, and ends by itself", "lease", what, "err", rerr)
	}
	if err != nil && errors.Is(lost, ErrLeaseHeld) {
		return fmt.Errorf("%w: %w", err, lost)
	}
	return err
}

// leaveWithin is how long a storage that is away may keep somebody from ending: the lease then ends by itself.
const leaveWithin = 5 * time.Second

func (l *Lease) leave(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveWithin)
	defer cancel()
	return l.Release(ctx)
}

// renewEvery is often enough that another host soon sees that the holder lives.
const renewEvery = 5 * time.Second

// keepAlive renews at least thrice in a TTL until ctx ends, or the lease is lost.
func (l *Lease) keepAlive(ctx context.Context, lost context.CancelCauseFunc) {
	t := time.NewTicker(min(max(l.ttl/3, time.Millisecond), renewEvery))
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		err := l.Renew(ctx)
		if errors.Is(err, ErrLeaseHeld) {
			lost(err)
			return
		}
		if err != nil && ctx.Err() == nil {
			l.m.log.WarnContext(ctx, "lease is not renewed yet", "lease", l.what, "err", err)
		}
	}
}
