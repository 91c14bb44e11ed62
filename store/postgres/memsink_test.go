package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/zeebo/blake3"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob"
	"github.com/toolboxai/relight/repo"
	"github.com/toolboxai/relight/store/postgres/walfile"
)

// memSink is a repository in memory that holds its writers to the contract: digests match, ranges of a segment join, the same name never gets
// other bytes, history comes before the WAL of its timeline.
type memSink struct {
	name string
	mu   sync.Mutex
	fail error         // returned by every call while set
	hang chan struct{} // calls wait until it is closed, when set

	system     relight.SystemID
	whole      map[string]memWAL
	live       map[string][]memWAL
	hist       map[relight.TimelineID][]byte
	gaps       []relight.Gap
	violations []string
	put        func(s repo.Sidecar) // called after a put, outside the lock
}

type memWAL struct {
	sc   repo.Sidecar
	body []byte
}

func newMemSink(name string) *memSink {
	return &memSink{name: name, whole: map[string]memWAL{}, live: map[string][]memWAL{}, hist: map[relight.TimelineID][]byte{}}
}

func (m *memSink) Name() string { return m.name }

func (m *memSink) violate(format string, a ...any) {
	m.violations = append(m.violations, fmt.Sprintf(format, a...))
}

func (m *memSink) setFail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = err
}

func (m *memSink) gate(ctx context.Context) error {
	m.mu.Lock()
	fail, hang := m.fail, m.hang
	m.mu.Unlock()
	if hang != nil {
		select {
		case <-hang:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return fail
}

func (m *memSink) take(ctx context.Context, k repo.WALKey, s repo.Sidecar, body io.ReadSeeker) (memWAL, error) {
	if err := m.gate(ctx); err != nil {
		return memWAL{}, err
	}
	b, err := io.ReadAll(body)
	if err != nil {
		return memWAL{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.system == 0 {
		m.system = k.System
	}
	if m.system != k.System {
		return memWAL{}, fmt.Errorf("%w: system %s, not %s", repo.ErrConflict, k.System, m.system)
	}
	if int64(len(b)) != s.Size || fmt.Sprintf("%x", blake3.Sum256(b)) != s.Digest {
		m.violate("%s: %d bytes do not match the sidecar's %d and digest", s.Name, len(b), s.Size)
	}
	if k.Timeline > 1 && s.Name != walfile.HistoryName(k.Timeline) && m.hist[k.Timeline] == nil {
		m.violate("%s came before the history of timeline %d", s.Name, k.Timeline)
	}
	return memWAL{s, b}, nil
}

func (m *memSink) PutSegment(ctx context.Context, k repo.WALKey, s repo.Sidecar, body io.ReadSeeker) error {
	w, err := m.take(ctx, k, s, body)
	if err != nil {
		return err
	}
	m.mu.Lock()
	old, there := m.whole[s.Name]
	if there && old.sc.Digest != s.Digest {
		m.mu.Unlock()
		return repo.ErrConflict
	}
	m.whole[s.Name] = w
	m.mu.Unlock()
	m.notify(s)
	return nil
}

func (m *memSink) PutLive(ctx context.Context, k repo.WALKey, s repo.Sidecar, body io.ReadSeeker) error {
	w, err := m.take(ctx, k, s, body)
	if err != nil {
		return err
	}
	m.mu.Lock()
	for _, o := range m.live[s.Name] {
		if s.Start < o.sc.End && o.sc.Start < s.End {
			m.violate("live ranges %s-%s and %s-%s of %s overlap", s.Start, s.End, o.sc.Start, o.sc.End, s.Name)
		}
	}
	m.live[s.Name] = append(m.live[s.Name], w)
	m.mu.Unlock()
	m.notify(s)
	return nil
}

func (m *memSink) notify(s repo.Sidecar) {
	if m.put != nil {
		m.put(s)
	}
}

func (m *memSink) PutHistory(ctx context.Context, k repo.WALKey, s repo.Sidecar, body io.ReadSeeker) error {
	w, err := m.take(ctx, k, s, body)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hist[k.Timeline] = w.body
	return nil
}

func (m *memSink) ranges(tl relight.TimelineID) []memWAL {
	var all []memWAL
	for _, w := range m.whole {
		if w.sc.Timeline == tl {
			all = append(all, w)
		}
	}
	for _, list := range m.live {
		for _, w := range list {
			if w.sc.Timeline == tl {
				all = append(all, w)
			}
		}
	}
	slices.SortFunc(all, func(a, b memWAL) int { return int(int64(a.sc.Start) - int64(b.sc.Start)) })
	return all
}

func (m *memSink) Durable(ctx context.Context, k repo.WALKey, from relight.LSN) (relight.LSN, error) {
	if err := m.gate(ctx); err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	end := from
	for _, w := range m.ranges(k.Timeline) {
		if w.sc.System == k.System && w.sc.Start <= end {
			end = max(end, w.sc.End)
		}
	}
	return end, nil
}

func (m *memSink) Tip(_ context.Context, k repo.WALKey) (relight.LSN, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var end relight.LSN
	for _, w := range m.ranges(k.Timeline) {
		end = max(end, w.sc.End)
	}
	return end, nil
}

func (m *memSink) Gap(ctx context.Context, _ repo.WALKey, g relight.Gap) error {
	if err := m.gate(ctx); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gaps = append(m.gaps, g)
	return nil
}

// lacks tells whether a position was announced as lost.
func (m *memSink) lacks(lsn relight.LSN) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.ContainsFunc(m.gaps, func(g relight.Gap) bool { return lsn < g.To && g.From < lsn+1<<20 })
}

func (m *memSink) SweepLive(context.Context, repo.WALKey) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name := range m.whole {
		delete(m.live, name)
	}
	return nil
}

// bytes joins what is held of a timeline from from to to; it fails on a hole or on ranges that disagree.
func (m *memSink) bytes(tl relight.TimelineID, from, to relight.LSN) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]byte, to-from)
	at := from
	for _, w := range m.ranges(tl) {
		lo, hi := max(w.sc.Start, from), min(w.sc.End, to)
		if lo >= hi {
			continue
		}
		if lo > at {
			return nil, fmt.Errorf("hole from %s to %s", at, lo)
		}
		piece := w.body[lo-w.sc.Start : hi-w.sc.Start]
		if at > lo && string(out[lo-from:min(at, hi)-from]) != string(piece[:min(at, hi)-lo]) {
			return nil, fmt.Errorf("ranges disagree between %s and %s", lo, at)
		}
		copy(out[lo-from:], piece)
		at = max(at, hi)
	}
	if at < to {
		return nil, fmt.Errorf("nothing from %s to %s", at, to)
	}
	return out, nil
}

