package coordinator

import (
	"fmt"
	"time"

	"github.com/toolboxai/relight"
)

// Schedule says how often base backups of a store are taken.
type Schedule struct {
	Every         time.Duration // one is wanted when the newest is older
	Budget        Budget        // and waits until the former ones have been paid for
	LongestReplay time.Duration // one is taken, whatever the budget says, before recovery to the present would replay longer; 0: no bound
}

// Budget is what base backups may cost in the long run, in each repository: bytes a second that they read and write, or a share of the time. The zero one is no bound.
type Budget struct {
	Rate  float64
	Share float64
	Text  string // as the policy has it
}

// Cost is what a former base backup took.
type Cost struct {
	Begun time.Time
	Took  time.Duration
	Bytes int64 // read from the store and written to the repository
}

// CostOf is what a snapshot's manifest says of its cost. Before reads were counted, a backup read about what it protects.
func CostOf(s relight.Snapshot) Cost {
	read := s.Read
	if read == 0 {
		read = s.Size
	}
	return Cost{Begun: s.Started, Took: max(0, s.Finished.Sub(s.Started)), Bytes: read + s.Stored}
}

// pause is how long one base backup is paid for.
func (b Budget) pause(c Cost) time.Duration {
	switch {
	case b.Rate > 0:
		return bounded(float64(c.Bytes) / b.Rate)
	case b.Share > 0:
		return bounded(c.Took.Seconds() / b.Share)
	default:
		return 0
	}
}

// bounded keeps a number of seconds in the range of durations: a century is as good as never.
func bounded(seconds float64) time.Duration {
	const century = 100 * 365 * 24 * time.Hour
	return time.Duration(min(seconds, century.Seconds()) * float64(time.Second))
}

// free is when all former base backups are paid for. Those that were taken out of turn, for a new timeline or by hand, count too. One that
// says it began in the future was dated by a clock that ran ahead, and began now at the latest.
func (b Budget) free(costs []Cost, now time.Time) time.Time {
	var free time.Time
	for _, c := range costs {
		begun := c.Begun
		if begun.After(now) {
			begun = now
		}
		if begun.After(free) {
			free = begun
		}
		free = free.Add(b.pause(c))
	}
	return free
}

// replayMargin is the part of LongestReplay that is left for the base backup itself: until it ends, recovery still begins at the former one.
const replayMargin = 4

// decision is whether a base backup is due.
type decision struct {
	why    string        // "": none is due now
	next   time.Time     // when one will be, as far as can be foreseen
	held   string        // why one that is wanted is not taken
	replay time.Duration // what recovery to the present would replay, by the rate that is known; 0 when nothing is
}

// slack is how far ahead of us the clock may have been that dated a snapshot.
const slack = 10 * time.Minute

// Ahead says that a snapshot is dated in the future, by a clock that ran ahead: nobody knows how old it is.
func Ahead(s relight.Snapshot, now time.Time) bool { return s.Finished.After(now.Add(slack)) }

// decide is apart so that every case can be tested.
func decide(f following, b base, s Schedule, now time.Time) decision {
	d := decision{next: b.snapshot.Finished.Add(s.Every)}
	if free := s.Budget.free(b.costs, now); free.After(d.next) {
		d.next = free
	}
	if b.replayRate > 0 && f.Timeline == b.timeline && f.Written > b.start {
		d.replay = bounded(float64(f.Written-b.start) / b.replayRate)
	}
	age := now.Sub(b.snapshot.Finished)
	switch {
	case f.Timeline != b.timeline:
		d.why = fmt.Sprintf("timeline %d has none", f.Timeline)
	case f.NeedBase.After(b.snapshot.Started):
		d.why = "write-ahead log was lost after the newest"
	case s.LongestReplay > 0 && d.replay >= s.LongestReplay-s.LongestReplay/replayMargin:
		d.why = fmt.Sprintf("recovery to the present would replay for %s, and the policy allows %s", d.replay.Round(time.Second), s.LongestReplay)
	case Ahead(b.snapshot, now):
		d.why = "the newest is dated in the future, at " + b.snapshot.Finished.UTC().Format(time.RFC3339)
	case age < s.Every:
	case now.Before(d.next):
		d.held = fmt.Sprintf("the newest is %s old, and the I/O budget of %s is used up until %s", age.Round(time.Second), s.Budget.Text, d.next.UTC().Format(time.RFC3339))
	default:
		d.why = "the newest is " + age.Round(time.Second).String() + " old"
	}
	return d
}
