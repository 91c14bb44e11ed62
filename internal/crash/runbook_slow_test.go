//go:build slow

package crash_test

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/demo/bank"
	"github.com/toolboxai/relight/runbook"
	"github.com/toolboxai/relight/store/postgres"
)

// scenario is a disaster and the command that brings its runbook on the way.
type scenario struct {
	name   string
	strike func(*stand)
	start  func(*stand) []string
	long   []string // steps that take their time, in the middle of which relight is killed too
}

func scenarios() []scenario {
	return []scenario{
		{"database-corruption", (*stand).corrupt, func(s *stand) []string {
			return []string{"run", "start", "database-corruption", "--input", "store=main", "--identity", s.identity(), "--confirm", "main", "--yes"}
		}, []string{"keep-evidence", "restore", "check", "protect"}},
		{"infrastructure-loss", (*stand).lose, func(s *stand) []string {
			return []string{"recover", "--repo", "file://" + s.path("vault"), "--identity", s.identity(), "--confirm", "main", "--yes"}
		}, []string{"restore", "check", "protect"}},
	}
}

// TestKilledAnywhere kills the run of each scenario at every boundary, and in the middle of its long steps; the next process must finish.
func TestKilledAnywhere(t *testing.T) {
	t.Parallel()
	for _, sc := range scenarios() {
		been := &boundaries{tried: map[[2]int]bool{}}
		for part := range parts {
			t.Run(fmt.Sprintf("%s/part-%d", sc.name, part), func(t *testing.T) {
				t.Parallel()
				s := newStand(t)
				for round := range rounds {
					s.everywhere(t, sc, round, part, been)
				}
				been.mu.Lock()
				defer been.mu.Unlock()
				t.Logf("%d exact boundaries so far", been.count)
			})
		}
	}
}

// parts share the boundaries of a scenario's run, each at a stand of its own.
const parts = 2

// boundaries are those of the events of a round before which a kill was tried that nothing could slip past. Events that are recorded together have one
// boundary: the kill before any of them is the same kill.
type boundaries struct {
	mu    sync.Mutex
	tried map[[2]int]bool // round, event
	count int
}

// been tells whether this boundary was tried.
func (b *boundaries) been(round, event int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.tried[[2]int{round, event}]
}

// try takes all events from first to last, which turned out to be recorded together. It tells whether nobody else has.
func (b *boundaries) try(round, first, last int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	fresh := !b.tried[[2]int{round, first}]
	for e := first; e <= last; e++ {
		b.tried[[2]int{round, e}] = true
	}
	if fresh {
		b.count++
	}
	return fresh
}

func (s *stand) everywhere(t *testing.T, sc scenario, round, part int, been *boundaries) {
	sc.strike(s)
	golden, code, said := s.watched(nil, sc.start(s)...)
	if code != 0 {
		t.Fatalf("%s does not even recover undisturbed: exit %d\n%s", sc.name, code, said)
	}
	lost := s.verify(golden[0].Run)
	t.Logf("%s: %d events in %s, %d of %d acknowledged commits lost", sc.name, len(golden), golden[len(golden)-1].after.Round(time.Millisecond), lost, len(s.ledger))
	if sc.name == "database-corruption" && lost != 0 {
		t.Fatalf("%d acknowledged commits are lost", lost)
	}
	all := slices.DeleteFunc(append(points(golden, round), s.inTheMiddle(sc, golden, round)...), func(p point) bool { return p.event/4%parts != part })
	slices.SortStableFunc(all, func(a, b point) int { return b.event - a.event }) // the last of those recorded together shows where they begin
	t.Logf("-seed=%d round %d: %d kills", *seed, round, len(all))
	try := func(first, last int) bool { return been.try(round, first, last) }
	for i, p := range all {
		if p.unrecorded && been.been(round, p.event) {
			continue
		}
		t.Run(fmt.Sprintf("%d/%s", round, p.name), func(t *testing.T) {
			was := s.t
			s.t = t
			defer func() { s.t = was }()
			s.trial(sc, p, i, golden, lost, try)
		})
	}
}

