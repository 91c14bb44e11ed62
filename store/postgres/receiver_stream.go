package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/repo"
	"github.com/toolboxai/relight/store/postgres/replication"
	"github.com/toolboxai/relight/store/postgres/walfile"
)

// errHard marks what trying again cannot mend.
type errHard struct{ error }

func (e errHard) Unwrap() error { return e.error }

// spoolWrites names in alarms what the spool is given.
const spoolWrites = "spool writes"

// serverSource names the server in alarms.
const serverSource = "server"

// The pauses between sessions, which grow while they fail.
const (
	firstPause   = 100 * time.Millisecond
	longestPause = 5 * time.Second
	longestAway  = time.Second
)

// longest is how long the pause after a session that failed so may be. A server that is not there may be back at any moment, recovered for one; until it is asked
// nothing of it is protected, and asking costs nobody anything.
func longest(err error) time.Duration {
	if notThere(err) {
		return longestAway
	}
	return longestPause
}

// stream connects and follows, again and again, until ctx ends or going on would be wrong.
func (r *Receiver) stream(ctx context.Context, sp *spool, sinks []repo.Sink) error {
	wait, said, saidAt := firstPause, "", time.Time{}
	for ctx.Err() == nil {
		began := r.now()
		err := r.session(ctx, sp, sinks)
		r.unanswered()
		if ctx.Err() != nil {
			return nil
		}
		var hard errHard
		if errors.As(err, &hard) {
			return hard.error
		}
		if r.now().Sub(began) > time.Minute {
			wait = firstPause
		}
		wait = min(wait, longest(err))
		if err != nil {
			if text := err.Error(); text != said || r.now().Sub(saidAt) >= longestPause { // not each time that nobody answers
				r.log.Warn("the stream ended", "error", err, "again_in", wait)
				said, saidAt = text, r.now()
			}
			r.trouble(serverSource, err.Error(), r.o.AlarmAfter)
		}
		if sleepFor(ctx, wait) != nil {
			return nil
		}
		wait *= 2
	}
	return nil
}

// session is one pair of connections: one for WAL, one for slot and clock.
func (r *Receiver) session(ctx context.Context, sp *spool, sinks []repo.Sink) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	server, err := r.lookup(ctx)
	if err != nil {
		return err
	}
	conn, err := replication.Connect(ctx, server, receiverApplication(r.o.Store), r.now)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	sys, err := r.identify(ctx, conn, sp)
	if err != nil {
		return err
	}
	control, err := r.openControl(ctx)
	if err != nil {
		return err
	}
	defer func() { control.close(context.WithoutCancel(ctx)) }()
	r.armed.last = syncRow{} // of another server, perhaps
	if err := r.recognise(ctx, control); err != nil {
		return err
	}
	slot, err := r.retain(ctx, conn, control)
	if err != nil {
		return err
	}
	st, err := r.chooseStart(ctx, conn, sp, sinks, sys, slot)
	if err != nil {
		return err
	}
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()
	var controlErr error
	group.Go(func() {
		if controlErr = r.control(ctx, control); controlErr != nil {
			cancel()
		}
	})
	var moved error
	if len(r.o.Peers) > 0 {
		group.Go(func() {
			if moved = r.standing(ctx, server); moved != nil {
				cancel()
			}
		})
	}
	err = r.followTimelines(ctx, conn, sp, st)
	cancel()
	group.Wait()
	if moved != nil {
		return moved
	}
	if controlErr != nil && (err == nil || errors.Is(err, context.Canceled)) {
		err = controlErr
	}
	return err
}

// identify checks that the server is the one whose WAL the spool holds.
func (r *Receiver) identify(ctx context.Context, conn *replication.Conn, sp *spool) (replication.System, error) {
	sys, err := conn.Identify(ctx)
	if err != nil {
		return sys, err
	}
	size, err := conn.SegmentSize(ctx)
	if err != nil {
		return sys, err
	}
	if conn.Version() < oldestVersion {
		return sys, errHard{receiveError(r.o.Store, relight.CodeUsage, "PostgreSQL 15 is the oldest version that is supported",
			fmt.Errorf("the server's version is %d", conn.Version()))}
	}
	r.mu.Lock()
	r.segment = size
	r.mu.Unlock()
	err = sp.adopt(spoolIdentity{System: sys.ID, SegmentSize: size, Version: conn.Version()})
	if err != nil {
		return sys, errHard{receiveError(r.o.Store, relight.CodeUsage, "check which server the store names; if the cluster was made anew: relight postgres adopt --store "+r.o.Store, err)}
	}
	return sys, nil
}

