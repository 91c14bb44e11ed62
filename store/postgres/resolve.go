package postgres

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/store/postgres/walfile"
)

// plan is a target that was resolved: from which backup, along which timelines, to where, and what the server is told.
//
// Of a time: commits up to and including the instant are kept (Exclusive: before it). The server itself accepts a time only if a
// commit after it exists, and ends in an error otherwise. So where the repository knows no later commit but its coverage reaches the instant (an
// idle database), replay goes to the end of WAL, which is the same state; where the coverage does not reach it, nobody can
// know what was committed, and the target is refused.
type plan struct {
	Point    relight.RecoveryPoint  // as asked for
	Base     base                   // to begin with
	Server   relight.RecoveryTarget // as the server is told; TargetLatest: no target, replay to End
	Timeline relight.TimelineID     // target timeline
	Path     []walfile.Branch
	Pieces   []*piece    // WAL that replay may read, by start
	End      relight.LSN // of the WAL that replay may read
	Required relight.LSN // replay must come this far, or the restore has failed
	reach    reach
	Warnings []string
}

// finder looks into WAL for what sidecars do not say.
type finder interface {
	// FindXID gives the commit or abort record of a transaction within pieces.
	FindXID(ctx context.Context, r reach, xid uint32) (walfile.Event, bool, error)
}

// verdict is whether one reach holds a target.
type verdict int

const (
	holds verdict = iota
	tooEarly
	tooLate
)

// resolve finds the plan for a point, or says why there is none and what is possible instead. It touches nothing.
func resolve(ctx context.Context, a *archive, p relight.RecoveryPoint, find finder) (plan, error) {
	r := &resolver{a: a, p: p, t: p.Target, find: find}
	if err := r.valid(); err != nil {
		return plan{}, err
	}
	candidates, err := r.candidates()
	if err != nil {
		return plan{}, err
	}
	var late, early *reach
	for _, c := range candidates { // newest base first
		pl, v, err := r.try(ctx, c)
		switch {
		case err != nil:
			return plan{}, err
		case v == holds:
			return pl, nil
		case v == tooLate && late == nil:
			late = &c
		case v == tooEarly:
			early = &c
		}
	}
	return plan{}, r.refuse(late, early)
}

type resolver struct {
	a    *archive
	p    relight.RecoveryPoint
	t    relight.RecoveryTarget
	find finder

	xid     walfile.Event // of an xid target, once found
	located bool
}

func (r *resolver) fail(code relight.Code, hint, format string, args ...any) error {
	return &relight.Error{Op: "resolve target", Subject: r.t.String() + " of store " + r.a.store, Code: code, Err: fmt.Errorf(format, args...), Hint: hint}
}

func (r *resolver) valid() error {
	switch r.t.Kind {
	case relight.TargetLatest, relight.TargetImmediate:
		return nil
	case relight.TargetTime:
		if r.t.Time.IsZero() {
			return r.fail(relight.CodeUsage, "give the time with its offset: 2025-10-02T14:30:00Z", "no time is given")
		}
	case relight.TargetLSN:
		if r.t.LSN == 0 {
			return r.fail(relight.CodeUsage, "give a position like 16/B374D848", "no position is given")
		}
	case relight.TargetXID:
		if r.t.XID < 3 {
			return r.fail(relight.CodeUsage, "transaction ids begin at 3", "%d is no transaction's id", r.t.XID)
		}
	case relight.TargetName:
		if r.t.Name == "" {
			return r.fail(relight.CodeUsage, "give the name that pg_create_restore_point was called with", "no name is given")
		}
	default:
		return r.fail(relight.CodeUsage, "use latest, immediate, time, lsn, xid or name", "unknown kind of target %q", r.t.Kind)
	}
	return nil
}

// candidates are the stretches to look at, newest base first.
func (r *resolver) candidates() ([]reach, error) {
	bases, err := r.bases()
	if err != nil {
		return nil, err
	}
	if r.t.Timeline != 0 {
		return r.onTimeline(bases)
	}
	top := r.top(bases)
	var out []reach
	for _, b := range slices.Backward(bases) {
		if r.t.Kind == relight.TargetImmediate { // never past the backup's own timeline
			out = append(out, r.a.reach(b, r.a.lines[lineKey{b.Facts.System, b.Facts.Timeline}]))
			continue
		}
		if top != nil && usable(b, top.path) {
			out = append(out, r.a.reach(b, top))
		}
	}
	return out, nil
}

