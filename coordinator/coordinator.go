// Package coordinator keeps an estate protected: for every store it follows the changes into every repository, takes base backups
// when they are due or needed and the budget allows, sets restore points between them, and stores what recovery starts from (the estate bundle, journal heads and segments).
//
// It promises that one failing task never stops another, that whatever is not protected at this moment is said so in the status, with the reason,
// and that a task which failed is tried again until it works or the coordinator is stopped.
package coordinator

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/repo"
	"github.com/toolboxai/relight/store"
)

// Base takes and finds base backups of one store in one repository.
type Base interface {
	// Newest is the newest snapshot that is not Ahead; ok is false when there is none.
	Newest(ctx context.Context) (newest relight.Snapshot, ok bool, err error)
	// Start is where replay from a snapshot begins. The timeline is 0, which no server is on, where that cannot be told.
	Start(s relight.Snapshot) (relight.TimelineID, relight.LSN)
	// Gap says which write-ahead log after s is lost for good in its repository; "" when none is.
	Gap(ctx context.Context, s relight.Snapshot) (string, error)
	// Costs are those of the base backups that are there, oldest first.
	Costs(ctx context.Context) ([]Cost, error)
	// ReplayRate is how many bytes of write-ahead log a recovery replays in a second, measured by proofs where there are any.
	ReplayRate(ctx context.Context) (float64, error)
	// Backup takes one. With an error, the snapshot says what was done for nothing: when, and how much was read.
	Backup(ctx context.Context) (relight.Snapshot, error)
}

// Repository is one place that a store is protected in.
type Repository struct {
	Name string
	Sink repo.Sink
	Base Base
}

// Store is one protected store.
type Store struct {
	Name         string
	Follower     store.Follower
	Repositories []Repository
	Schedule     Schedule
	Points       Points        // nil where PointEvery is 0
	PointEvery   time.Duration // one point of each stretch of this length is made; 0: none
	BaseTaken    func()        // called when every repository has a base backup behind the last gap; may be nil
}

// Task is work that is repeated: anchors, the estate bundle, sweeping.
type Task struct {
	Name  string
	Every time.Duration
	Do    func(ctx context.Context) error
	Last  bool // once more when the coordinator stops
}

// Recorder keeps an event in the journal.
type Recorder func(ctx context.Context, kind string, data any) error

// Coordinator runs until its context ends.
type Coordinator struct {
	stores []Store
	tasks  []Task
	status *board
	record Recorder
	log    *slog.Logger
	now    func() time.Time
	tick   time.Duration
}

// Options of a Coordinator. Tick is how often work is looked for without an occasion (default 1 s). Publish is called every tick, and soon after
// a change, at most ten times a tick.
type Options struct {
	Stores  []Store
	Tasks   []Task
	Publish func(Status) error
	Record  Recorder
	Log     *slog.Logger
	Now     func() time.Time
	Tick    time.Duration
}

// New makes a coordinator that does nothing yet.
func New(o Options) *Coordinator {
	if o.Tick == 0 {
		o.Tick = time.Second
	}
	return &Coordinator{stores: o.Stores, tasks: o.Tasks, status: newBoard(o.Publish, o.Now), record: o.Record, log: o.Log, now: o.Now, tick: o.Tick}
}

// Run protects until ctx ends, then waits for everything that it started.
func (c *Coordinator) Run(ctx context.Context) {
	var wg sync.WaitGroup
	for _, s := range c.stores {
		wg.Go(func() { c.follow(ctx, s) })
		for _, r := range s.Repositories {
			wg.Go(func() { c.keepBase(ctx, s, r) })
		}
		if s.PointEvery > 0 {
			wg.Go(func() { c.keepPoints(ctx, s) })
		}
	}
	for _, t := range c.tasks {
		wg.Go(func() { c.repeat(ctx, t) })
	}
	wg.Go(func() { c.publish(ctx) })
	wg.Wait()
	c.status.publish()
}

// follow keeps the store's follower running; it gives up only with ctx.
func (c *Coordinator) follow(ctx context.Context, s Store) {
	sinks := make([]repo.Sink, len(s.Repositories))
	for i, r := range s.Repositories {
		sinks[i] = r.Sink
	}
	c.insist(ctx, "follow "+s.Name, func(ctx context.Context) error {
		err := s.Follower.Follow(ctx, sinks, func(p store.Position) { c.status.position(s.Name, p) })
		c.status.followEnded(s.Name, err)
		return err
	})
}

// repeat does a task again and again.
func (c *Coordinator) repeat(ctx context.Context, t Task) {
	for ctx.Err() == nil {
		c.try(ctx, t)
		if pause(ctx, t.Every) != nil {
			break
		}
	}
	if t.Last {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		c.try(last, t)
	}
}

func (c *Coordinator) try(ctx context.Context, t Task) {
	err := t.Do(ctx)
	if err != nil && ctx.Err() == nil {
		c.log.Warn("task failed", "task", t.Name, "error", err)
	}
	c.status.task(t.Name, err)
}

// insist runs do until it ends without error or ctx ends, with growing pauses.
func (c *Coordinator) insist(ctx context.Context, what string, do func(context.Context) error) {
	wait := c.tick
	for ctx.Err() == nil {
		begun := c.now()
		err := do(ctx)
		if err == nil || ctx.Err() != nil {
			return
		}
		c.log.Error("will be tried again", "what", what, "in", wait, "error", err)
		if c.now().Sub(begun) > time.Minute {
			wait = c.tick
		}
		if pause(ctx, wait) != nil {
			return
		}
		wait = min(2*wait, time.Minute)
	}
}

func (c *Coordinator) publish(ctx context.Context) {
	for {
		news := c.status.changing() // before the status is read: what changes meanwhile is published next
		c.status.publish()
		if pause(ctx, c.tick/10) != nil || pauseUnless(ctx, c.tick, news) != nil {
			return
		}
	}
}

// pauseUnless waits d, less if the bell rings, or until ctx ends, whose error it then returns.
func pauseUnless(ctx context.Context, d time.Duration, bell <-chan struct{}) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	case <-bell:
	}
	return ctx.Err()
}

// pause waits d or until ctx ends, whose error it then returns.
func pause(ctx context.Context, d time.Duration) error {
	return pauseUnless(ctx, d, nil)
}
