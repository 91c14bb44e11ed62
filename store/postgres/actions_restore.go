package postgres

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/action"
	"github.com/toolboxai/relight/repo"
	"github.com/toolboxai/relight/store"
)

type restoreInput struct {
	Store        string `flag:"store" help:"the store; the only one when not given"`
	At           string `flag:"at" help:"the moment: latest, immediate, a time, lsn:16/B374D848, xid:4711, name:before-migration, or set:NAME of a recovery set" default:"latest"`
	Exclusive    bool   `flag:"exclusive" help:"stop just before the moment; commits at it are kept otherwise"`
	Timeline     int    `flag:"timeline" help:"recover along this timeline; the newest that descends from the base backup when not given"`
	Snapshot     string `flag:"snapshot" help:"the base backup to start from, the newest that reaches the moment when not given; or a recovery set, set:NAME, which is the same as --at"`
	Repository   string `flag:"repository" help:"the repository; the store's first when not given"`
	Target       string `flag:"target" help:"in-place, or a directory to restore into" default:"in-place"`
	Delta        bool   `flag:"delta" help:"change an occupied target in place, only where it differs"`
	VerifyBefore bool   `flag:"verify_before" help:"read everything that is needed before touching the target; also called --verify-before-restore"`
	Verify       bool   `flag:"verify" help:"check the restored server; when that fails it is left stopped"`

	Tablespace []string `flag:"tablespace" help:"OLD=NEW: where a tablespace goes, by its location, name or oid in the source; several may be given, or parted by commas (\\, is a comma of a path). Others go where they were when in place, else to TARGET.tblspc/OID"`
}

// RestoreReport is what a restore brought back.
type RestoreReport struct {
	relight.Restored
	ReachedLSN relight.LSN        `json:"reached_lsn"`
	Timeline   relight.TimelineID `json:"timeline"`
	Seconds    float64            `json:"seconds"`
}

// ParseTarget reads how people name a moment. A time without an offset is read by parseTime.
func ParseTarget(text string, exclusive bool, parseTime func(string) (time.Time, error)) (relight.RecoveryTarget, error) {
	t := relight.RecoveryTarget{Exclusive: exclusive}
	kind, value, named := strings.Cut(text, ":")
	var err error
	switch {
	case text == "" || text == "latest":
		t.Kind = relight.TargetLatest
	case text == "immediate":
		t.Kind = relight.TargetImmediate
	case named && kind == "lsn":
		t.Kind = relight.TargetLSN
		t.LSN, err = relight.ParseLSN(value)
	case named && kind == "xid":
		var xid uint64
		t.Kind = relight.TargetXID
		xid, err = strconv.ParseUint(value, 10, 32)
		t.XID = uint32(xid)
	case named && kind == "name":
		t.Kind, t.Name = relight.TargetName, value
	case strings.HasPrefix(text, repo.SetMark): // a restore point of this name in each of the set's stores
		t.Kind, t.Name = relight.TargetName, text
	default:
		t.Kind = relight.TargetTime
		t.Time, err = parseTime(strings.TrimPrefix(text, "time:"))
	}
	if err != nil && relight.HintOf(err) != "" { // a time that occurs twice has more to say than how to write one
		return t, err
	}
	if err != nil {
		return t, &relight.Error{Op: "read recovery target", Subject: strconv.Quote(text), Code: relight.CodeUsage, Err: err,
			Hint: `name it as latest, immediate, "2025-10-02 14:30:00", lsn:16/B374D848, xid:4711, name:before-migration or set:NAME`}
	}
	return t, nil
}

// ParseTablespaces reads where tablespaces are to go, each as OLD=NEW. NEW is an absolute path, so that OLD may hold an equals sign.
func ParseTablespaces(texts []string) (map[string]string, error) {
	places := map[string]string{}
	for _, text := range texts {
		old, place, ok := strings.Cut(text, "=/")
		var err error
		switch {
		case !ok || old == "":
			err = errors.New("it is not of the form OLD=NEW with an absolute path as NEW")
		case places[old] != "":
			err = fmt.Errorf("tablespace %s is given twice", old)
		}
		if err != nil {
			return nil, &relight.Error{Op: "read tablespace", Subject: strconv.Quote(text), Code: relight.CodeUsage, Err: err,
				Hint: "give each tablespace once: its location, name or oid in the source, and where it goes: /srv/fast=/mnt/fast"}
		}
		places[old] = "/" + place
	}
	return places, nil
}

// resolved is a restore's input joined with its store.
type resolved struct {
	Cluster
	point  relight.RecoveryPoint
	target store.Target
	name   string // the repository's
}

func (a *actions) resolveRestore(ctx context.Context, in restoreInput) (resolved, error) {
	c, err := a.open(ctx, in.Store)
	if err != nil {
		return resolved{}, err
	}
	if strings.HasPrefix(in.Snapshot, repo.SetMark) { // a set is an instant, not a base backup
		if in.At != "latest" && in.At != in.Snapshot {
			return resolved{}, c.Store.fail("restore", relight.CodeUsage, "give the set as --at alone, or another moment", "the recovery set %s is a moment, and so is %s", in.Snapshot, in.At)
		}
		in.At, in.Snapshot = in.Snapshot, ""
	}
	t, err := ParseTarget(in.At, in.Exclusive, c.ParseTime)
	if err != nil {
		return resolved{}, err
	}
	t.Timeline = relight.TimelineID(in.Timeline)
	target, err := c.target(in)
	if err != nil {
		return resolved{}, err
	}
	return resolved{Cluster: c, target: target, name: c.repository(in.Repository),
		point: relight.RecoveryPoint{Store: c.Store.Config().Name, Snapshot: relight.SnapshotID(in.Snapshot), Target: t}}, nil
}

