package coordinator

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/store"
)

// Status is what `relight status` shows of a running coordinator.
type Status struct {
	At     time.Time               `json:"at"`
	Stores map[string]*StoreStatus `json:"stores"`
	Tasks  map[string]string       `json:"tasks"` // name → error, "" when well
}

// StoreStatus is the protection of one store.
type StoreStatus struct {
	Timeline     relight.TimelineID           `json:"timeline,omitempty"`
	Written      relight.LSN                  `json:"written,omitempty"`
	Spooled      relight.LSN                  `json:"spooled,omitempty"`
	Alarm        string                       `json:"alarm,omitempty"`
	StandsBy     string                       `json:"stands_by_for,omitempty"` // the host that protects the store in this one's place
	Point        time.Time                    `json:"restore_point,omitzero"`  // the newest of the coordinator's that every repository holds
	PointError   string                       `json:"restore_point_error,omitempty"`
	Synchronous  store.Waited                 `json:"synchronous,omitzero"` // whether commits wait, where that was asked for
	Repositories map[string]*RepositoryStatus `json:"repositories"`
}

// RepositoryStatus is the protection of one store in one repository.
type RepositoryStatus struct {
	Durable   relight.LSN        `json:"durable,omitempty"`
	CoveredAt time.Time          `json:"covered_at,omitzero"` // what would be lost now lies after this server clock
	Snapshot  relight.SnapshotID `json:"snapshot,omitempty"`
	Timeline  relight.TimelineID `json:"snapshot_timeline,omitempty"`
	Finished  time.Time          `json:"snapshot_finished,omitzero"`
	Next      time.Time          `json:"next_base,omitzero"`       // when the next base backup is due by its age and its budget
	Held      string             `json:"base_held,omitempty"`      // why one that is wanted is not taken
	Replay    float64            `json:"replay_seconds,omitempty"` // what recovery to the present would replay, estimated
	Error     string             `json:"error,omitempty"`
}

// Protected says whether the store streams into every repository with a base backup on its timeline; if not, why.
func (s *StoreStatus) Protected() (bool, string) {
	if s.StandsBy != "" && s.Alarm != "" {
		return false, "this host stands by, and host " + s.StandsBy + ", whose turn it is, does not do well: " + s.Alarm
	}
	if s.StandsBy != "" {
		return false, "this host stands by: host " + s.StandsBy + " protects the store"
	}
	if s.Timeline == 0 && s.Alarm != "" {
		return false, "no write-ahead log is streaming: " + s.Alarm
	}
	if s.Timeline == 0 {
		return false, "no write-ahead log is streaming"
	}
	if s.Alarm != "" {
		return false, s.Alarm
	}
	if state := s.Synchronous.State; state != "" && state != store.SyncArmed {
		return false, "synchronous mode is " + string(state) + ": " + s.Synchronous.Detail
	}
	for _, name := range slices.Sorted(maps.Keys(s.Repositories)) {
		switch r := s.Repositories[name]; {
		case r.Timeline != s.Timeline:
			return false, name + ": no base backup on the current timeline"
		case r.Durable == 0:
			return false, name + ": no write-ahead log is durable yet"
		}
	}
	return true, ""
}

type following struct {
	store.Position
	NeedBase time.Time
}

type base struct {
	snapshot   relight.Snapshot
	timeline   relight.TimelineID
	start      relight.LSN // where replay begins
	costs      []Cost
	replayRate float64 // bytes a second; 0: unknown
	learned    time.Time
}

// board is the status under a lock.
type board struct {
	mu     sync.Mutex
	now    func() time.Time
	sink   func(Status) error
	status Status
	follow map[string]following
	bases  map[string]base   // "store/repository"
	tries  map[string][]Cost // of failed base backups, likewise
	turn   chan struct{}     // closed when a store is followed anew: base backups may be due
	news   chan struct{}     // closed when there is something that somebody may be waiting to read
}

func newBoard(sink func(Status) error, now func() time.Time) *board {
	return &board{now: now, sink: sink, status: Status{Stores: map[string]*StoreStatus{}, Tasks: map[string]string{}},
		follow: map[string]following{}, bases: map[string]base{}, tries: map[string][]Cost{}, turn: make(chan struct{}), news: make(chan struct{})}
}

// turning gives what is closed when a store is followed anew, on another timeline, or after a loss.
func (b *board) turning() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.turn
}

// changing gives what is closed when the status has changed by more than how far the log was written.
func (b *board) changing() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.news
}

// ring wakes all who wait for a channel of the board, under the lock.
func ring(c *chan struct{}) {
	close(*c)
	*c = make(chan struct{})
}

