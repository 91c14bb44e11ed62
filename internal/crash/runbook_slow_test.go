//go:build slow

package crash_test

import (
	"cmp"
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
				for round := range *rounds {
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

// try takes all events from first to last, which turned out to be recorded together.
func (b *boundaries) try(round, first, last int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.tried[[2]int{round, first}] {
		b.count++
	}
	for e := first; e <= last; e++ {
		b.tried[[2]int{round, e}] = true
	}
}

// matrix are the kills of one scenario's run, as it goes undisturbed.
type matrix struct {
	*stand
	sc     scenario
	golden []seen
	lost   int // commits
	round  int
	been   *boundaries
}

func (s *stand) everywhere(t *testing.T, sc scenario, round, part int, been *boundaries) {
	sc.strike(s)
	golden, code, said := s.watched(nil, sc.start(s)...)
	if code != 0 {
		t.Fatalf("%s does not even recover undisturbed: exit %d\n%s", sc.name, code, said)
	}
	m := &matrix{stand: s, sc: sc, golden: golden, lost: s.verify(golden[0].Run), round: round, been: been}
	t.Logf("%s: %d events in %s, %d of %d acknowledged commits lost", sc.name, len(golden), golden[len(golden)-1].after.Round(time.Millisecond), m.lost, len(s.ledger))
	if sc.name == "database-corruption" && m.lost != 0 {
		t.Fatalf("%d acknowledged commits are lost", m.lost)
	}
	all := slices.DeleteFunc(append(points(golden, round), s.inTheMiddle(sc, golden, round)...), func(p point) bool { return p.event/4%parts != part })
	slices.SortStableFunc(all, func(a, b point) int { return a.event - b.event })
	t.Logf("-seed=%d round %d: %d kills", *seed, round, len(all))
	m.chains(t, all)
}

// chains kills some runs several times, far from one another, instead of many runs once. It goes backwards: of those events that are recorded together, the last
// shows where they begin. What a run did not come to after an earlier kill is tried by itself.
func (m *matrix) chains(t *testing.T, all []point) {
	runs := (len(all) + kills - 1) / kills
	var left []point
	for first := runs - 1; first >= 0; first-- {
		var chain []point
		for i := first; i < len(all); i += runs {
			if p := all[i]; !p.unrecorded || !m.been.been(m.round, p.event) {
				chain = append(chain, p)
			}
		}
		left = append(left, m.run(t, chain)...)
	}
	for _, p := range left {
		m.run(t, []point{p})
	}
}

// run is a test of one chain. It gives what was not reached.
func (m *matrix) run(t *testing.T, chain []point) (left []point) {
	if len(chain) == 0 {
		return nil
	}
	name := fmt.Sprint(m.round)
	for _, p := range chain {
		name += "/" + p.name
	}
	t.Run(name, func(t *testing.T) {
		was := m.t
		m.t = t
		defer func() { m.t = was }()
		left = m.trial(chain)
	})
	return left
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

// trial kills one run at each point of a chain, and has the last process finish it. It gives the points that were not reached.
func (m *matrix) trial(chain []point) (left []point) {
	stop := m.guard(m.t.Context())
	defer stop()
	run := m.interrupted(chain[0])
	reached := chain[:1]
	again := m.goOn(run, chain[0])
	for _, p := range chain[1:] {
		if !m.ahead(p, reached, run) {
			left = append(left, p)
			continue
		}
		events, ok := m.interrupt(p, m.golden, again...)
		if !ok { // it is over now: whatever comes later has passed too
			left = append(left, p)
			continue
		}
		run = cmp.Or(run, runOf(events))
		reached = append(reached[:len(reached):len(reached)], p)
		again = m.goOn(run, p)
	}
	run = m.finish(run, again)
	if twice := stop(); len(twice) > 0 {
		m.t.Errorf("two servers held the data directory at once: %v", twice)
	}
	if got := m.verify(run); got != m.lost {
		m.t.Errorf("%d commits are lost; undisturbed it is %d", got, m.lost)
	}
	m.notTwice(run, reached)
	return left
}

// interrupted strikes and kills the run at p. A busy machine may be too late for a boundary, which is then tried again.
func (m *matrix) interrupted(p point) relight.RunID {
	m.t.Helper()
	for range 5 {
		m.sc.strike(m.stand)
		if events, reached := m.interrupt(p, m.golden, m.sc.start(m.stand)...); reached {
			return runOf(events)
		}
	}
	m.t.Fatalf("%s was never reached", p.name)
	return ""
}

// runOf is the run that events belong to, "" where none was printed.
func runOf(events []seen) relight.RunID {
	if len(events) == 0 {
		return ""
	}
	return events[0].Run
}

// goOn looks at what is on record after a kill, and gives the command that goes on.
func (m *matrix) goOn(run relight.RunID, p point) []string {
	if p.event%2 == 0 { // the others go on at once, among what may still be dying
		m.awaitNobody()
	}
	var before []relight.Event
	if run != "" {
		before = m.journal(run)
	}
	if p.unrecorded {
		first := p.event
		for first > 0 && !m.recorded(first-1, before) {
			first--
		}
		m.been.try(m.round, first, p.event)
		if m.recorded(p.event, before) {
			m.t.Errorf("the journal holds event %s, which could not be recorded", p.name)
		}
	}
	if run == "" {
		return m.sc.start(m.stand) // with nothing on record there is no run yet
	}
	return []string{"run", "resume", string(run), "--identity", m.identity(), "--confirm", "main", "--yes"}
}

// recorded tells whether an event of the undisturbed run is among those of another.
func (m *matrix) recorded(event int, events []relight.Event) bool {
	left := rank(m.golden, event)
	for _, e := range events {
		if like(m.golden[event], e) {
			left--
		}
	}
	return left <= 0
}

// ahead tells whether a run that was killed before can be killed at p: that is still to come, and nothing confuses it with what was.
func (m *matrix) ahead(p point, reached []point, run relight.RunID) bool {
	same := func(q point) bool { return m.golden[q.event].Step == m.golden[p.event].Step }
	return run != "" && !slices.ContainsFunc(reached, same) && rank(m.golden, p.event) == 1 && !m.recorded(p.event, m.journal(run))
}

// finish has a run finished.
func (m *matrix) finish(run relight.RunID, again []string) relight.RunID {
	over := false
	if run != "" {
		events := m.journal(run)
		over = len(events) > 0 && events[len(events)-1].Kind == runbook.EventCompleted
	}
	events, code, said := m.watched(nil, again...)
	if over && code == relight.CodeUsage.Exit() {
		code = 0 // it had completed before the signal came, or without being reached: there is nothing to go on with
	}
	if code != 0 {
		m.t.Fatalf("the next process does not finish: exit %d\n%s", code, said)
	}
	return cmp.Or(run, runOf(events))
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

// notTwice makes sure that what was had before a kill was not had again after it.
func (m *matrix) notTwice(run relight.RunID, killed []point) {
	m.t.Helper()
	events := m.journal(run)
	over := map[string]bool{}
	for _, e := range events {
		switch e.Kind {
		case runbook.EventStepSucceeded:
			over[e.Step] = true
		case runbook.EventStepStarted:
			if over[e.Step] {
				m.t.Errorf("step %s had succeeded and was started again", e.Step)
			}
		}
	}
	if copies, err := filepath.Glob(m.path("evidence", "corrupted-*.tar.gz")); err != nil || len(copies) > 1 {
		m.t.Errorf("evidence was kept %d times: %v %v", len(copies), copies, err)
	}
	if partial, err := filepath.Glob(m.path("evidence", "*.partial")); err != nil || len(partial) > 0 {
		m.t.Errorf("unfinished copies are left: %v %v", partial, err)
	}
	for _, p := range killed {
		missing := m.golden[p.event]
		told := missing.Kind == runbook.EventStepSucceeded || missing.Kind == runbook.EventStepEffected
		if step := missing.Step; !p.unrecorded || !told || !slices.Contains(once, step) {
			continue
		}
		if attempts, by := ends(events, missing.Step); attempts != 1 || !slices.Equal(by, []string{"probe"}) {
			m.t.Errorf("the effect of %s was there and not on record: it was attempted %d times, its end is told by %v; the probe must find it", missing.Step, attempts, by)
		}
	}
}
