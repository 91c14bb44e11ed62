package postgres

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/store/postgres/walfile"
)

const seg = 0x100000

var epoch0 = time.Date(2025, 10, 2, 14, 0, 0, 0, time.UTC)

// at is n seconds after the beginning of the synthetic archive.
func at(n int) time.Time { return epoch0.Add(time.Duration(n) * time.Second) }

// synthetic makes archives of segments in which one second passes per 64 KiB of WAL and a commit ends at each.
type synthetic struct{ a *archive }

func newSynthetic() *synthetic {
	return &synthetic{a: &archive{store: "main", lines: map[lineKey]*line{}}}
}

const perSecond = seg / 16

// wal adds pieces from..to (in segments) on a timeline.
func (s *synthetic) wal(tl relight.TimelineID, from, to int) *synthetic {
	l := s.a.line(lineKey{7, tl})
	for n := from; n < to; n++ {
		start, end := relight.LSN(n*seg), relight.LSN((n+1)*seg)
		l.pieces = append(l.pieces, piece{
			Timeline: tl, Start: start, End: end, Segment: seg, Commits: 16, LastCommit: instantOf(at(int(end-perSecond) / perSecond)), LastXID: uint32(n*16 + 15),
			LastEnd: end - 1000, CoveredAt: instantOf(at(int(end) / perSecond)),
		})
	}
	return s
}

// base adds a backup whose stop is at a segment, with the WAL that begins there.
func (s *synthetic) base(id string, tl relight.TimelineID, segment int) *synthetic {
	lsn := relight.LSN(segment * seg)
	s.a.bases = append(s.a.bases, base{ID: relight.SnapshotID(id), Facts: Facts{
		System: 7, Timeline: tl, StartLSN: lsn + 0x28, StopLSN: lsn + 0x200, StopTime: at(segment * 16), StartTime: at(segment*16 - 1), SegmentSize: seg, Version: 150000,
	}})
	return s
}

func (s *synthetic) history(tl relight.TimelineID, text string) *synthetic {
	if err := s.a.addHistory(lineKey{7, tl}, text); err != nil {
		panic(err)
	}
	return s
}

func (s *synthetic) mark(tl relight.TimelineID, segment int, names ...string) *synthetic {
	for i := range s.a.line(lineKey{7, tl}).pieces {
		p := &s.a.lines[lineKey{7, tl}].pieces[i]
		if p.Start == relight.LSN(segment*seg) {
			for n, name := range names {
				p.Marks = append(p.Marks, relight.NamedMark{Name: name, Point: relight.Point{Timeline: tl, LSN: p.Start + relight.LSN(0x300+n)}})
			}
		}
	}
	return s
}

func (s *synthetic) archive() *archive {
	s.a.arrange()
	return s.a
}

// knownXIDs finds transactions in a table instead of in WAL.
type knownXIDs map[uint32]relight.LSN

func (k knownXIDs) FindXID(_ context.Context, r reach, xid uint32) (walfile.Event, bool, error) {
	end, ok := k[xid]
	if !ok || end > r.End || end < r.base.Facts.StartLSN {
		return walfile.Event{}, false, nil
	}
	return walfile.Event{Kind: walfile.Commit, XID: xid, Start: end - 40, End: end}, true, nil
}

// plain: backups at segments 2 and 6, WAL 2..10 on timeline 1.
func plain() *synthetic { return newSynthetic().base("b1", 1, 2).base("b2", 1, 6).wal(1, 2, 10) }

// forked: timeline 2 leaves timeline 1 in segment 8 (PITR), has WAL to 12 and a backup at 10; timeline 1 went on to 14.
func forked() *synthetic {
	fork := relight.LSN(8*seg + 0x8000)
	return newSynthetic().base("b1", 1, 2).wal(1, 2, 14).base("b2", 2, 10).wal(2, 8, 12).history(2, fmt.Sprintf("1\t%s\tbefore it\n", fork))
}

// broken: segments 5 and 6 are missing; the later backup lies behind the gap.
func broken() *synthetic {
	return newSynthetic().base("b1", 1, 2).wal(1, 2, 5).base("b2", 1, 8).wal(1, 7, 11)
}

func point(t relight.RecoveryTarget) relight.RecoveryPoint {
	return relight.RecoveryPoint{Store: "main", Target: t}
}

func timeTarget(n int) relight.RecoveryTarget {
	return relight.RecoveryTarget{Kind: relight.TargetTime, Time: at(n)}
}

func lsnTarget(lsn relight.LSN) relight.RecoveryTarget {
	return relight.RecoveryTarget{Kind: relight.TargetLSN, LSN: lsn}
}

