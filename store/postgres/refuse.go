package postgres

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/toolboxai/relight"
)

// refuse explains why no stretch holds the target. late is the newest stretch that ends before it, early the oldest that begins
// after it.
func (r *resolver) refuse(late, early *reach) error {
	switch {
	case late != nil:
		return r.refuseLate(*late)
	case early == nil:
		return r.fail(relight.CodeNotFound, "recover to a timeline that descends from a backup", "no backup leads to the newest timeline")
	}
	switch r.t.Kind {
	case relight.TargetXID:
		return r.fail(relight.CodeNotFound, "recover to a time or a position instead; "+r.possible(*early),
			"transaction %d neither committed nor aborted in the WAL that can be replayed", r.t.XID)
	case relight.TargetName:
		return r.fail(relight.CodeNotFound, r.names(), "no restore point of that name can be reached")
	}
	f := early.base.Facts
	return r.fail(relight.CodeNotFound, r.possible(*early),
		"it lies before the first instant that can be recovered, the end of backup %s at %s (%s)", early.base.ID, f.StopTime.Format(time.RFC3339), f.StopLSN)
}

func (r *resolver) refuseLate(c reach) error {
	if c.End < c.base.Facts.StopLSN {
		return r.fail(relight.CodeNotFound, r.fallback(c), "WAL of backup %s is incomplete: it ends at %s and the backup is consistent at %s", c.base.ID, c.End, c.base.Facts.StopLSN)
	}
	if r.elsewhere(c) != 0 {
		return r.fail(relight.CodeNotFound, fmt.Sprintf("timeline %d holds it: name that timeline", r.elsewhere(c)),
			"timeline %d ends at %s", c.line.key.Timeline, c.End)
	}
	if c.beyond {
		return r.fail(relight.CodeNotFound, r.possible(c), "it lies in or after a gap: WAL is missing from %s on%s", c.End, r.why(c))
	}
	if r.t.Kind == relight.TargetTime {
		return r.fail(relight.CodeNotFound, r.possible(c), "it lies after the last moment that the repository covers, %s", c.CoveredAt.Format(time.RFC3339Nano))
	}
	return r.fail(relight.CodeNotFound, r.possible(c), "it lies after the end of the WAL in the repository, %s", c.End)
}

// elsewhere is another timeline that holds a position; 0 when none does.
func (r *resolver) elsewhere(c reach) relight.TimelineID {
	if r.t.Kind != relight.TargetLSN || r.t.Timeline != 0 {
		return 0
	}
	for _, l := range r.a.descendants(c.base) {
		if l != c.line && r.a.reach(c.base, l).End >= r.t.LSN {
			return l.key.Timeline
		}
	}
	return 0
}

func (r *resolver) why(c reach) string {
	for _, g := range c.line.gaps {
		if g.From <= c.End && c.End < g.To {
			return ": " + g.Why
		}
	}
	return ""
}

// possible names the ends of a stretch.
func (r *resolver) possible(c reach) string {
	f := c.base.Facts
	end := c.CoveredAt
	if end.IsZero() {
		end = c.LastCommit
	}
	if end.IsZero() {
		return fmt.Sprintf("possible is from %s (%s) to position %s", f.StopTime.Format(time.RFC3339), f.StopLSN, c.End)
	}
	s := fmt.Sprintf("possible is from %s (%s) to %s (%s)", f.StopTime.Format(time.RFC3339), f.StopLSN, end.Format(time.RFC3339Nano), c.End)
	if !c.LastCommit.IsZero() {
		s += ", the last commit being at " + c.LastCommit.Format(time.RFC3339Nano)
	}
	return s
}

// fallback is an older backup that can be recovered.
func (r *resolver) fallback(c reach) string {
	for _, b := range slices.Backward(r.a.bases) {
		if b.ID == c.base.ID || b.Facts.System != c.base.Facts.System {
			continue
		}
		for _, l := range r.a.descendants(b) {
			if o := r.a.reach(b, l); o.End >= b.Facts.StopLSN {
				return fmt.Sprintf("backup %s can be used: %s", b.ID, r.possible(o))
			}
		}
	}
	return "take a new backup while `relight serve` streams WAL into the repository"
}

func (r *resolver) names() string {
	var out []string
	for _, l := range r.a.lines {
		for _, p := range l.pieces {
			for _, m := range p.Marks {
				out = append(out, m.Name)
			}
		}
	}
	slices.Sort(out)
	out = slices.Compact(out)
	if len(out) == 0 {
		return "the repository holds no restore point; recover to a time or a position instead"
	}
	return "restore points in the repository: " + strings.Join(out, ", ")
}
