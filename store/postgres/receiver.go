package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/repo"
	"github.com/toolboxai/relight/store"
	"github.com/toolboxai/relight/store/postgres/walfile"
)

// ReceiverOptions of a Receiver.
type ReceiverOptions struct {
	Store        string        // the store's name in the estate
	Conn         string        // libpq keywords or URI of a role with REPLICATION
	Peers        []string      // connections of the cluster's other servers: the primary is followed, the standbys keep a slot
	Slot         string        // "": relight_<store>
	Spool        string        // directory on this host for WAL that is not yet in every repository
	SpoolLimit   int64         // bytes; when reached, reading stops and the slot retains WAL on the server. 0: 4 GiB
	Bound        SlotBound     // of what the slot retains
	LiveInterval time.Duration // how often the unfinished segment is shipped when bytes have come; 0: one second
	SyncInterval time.Duration // how long received bytes may wait for fsync; 0: 100 ms
	AlarmAfter   time.Duration // how long a fault may last before it is an alarm; 0: 30 s
	Synchronous  *Synchronous  // the server's commits wait for this receiver; nil: they do not
	Guarded      func() bool   // whether a Guard watches: commits are not made to wait before; nil: always
	Log          *slog.Logger
	Now          func() time.Time
	Notify       func(Notice) // may be nil; called from several goroutines, one at a time
}

// NoticeKind classes a Notice.
type NoticeKind string

// The kinds of notice.
const (
	NoticeNeedBase     NoticeKind = "need-base"     // WAL is lost: only a new base backup makes later moments restorable
	NoticeTimeline     NoticeKind = "timeline"      // the server went on to another timeline
	NoticeSpoolFull    NoticeKind = "spool-full"    // reading has stopped
	NoticeSlotReleased NoticeKind = "slot-released" // the server no longer retains WAL that nobody else has
	NoticeStopped      NoticeKind = "sink-stopped"  // a repository refuses this WAL for good
	NoticeAlarm        NoticeKind = "alarm"         // a fault has lasted too long
	NoticeCleared      NoticeKind = "alarm-cleared" // it is over
	NoticeArmed        NoticeKind = "armed"         // the server's commits wait for relight
	NoticeReleased     NoticeKind = "released"      // relight stopped in order, and they do not any more
)

// Notice is something that happened and that more than a log must hear of.
type Notice struct {
	Kind       NoticeKind
	Repository string // of sink-stopped and sinks' alarms
	Message    string
	Gap        relight.Gap // of need-base
}

// Receiver follows a server's WAL into repositories. It promises:
//
//   - A position is Spooled only after fsync of file and directory, and Durable only after the repository said so.
//   - The server keeps WAL, through a slot that relight makes, until every repository holds it, or more would be kept than the slot's bound. WAL is streamed without
//     that slot: a walsender advances the slot it streams from to whatever flush position the client reports, which here means
//     only this host's disk. The slot moves by pg_replication_slot_advance alone, to the least durable position.
//   - A slow or failing repository delays no other, until the spool is full.
//   - In synchronous mode what is acknowledged is what was asked for: on the spool's disk, or in every repository. It is answered as soon as it is
//     so, over the connection without a slot; the slot goes on to move only with the repositories.
//   - The server never stops for want of room because repositories are away, unless that was asked for: at its bound the slot is released.
//   - WAL that is lost is announced: recorded as a gap in every repository, with the demand for a new base backup.
//   - Killed at any moment, it resumes where the spool and each repository truly stand.
//
// One Receiver follows one server at a time; a kernel lock on the spool keeps a second process away.
type Receiver struct {
	o    ReceiverOptions
	log  *slog.Logger
	now  func() time.Time
	tape *tape

	mu       sync.Mutex
	alarms   map[string]*alarm
	lost     time.Time // when WAL was last found lost
	segment  int64     // the server's wal_segment_size
	waited   store.Waited
	lead     string      // the connection of the server that is followed
	member   member      // and what it is
	armed    armedState  // of the control goroutine, kept over sessions
	strained bool        // the slot retains more than the server keeps by itself; likewise
	freed    released    // what the slot no longer retains; likewise
	refused  relight.LSN // up to where the spool could not take what came; 0: it took everything. Of the streaming goroutine
	notify   sync.Mutex
}

var _ store.Follower = (*Receiver)(nil)

