package postgres

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/repo"
	"github.com/toolboxai/relight/store"
)

// tape is what the streaming side and the shipping sides share: which WAL the spool holds, and how far each repository is.
type tape struct {
	mu        sync.Mutex
	wake      chan struct{} // closed and replaced at every change
	stretches []*stretch
	sinks     []sinkState
	samples   []sample
	urgent    relight.LSN
	ended     bool
}

// stretch is continuous WAL of one timeline.
type stretch struct {
	tl      relight.TimelineID
	begin   relight.LSN // the beginning of a segment
	written relight.LSN
	synced  relight.LSN
	ended   bool         // nothing comes after synced
	removed bool         // the server no longer has what comes after synced
	tip     relight.LSN  // where the least advanced repository stood when it began; 0 if that was not asked
	gap     *relight.Gap // what is missing before it
	history []byte       // of its timeline; empty for the first
	whole   []relight.LSN
	// whole[i] is up to where sink i holds complete segments; begin while it has none.
}

// sinkState is how far one repository is.
type sinkState struct {
	known   bool // its durable position has been asked
	current *stretch
	durable relight.LSN
	dead    bool
}

// sample says that at clock the server's WAL ended at or before lsn of timeline tl.
type sample struct {
	tl    relight.TimelineID
	clock time.Time
	lsn   relight.LSN
}

const maxSamples = 4096

func newTape() *tape { return &tape{wake: make(chan struct{})} }

func (t *tape) reset(sinks int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stretches, t.samples, t.urgent, t.ended = nil, nil, 0, false
	t.sinks = make([]sinkState, sinks)
}

// changed gives a channel that is closed at the next change.
func (t *tape) changed() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.wake
}

func (t *tape) touch() { t.update(func() {}) }

func (t *tape) update(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f()
	close(t.wake)
	t.wake = make(chan struct{})
}

// wait blocks until ok, which is called under the lock, is true.
func (t *tape) wait(ctx context.Context, ok func() bool) error {
	for {
		t.mu.Lock()
		done, wake := ok(), t.wake
		t.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-wake:
		}
	}
}

func (t *tape) end() { t.update(func() { t.ended = true }) }

// add appends a stretch; the one before it is complete.
func (t *tape) add(st *stretch) {
	t.update(func() {
		if n := len(t.stretches); n > 0 {
			t.stretches[n-1].ended = true
		}
		st.whole = make([]relight.LSN, len(t.sinks))
		for i := range st.whole {
			st.whole[i] = st.begin
		}
		t.stretches = append(t.stretches, st)
	})
}

// last is the stretch that is being written, nil before the first.
func (t *tape) last() *stretch {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.stretches) == 0 {
		return nil
	}
	return t.stretches[len(t.stretches)-1]
}

// next waits for the stretch after st, the first one if st is nil.
func (t *tape) next(ctx context.Context, st *stretch) (*stretch, error) {
	var next *stretch
	err := t.wait(ctx, func() bool {
		found := st == nil
		for _, s := range t.stretches {
			if found {
				next = s
				return true
			}
			found = s == st
		}
		return false
	})
	return next, err
}

// view is a consistent look at a stretch for one sink.
type view struct {
	synced  relight.LSN
	ended   bool
	whole   relight.LSN
	durable relight.LSN
}

func (t *tape) view(st *stretch, sink int) view {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.look(st, sink)
}

// look is view for those who hold the lock.
func (t *tape) look(st *stretch, sink int) view {
	return view{synced: st.synced, ended: st.ended, whole: st.whole[sink], durable: t.sinks[sink].durable}
}

// enter puts a sink at a stretch, where it durably holds WAL up to durable.
func (t *tape) enter(sink int, st *stretch, durable relight.LSN) {
	t.update(func() { t.sinks[sink] = sinkState{known: true, current: st, durable: durable} })
}

// advance moves a sink's durable position forward.
func (t *tape) advance(sink int, durable relight.LSN) {
	t.update(func() { t.sinks[sink].durable = max(t.sinks[sink].durable, durable) })
}

// segment notes that a sink holds complete segments up to end.
func (t *tape) segment(sink int, st *stretch, end relight.LSN) {
	t.update(func() {
		st.whole[sink] = max(st.whole[sink], end)
		t.sinks[sink].durable = max(t.sinks[sink].durable, end)
	})
}

// kill takes a sink out: nothing is kept in the spool for it any more. The slot still waits for it.
func (t *tape) kill(sink int) { t.update(func() { t.sinks[sink].dead = true }) }

