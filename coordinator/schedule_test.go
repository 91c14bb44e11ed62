package coordinator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/store"
)

const day = 24 * time.Hour

func TestDecide(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	taken := relight.Snapshot{Started: now.Add(-2 * time.Hour), Finished: now.Add(-time.Hour)}
	budget := Budget{Rate: 100, Text: "100/s"}
	for name, c := range map[string]struct {
		need time.Duration // before now; 0: none
		line relight.TimelineID
		s    Schedule
		cost int64 // bytes of the newest
		want string
		held string
		next time.Duration // from now
		done time.Duration // when the newest was, from now; 0: an hour ago
	}{
		"young":                      {0, 1, Schedule{Every: day}, 0, "", "", 23 * time.Hour, 0},
		"a new timeline":             {0, 2, Schedule{Every: day, Budget: budget}, 1 << 40, "timeline 2 has none", "", 0, 0},
		"lost while it ran":          {time.Hour + time.Minute, 1, Schedule{Every: day, Budget: budget}, 1 << 40, "write-ahead log was lost after the newest", "", 0, 0},
		"lost before it":             {3 * time.Hour, 1, Schedule{Every: day}, 0, "", "", 23 * time.Hour, 0},
		"old":                        {0, 1, Schedule{Every: time.Hour}, 0, "the newest is 1h0m0s old", "", 0, 0},
		"old and not paid for":       {0, 1, Schedule{Every: time.Hour, Budget: budget}, 100 * 3 * 3600, "", "I/O budget of 100/s is used up until 2026-01-02T13:00:00Z", time.Hour, 0},
		"old and paid for":           {0, 1, Schedule{Every: time.Hour, Budget: budget}, 100 * 2 * 3600, "the newest is 1h0m0s old", "", 0, 0},
		"young and not paid for":     {0, 1, Schedule{Every: 2 * time.Hour, Budget: budget}, 100 * 9 * 3600, "", "", 7 * time.Hour, 0},
		"a share of the time":        {0, 1, Schedule{Every: time.Hour, Budget: Budget{Share: 0.25, Text: "25%"}}, 0, "", "I/O budget of 25% is used up until 2026-01-02T14:00:00Z", 2 * time.Hour, 0},
		"replay within its bound":    {0, 1, Schedule{Every: day, LongestReplay: 1000 * time.Second}, 0, "", "", 23 * time.Hour, 0},
		"replay near its bound":      {0, 1, Schedule{Every: day, LongestReplay: 800 * time.Second, Budget: budget}, 1 << 40, "would replay for 10m0s, and the policy allows 13m20s", "", 0, 0},
		"a budget that is never met": {0, 1, Schedule{Every: time.Hour, Budget: Budget{Rate: 1e-9, Text: "next to nothing"}}, 1 << 60, "", "next to nothing", 0, 0},
		"dated in the future":        {0, 1, Schedule{Every: day}, 0, "the newest is dated in the future, at 2026-01-12T12:00:00Z", "", 0, 10 * day},
		"dated a little ahead":       {0, 1, Schedule{Every: day}, 0, "", "", day + time.Minute, time.Minute},
	} {
		f := following{Position: store.Position{Timeline: c.line, Written: 6050}}
		if c.need > 0 {
			f.NeedBase = now.Add(-c.need)
		}
		s := taken
		if c.done != 0 {
			s.Finished = now.Add(c.done)
		}
		s.Read = c.cost
		b := base{snapshot: s, timeline: 1, start: 50, costs: []Cost{CostOf(s)}, replayRate: 10}
		d := decide(f, b, c.s, now)
		if (d.why == "") != (c.want == "") || !strings.Contains(d.why, c.want) || (d.held == "") != (c.held == "") || !strings.Contains(d.held, c.held) {
			t.Errorf("%s: %q, held %q", name, d.why, d.held)
		}
		if c.next > 0 && d.next.Sub(now) != c.next {
			t.Errorf("%s: next in %s", name, d.next.Sub(now))
		}
		if c.line == 1 && d.replay != 10*time.Minute {
			t.Errorf("%s: replay %s", name, d.replay)
		}
	}
}