// top is the newest timeline that any of the bases leads to.
func (r *resolver) top(bases []base) *line {
	var top *line
	for _, b := range bases {
		if d := r.a.descendants(b); len(d) > 0 && (top == nil || d[0].key.Timeline > top.key.Timeline) {
			top = d[0]
		}
	}
	return top
}

// bases are the backups that may be used: the one that was named, or those of the newest cluster.
func (r *resolver) bases() ([]base, error) {
	if len(r.a.bases) == 0 {
		return nil, r.fail(relight.CodeNotFound, "take a backup first; without one WAL cannot be used", "the repository holds no base backup of the store")
	}
	if r.p.Snapshot != "" {
		for _, b := range r.a.bases {
			if b.ID == r.p.Snapshot {
				return []base{b}, nil
			}
		}
		return nil, r.fail(relight.CodeNotFound, "relight backup list shows what there is; the newest is "+string(r.a.bases[len(r.a.bases)-1].ID),
			"the repository holds no base backup %s", r.p.Snapshot)
	}
	system := r.a.newestSystem()
	var out []base
	for _, b := range r.a.bases {
		if b.Facts.System == system {
			out = append(out, b)
		}
	}
	return out, nil
}

func (r *resolver) onTimeline(bases []base) ([]reach, error) {
	l := r.a.lines[lineKey{bases[0].Facts.System, r.t.Timeline}]
	if l == nil {
		return nil, r.fail(relight.CodeNotFound, "timelines there are: "+r.timelines(bases[0].Facts.System), "the repository holds nothing of timeline %d", r.t.Timeline)
	}
	if !l.related {
		return nil, r.fail(relight.CodeNotFound, "timelines with a history: "+r.timelines(bases[0].Facts.System),
			"the history file of timeline %d is not in the repository, so its ancestors are unknown", r.t.Timeline)
	}
	var out []reach
	for _, b := range slices.Backward(bases) {
		if usable(b, l.path) {
			out = append(out, r.a.reach(b, l))
		}
	}
	if len(out) == 0 {
		last := bases[len(bases)-1]
		return nil, r.fail(relight.CodeNotFound, fmt.Sprintf("timelines that the newest backup leads to: %s", r.leads(last)),
			"timeline %d does not descend from a backup that can be used: %s ends at %s on timeline %d", r.t.Timeline, last.ID, last.Facts.StopLSN, last.Facts.Timeline)
	}
	return out, nil
}

func (r *resolver) timelines(system relight.SystemID) string {
	var ids []int
	for k, l := range r.a.lines {
		if k.System == system && l.related {
			ids = append(ids, int(k.Timeline))
		}
	}
	slices.Sort(ids)
	return strings.Trim(fmt.Sprint(ids), "[]")
}

func (r *resolver) leads(b base) string {
	var ids []string
	for _, l := range r.a.descendants(b) {
		ids = append(ids, fmt.Sprint(l.key.Timeline))
	}
	return strings.Join(ids, ", ")
}

// try asks one stretch for the target.
func (r *resolver) try(ctx context.Context, c reach) (plan, verdict, error) {
	pl := plan{Point: r.p, Base: c.base, Server: r.t, Timeline: c.line.key.Timeline, Path: c.line.path, Pieces: c.pieces(), End: c.End, reach: c}
	pl.Server.Timeline = pl.Timeline
	if c.End < c.base.Facts.StopLSN { // the WAL that makes the backup consistent is incomplete
		return pl, tooLate, nil
	}
	switch r.t.Kind {
	case relight.TargetImmediate:
		pl.Required = c.base.Facts.StopLSN
		pl.trim(c.base.Facts.StopLSN)
		return pl, holds, nil
	case relight.TargetLatest:
		pl.toEnd()
		if c.beyond {
			pl.Warnings = append(pl.Warnings, fmt.Sprintf("WAL after %s is missing; there is later WAL that cannot be reached", c.End))
		}
		return pl, holds, nil
	case relight.TargetTime:
		return pl, pl.toTime(), nil
	case relight.TargetLSN:
		return pl, pl.toLSN(), nil
	case relight.TargetXID:
		return r.toXID(ctx, pl)
	default:
		return r.toName(pl)
	}
}