func (a *actions) restore(ctx context.Context, env action.Env, in restoreInput) (RestoreReport, error) {
	r, err := a.resolveRestore(ctx, in)
	if err != nil {
		return RestoreReport{}, err
	}
	reader, err := r.Reader(ctx, r.name)
	if err != nil {
		return RestoreReport{}, err
	}
	begun := env.Now()
	done, err := r.Store.Restore(ctx, reader, r.point, r.target, store.RestoreOptions{Run: env.Run, Epoch: env.Epoch, Delta: in.Delta, VerifyBefore: in.VerifyBefore, Verify: in.Verify,
		Force: env.Force || in.Target == "in-place", Progress: env.Progress, Started: env.Started})
	if err != nil {
		return RestoreReport{}, err
	}
	return reportRestore(done, env.Now().Sub(begun)), nil
}

func reportRestore(done relight.Restored, took time.Duration) RestoreReport {
	return RestoreReport{Restored: done, ReachedLSN: done.Reached.LSN, Timeline: done.NewLine, Seconds: took.Seconds()}
}

// planRestore shows what is about to be replaced. A free target needs nobody's word: nothing is lost by filling it.
func (a *actions) planRestore(ctx context.Context, env action.Env, in restoreInput) (action.Blast, error) {
	r, err := a.resolveRestore(ctx, in)
	if err != nil {
		return action.Blast{}, err
	}
	reader, err := r.Reader(ctx, r.name)
	if err != nil {
		return action.Blast{}, err
	}
	plan, err := r.Store.PlanRestore(ctx, reader, r.point, r.target, store.RestoreOptions{Force: env.Force || in.Target == "in-place", Delta: in.Delta})
	if err != nil {
		return action.Blast{}, err
	}
	b := action.Blast{Target: r.point.Store, Danger: action.Data}
	b.Lines = append(b.Lines, fmt.Sprintf("brings %s to %s, from base backup %s of repository %s", r.point.Store, plan.Target, plan.Snapshot, r.name))
	if t := r.point.Target; t.Kind == relight.TargetTime {
		b.Lines = append(b.Lines, echo(t.Time, plan.LastCommit, r.Zone))
	}
	if !plan.LastCommit.IsZero() {
		b.Lines = append(b.Lines, "the last commit that the repository holds is of "+clockText(plan.LastCommit))
	}
	b.Lines = append(b.Lines, fmt.Sprintf("writes %d MB into %s and replays at most %d MB of write-ahead log", plan.Bytes>>20, r.target.Directory, plan.WAL>>20))
	switch {
	case plan.Occupied == "":
		b.Danger = action.Harm
	case in.Delta:
		b.Lines = append(b.Lines, "changes what is there in place: "+plan.Occupied+"; blocks that differ are overwritten and cannot be examined afterwards, so keep evidence first; "+
			"its log and the files that the snapshot does not have are moved aside")
	default:
		b.Lines = append(b.Lines, "replaces what is there: "+plan.Occupied+"; it is set aside, not deleted; without room for both the restore is refused, and --delta needs less")
	}
	for _, sp := range plan.Spaces {
		if b.Lines = append(b.Lines, sp.line(in.Delta && plan.Occupied != "")); sp.Occupied {
			b.Danger = action.Data
		}
	}
	b.Lines = append(b.Lines, plan.Warnings...)
	return b, nil
}

// line says where a tablespace goes and what becomes of what is there.
func (s SpaceBlast) line(delta bool) string {
	text := fmt.Sprintf("tablespace %s goes to %s, where it was", s.Name, s.Place)
	if s.Place != s.Location {
		text = fmt.Sprintf("tablespace %s, in the source %s, goes to %s", s.Name, s.Location, s.Place)
	}
	switch {
	case !s.Occupied:
		return text
	case delta:
		return text + ": " + s.Directory + " is changed in place"
	default:
		return text + ": " + s.Directory + ", which is there, is set aside, not deleted"
	}
}

// echo says a moment back with its offset and how far it is from the last commit, so that a wrong zone or day is seen before anything happens.
func echo(at, last time.Time, zone *time.Location) string {
	if zone == nil {
		zone = time.UTC
	}
	text := "the moment is " + at.In(zone).Format("2006-01-02 15:04:05.999999-07:00")
	if zone != time.UTC {
		text += " in " + zone.String() + ", " + clockText(at)
	}
	switch d := at.Sub(last).Round(time.Millisecond); {
	case last.IsZero():
		return text
	case d < 0:
		return fmt.Sprintf("%s: %s before the last commit", text, -d)
	default:
		return fmt.Sprintf("%s: %s after the last commit", text, d)
	}
}

// probeRestore believes the finished restore of this very point only when it was finished after the step began: "latest" may have been restored here
// before, in an earlier disaster.
func (a *actions) probeRestore(ctx context.Context, env action.Env, in restoreInput) (action.Probed, error) {
	r, err := a.resolveRestore(ctx, in)
	if err != nil {
		return action.Probed{}, err
	}
	st, err := RestoreState(r.target.Directory, r.point)
	if err != nil {
		return action.Probed{}, err
	}
	p := action.Probed{State: action.ProbeState(st.State), Detail: st.Detail}
	if p.State != action.Done {
		return p, nil
	}
	if st.Finished.Before(env.Since) || env.Since.IsZero() {
		return action.Probed{State: action.NotDone, Detail: "an earlier run restored this point: " + st.Detail}, nil
	}
	p.Out = reportRestore(*st.Restored, st.Finished.Sub(env.Since))
	return p, nil
}
