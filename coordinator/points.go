package coordinator

import (
	"context"
	"fmt"
	"time"

	"github.com/toolboxai/relight"
)

// Points sets named restore points of one store.
type Points interface {
	// Newest is when the newest restore point was set that every repository of the store holds; zero when there is none.
	Newest(ctx context.Context) (time.Time, error)
	// Set sets one, and does not wait for any repository to hold it.
	Set(ctx context.Context, name string) (relight.Point, error)
}

// keepPoints sees to it that every stretch of the policy has a point to which recovery is quick to name and cheap to keep: where no base backup
// ended in it, a named restore point, which costs a record of log. A point is only counted when every repository holds the log up to it.
func (c *Coordinator) keepPoints(ctx context.Context, s Store) {
	p := &pointKeeper{c: c, s: s}
	wait := c.tick
	for pause(ctx, wait) == nil {
		wait = c.tick
		err := p.step(ctx)
		c.status.point(s.Name, p.newest, err)
		if err != nil && ctx.Err() == nil {
			c.log.Error("restore point", "store", s.Name, "error", err)
			wait = 5 * c.tick
		}
	}
}

type pointKeeper struct {
	c      *Coordinator
	s      Store
	asked  bool          // newest is known
	newest time.Time     // of the points that every repository holds
	set    relight.Point // not yet in every repository; none when its LSN is 0
}

func (p *pointKeeper) step(ctx context.Context) error {
	f, ok := p.c.status.following(p.s.Name)
	if !ok {
		return nil
	}
	if !p.asked {
		newest, err := p.s.Points.Newest(ctx)
		if err != nil {
			return fmt.Errorf("find the newest restore point of %s: %w", p.s.Name, err)
		}
		p.newest, p.asked = newest, true
	}
	if p.set.LSN != 0 && (p.set.Timeline != f.Timeline || p.durable(f)) {
		if p.set.Timeline == f.Timeline {
			p.newest = p.set.Time
		}
		p.set = relight.Point{}
	}
	now := p.c.now()
	from := now.Truncate(p.s.PointEvery) // as retention cuts time
	if !p.newest.Before(from) || p.set.LSN != 0 && !p.set.Time.Before(from) || p.baseSince(from) {
		return nil
	}
	point, err := p.s.Points.Set(ctx, "relight-"+now.UTC().Format("20060102T150405Z"))
	if err != nil {
		return fmt.Errorf("set a restore point in %s: %w", p.s.Name, err)
	}
	point.Time = now // stretches are told by one clock, the coordinator's
	p.set = point
	return nil
}

func (p *pointKeeper) durable(f following) bool {
	for _, r := range p.s.Repositories {
		if f.Durable[r.Name] < p.set.LSN {
			return false
		}
	}
	return true
}

// baseSince says whether every repository has a base backup that ended in the stretch: it is a point as well. Where no repository has any, a
// restore point would lead nowhere, and the first base backup is waited for.
func (p *pointKeeper) baseSince(from time.Time) bool {
	any, all := false, true
	for _, r := range p.s.Repositories {
		b, ok := p.c.status.newest(p.s.Name, r.Name)
		any, all = any || ok, all && ok && !b.snapshot.Finished.Before(from)
	}
	return !any || all
}