func TestDebtOfBaseBackupsAddsUp(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 10, 0, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	b := Budget{Rate: 1}
	hour := int64(3600)
	for name, c := range map[string]struct {
		costs []Cost
		want  time.Duration // from now
	}{
		"none":                  {nil, 0},
		"one, paid for":         {[]Cost{{Begun: ago(3 * time.Hour), Bytes: hour}}, -2 * time.Hour},
		"two in a row":          {[]Cost{{Begun: ago(3 * time.Hour), Bytes: 3 * hour}, {Begun: ago(2 * time.Hour), Bytes: 2 * hour}}, 2 * time.Hour},
		"what is idle is lost":  {[]Cost{{Begun: ago(100 * time.Hour), Bytes: hour}, {Begun: ago(time.Hour), Bytes: 2 * hour}}, time.Hour},
		"dated in the future":   {[]Cost{{Begun: now.Add(1000 * time.Hour), Bytes: hour}}, time.Hour},
		"a clock that ran back": {[]Cost{{Begun: ago(time.Hour), Bytes: hour}, {Begun: ago(50 * time.Hour), Bytes: hour}}, time.Hour},
	} {
		got := b.free(c.costs, now)
		if len(c.costs) == 0 && !got.IsZero() || len(c.costs) > 0 && got.Sub(now) != c.want {
			t.Errorf("%s: %s", name, got.Sub(now))
		}
	}
	old := relight.Snapshot{Started: ago(time.Hour), Finished: ago(0), Size: 70, Stored: 7} // of before reads were counted
	if c := CostOf(old); c.Bytes != 77 || c.Took != time.Hour {
		t.Errorf("%+v", c)
	}
}

// A month under a budget: base backups are as frequent as it allows, never more costly, and the replay bound comes before it.
func TestBudgetBoundsBaseBackups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newStand()
		st.tick = time.Minute
		const size = 100 << 30
		st.schedule = Schedule{Every: time.Hour, Budget: Budget{Rate: float64(4*size) / day.Seconds(), Text: "400GiB/day"}}
		for _, b := range []*bases{st.vault, st.attic} {
			b.moved = size
		}
		st.start(t)
		defer st.stop()
		st.follower.at(position(1))
		pass(10*day + time.Hour)                       // not while the last one is taken
		if n := st.vault.count(); n != 41 && n != 40 { // one each 6 hours
			t.Fatalf("%d base backups in ten days", n)
		}
		v := st.store().Repositories["vault"]
		if !strings.Contains(v.Held, "400GiB/day") || v.Next.Before(time.Now()) || time.Until(v.Next) > 6*time.Hour {
			t.Fatalf("%+v", v)
		}
		if ok, why := st.store().Protected(); !ok {
			t.Fatal(why)
		}
		// Half as large, twice as often.
		before := st.vault.count()
		st.vault.set(func() { st.vault.moved = size / 2 })
		pass(10 * day)
		if n := st.vault.count() - before; n < 78 || n > 81 {
			t.Fatalf("%d base backups of half the size in ten days", n)
		}
	})
}

func TestReplayBoundComesBeforeTheBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newStand()
		st.schedule = Schedule{Every: time.Hour, LongestReplay: 40 * time.Second, Budget: Budget{Rate: 1, Text: "1/s"}}
		for _, b := range []*bases{st.vault, st.attic} {
			b.moved, b.rate = 1<<40, 10
		}
		st.tick = time.Minute
		st.start(t)
		defer st.stop()
		p := position(1)
		p.Written = 50
		st.follower.at(p)
		pass(2 * day)
		if n := st.vault.count(); n != 1 {
			t.Fatalf("%d base backups under a budget that allows one", n)
		}
		if got := st.store().Repositories["vault"].Replay; got != 0 {
			t.Fatalf("replay of %f s", got)
		}
		p.Written = 50 + 310 // 31 s, more than three quarters
		st.follower.at(p)
		pass(2 * time.Minute)
		if n := st.vault.count(); n < 2 {
			t.Fatal("none was taken although replay would be too long")
		}
		if got := st.why(); !strings.Contains(got[len(got)-1], "would replay for 31s, and the policy allows 40s") {
			t.Fatal(got)
		}
	})
}

// marks sets restore points into a log.
type marks struct {
	mu     sync.Mutex
	held   time.Time
	names  []string
	at     []time.Time
	broken error
	next   relight.LSN
}

func (m *marks) Newest(context.Context) (time.Time, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.held, m.broken
}

func (m *marks) Set(_ context.Context, name string) (relight.Point, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.broken != nil {
		return relight.Point{}, m.broken
	}
	m.names, m.at = append(m.names, name), append(m.at, time.Now())
	m.next += 10
	return relight.Point{Timeline: 1, LSN: m.next}, nil
}