// inTheMiddle are random moments within the long steps.
func (s *stand) inTheMiddle(sc scenario, golden []seen, round int) []point {
	r := random(sc.name, round)
	var out []point
	for i, e := range golden {
		if e.Kind != runbook.EventStepStarted || !slices.Contains(sc.long, e.Step) {
			continue
		}
		end := slices.IndexFunc(golden, func(x seen) bool { return x.Step == e.Step && x.Kind == runbook.EventStepSucceeded })
		for n := range moments {
			later := time.Duration(r.Float64() * float64(golden[end].after-e.after))
			out = append(out, point{event: i, later: later, name: fmt.Sprintf("%s-after-%s-%d", e.Step, later.Round(time.Millisecond), n)})
		}
	}
	return out
}

// interrupted strikes and kills the run at p. A busy machine may be too late for a boundary, which is then tried again.
func (s *stand) interrupted(sc scenario, p point, golden []seen) []seen {
	s.t.Helper()
	for range 5 {
		sc.strike(s)
		if events, reached := s.interrupt(p, golden, sc.start(s)...); reached {
			return events
		}
	}
	s.t.Fatalf("%s was never reached", p.name)
	return nil
}

// trial kills one run at p, and has the next process finish it.
func (s *stand) trial(sc scenario, p point, number int, golden []seen, lost int, try func(first, last int) bool) {
	stop := s.guard(s.t.Context())
	defer stop()
	events := s.interrupted(sc, p, golden)
	if number%2 == 0 { // the others go on at once, among what may still be dying
		s.awaitNobody()
	}
	var before []relight.Event // what is on record of the run
	again := sc.start(s)       // with nothing on record there is no run yet
	if len(events) > 0 {
		before = s.journal(events[0].Run)
		again = []string{"run", "resume", string(events[0].Run), "--identity", s.identity(), "--confirm", "main", "--yes"}
	}
	if p.unrecorded && !try(p.event+1-s.unrecorded(golden[p.event].Seq), p.event) {
		return // at another stand, somebody was here at the same time
	}
	if n := len(before); p.unrecorded && n > 0 && before[n-1].Seq >= golden[p.event].Seq {
		s.t.Errorf("the journal holds event %d, which could not be recorded", before[n-1].Seq)
	}
	after, code, said := s.watched(nil, again...)
	if n := len(before); n > 0 && before[n-1].Kind == runbook.EventCompleted && code == relight.CodeUsage.Exit() {
		code = 0 // it had completed before the signal came: there is nothing to go on with
	}
	if code != 0 {
		s.t.Fatalf("the next process does not finish: exit %d\n%s", code, said)
	}
	run := append(events, after...)[0].Run
	if twice := stop(); len(twice) > 0 {
		s.t.Errorf("two servers held the data directory at once: %v", twice)
	}
	if got := s.verify(run); got != lost {
		s.t.Errorf("%d commits are lost; undisturbed it is %d", got, lost)
	}
	s.notTwice(run, len(before), p, golden)
}

// unrecorded is how many events up to the one with number seq are not on record: those that would have been recorded together with it.
func (s *stand) unrecorded(seq int64) int {
	s.t.Helper()
	if all := s.journal(""); len(all) > 0 {
		seq -= all[len(all)-1].Seq
	}
	return max(1, int(seq)) // a service may have gone on with the journal
}

// verify holds what came back against the ledger and the promises, and gives how many commits are lost.
func (s *stand) verify(run relight.RunID) (lost int) {
	s.t.Helper()
	c, err := s.bank.Compare(s.t.Context(), s.dsn("bank"), s.ledger)
	if err != nil {
		s.t.Fatal(err)
	}
	if len(c.Altered) > 0 || c.Sum != c.WantSum {
		s.t.Errorf("%d transfers altered; the accounts hold %d, not %d", len(c.Altered), c.Sum, c.WantSum)
	}
	s.lostNothingOld(c)
	s.checked(run)
	if asides, err := filepath.Glob(s.data() + ".damaged-*"); err != nil || len(asides) > 1 {
		s.t.Errorf("set aside: %v, %v; at most the one damaged directory must be", asides, err)
	}
	s.nothingPrivate()
	s.timeline()
	if _, code, said := s.relight("journal", "verify"); code != 0 {
		s.t.Errorf("the journal does not verify:\n%s", said)
	}
	return len(c.Lost)
}

