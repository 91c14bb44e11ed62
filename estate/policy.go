package estate

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/toolboxai/relight"
)

// Policy says how often a store is backed up and what is kept.
type Policy struct {
	BaseBackup    time.Duration // age of the newest base backup at which another is wanted
	FullBackup    time.Duration // age of the newest full base backup at which the next is no incremental one
	Budget        IOBudget      // what base backups may cost; the zero one is no bound
	LongestReplay time.Duration // a base backup is taken before recovery to the present would replay longer; 0: no bound
	MarkEvery     time.Duration // one point of each stretch of this length is made, by a restore point where there is no base backup; 0: none
	Keep          []Keep        // what is kept of backups; none: everything
}

// IOBudget bounds what base backups read and write: bytes in a time, or a share of the time.
type IOBudget struct {
	Bytes int64
	Per   time.Duration
	Share float64 // of the time, above 0 and at most 1; 0 where Bytes counts
	text  string
}

// String is the budget as it was written; "" for none.
func (b IOBudget) String() string { return b.text }

// Rate is in bytes a second; 0 where the budget is a share, or none.
func (b IOBudget) Rate() float64 {
	if b.Per == 0 {
		return 0
	}
	return float64(b.Bytes) / b.Per.Seconds()
}

var budgetTimes = map[string]time.Duration{"hour": time.Hour, "day": day, "week": 7 * day}

// ParseIOBudget reads "50GiB/day" or "5%".
func ParseIOBudget(text string) (IOBudget, error) {
	b := IOBudget{text: text}
	fault := fmt.Errorf("%q is not a budget such as 50GiB/day, 4GiB/hour or 5%%", text)
	if percent, ok := strings.CutSuffix(text, "%"); ok {
		n, err := strconv.ParseFloat(percent, 64)
		if err != nil || math.IsNaN(n) || n <= 0 || n > 100 {
			return b, fault
		}
		b.Share = n / 100
		return b, nil
	}
	size, per, ok := strings.Cut(text, "/")
	b.Per = budgetTimes[strings.TrimSpace(per)]
	n, err := ParseSize(strings.TrimSpace(size))
	if !ok || err != nil || b.Per == 0 || n == 0 {
		return b, fault
	}
	b.Bytes = n
	return b, nil
}

func (r *resolver) policy(at string, in policyFile, o relight.Objective) Policy {
	p := Policy{BaseBackup: r.duration(at+".base_backup", in.BaseBackup, day), FullBackup: r.duration(at+".full_backup", in.FullBackup, 7*day),
		LongestReplay: r.duration(at+".longest_replay", in.Replay, 0), Keep: r.keeps(at+".keep", in.Keep)}
	if in.Budget != "" {
		b, err := ParseIOBudget(in.Budget)
		if err != nil {
			r.failf("%s.io_budget: %w", at, err)
		}
		p.Budget = b
	}
	p.MarkEvery = p.densest()
	if in.Restore != "" {
		p.MarkEvery = 0
		if in.Restore != "never" {
			p.MarkEvery = r.duration(at+".restore_point", in.Restore, 0)
		}
	}
	r.possible(at, in, p, o)
	return p
}

// densest is the shortest stretch of which a rule wants a point, where base backups do not come more often; 0 when there is none.
func (p Policy) densest() time.Duration {
	var out time.Duration
	for _, k := range p.Keep {
		if k.Every > 0 && k.Every <= p.BaseBackup && (out == 0 || k.Every < out) {
			out = k.Every
		}
	}
	return out
}

// possible refuses rules that cannot be kept together, and says which one to change.
func (r *resolver) possible(at string, in policyFile, p Policy, o relight.Objective) {
	if in.BaseBackup != "" && p.BaseBackup < time.Minute && !r.failedAt(at+".base_backup") {
		r.failf("%s.base_backup: %s is shorter than any base backup takes; give at least 1m, and let restore_point do what is to be more frequent", at, in.BaseBackup)
	}
	if p.MarkEvery > 0 && p.MarkEvery < time.Second {
		r.failf("%s.restore_point: %s is too often; give at least 1s, or never", at, in.Restore)
	}
	for i, k := range p.Keep {
		if k.Every > 0 && k.Every < p.BaseBackup && in.Restore != "" && (p.MarkEvery == 0 || p.MarkEvery > k.Every) && !r.failedAt(at+".") {
			r.failf("%s.keep[%d]: a point of every %s is to be kept, but base backups are due every %s and restore points %s; leave restore_point out, or give at most %s",
				at, i, k.name(), in.baseText(), in.restoreText(), k.name())
		}
	}
	if in.Replay != "" && p.LongestReplay == 0 && !r.failedAt(at+".longest_replay") {
		r.failf("%s.longest_replay: no recovery replays nothing; leave it out for no bound", at)
	}
	if p.LongestReplay > o.RTO {
		r.failf("%s.longest_replay: replay alone may take %s, and objective.rto allows %s for the whole recovery; make it shorter, or the objective longer", at, in.Replay, o.RTO)
	}
}

// failedAt says whether a problem of a key is already known: what follows from it is not worth a second one.
func (r *resolver) failedAt(key string) bool {
	return slices.ContainsFunc(r.problems, func(err error) bool { return strings.HasPrefix(err.Error(), key) })
}

func (f policyFile) baseText() string { return orElse(f.BaseBackup, "24h") }

func (f policyFile) restoreText() string {
	if f.Restore == "never" || f.Restore == "0" {
		return "never"
	}
	return "every " + f.Restore
}
