package coordinator

import (
	"context"
	"fmt"
	"time"

	"github.com/toolboxai/relight"
)

// keepBase takes base backups of a store into one repository whenever one is due or needed.
func (c *Coordinator) keepBase(ctx context.Context, s Store, r Repository) {
	wait := c.tick
	for pause(ctx, wait) == nil {
		wait = c.tick
		why, err := c.due(ctx, s, r)
		if err == nil && why != "" {
			err = c.takeBase(ctx, s, r, why)
		}
		c.status.base(s.Name, r.Name, err)
		if err != nil && ctx.Err() == nil {
			c.log.Error("base backup", "store", s.Name, "repository", r.Name, "error", err)
			wait = 5 * c.tick
		}
	}
}

// due says why a base backup must be taken now, or "". Nothing is due before the follower streams: a backup needs its WAL.
func (c *Coordinator) due(ctx context.Context, s Store, r Repository) (string, error) {
	following, ok := c.status.following(s.Name)
	if !ok {
		return "", nil
	}
	newest, ok := c.status.newest(s.Name, r.Name)
	if !ok {
		found, any, err := r.Base.Newest(ctx)
		if err != nil {
			return "", fmt.Errorf("find the newest base backup: %w", err)
		}
		if !any {
			return "none is there", nil
		}
		gap, err := r.Base.Gap(ctx, found)
		if err != nil || gap != "" {
			return gap, err
		}
		newest = base{snapshot: found, timeline: r.Base.Timeline(found)}
		c.status.setNewest(s.Name, r.Name, newest)
	}
	return whyDue(following, newest, s.Every, c.now()), nil
}

// whyDue decides; it is apart so that every case can be tested.
func whyDue(f following, b base, every time.Duration, now time.Time) string {
	switch {
	case f.Timeline != b.timeline:
		return fmt.Sprintf("timeline %d has none", f.Timeline)
	case f.NeedBase.After(b.snapshot.Started):
		return "write-ahead log was lost after the newest"
	case now.Sub(b.snapshot.Finished) >= every:
		return "the newest is " + now.Sub(b.snapshot.Finished).Round(time.Second).String() + " old"
	default:
		return ""
	}
}

func (c *Coordinator) takeBase(ctx context.Context, s Store, r Repository, why string) error {
	c.log.Info("base backup begins", "store", s.Name, "repository", r.Name, "because", why)
	snapshot, err := r.Base.Backup(ctx)
	if err != nil {
		return fmt.Errorf("base backup of %s into %s: %w", s.Name, r.Name, err)
	}
	c.status.setNewest(s.Name, r.Name, base{snapshot: snapshot, timeline: r.Base.Timeline(snapshot)})
	if s.BaseTaken != nil && c.status.behindGaps(s) {
		s.BaseTaken()
	}
	c.log.Info("Backup completed successfully", "store", s.Name, "repository", r.Name, "snapshot", snapshot.ID, "size", snapshot.Size, "stored", snapshot.Stored)
	return c.record(ctx, "backup.completed", backupEvent{Store: s.Name, Repository: r.Name, Why: why, Snapshot: snapshot})
}

type backupEvent struct {
	Store      string           `json:"store"`
	Repository string           `json:"repository"`
	Why        string           `json:"why"`
	Snapshot   relight.Snapshot `json:"snapshot"`
}
