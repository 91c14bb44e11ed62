package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"github.com/zeebo/blake3"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/repo"
	"github.com/toolboxai/relight/store/postgres/walfile"
)

// shipper brings the spool's WAL into one repository, stretch by stretch: first the record of what is missing before it and its
// timeline's history, then live ranges and complete segments side by side.
type shipper struct {
	r     *Receiver
	spool *spool
	sink  repo.Sink
	n     int // the sink's number on the tape
	swept time.Time
}

// source names the shipper's lane in alarms.
func (s *shipper) source(lane string) string { return laneSource(s.sink.Name(), lane) }

// run ends with ctx, or with an error when the repository refuses this WAL for good.
func (s *shipper) run(ctx context.Context) error {
	var st *stretch
	for {
		next, err := s.r.tape.next(ctx, st)
		if err != nil {
			return nil
		}
		if err := s.stretch(ctx, next); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			s.r.tape.kill(s.n)
			s.r.trouble(s.source("stopped"), "refuses this WAL: "+err.Error(), 0)
			s.r.send(Notice{Kind: NoticeStopped, Repository: s.sink.Name(), Message: "repository " + s.sink.Name() + " refuses this WAL: " + err.Error()})
			return receiveError(s.r.o.Store, relight.CodeOf(err), relight.HintOf(err), fmt.Errorf("repository %s: %w", s.sink.Name(), err))
		}
		st = next
	}
}

// stretch ships one stretch to its end.
func (s *shipper) stretch(ctx context.Context, st *stretch) error {
	key := s.r.key(s.spool, st.tl)
	if st.gap != nil {
		if err := s.retry(ctx, laneStart, "record a gap", func() error { return s.sink.Gap(ctx, s.r.key(s.spool, st.gap.Timeline), *st.gap) }); err != nil {
			return err
		}
	}
	if len(st.history) > 0 {
		if err := s.retry(ctx, laneStart, "store a timeline's history", func() error { return s.history(ctx, key, st) }); err != nil {
			return err
		}
	}
	var durable relight.LSN
	err := s.retry(ctx, laneStart, "find what is durable", func() (err error) {
		durable, err = s.sink.Durable(ctx, key, st.begin)
		return err
	})
	if err != nil {
		return err
	}
	s.r.tape.enter(s.n, st, max(durable, st.begin))
	s.r.log.Info("repository resumes", "repository", s.sink.Name(), "timeline", st.tl, "durable", max(durable, st.begin))
	return s.both(ctx, st, key)
}

// both runs the two ways side by side; the first to fail ends the other.
func (s *shipper) both(ctx context.Context, st *stretch, key repo.WALKey) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var group sync.WaitGroup
	var live, whole error
	group.Go(func() {
		if live = s.live(ctx, st, key); live != nil {
			cancel()
		}
	})
	group.Go(func() {
		if whole = s.segments(ctx, st, key); whole != nil {
			cancel()
		}
	})
	group.Wait()
	return firstReal(live, whole)
}

// firstReal prefers the error that is not the echo of the other's cancellation.
func firstReal(a, b error) error {
	if a == nil || errors.Is(a, context.Canceled) && b != nil {
		return b
	}
	return a
}

func (s *shipper) history(ctx context.Context, key repo.WALKey, st *stretch) error {
	sum := blake3.Sum256(st.history)
	id := s.spool.identity()
	return s.sink.PutHistory(ctx, key, repo.Sidecar{
		System: id.System, Timeline: st.tl, Name: walfile.HistoryName(st.tl), SegmentSize: id.SegmentSize, Version: id.Version,
		Size: int64(len(st.history)), Digest: fmt.Sprintf("%x", sum),
	}, bytes.NewReader(st.history))
}

// live ships what has been received of the unfinished segment, at most once in an interval.
func (s *shipper) live(ctx context.Context, st *stretch, key repo.WALKey) error {
	size := relight.LSN(s.spool.identity().SegmentSize)
	facts := &factReader{spool: s.spool, st: st}
	for {
		from, to, err := s.nextLive(ctx, st, size)
		if err != nil || to == 0 {
			return err
		}
		began := s.r.now()
		name := fmt.Sprintf("ship WAL %s to %s", from, to)
		if err := s.retry(ctx, laneLive, name, func() error { return s.putLive(ctx, key, st, facts, from, to) }); err != nil {
			return err
		}
		s.r.tape.advance(s.n, to)
		if err := s.pace(ctx, st, began); err != nil {
			return err
		}
	}
}

// nextLive waits for bytes to ship. to is 0 when the stretch has ended and all of it is durable. A range is left to the
// complete segment when that is ready and the range is not small beside it; but no longer than an interval: the upload of a
// whole segment may be slow or hang, and what was committed since must not wait behind it.
func (s *shipper) nextLive(ctx context.Context, st *stretch, size relight.LSN) (from, to relight.LSN, err error) {
	var patience *time.Timer
	impatient := false
	defer func() {
		if patience != nil {
			patience.Stop()
		}
	}()
	err = s.r.tape.wait(ctx, func() bool {
		v := s.r.tape.look(st, s.n)
		from = max(v.durable, v.whole)
		end := walfile.SegmentStart(from, int64(size)) + size
		switch {
		case from >= v.synced:
			to = 0
			return v.ended
		case v.synced >= end && end-from > size/4 && !impatient:
			if patience == nil {
				patience = time.AfterFunc(s.patience(), func() { s.r.tape.update(func() { impatient = true }) })
			}
			return false // segments() brings it, and then this is asked again
		}
		to = min(v.synced, end)
		return true
	})
	return from, to, err
}

