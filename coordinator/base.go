package coordinator

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/toolboxai/relight"
)

// keepBase takes base backups of a store into one repository whenever one is due or needed.
func (c *Coordinator) keepBase(ctx context.Context, s Store, r Repository) {
	var wait time.Duration
	for ctx.Err() == nil {
		turn := c.status.turning() // before it is looked at: what turns meanwhile is looked at next
		begun := c.now()
		why, err := c.due(ctx, s, r)
		if err == nil && why != "" {
			err = c.takeBase(ctx, s, r, why)
		}
		c.status.base(s.Name, r.Name, err)
		if err == nil {
			if why != "" {
				wait = 0
			}
			_ = pauseUnless(ctx, c.tick, turn)
			continue
		}
		if ctx.Err() == nil {
			c.log.Error("base backup", "store", s.Name, "repository", r.Name, "error", err)
		}
		wait = retryPause(wait, c.now().Sub(begun), 5*c.tick)
		_ = pause(ctx, wait) // whatever turns
	}
}

// What bounds the pauses between failed attempts.
const (
	longestCheapPause = time.Minute // after those that fail at once, as when the repository is away
	longestPause      = 16          // times as long as the attempt took: what reads everything for nothing does so for a seventeenth of the time at most
)

// retryPause is how long to wait after an attempt that failed, given the pause before it, 0 if there was none: twice as long, at least as long as the attempt took.
func retryPause(before, took, least time.Duration) time.Duration {
	return min(max(2*before, took, least), max(longestCheapPause, longestPause*took))
}

// lookAgain is how long what is known of a repository's base backups counts: other processes take and prove them too.
const lookAgain = 15 * time.Minute

// due says why a base backup must be taken now, or "". Nothing is due before the follower streams: a backup needs its WAL.
func (c *Coordinator) due(ctx context.Context, s Store, r Repository) (string, error) {
	following, ok := c.status.following(s.Name)
	if !ok {
		return "", nil
	}
	newest, ok := c.status.newest(s.Name, r.Name)
	if age := c.now().Sub(newest.learned); !ok || age < 0 || age >= lookAgain { // less than 0: the clock was set back
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
		if newest, err = c.learn(ctx, s, r, found); err != nil {
			return "", err
		}
	}
	newest.costs = c.status.withFailed(s.Name, r.Name, newest.costs)
	d := decide(following, newest, s.Schedule, c.now())
	c.status.planned(s.Name, r.Name, d)
	return d.why, nil
}

// learn gathers what is to be known of the newest base backup and its forerunners.
func (c *Coordinator) learn(ctx context.Context, s Store, r Repository, newest relight.Snapshot) (base, error) {
	b := base{snapshot: newest, learned: c.now()}
	b.timeline, b.start = r.Base.Start(newest)
	var err error
	if s.Schedule.Budget != (Budget{}) {
		if b.costs, err = r.Base.Costs(ctx); err != nil {
			return b, fmt.Errorf("find what base backups cost: %w", err)
		}
	}
	if b.replayRate, err = r.Base.ReplayRate(ctx); err != nil {
		return b, fmt.Errorf("find how fast the log is replayed: %w", err)
	}
	c.status.setNewest(s.Name, r.Name, b)
	return b, nil
}

func (c *Coordinator) takeBase(ctx context.Context, s Store, r Repository, why string) error {
	c.log.Info("base backup begins", "store", s.Name, "repository", r.Name, "because", why)
	snapshot, err := r.Base.Backup(ctx)
	if err != nil {
		c.status.failed(s.Name, r.Name, CostOf(snapshot))
		return fmt.Errorf("base backup of %s into %s: %w", s.Name, r.Name, err)
	}
	_, learned := c.learn(ctx, s, r, snapshot) // when it fails, the next look finds the snapshot in the repository
	if s.BaseTaken != nil && c.status.behindGaps(s) {
		s.BaseTaken()
	}
	c.log.Info("Backup completed successfully", "store", s.Name, "repository", r.Name, "snapshot", snapshot.ID, "size", snapshot.Size, "stored", snapshot.Stored)
	return errors.Join(learned, c.record(ctx, "backup.completed", backupEvent{Store: s.Name, Repository: r.Name, Why: why, Snapshot: snapshot}))
}

type backupEvent struct {
	Store      string           `json:"store"`
	Repository string           `json:"repository"`
	Why        string           `json:"why"`
	Snapshot   relight.Snapshot `json:"snapshot"`
}
