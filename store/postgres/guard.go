package postgres

import (
	"context"
	"log/slog"
	"time"

	"github.com/toolboxai/relight"
)

// GuardOptions of a Guard.
type GuardOptions struct {
	Store string
	Conns []string      // of every server of the cluster; the primary is the one that commits wait at
	After time.Duration // how long commits may wait for the receiver
	Every time.Duration // between two looks; 0: a fifth of After, at most a second
	// Orphaned tells whether who started the guard is gone. nil: never.
	Orphaned func() bool
	// Record keeps that commits were released, and why. It is called until it succeeds.
	Record func(ctx context.Context, d Degraded) error
	Log    *slog.Logger
	Now    func() time.Time
}

// Degraded is what a guard puts on record.
type Degraded struct {
	Store    string      `json:"store"`
	At       time.Time   `json:"at"`
	Waited   string      `json:"waited"`   // how long WAL was not acknowledged
	Unheard  relight.LSN `json:"unheard"`  // the position that nobody acknowledged
	Sessions int         `json:"sessions"` // whose commit waited
	Why      string      `json:"why"`
}

// Guard takes a receiver that does not answer out of the list of those that a server's commits wait for. It runs in a process of its own, since
// a dead receiver cannot do it, and judges by what the server says: whether WAL that it flushed is acknowledged in time. Why it is not, because
// the receiver was killed, hangs, or waits for a repository, makes no difference to a waiting commit.
//
// It changes the server's list only where relight alone stands on it, and every such change is recorded.
type Guard struct {
	o       GuardOptions
	conn    *controlConn
	mark    relight.LSN // must be acknowledged …
	since   time.Time   // … and has not been since
	pending *Degraded   // is not on record yet
}

// NewGuard makes a guard that has not looked yet.
func NewGuard(o GuardOptions) *Guard {
	if o.Every == 0 {
		o.Every = min(o.After/5, time.Second)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Guard{o: o}
}

// Run guards until ctx ends. When it is orphaned it ends by itself once there is nothing left to guard: the server waits for nobody that relight
// could release, and what was released is on record.
func (g *Guard) Run(ctx context.Context) error {
	defer func() { g.hangUp(context.WithoutCancel(ctx)) }()
	for {
		orphaned := g.o.Orphaned != nil && g.o.Orphaned() // before the look: what a receiver did last is seen
		armed, err := g.look(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil { // the server is down or away: nobody's commit waits, or nobody can help it
			g.o.Log.Warn("the guard cannot ask the server", "error", err)
			g.hangUp(ctx)
			g.mark, armed = 0, true
		}
		if orphaned && !armed && g.pending == nil {
			return nil
		}
		if sleepFor(ctx, g.o.Every) != nil {
			return nil
		}
	}
}

// look asks once, and releases the commits when it is time.
func (g *Guard) look(ctx context.Context) (armed bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	g.record(ctx)
	if g.conn == nil {
		conn, err := Lead(ctx, g.o.Conns)
		if err != nil {
			return false, err
		}
		if g.conn, err = dialControl(ctx, conn, "relight_guard"); err != nil {
			return false, err
		}
	}
	s, err := g.conn.synchronous(ctx, g.o.Store)
	if err != nil {
		return false, err
	}
	if s.recovery && len(g.o.Conns) > 1 {
		g.hangUp(ctx) // the primary is elsewhere, or not there yet
	}
	now := g.o.Now()
	armed = s.ours(g.o.Store) && !s.recovery
	if !armed || g.mark == 0 || s.flush >= g.mark {
		g.mark, g.since = s.end, now
		return armed, nil
	}
	if waited := now.Sub(g.since); waited >= g.o.After {
		return armed, g.degrade(ctx, s, waited)
	}
	return armed, nil
}

// degrade acts first and records then: the record may wait for a disk, the commits do not. The server's own log has the change as well.
func (g *Guard) degrade(ctx context.Context, s syncRow, waited time.Duration) error {
	why := "no receiver streams"
	if s.state != "" {
		why = "the receiver streams and has acknowledged WAL only up to " + s.flush.String()
	}
	g.o.Log.Error("commits are released: they do not wait for relight any more", "store", g.o.Store, "waited", waited, "why", why)
	released, err := g.conn.release(ctx, g.o.Store)
	if released {
		g.pending = &Degraded{Store: g.o.Store, At: g.o.Now(), Waited: waited.Round(time.Millisecond).String(), Unheard: g.mark, Sessions: s.waiting, Why: why}
		g.record(ctx)
	}
	return err
}

func (g *Guard) record(ctx context.Context) {
	if g.pending == nil {
		return
	}
	if err := g.o.Record(ctx, *g.pending); err != nil {
		g.o.Log.Error("that commits were released is not on record yet", "error", err)
		return
	}
	g.pending = nil
}

func (g *Guard) hangUp(ctx context.Context) {
	if g.conn != nil {
		g.conn.close(ctx)
		g.conn = nil
	}
}