func TestResolve(t *testing.T) {
	t.Parallel()
	kind := func(k relight.TargetKind) relight.RecoveryTarget { return relight.RecoveryTarget{Kind: k} }
	cases := []struct {
		name     string
		archive  *synthetic
		target   relight.RecoveryTarget
		snapshot relight.SnapshotID
		base     relight.SnapshotID
		server   relight.TargetKind
		timeline relight.TimelineID
		required relight.LSN
	}{
		{name: "latest takes the newest backup", archive: plain(), target: kind(relight.TargetLatest), base: "b2", server: relight.TargetLatest, timeline: 1, required: 10*seg - 1000},
		{name: "latest from a named backup", archive: plain(), target: kind(relight.TargetLatest), snapshot: "b1", base: "b1", server: relight.TargetLatest, timeline: 1, required: 10*seg - 1000},
		{name: "immediate ends at the stop position", archive: plain(), target: kind(relight.TargetImmediate), base: "b2", server: relight.TargetImmediate, timeline: 1, required: 6*seg + 0x200},
		{name: "a time before the newest backup takes an older one", archive: plain(), target: timeTarget(80), base: "b1", server: relight.TargetTime, timeline: 1},
		{name: "a time after the newest backup takes it", archive: plain(), target: timeTarget(100), base: "b2", server: relight.TargetTime, timeline: 1},
		{name: "a time after the last commit that is covered goes to the end", archive: plain(), target: timeTarget(160), base: "b2", server: relight.TargetLatest, timeline: 1, required: 10*seg - 1000},
		{name: "an LSN in between", archive: plain(), target: lsnTarget(7*seg + 5), base: "b2", server: relight.TargetLSN, timeline: 1, required: 7*seg + 5},
		{name: "an LSN before the newest backup", archive: plain(), target: lsnTarget(5 * seg), base: "b1", server: relight.TargetLSN, timeline: 1, required: 5 * seg},
		{name: "an LSN at a backup's own stop", archive: plain(), target: lsnTarget(6*seg + 0x200), base: "b2", server: relight.TargetLSN, timeline: 1, required: 6*seg + 0x200},
		{name: "an LSN after the last commit goes to the end", archive: plain(), target: lsnTarget(10*seg - 10), base: "b2", server: relight.TargetLatest, timeline: 1, required: 10*seg - 1000},
		{name: "a transaction", archive: plain(), target: relight.RecoveryTarget{Kind: relight.TargetXID, XID: 100}, base: "b1", server: relight.TargetXID, timeline: 1, required: 4*seg + 0x500},
		{name: "a transaction after the newest backup", archive: plain(), target: relight.RecoveryTarget{Kind: relight.TargetXID, XID: 200}, base: "b2", server: relight.TargetXID, timeline: 1, required: 9*seg + 0x500},
		{name: "a name", archive: plain().mark(1, 7, "release"), target: relight.RecoveryTarget{Kind: relight.TargetName, Name: "release"}, base: "b2", server: relight.TargetName, timeline: 1, required: 7*seg + 0x300},
		{name: "a name before the newest backup", archive: plain().mark(1, 4, "release"), target: relight.RecoveryTarget{Kind: relight.TargetName, Name: "release"}, base: "b1", server: relight.TargetName, timeline: 1, required: 4*seg + 0x300},
		{name: "latest follows the newest timeline", archive: forked(), target: kind(relight.TargetLatest), base: "b2", server: relight.TargetLatest, timeline: 2, required: 12*seg - 1000},
		{name: "latest of the old timeline", archive: forked(), target: relight.RecoveryTarget{Kind: relight.TargetLatest, Timeline: 1}, base: "b1", server: relight.TargetLatest, timeline: 1, required: 14*seg - 1000},
		{name: "immediate stays on the backup's timeline", archive: forked(), target: kind(relight.TargetImmediate), snapshot: "b1", base: "b1", server: relight.TargetImmediate, timeline: 1, required: 2*seg + 0x200},
		{name: "a time on the new timeline from a backup on the old", archive: forked(), target: timeTarget(150), base: "b1", server: relight.TargetTime, timeline: 2},
		{name: "an LSN beyond the fork on the old timeline", archive: forked(), target: relight.RecoveryTarget{Kind: relight.TargetLSN, LSN: 13 * seg, Timeline: 1}, base: "b1", server: relight.TargetLSN, timeline: 1, required: 13 * seg},
		{name: "before a gap", archive: broken(), target: timeTarget(60), base: "b1", server: relight.TargetTime, timeline: 1},
		{name: "behind a gap", archive: broken(), target: timeTarget(140), base: "b2", server: relight.TargetTime, timeline: 1},
		{name: "latest behind a gap", archive: broken(), target: kind(relight.TargetLatest), base: "b2", server: relight.TargetLatest, timeline: 1, required: 11*seg - 1000},
	}
	known := knownXIDs{100: 4*seg + 0x500, 200: 9*seg + 0x500}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := point(c.target)
			p.Snapshot = c.snapshot
			got, err := resolve(t.Context(), c.archive.archive(), p, known)
			if err != nil {
				t.Fatal(err)
			}
			if got.Base.ID != c.base || got.Server.Kind != c.server || got.Timeline != c.timeline {
				t.Errorf("from %s to %s on timeline %d, want %s, %s, %d", got.Base.ID, got.Server.Kind, got.Timeline, c.base, c.server, c.timeline)
			}
			if c.required != 0 && got.Required != c.required {
				t.Errorf("required %s, want %s", got.Required, c.required)
			}
			if got.Required < got.Base.Facts.StopLSN {
				t.Errorf("required %s is before the backup is consistent (%s)", got.Required, got.Base.Facts.StopLSN)
			}
		})
	}
}