// followTimelines streams st, and whatever timeline the server goes on to.
func (r *Receiver) followTimelines(ctx context.Context, conn *replication.Conn, sp *spool, st *stretch) error {
	for {
		next, err := r.followStretch(ctx, conn, sp, st)
		if err != nil {
			return err
		}
		history, err := conn.History(ctx, next.Next)
		if err != nil {
			return fmt.Errorf("fetch the history of timeline %d: %w", next.Next, err)
		}
		if at := r.tape.view(st, 0).synced; at < next.At {
			return fmt.Errorf("the server left timeline %d at %s, and only %s came", st.tl, next.At, at)
		}
		r.send(Notice{Kind: NoticeTimeline, Message: fmt.Sprintf("the server went from timeline %d to %d at %s", st.tl, next.Next, next.At)})
		begin := walfile.SegmentStart(next.At, sp.identity().SegmentSize)
		st = &stretch{tl: next.Next, begin: begin, written: begin, synced: begin, history: history}
		if err := r.begin(sp, st); err != nil {
			return err
		}
	}
}

// begin puts a new stretch on the tape, history and gap being durable first.
func (r *Receiver) begin(sp *spool, st *stretch) error {
	if err := sp.remember(st); err != nil {
		return err
	}
	r.tape.add(st)
	return nil
}

// followStretch streams one timeline until the server says that it is complete.
func (r *Receiver) followStretch(ctx context.Context, conn *replication.Conn, sp *spool, st *stretch) (next replication.Message, err error) {
	from := r.resume(st)
	ended, err := conn.Start(ctx, from, st.tl)
	if err != nil {
		return next, r.classify(st, err)
	}
	if ended != nil {
		return *ended, nil
	}
	r.log.Info("streaming", "timeline", st.tl, "from", from)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer conn.Guard(ctx)()
	w := sp.writer(st, from)
	var group sync.WaitGroup
	var syncErr error
	dirty := make(chan struct{}, 1)
	asked := make(chan struct{}, 1)
	group.Go(func() {
		if syncErr = r.syncing(ctx, conn, st, w, dirty, asked); syncErr != nil {
			cancel()
		}
	})
	next, err = r.receive(ctx, conn, sp, st, w, dirty, asked)
	cancel()
	group.Wait()
	if syncErr != nil {
		err = syncErr
	}
	if err == nil {
		err = r.settle(st, w)
	}
	return next, errors.Join(r.classify(st, err), w.close())
}

// resume gives the position from which to stream: bytes that were written but never synced are asked for again.
func (r *Receiver) resume(st *stretch) (from relight.LSN) {
	r.tape.update(func() {
		st.written = st.synced
		from = st.synced
	})
	return from
}

// receive writes what comes until the timeline ends.
func (r *Receiver) receive(ctx context.Context, conn *replication.Conn, sp *spool, st *stretch, w *spoolWriter, dirty, asked chan struct{}) (replication.Message, error) {
	for {
		if err := r.room(ctx, sp); err != nil {
			return replication.Message{}, err
		}
		m, err := conn.Receive()
		if err != nil {
			if ctx.Err() != nil {
				err = ctx.Err()
			}
			return m, err
		}
		r.well(serverSource)
		switch m.Kind {
		case replication.Ended:
			return m, nil
		case replication.Keepalive:
			if m.Reply {
				signal(asked)
			}
		case replication.Data:
			if err := r.spool(w, m); err != nil {
				return m, err
			}
			r.tape.mark(st, w.pos)
			signal(dirty)
		}
	}
}

// spool writes what came. A spool that takes nothing more is an alarm of its own, which lasts until it took what it refused: the server is well, and
// after each new session it is heard from again.
func (r *Receiver) spool(w *spoolWriter, m replication.Message) error {
	if err := w.write(m.Start, m.Bytes); err != nil {
		r.refused = m.Start + relight.LSN(len(m.Bytes))
		r.trouble(spoolWrites, err.Error(), 0)
		return err
	}
	if r.refused != 0 && w.pos >= r.refused {
		r.refused = 0
		r.well(spoolWrites)
	}
	return nil
}

func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// mark notes how far bytes are written, without waking anybody: only synced bytes are of use to others.
func (t *tape) mark(st *stretch, written relight.LSN) {
	t.mu.Lock()
	defer t.mu.Unlock()
	st.written = written
}