// refused tells whether a sink was taken out.
func (t *tape) refused(sink int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.sinks[sink].dead
}

// least is the position up to which every repository durably holds WAL; ok is false while one has not been asked.
func (t *tape) least() (lsn relight.LSN, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.sinks {
		d, known := t.held(i)
		if !known {
			return 0, false
		}
		if i == 0 || d < lsn {
			lsn = d
		}
	}
	return lsn, len(t.sinks) > 0
}

// forgettable is up to where the server need not retain WAL: what every repository holds, but nothing that is still to come from the server, which may
// be what a repository was given already by a receiver that died.
func (t *tape) forgettable() (lsn relight.LSN, ok bool) {
	lsn, ok = t.least()
	if st := t.last(); ok && st != nil {
		lsn = min(lsn, t.view(st, 0).synced)
	}
	return lsn, ok
}

// everywhere is up to where every repository durably holds a stretch; 0 while one has not come to it. A repository that refuses this WAL holds
// up everything, as one that is away does.
func (t *tape) everywhere(st *stretch) relight.LSN {
	t.mu.Lock()
	defer t.mu.Unlock()
	lsn := st.synced
	for _, s := range t.sinks {
		if !s.known || s.current != st {
			return 0
		}
		lsn = min(lsn, s.durable)
	}
	return lsn
}

// held is the position of one sink, lowered to the beginning of whatever later stretch it has not entered.
func (t *tape) held(sink int) (relight.LSN, bool) {
	s := t.sinks[sink]
	if !s.known {
		return 0, false
	}
	lsn, later := s.durable, false
	for _, st := range t.stretches {
		if later {
			lsn = min(lsn, st.begin)
		}
		later = later || st == s.current
	}
	return lsn, true
}

// hurry asks that everything up to lsn be shipped without waiting for the interval.
func (t *tape) hurry(lsn relight.LSN) { t.update(func() { t.urgent = max(t.urgent, lsn) }) }

var errNotFollowing = errors.New("the receiver has stopped")

func (t *tape) waitDurable(ctx context.Context, tl relight.TimelineID, lsn relight.LSN) error {
	var ended bool
	err := t.wait(ctx, func() bool {
		if ended = t.ended; ended {
			return true
		}
		for i := range t.sinks {
			d, known := t.held(i)
			if !known || d < lsn || t.sinks[i].current.tl < tl {
				return false
			}
		}
		return len(t.sinks) > 0
	})
	if err == nil && ended {
		return errNotFollowing
	}
	return err
}

// observe adds a sample of the server's clock and end of WAL.
func (t *tape) observe(s sample) {
	t.update(func() {
		n := len(t.samples)
		switch {
		case n > 0 && (t.samples[n-1].tl != s.tl || t.samples[n-1].lsn > s.lsn):
			t.samples = t.samples[:0] // another history: what was observed says nothing about it
		case n > 0 && t.samples[n-1].lsn == s.lsn:
			t.samples[n-1].clock = s.clock // nothing was written in between: the later clock holds as well
			return
		}
		t.samples = append(t.samples, s)
		if len(t.samples) > maxSamples {
			t.samples = append(t.samples[:0], t.samples[len(t.samples)-maxSamples/2:]...)
		}
	})
}

// covered is the latest server clock at which its WAL ended at or before lsn, zero if unknown.
func (t *tape) covered(tl relight.TimelineID, lsn relight.LSN) time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.coveredAt(tl, lsn)
}

func (t *tape) coveredAt(tl relight.TimelineID, lsn relight.LSN) time.Time {
	for i := len(t.samples) - 1; i >= 0; i-- {
		if t.samples[i].tl == tl && t.samples[i].lsn <= lsn {
			return t.samples[i].clock
		}
	}
	return time.Time{}
}

// position is what Follow reports.
func (t *tape) position(sinks []repo.Sink) store.Position {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := store.Position{Durable: map[string]relight.LSN{}, Covered: map[string]relight.Point{}}
	if n := len(t.stretches); n > 0 {
		st := t.stretches[n-1]
		p.Timeline, p.Written, p.Spooled = st.tl, st.written, st.synced
	}
	for i, sink := range sinks {
		s := t.sinks[i]
		if !s.known {
			continue
		}
		p.Durable[sink.Name()] = s.durable
		p.Covered[sink.Name()] = relight.Point{Timeline: s.current.tl, LSN: s.durable, Time: t.coveredAt(s.current.tl, s.durable)}
	}
	return p
}