func (m *marks) set(change func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change()
}

func (m *marks) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.names)
}

func marking(every time.Duration) (*stand, *marks) {
	st, m := newStand(), &marks{next: 100}
	st.points, st.pointEvery = m, every
	return st, m
}

// durable reports a log that every repository holds up to a position.
func durable(lsn relight.LSN) store.Position {
	p := position(1)
	p.Durable = map[string]relight.LSN{"vault": lsn, "attic": lsn}
	return p
}

// A quarter of an hour without a point is what the policy promises there is none of.
func TestEveryStretchHasAPoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, m := marking(15 * time.Minute)
		begun := time.Now()
		st.tick = 20 * time.Second
		st.start(t)
		defer st.stop()
		pass(time.Hour)
		if m.count() != 0 {
			t.Fatal("a restore point was set before its log is followed")
		}
		st.follower.at(durable(1 << 40))
		pass(3 * day)
		covered := map[time.Time]int{}
		for _, at := range m.at {
			covered[at.Truncate(15*time.Minute)]++
		}
		for _, s := range st.vault.taken {
			covered[s.Finished.Truncate(15*time.Minute)]++
		}
		for at := begun.Add(time.Hour).Truncate(15 * time.Minute); at.Before(time.Now().Add(-15 * time.Minute)); at = at.Add(15 * time.Minute) {
			if covered[at] != 1 && covered[at] != 2 { // a restore point may come just before a base backup
				t.Fatalf("%d points in the stretch from %s", covered[at], at)
			}
		}
		if n := st.vault.count(); n != 4 && n != 3 {
			t.Fatalf("%d base backups", n)
		}
		if n := m.count(); n < 3*96-5 || n > 3*96+1 {
			t.Fatalf("%d restore points in three days", n)
		}
		if len(slices.Compact(slices.Sorted(slices.Values(m.names)))) != len(m.names) {
			t.Fatal("a name was given twice")
		}
		if s := st.store(); s.Point.IsZero() || time.Since(s.Point) > 15*time.Minute+time.Minute || s.PointError != "" {
			t.Fatalf("%+v", s)
		}
	})
}

func TestPointCountsOnceEveryRepositoryHoldsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, m := marking(15 * time.Minute)
		st.start(t)
		defer st.stop()
		st.follower.at(durable(105)) // base backups are taken, and cover this stretch
		pass(2 * time.Second)
		m.set(func() { m.names, m.next = nil, 100 }) // one may have come before them
		pass(20 * time.Minute)
		if m.count() != 1 || !st.store().Point.IsZero() {
			t.Fatalf("%d points, %s", m.count(), st.store().Point)
		}
		p := durable(110)
		p.Durable["attic"] = 109
		st.follower.at(p)
		pass(5 * time.Second)
		if m.count() != 1 || !st.store().Point.IsZero() {
			t.Fatal("it counts although a repository lacks it")
		}
		st.follower.at(durable(110))
		pass(2 * time.Second)
		if m.count() != 1 || time.Since(st.store().Point) > 6*time.Minute {
			t.Fatalf("%d points, %s", m.count(), st.store().Point)
		}
		// A repository that stays away: one more each stretch, and not one more each second.
		pass(60 * time.Minute)
		if m.count() != 5 {
			t.Fatalf("%d points", m.count())
		}
		// A new timeline: what was set on the old one is not waited for.
		p = durable(1000)
		p.Timeline = 2
		st.follower.at(p)
		pass(2 * time.Second)
		if n := m.count(); n > 6 {
			t.Fatalf("%d points", n)
		}
	})
}

func TestPointsAreTakenUpWhereTheyWere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, m := marking(time.Hour)
		time.Sleep(10 * time.Minute)
		m.held = time.Now()
		m.broken = errors.New("the repository does not answer")
		st.start(t)
		defer st.stop()
		_, err := st.vault.Backup(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		st.vault.set(func() { st.vault.taken[0].Finished = m.held.Add(-2 * time.Hour) }) // it does not cover the stretch
		st.follower.at(durable(1 << 40))
		pass(3 * time.Second)
		if got := st.store().PointError; !strings.Contains(got, "does not answer") {
			t.Fatal(got)
		}
		m.set(func() { m.broken = nil })
		pass(20 * time.Minute)
		if m.count() != 0 || st.store().PointError != "" || fmt.Sprint(st.store().Point) != fmt.Sprint(m.held) {
			t.Fatalf("%d points although this hour has one: %+v", m.count(), st.store())
		}
		pass(time.Hour)
		if m.count() != 1 {
			t.Fatalf("%d points in the next hour", m.count())
		}
	})
}