// leastSegments is how much the spool takes whatever its limit: what leaves it is whole segments, and one that is never read to its end never leaves.
const leastSegments = 2

// room blocks while the spool is full. The connection stays up, because syncing answers the server; the slot retains WAL there.
func (r *Receiver) room(ctx context.Context, sp *spool) error {
	limit := max(r.o.SpoolLimit, leastSegments*sp.identity().SegmentSize)
	if sp.used() < limit {
		return nil
	}
	text := fmt.Sprintf("%d bytes are waiting for a repository and the limit is %d: reading has stopped, the slot %s retains WAL on the server", sp.used(), limit, r.o.Slot)
	r.send(Notice{Kind: NoticeSpoolFull, Message: text})
	r.trouble("spool full", text, 0)
	err := r.tape.wait(ctx, func() bool { return sp.used() < limit-limit/10 })
	r.well("spool full")
	return err
}

// statusEvery is how often the server hears of us when nothing happens; it gives up after wal_sender_timeout, a minute by default.
const statusEvery = 5 * time.Second

// syncing makes received bytes durable and tells the server. It does not wait for the socket to run dry: a status goes out after each fsync,
// however much is still coming. Where commits wait for the answer there is no pause between two; those that come meanwhile share the next fsync.
func (r *Receiver) syncing(ctx context.Context, conn *replication.Conn, st *stretch, w *spoolWriter, dirty, asked <-chan struct{}) error {
	tick := time.NewTicker(statusEvery)
	defer tick.Stop()
	var told relight.LSN
	tell := func() (err error) {
		told, err = r.status(conn, st)
		return err
	}
	for {
		var err error
		changed := r.acknowledging()
		if r.acknowledged(st) > told {
			err = tell()
		}
		if err == nil {
			select {
			case <-ctx.Done():
				return nil
			case <-changed:
			case <-dirty:
				if err = r.settle(st, w); err != nil {
					return err
				}
				if err = tell(); err == nil && r.o.Synchronous == nil {
					err = sleepFor(ctx, r.o.SyncInterval)
				}
			case <-asked:
				err = tell()
			case <-tick.C:
				err = tell()
			}
		}
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
	}
}

// acknowledging gives what announces that repositories may hold more, where that is what is acknowledged; else nil, which never comes.
func (r *Receiver) acknowledging() <-chan struct{} {
	if r.o.Synchronous == nil || !r.o.Synchronous.Repository {
		return nil
	}
	return r.tape.changed()
}

// acknowledged is how far WAL is what the server may take for safe.
func (r *Receiver) acknowledged(st *stretch) relight.LSN {
	if r.o.Synchronous != nil && r.o.Synchronous.Repository {
		return r.tape.everywhere(st)
	}
	return r.tape.view(st, 0).synced
}

// settle syncs what is written and publishes it.
func (r *Receiver) settle(st *stretch, w *spoolWriter) error {
	r.tape.mu.Lock()
	written := st.written
	r.tape.mu.Unlock()
	if err := w.sync(); err != nil {
		r.trouble("spool", err.Error(), 0)
		return err
	}
	r.well("spool")
	r.tape.update(func() {
		st.synced = max(st.synced, written)
		if r.o.Synchronous != nil && r.o.Synchronous.Repository {
			r.tape.urgent = max(r.tape.urgent, st.synced)
		}
	})
	return nil
}

// status tells the server how far WAL is acknowledged. Apply is always zero, for nothing is ever applied here. In synchronous mode the written
// position is the acknowledged one too: with remote_write commits wait for that one, and it must not mean less.
func (r *Receiver) status(conn *replication.Conn, st *stretch) (relight.LSN, error) {
	r.tape.mu.Lock()
	written := st.written
	r.tape.mu.Unlock()
	safe := r.acknowledged(st)
	if r.o.Synchronous != nil {
		written = safe
	}
	return safe, conn.Status(written, safe, 0)
}

// errRemoved says that the server no longer has the WAL that is needed.
var errRemoved = errors.New("the server has removed WAL that no repository holds")

// classify recognises the answer of a server that has removed the wanted segment; the next session then goes on behind the gap.
func (r *Receiver) classify(st *stretch, err error) error {
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == "58P01" {
		r.tape.update(func() { st.removed = true })
		return fmt.Errorf("%w: %w", errRemoved, err)
	}
	return err
}