// patience is how long the live lane leaves the rest of a complete segment to the other lane.
func (s *shipper) patience() time.Duration {
	if s.r.o.Synchronous != nil && s.r.o.Synchronous.Repository {
		return min(s.r.o.LiveInterval, 100*time.Millisecond) // commits wait
	}
	return s.r.o.LiveInterval
}

// pace waits out the interval, unless the segment is complete or somebody is in a hurry.
func (s *shipper) pace(ctx context.Context, st *stretch, began time.Time) error {
	rest := s.r.o.LiveInterval - s.r.now().Sub(began)
	if rest <= 0 {
		return nil
	}
	timer, cancel := context.WithTimeout(ctx, rest)
	defer cancel()
	_ = s.r.tape.wait(timer, func() bool {
		d := s.r.tape.sinks[s.n].durable
		return d < s.r.tape.urgent && st.synced > d || st.ended
	})
	return ctx.Err()
}

func (s *shipper) putLive(ctx context.Context, key repo.WALKey, st *stretch, facts *factReader, from, to relight.LSN) error {
	overtaken := func() bool { return s.r.tape.view(st, s.n).durable >= to } // by the complete segment, which may leave the spool at any moment then
	if overtaken() {
		return nil
	}
	sc, body, err := facts.read(from, to)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) && overtaken() {
			return nil
		}
		return err
	}
	sc.CoveredAt = s.r.tape.covered(st.tl, to)
	return errors.Join(s.sink.PutLive(ctx, key, sc, body), body.Close())
}

// segments ships complete segments in order, and lets the spool forget them.
func (s *shipper) segments(ctx context.Context, st *stretch, key repo.WALKey) error {
	size := relight.LSN(s.spool.identity().SegmentSize)
	facts := &factReader{spool: s.spool, st: st}
	for at := st.begin; ; at += size {
		var ready bool
		err := s.r.tape.wait(ctx, func() bool {
			ready = st.synced >= at+size
			return ready || st.ended
		})
		if err != nil {
			return err
		}
		if !ready {
			return s.leave(ctx, st)
		}
		if err := s.retry(ctx, laneSegments, "ship segment "+walfile.SegmentName(st.tl, at, int64(size)), func() error { return s.putSegment(ctx, key, st, facts, at, at+size) }); err != nil {
			return err
		}
		s.r.tape.segment(s.n, st, at+size)
		s.release(st, false)
		if err := s.sweep(ctx, key); err != nil {
			return err
		}
	}
}

func (s *shipper) putSegment(ctx context.Context, key repo.WALKey, st *stretch, facts *factReader, from, to relight.LSN) error {
	sc, body, err := facts.read(from, to)
	if err != nil {
		return err
	}
	sc.CoveredAt = s.r.tape.covered(st.tl, to)
	return errors.Join(s.sink.PutSegment(ctx, key, sc, body), body.Close())
}

// leave waits until the end of an ended stretch is durable as live ranges.
func (s *shipper) leave(ctx context.Context, st *stretch) error {
	err := s.r.tape.wait(ctx, func() bool { return s.r.tape.sinks[s.n].durable >= st.synced })
	if err != nil {
		return err
	}
	s.r.tape.update(func() { st.whole[s.n] = walfile.MaxLSN })
	s.release(st, true)
	return nil
}

// release removes from the spool what every living repository holds complete.
func (s *shipper) release(st *stretch, ended bool) {
	least, written := walfile.MaxLSN, relight.LSN(0)
	s.r.tape.update(func() {
		written = st.written
		for i, w := range st.whole {
			if !s.r.tape.sinks[i].dead {
				least = min(least, w)
			}
		}
	})
	if err := s.spool.drop(st, written, least, ended && least == walfile.MaxLSN); err != nil {
		s.r.trouble("spool", err.Error(), s.r.o.AlarmAfter)
	}
	s.r.tape.touch()
}

// The lanes of a shipper.
const (
	laneStart    = "start"
	laneLive     = "live"
	laneSegments = "segments"
)

const sweepEvery = 30 * time.Second

// sweep removes superseded live ranges now and then; that it fails delays nothing.
func (s *shipper) sweep(ctx context.Context, key repo.WALKey) error {
	now := s.r.now()
	if now.Sub(s.swept) < sweepEvery {
		return nil
	}
	s.swept = now
	if err := s.sink.SweepLive(ctx, key); err != nil && ctx.Err() == nil {
		s.r.log.Warn("sweeping superseded live ranges failed", "repository", s.sink.Name(), "error", err)
	}
	return ctx.Err()
}

// retry repeats until it succeeds, ctx ends, or the repository refuses for good.
func (s *shipper) retry(ctx context.Context, lane, what string, f func() error) error {
	wait := 200 * time.Millisecond
	for {
		err := f()
		if err == nil {
			s.r.well(s.source(lane))
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, repo.ErrConflict) || errors.Is(err, repo.ErrRefused) {
			return fmt.Errorf("%s: %w", what, err)
		}
		s.r.log.Warn("a repository failed", "repository", s.sink.Name(), "doing", what, "error", err, "again_in", wait)
		s.r.trouble(s.source(lane), what+": "+err.Error(), s.r.o.AlarmAfter)
		if err := sleepFor(ctx, wait); err != nil {
			return err
		}
		wait = min(2*wait, 10*time.Second)
	}
}