// nothingPrivate makes sure that what a killed relight left among the temporary files is gone.
func (s *stand) nothingPrivate() {
	s.t.Helper()
	left, err := filepath.Glob(s.path("tmp", "relight-*", "owner"))
	if err != nil || len(left) > 0 {
		s.t.Errorf("private directories are left: %v, %v", left, err)
	}
}

// lostNothingOld refuses a loss of what the repository held.
func (s *stand) lostNothingOld(c bank.Comparison) {
	s.t.Helper()
	for _, l := range c.Lost {
		if l.Acknowledged.Before(s.held) {
			s.t.Fatalf("lost a commit acknowledged %s before the restore point that the repository holds", s.held.Sub(l.Acknowledged))
		}
	}
}

// checked makes sure that the run's own check looked at indexes and found nothing.
func (s *stand) checked(run relight.RunID) {
	s.t.Helper()
	var report postgres.CheckReport
	for _, e := range s.journal(run) {
		if e.Step != "check" || e.Kind != runbook.EventStepSucceeded {
			continue
		}
		var end runbook.StepEnd
		if err := json.Unmarshal(e.Data, &end); err != nil {
			s.t.Fatal(err)
		}
		if err := json.Unmarshal(end.Output, &report); err != nil {
			s.t.Fatal(err)
		}
	}
	passed := func(name, detail string) bool {
		return slices.ContainsFunc(report.Checks, func(c relight.Check) bool {
			return strings.Contains(c.Name, name) && strings.Contains(c.Detail, detail) && !strings.Contains(c.Detail, "not installed") && c.Verdict == relight.Passed
		})
	}
	if !report.OK || !passed("tables of bank", "amcheck") || !passed("indexes of bank", "amcheck") || !passed("money", "") {
		s.t.Errorf("the run checked: %+v", report)
	}
}

// timeline must be the second: a restore that was done is not done again.
func (s *stand) timeline() {
	s.t.Helper()
	conn := s.connect(s.t.Context(), "bank")
	defer func() { _ = conn.Close(s.t.Context()) }()
	var tl int
	if err := conn.QueryRow(s.t.Context(), `select timeline_id from pg_control_checkpoint()`).Scan(&tl); err != nil || tl != 2 {
		s.t.Errorf("the server is on timeline %d, %v; it must be 2", tl, err)
	}
}

// notTwice makes sure that what was had before the kill was not had again after it.
func (s *stand) notTwice(run relight.RunID, before int, p point, golden []seen) {
	s.t.Helper()
	events := s.journal(run)
	over := map[string]bool{}
	for i, e := range events {
		switch e.Kind {
		case runbook.EventStepSucceeded:
			over[e.Step] = true
		case runbook.EventStepStarted:
			if i >= before && over[e.Step] {
				s.t.Errorf("step %s had succeeded and was started again", e.Step)
			}
		}
	}
	if copies, err := filepath.Glob(s.path("evidence", "corrupted-*.tar.gz")); err != nil || len(copies) > 1 {
		s.t.Errorf("evidence was kept %d times: %v %v", len(copies), copies, err)
	}
	if partial, err := filepath.Glob(s.path("evidence", "*.partial")); err != nil || len(partial) > 0 {
		s.t.Errorf("unfinished copies are left: %v %v", partial, err)
	}
	missing := golden[p.event]
	told := missing.Kind == runbook.EventStepSucceeded || missing.Kind == runbook.EventStepEffected
	if step := missing.Step; !p.unrecorded || !told || !slices.Contains(once, step) {
		return
	}
	if attempts, by := ends(events, missing.Step); attempts != 1 || !slices.Equal(by, []string{"probe"}) {
		s.t.Errorf("the effect of %s was there and not on record: it was attempted %d times, its end is told by %v; the probe must find it", missing.Step, attempts, by)
	}
}