var slotName = regexp.MustCompile(`^[a-z0-9_]{1,63}$`)
var applicationName = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,63}$`)
var notSlot = regexp.MustCompile(`[^a-z0-9_]`)

// slotOf is the name of the slot that retains a store's WAL where none is given.
func slotOf(store string) string {
	return notSlot.ReplaceAllString("relight_"+strings.ToLower(store), "_")
}

// NewReceiver checks the options; nothing is touched before Follow.
func NewReceiver(o ReceiverOptions) (*Receiver, error) {
	if o.Slot == "" {
		o.Slot = slotOf(o.Store)
	}
	if !slotName.MatchString(o.Slot) {
		return nil, receiveError(o.Store, relight.CodeUsage, "use lower-case letters, digits and underscores, at most 63",
			fmt.Errorf("%q is not the name of a replication slot", o.Slot))
	}
	if o.Store == "" || o.Conn == "" || o.Spool == "" {
		return nil, receiveError(o.Store, relight.CodeUsage, "", errors.New("a store's name, a connection and a spool are needed"))
	}
	if o.Synchronous != nil && !applicationName.MatchString(receiverApplication(o.Store)) {
		return nil, receiveError(o.Store, relight.CodeUsage, "name the store with letters, digits, dots, dashes and underscores, at most 55",
			errors.New("a server cannot list this store's name among those it waits for"))
	}
	setDefault(&o.SpoolLimit, 4<<30)
	o.Bound = o.Bound.withDefaults()
	setDefault(&o.LiveInterval, time.Second)
	setDefault(&o.SyncInterval, 100*time.Millisecond)
	setDefault(&o.AlarmAfter, 30*time.Second)
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Receiver{o: o, log: o.Log.With("store", o.Store), now: o.Now, tape: newTape(), alarms: map[string]*alarm{}}, nil
}

func setDefault[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

func receiveError(name string, code relight.Code, hint string, err error) error {
	return &relight.Error{Op: "receive WAL", Subject: "of store " + name, Code: code, Err: err, Hint: hint}
}

// Follow implements store.Follower. It returns nil when ctx ends, and an error only when going on would be wrong: the spool is in use or
// belongs to another cluster, the server is another cluster's, or every repository refuses its WAL.
func (r *Receiver) Follow(ctx context.Context, sinks []repo.Sink, report func(store.Position)) (err error) {
	if len(sinks) == 0 {
		return receiveError(r.o.Store, relight.CodeUsage, "name a repository in the store's policy", errors.New("there is no repository to follow into"))
	}
	sp, err := openSpool(r.o.Spool)
	if err != nil {
		return receiveError(r.o.Store, relight.CodeFailed, "", err)
	}
	defer func() { err = errors.Join(err, sp.close()) }()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r.tape.reset(len(sinks))
	if err := r.load(ctx, sp); err != nil {
		return err
	}
	var group sync.WaitGroup
	alive := newCountdown(len(sinks), func(err error) { cancel(err) })
	for i, sink := range sinks {
		s := &shipper{r: r, spool: sp, sink: sink, n: i}
		group.Go(func() { alive.done(s.run(ctx)) })
		group.Go(func() { s.covering(ctx) })
	}
	group.Go(func() { r.reporting(ctx, sinks, report) })
	group.Go(func() {
		if err := r.stream(ctx, sp, sinks); err != nil {
			cancel(err)
		}
	})
	<-ctx.Done()
	group.Wait()
	cause := context.Cause(ctx)
	inOrder := errors.Is(cause, context.Canceled) || errors.Is(cause, context.DeadlineExceeded)
	if inOrder {
		r.takeBack(ctx)
	}
	r.tape.end()
	report(r.position(sinks))
	if !inOrder {
		return cause
	}
	return nil
}

// countdown ends the work when the last of n sinks has failed for good.
type countdown struct {
	mu   sync.Mutex
	left int
	errs []error
	last func(error)
}

func newCountdown(n int, last func(error)) *countdown { return &countdown{left: n, last: last} }

func (c *countdown) done(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left--
	if err != nil {
		c.errs = append(c.errs, err)
	}
	if c.left == 0 && len(c.errs) > 0 {
		c.last(errors.Join(c.errs...))
	}
}

// Flush waits until every repository durably holds the server's WAL up to lsn, shipping without waiting for the interval. tl is the
// timeline that lsn lies on, 0 for whichever is followed. Follow must be running.
func (r *Receiver) Flush(ctx context.Context, tl relight.TimelineID, lsn relight.LSN) error {
	r.tape.hurry(lsn)
	return r.tape.waitDurable(ctx, tl, lsn)
}

// reporting calls report after changes, a few times a second at most.
func (r *Receiver) reporting(ctx context.Context, sinks []repo.Sink, report func(store.Position)) {
	for {
		changed := r.tape.changed()
		report(r.position(sinks))
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
		if sleepFor(ctx, 50*time.Millisecond) != nil {
			return
		}
	}
}

func (r *Receiver) position(sinks []repo.Sink) store.Position {
	p := r.tape.position(sinks)
	p.Alarm = r.alarmText()
	r.mu.Lock()
	defer r.mu.Unlock()
	p.NeedBase, p.Synchronous = r.lost, r.waited
	return p
}

// load puts what the spool holds on the tape, so that it is shipped even if the server never comes back.
func (r *Receiver) load(ctx context.Context, sp *spool) error {
	runs, err := sp.load(ctx)
	if err != nil {
		return receiveError(r.o.Store, relight.CodeFailed, "if the disk is damaged, move the spool away: what the server still has is streamed again", err)
	}
	for i, run := range runs {
		st := &stretch{tl: run.tl, begin: run.begin, written: run.end, synced: run.end, gap: run.gap, history: run.history}
		st.ended = i < len(runs)-1
		r.tape.add(st)
		r.log.Info("spool holds WAL", "timeline", run.tl, "from", run.begin, "to", run.end)
	}
	return nil
}

// key places WAL of one timeline in the repositories.
func (r *Receiver) key(sp *spool, tl relight.TimelineID) repo.WALKey {
	return repo.WALKey{Store: r.o.Store, System: sp.identity().System, Timeline: tl}
}

func (r *Receiver) segmentStart(sp *spool, lsn relight.LSN) relight.LSN {
	return walfile.SegmentStart(lsn, sp.identity().SegmentSize)
}