// toEnd lets replay run to the end of what is durable. Every commit in it must be there afterwards.
func (p *plan) toEnd() {
	p.Server = relight.RecoveryTarget{Kind: relight.TargetLatest, Timeline: p.Timeline}
	p.Required = max(p.Base.Facts.StopLSN, p.reach.LastEnd)
}

// trim drops the WAL that a server stopping at lsn does not read.
func (p *plan) trim(lsn relight.LSN) {
	for i, pc := range p.Pieces {
		if pc.Start > lsn {
			p.Pieces = p.Pieces[:i]
			break
		}
	}
}

// outOfOrder is how much two neighbouring commit records may disagree with the order of their times: a backend takes its time
// before it gets its place in WAL.
const outOfOrder = 5 * time.Second

func (p *plan) toTime() verdict {
	at := p.Server.Time
	if at.Before(p.Base.Facts.StopTime) {
		return tooEarly
	}
	for _, pc := range p.Pieces {
		if pc.Commits == 0 || pc.cut {
			continue
		}
		last := pc.LastCommit.time()
		if last.After(at) || p.Server.Exclusive && last.Equal(at) { // the server will find its end
			p.trim(pc.End)
			p.Required = max(p.Required, p.Base.Facts.StopLSN)
			return holds
		}
		if at.Sub(last) > outOfOrder {
			p.Required = max(p.Required, pc.LastEnd)
		}
	}
	if p.reach.CoveredAt.Before(at) {
		return tooLate
	}
	p.toEnd()
	return holds
}

func (p *plan) toLSN() verdict {
	at := p.Server.LSN
	switch {
	case at < p.Base.Facts.StopLSN:
		return tooEarly
	case at > p.End:
		return tooLate
	case at >= p.reach.LastEnd: // nothing is committed after it, and perhaps nothing written for the server to stop at
		p.toEnd()
		return holds
	}
	p.Required = at
	return holds
}

func (r *resolver) toXID(ctx context.Context, p plan) (plan, verdict, error) {
	if !r.located {
		e, ok, err := r.find.FindXID(ctx, p.reach, r.t.XID)
		if err != nil {
			return p, tooLate, fmt.Errorf("look for transaction %d: %w", r.t.XID, err)
		}
		if !ok {
			return p, tooEarly, nil // or nowhere: an older base reaches further back
		}
		r.xid, r.located = e, true
	}
	switch {
	case r.xid.Start < p.Base.Facts.StopLSN:
		return p, tooEarly, nil
	case r.xid.End > p.End:
		return p, tooLate, nil
	}
	p.Required = r.xid.End
	if r.t.Exclusive {
		p.Required = p.Base.Facts.StopLSN
	}
	p.trim(r.xid.End)
	return p, holds, nil
}

func (r *resolver) toName(p plan) (plan, verdict, error) {
	var found []relight.NamedMark
	for _, pc := range p.Pieces {
		for _, m := range pc.Marks {
			if m.Name == r.t.Name && m.Point.LSN >= p.Base.Facts.StartLSN && m.Point.LSN <= p.End {
				found = append(found, m)
			}
		}
	}
	found = slices.CompactFunc(found, func(x, y relight.NamedMark) bool { return x.Point.LSN == y.Point.LSN })
	switch {
	case len(found) == 0:
		return p, tooEarly, nil
	case len(found) > 1:
		var at []string
		for _, m := range found {
			at = append(at, m.Point.LSN.String())
		}
		return p, tooEarly, r.fail(relight.CodeUsage, "recover to one of these positions instead: "+strings.Join(at, ", "), "the name was given %d times since backup %s", len(found), p.Base.ID)
	case found[0].Point.LSN < p.Base.Facts.StopLSN:
		return p, tooEarly, nil
	}
	p.Required = found[0].Point.LSN
	p.trim(found[0].Point.LSN)
	return p, holds, nil
}