func TestResolveRefusesWithWhatIsPossible(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name     string
		archive  *synthetic
		target   relight.RecoveryTarget
		snapshot relight.SnapshotID
		says     string
		hint     string
	}{
		{"target after the last commit", plain(), timeTarget(1000), "", "after the last moment that the repository covers", "last commit being at 2025-10-02T14:02:39Z"},
		{"before the first backup", plain(), timeTarget(3), "", "before the first instant", "possible is from 2025-10-02T14:00:32Z"},
		{"LSN after the end", plain(), lsnTarget(50 * seg), "", "after the end of the WAL", "(0/A00000)"},
		{"LSN before the first backup", plain(), lsnTarget(seg), "", "before the first instant", "0/200200"},
		{"before a named backup", plain(), timeTarget(40), "b2", "before the first instant", "14:01:36Z"},
		{"in a gap", broken(), timeTarget(100), "", "gap", "possible is from"},
		{"LSN in a gap", broken(), lsnTarget(6 * seg), "", "gap", "possible is from"},
		{"unknown timeline", forked(), relight.RecoveryTarget{Kind: relight.TargetLatest, Timeline: 9}, "", "nothing of timeline 9", "1 2"},
		{"timeline without history", forked().wal(3, 12, 14), relight.RecoveryTarget{Kind: relight.TargetLatest, Timeline: 3}, "", "history file of timeline 3", "1 2"},
		{"unrelated timeline", newSynthetic().base("b2", 1, 10).wal(1, 10, 12).wal(2, 8, 12).history(2, "1\t0/808000\tx\n"), relight.RecoveryTarget{Kind: relight.TargetLatest, Timeline: 2}, "", "does not descend", "1"},
		{"LSN that only the old timeline holds", forked(), lsnTarget(13 * seg), "b1", "timeline 2 ends at", "timeline 1 holds it"},
		{"unknown transaction", plain(), relight.RecoveryTarget{Kind: relight.TargetXID, XID: 4711}, "", "transaction 4711", "position"},
		{"unknown name", plain().mark(1, 7, "release"), relight.RecoveryTarget{Kind: relight.TargetName, Name: "other"}, "", "no restore point of that name", "release"},
		{"ambiguous name", plain().mark(1, 7, "release").mark(1, 8, "release"), relight.RecoveryTarget{Kind: relight.TargetName, Name: "release"}, "", "2 times", "0/700300, 0/800300"},
		{"unknown backup", plain(), relight.RecoveryTarget{Kind: relight.TargetLatest}, "b9", "no base backup b9", "newest is b2"},
		{"no backup", newSynthetic().wal(1, 2, 10), relight.RecoveryTarget{Kind: relight.TargetLatest}, "", "no base backup", "take a backup"},
		{"backup without its WAL", newSynthetic().base("b1", 1, 2).wal(1, 4, 8), relight.RecoveryTarget{Kind: relight.TargetLatest}, "", "incomplete", "take a new backup"},
		{"no time", plain(), relight.RecoveryTarget{Kind: relight.TargetTime}, "", "no time", "offset"},
		{"no LSN", plain(), relight.RecoveryTarget{Kind: relight.TargetLSN}, "", "no position", "16/B374D848"},
		{"no XID", plain(), relight.RecoveryTarget{Kind: relight.TargetXID}, "", "no transaction's id", "3"},
		{"no name", plain(), relight.RecoveryTarget{Kind: relight.TargetName}, "", "no name", "pg_create_restore_point"},
		{"unknown kind", plain(), relight.RecoveryTarget{Kind: "yesterday"}, "", "unknown kind", "latest"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := point(c.target)
			p.Snapshot = c.snapshot
			got, err := resolve(t.Context(), c.archive.archive(), p, knownXIDs{})
			if err == nil {
				t.Fatalf("resolved to %s on timeline %d", got.Base.ID, got.Timeline)
			}
			if !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %q does not say %q", err, c.says)
			}
			if !strings.Contains(relight.HintOf(err), c.hint) {
				t.Errorf("hint %q does not say %q", relight.HintOf(err), c.hint)
			}
		})
	}
}