func (b *board) store(name string) *StoreStatus {
	s, ok := b.status.Stores[name]
	if !ok {
		s = &StoreStatus{Repositories: map[string]*RepositoryStatus{}}
		b.status.Stores[name] = s
	}
	return s
}

func (b *board) repository(name, repository string) *RepositoryStatus {
	s := b.store(name)
	r, ok := s.Repositories[repository]
	if !ok {
		r = &RepositoryStatus{}
		s.Repositories[repository] = r
	}
	return r
}

func (b *board) position(name string, p store.Position) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f := b.follow[name]
	if p.Timeline != f.Timeline || p.NeedBase.After(f.NeedBase) {
		ring(&b.turn)
		ring(&b.news)
	} else if p.Alarm != f.Alarm || p.StandsBy != f.StandsBy || !maps.Equal(p.Durable, f.Durable) {
		ring(&b.news)
	}
	f.Position = p
	if p.NeedBase.After(f.NeedBase) {
		f.NeedBase = p.NeedBase
	}
	b.follow[name] = f
	s := b.store(name)
	s.Timeline, s.Written, s.Spooled, s.Alarm, s.StandsBy, s.Synchronous = p.Timeline, p.Written, p.Spooled, p.Alarm, p.StandsBy, p.Synchronous
	for repository, lsn := range p.Durable {
		r := b.repository(name, repository)
		r.Durable, r.CoveredAt = lsn, p.Covered[repository].Time
	}
}

// followEnded forgets the position, so that a store whose follower is down never looks protected.
func (b *board) followEnded(name string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f := b.follow[name]
	b.follow[name] = following{NeedBase: f.NeedBase}
	s := b.store(name)
	s.Timeline, s.StandsBy = 0, ""
	if err != nil {
		s.Alarm = relight.Told(err)
	}
	ring(&b.news)
}

func (b *board) following(name string) (following, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f, ok := b.follow[name]
	return f, ok && f.Timeline != 0
}

func (b *board) newest(name, repository string) (base, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	found, ok := b.bases[name+"/"+repository]
	return found, ok
}

// behindGaps says whether every repository's newest base backup began after log was last found lost.
func (b *board) behindGaps(s Store) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range s.Repositories {
		found, ok := b.bases[s.Name+"/"+r.Name]
		if !ok || found.snapshot.Started.Before(b.follow[s.Name].NeedBase) {
			return false
		}
	}
	return true
}

func (b *board) setNewest(name, repository string, found base) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.bases[name+"/"+repository] = found
	r := b.repository(name, repository)
	r.Snapshot, r.Timeline, r.Finished = found.snapshot.ID, found.timeline, found.snapshot.Finished
	ring(&b.news)
}

// maxTries is how many failed base backups are remembered; retryPause sees to it that older ones have long been paid for.
const maxTries = 64

// failed charges a base backup that failed.
func (b *board) failed(name, repository string, c Cost) {
	b.mu.Lock()
	defer b.mu.Unlock()
	key := name + "/" + repository
	b.tries[key] = append(b.tries[key], c)
	b.tries[key] = b.tries[key][max(0, len(b.tries[key])-maxTries):]
}

// withFailed adds the costs of failed base backups to those of the ones that are there, in order.
func (b *board) withFailed(name, repository string, costs []Cost) []Cost {
	b.mu.Lock()
	defer b.mu.Unlock()
	failed := b.tries[name+"/"+repository]
	if len(failed) == 0 {
		return costs
	}
	all := slices.Concat(costs, failed)
	slices.SortStableFunc(all, func(x, y Cost) int { return x.Begun.Compare(y.Begun) })
	return all
}

func (b *board) planned(name, repository string, d decision) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.repository(name, repository)
	r.Next, r.Held, r.Replay = d.next, d.held, d.replay.Seconds()
}

func (b *board) point(name string, newest time.Time, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.store(name)
	s.Point, s.PointError = newest, relight.Told(err)
}

func (b *board) base(name, repository string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.repository(name, repository).Error = relight.Told(err)
}

func (b *board) task(name string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.status.Tasks[name] = relight.Told(err)
}

// publish hands a copy of the status on; a status that cannot be written is itself seen as stale by its readers.
func (b *board) publish() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.status.At = b.now()
	if err := b.sink(b.status.clone()); err != nil {
		b.status.Tasks["status"] = err.Error()
	}
}

// clone shares nothing with s.
func (s Status) clone() Status {
	out := Status{At: s.At, Stores: map[string]*StoreStatus{}, Tasks: maps.Clone(s.Tasks)}
	for name, store := range s.Stores {
		c := *store
		c.Repositories = map[string]*RepositoryStatus{}
		for repository, r := range store.Repositories {
			rc := *r
			c.Repositories[repository] = &rc
		}
		out.Stores[name] = &c
	}
	return out
}