// facts adds up those of all ranges, of a complete segment its own and not its live ranges', of which one may be as long.
func (m *memSink) facts(tl relight.TimelineID) (commits int, marks []string, last time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, w := range m.ranges(tl) {
		if whole, done := m.whole[w.sc.Name]; done && &whole.body[0] != &w.body[0] {
			continue
		}
		commits += w.sc.Commits
		for _, mark := range w.sc.Marks {
			marks = append(marks, mark.Name)
		}
		if w.sc.LastCommit.After(last) {
			last = w.sc.LastCommit
		}
	}
	return commits, marks, last
}

// memRepository serves a memSink's WAL to a WALServer.
type memRepository struct {
	sink *memSink
	key  repo.WALKey
	fail func(name string) error // may be nil
}

func (r memRepository) Segment(_ context.Context, k repo.WALKey, name string, w io.Writer) error {
	if r.fail != nil {
		if err := r.fail(name); err != nil {
			return err
		}
	}
	r.sink.mu.Lock()
	held, ok := r.sink.whole[name]
	var size int64
	for _, o := range r.sink.live[name] {
		size = o.sc.SegmentSize
	}
	r.sink.mu.Unlock()
	if ok {
		_, err := w.Write(held.body)
		return err
	}
	if size == 0 {
		return blob.ErrNotFound
	}
	_, start, err := walfile.ParseSegmentName(name, size)
	if err != nil {
		return err
	}
	end, err := r.sink.Durable(context.Background(), k, start)
	if err != nil {
		return err
	}
	b, err := r.sink.bytes(k.Timeline, start, min(end, start+relight.LSN(size)))
	if err != nil {
		return err
	}
	b = append(b, make([]byte, size-int64(len(b)))...)
	_, err = w.Write(b)
	return err
}

func (r memRepository) Sidecars(_ context.Context, _ string, fn func(repo.WALKey, repo.Sidecar, bool) error) error {
	if r.fail != nil {
		if err := r.fail("list"); err != nil {
			return err
		}
	}
	r.sink.mu.Lock()
	defer r.sink.mu.Unlock()
	var errs []error
	for _, w := range r.sink.whole {
		errs = append(errs, fn(repo.WALKey{Store: r.key.Store, System: r.key.System, Timeline: w.sc.Timeline}, w.sc, false))
	}
	for _, list := range r.sink.live {
		for _, w := range list {
			errs = append(errs, fn(repo.WALKey{Store: r.key.Store, System: r.key.System, Timeline: w.sc.Timeline}, w.sc, true))
		}
	}
	return errors.Join(errs...)
}

func (r memRepository) Histories(context.Context, string, relight.SystemID) (map[relight.TimelineID][]byte, error) {
	r.sink.mu.Lock()
	defer r.sink.mu.Unlock()
	out := map[relight.TimelineID][]byte{}
	for tl, b := range r.sink.hist {
		out[tl] = b
	}
	return out, nil
}

func (r memRepository) Gaps(context.Context, string, relight.SystemID) ([]relight.Gap, error) {
	r.sink.mu.Lock()
	defer r.sink.mu.Unlock()
	return slices.Clone(r.sink.gaps), nil
}