// Trap 22: the backup's stop must precede the target, whatever the target.
func TestResolvedBackupAlwaysPrecedesTheTarget(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := newSynthetic()
		hole := rapid.IntRange(3, 30).Draw(t, "hole")
		for n := 2; n < 30; n++ {
			if n != hole {
				s.wal(1, n, n+1)
			}
		}
		for i, n := range rapid.SliceOfNDistinct(rapid.IntRange(2, 28), 1, 5, rapid.ID[int]).Draw(t, "bases") {
			s.base(fmt.Sprintf("b%d", i), 1, n)
		}
		second := rapid.IntRange(0, 600).Draw(t, "second")
		pl, err := resolve(context.Background(), s.archive(), point(timeTarget(second)), knownXIDs{})
		if err != nil {
			if relight.HintOf(err) == "" {
				t.Fatalf("refused without a hint: %v", err)
			}
			return
		}
		if pl.Base.Facts.StopTime.After(at(second)) {
			t.Fatalf("backup %s ends at %s, after the target %s", pl.Base.ID, pl.Base.Facts.StopTime, at(second))
		}
		end := pl.Base.Facts.StartLSN
		for _, p := range pl.Pieces {
			if p.Start > end {
				t.Fatalf("WAL of the plan has a hole at %s", end)
			}
			end = p.End
		}
		if end < pl.Required {
			t.Fatalf("WAL ends at %s, required is %s", end, pl.Required)
		}
	})
}

func TestWindow(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name    string
		archive *synthetic
		want    []string // "snapshot timeline from to"
		gaps    int
	}{
		{"plain", plain(), []string{"b1 1 0/200200 0/A00000"}, 0},
		{"forked", forked(), []string{"b1 1 0/200200 0/E00000", "b1 2 0/200200 0/C00000"}, 0},
		{"broken", broken(), []string{"b1 1 0/200200 0/500000", "b2 1 0/800200 0/B00000"}, 1},
		{"empty", newSynthetic(), nil, 0},
		{"fork not passed", newSynthetic().base("b1", 1, 2).wal(1, 2, 9).wal(2, 8, 12).history(2, "1\t0/900000\tx\n"), []string{"b1 2 0/200200 0/C00000"}, 0},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := c.archive.archive().window()
			var got []string
			for _, s := range w.Spans {
				got = append(got, fmt.Sprintf("%s %d %s %s", s.Snapshot, s.To.Timeline, s.From.LSN, s.To.LSN))
			}
			if strings.Join(got, "\n") != strings.Join(c.want, "\n") {
				t.Errorf("spans\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
			if len(w.Gaps) != c.gaps {
				t.Errorf("gaps %v", w.Gaps)
			}
		})
	}
}

// A live range and the segment that superseded it say the same; neither is counted twice, and the tail counts.
func TestReachJoinsSegmentsAndLiveRanges(t *testing.T) {
	t.Parallel()
	s := plain()
	l := s.a.line(lineKey{7, 1})
	for i := range 4 { // the tail in quarters, and a stale range inside segment 9
		start := relight.LSN(10*seg + i*seg/4)
		l.pieces = append(l.pieces, piece{Timeline: 1, Start: start, End: start + seg/4, Segment: seg, Commits: 1, LastCommit: instantOf(at(170 + i)), LastEnd: start + 100, CoveredAt: instantOf(at(171 + i))})
	}
	l.pieces = append(l.pieces, piece{Timeline: 1, Start: 9*seg + 5, End: 9*seg + 500, Segment: seg, Commits: 1, LastCommit: instantOf(at(145)), LastEnd: 9*seg + 400, CoveredAt: instantOf(at(145))})
	pl, err := resolve(t.Context(), s.archive(), point(relight.RecoveryTarget{Kind: relight.TargetLatest}), knownXIDs{})
	if err != nil {
		t.Fatal(err)
	}
	if pl.End != 11*seg || pl.Required != 10*seg+3*seg/4+100 || !pl.reach.LastCommit.Equal(at(173)) || !pl.reach.CoveredAt.Equal(at(174)) {
		t.Errorf("end %s, required %s, last commit %s, covered %s", pl.End, pl.Required, pl.reach.LastCommit, pl.reach.CoveredAt)
	}
}