// A base backup that fails after it has read everything, as over one damaged page, costs what one that succeeds does: it is tried again and again, but not without a
// pause, and what was read for nothing counts against the budget.
func TestFailedBackupsAreBoundedToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newStand()
		const size = 100 << 30
		st.schedule = Schedule{Every: time.Hour, Budget: Budget{Rate: float64(4*size) / day.Seconds(), Text: "400GiB/day"}}
		st.vault.moved, st.vault.takes, st.vault.broken = size, time.Hour, errors.New("page 7 of relation 16385 is damaged")
		st.tick = time.Minute
		st.start(t)
		defer st.stop()
		st.follower.at(position(1))
		pass(9 * time.Hour) // an hour each, after pauses of one, two and four
		if v := st.store().Repositories["vault"]; st.vault.tries() != 3 || !strings.Contains(v.Error, "is damaged") {
			t.Fatalf("%d attempts, %+v", st.vault.tries(), v)
		}
		// It is mended: the next attempt succeeds, and the one after that waits until all four are paid for, six hours each.
		st.vault.set(func() { st.vault.broken = nil })
		pass(14 * time.Hour)
		if v := st.store().Repositories["vault"]; st.vault.count() != 1 || !strings.Contains(v.Held, "400GiB/day") {
			t.Fatalf("%d base backups, %+v", st.vault.count(), v)
		}
		pass(3 * time.Hour)
		if n := st.vault.count(); n != 2 {
			t.Fatalf("%d base backups once the failed ones are paid for", n)
		}
		st.vault.set(func() { st.vault.broken = errors.New("page 9 of relation 16385 is damaged") })
		before := st.vault.tries()
		pass(10 * day)
		if n := st.vault.tries() - before; n < 8 || n > 20 { // of 240 hours
			t.Fatalf("read everything %d times in ten days", n)
		}
	})
}

// What fails at once costs next to nothing: it is tried each minute, so that a repository that is back is soon used.
func TestBackupsThatFailAtOnceAreTriedOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newStand()
		st.vault.broken = errors.New("the bucket is away")
		st.start(t)
		defer st.stop()
		st.follower.at(position(1))
		pass(3 * time.Hour)
		if n := st.vault.tries(); n < 170 || n > 190 {
			t.Fatalf("tried %d times in three hours", n)
		}
		st.vault.set(func() { st.vault.broken = nil })
		pass(longestCheapPause + time.Second)
		if n := st.vault.count(); n != 1 {
			t.Fatalf("%d base backups a minute after the repository is back", n)
		}
	})
}

func TestRetryPauses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		took time.Duration
		want []time.Duration
	}{
		"at once":     {0, []time.Duration{5 * time.Second, 10 * time.Second, 20 * time.Second, 40 * time.Second, time.Minute, time.Minute}},
		"ten seconds": {10 * time.Second, []time.Duration{10 * time.Second, 20 * time.Second, 40 * time.Second, 80 * time.Second, 160 * time.Second, 160 * time.Second}},
		"an hour":     {time.Hour, []time.Duration{time.Hour, 2 * time.Hour, 4 * time.Hour, 8 * time.Hour, 16 * time.Hour, 16 * time.Hour}},
		"a day":       {day, []time.Duration{day, 2 * day, 4 * day, 8 * day, 16 * day, 16 * day}},
	} {
		var wait time.Duration
		for i, want := range c.want {
			if wait = retryPause(wait, c.took, 5*time.Second); wait != want {
				t.Errorf("%s: pause %d is %s, want %s", name, i+1, wait, want)
			}
		}
	}
}

// A clock that ran ahead and was set right leaves a base backup of the future. It is not taken for young until that day comes.
func TestClockThatRanAheadDelaysNoBase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newStand()
		st.tick = time.Minute
		st.start(t)
		defer st.stop()
		st.vault.set(func() { st.vault.ahead = 100 * day })
		st.follower.at(position(1))
		pass(time.Second)
		st.vault.set(func() { st.vault.ahead = 0 })
		pass(10 * day)
		if n := st.vault.count(); n < 10 || n > 12 {
			t.Fatalf("%d base backups in ten days", n)
		}
	})
}
