//go:build slow

package crash_test

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os/exec"
	"slices"
	"syscall"
	"time"

	_ "modernc.org/sqlite"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/runbook"
)

// seen is an event with the time since the command began at which it was printed.
type seen struct {
	relight.Event
	after time.Duration
}

// point is where a relight is killed: at the event with this index, some time later, or once it stands still because the effect after that event is
// had and its record cannot be written.
type point struct {
	event int
	later time.Duration
	stall time.Duration // how long the journal is held before the kill; 0: it is not held
	name  string
}

// watched runs a relight command and hands each of its events over as it is printed; at returns true to have the process killed there and then.
func (s *stand) watched(at func(i int, e seen) (kill bool), args ...string) (events []seen, code int, said string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 150*time.Second)
	defer cancel()
	cmd := s.command(ctx, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	begun := time.Now()
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 64<<20)
	s.driver = cmd.Process.Pid
	killed := false
	for lines.Scan() {
		var record struct {
			Type  string        `json:"type"`
			Event relight.Event `json:"event"`
		}
		if json.Unmarshal(lines.Bytes(), &record) != nil || record.Type != "event" {
			continue
		}
		e := seen{record.Event, time.Since(begun)}
		events = append(events, e)
		if !killed && at != nil && at(len(events)-1, e) {
			killed = true
			if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
				s.t.Fatal(err)
			}
		}
	}
	err = cmd.Wait()
	var ended *exec.ExitError
	if err != nil && !errors.As(err, &ended) && !errors.Is(err, exec.ErrWaitDelay) || ctx.Err() != nil {
		s.t.Fatalf("relight %v: %v %v\n%s", args, err, ctx.Err(), stderr.String())
	}
	return events, cmd.ProcessState.ExitCode(), stderr.String()
}

// interrupt runs a command and kills it at p. It tells whether the point was reached.
func (s *stand) interrupt(p point, args ...string) (events []seen, reached bool) {
	s.t.Helper()
	events, _, said := s.watched(func(i int, _ seen) bool {
		if i != p.event {
			return false
		}
		reached = true
		time.Sleep(p.later)
		if p.stall > 0 {
			release := s.holdJournal()
			defer release()
			time.Sleep(p.stall)
			s.awaitStandstill()
		}
		return true
	}, args...)
	if !reached {
		s.t.Errorf("%s was not reached; relight said:\n%s", p.name, said)
	}
	return events, reached
}

// awaitStandstill waits until the relight that drives the run has no children any more and works on nothing: its effect is had, and it waits for the journal.
// It does not wait longer than relight waits for its journal.
func (s *stand) awaitStandstill() {
	s.t.Helper()
	quiet, last := 0, int64(-1)
	for range 50 {
		ticks := cpuTicks(s.driver)
		if alone := len(s.strangers()) <= 1; alone && last >= 0 && ticks-last <= 2 {
			quiet++
		} else {
			quiet = 0
		}
		if quiet >= 3 {
			return
		}
		last = ticks
		time.Sleep(200 * time.Millisecond)
	}
}

// holdJournal takes the journal's write lock, so that whoever drives a run cannot record what it does.
func (s *stand) holdJournal() (release func()) {
	s.t.Helper()
	q := url.Values{"_pragma": {"busy_timeout(5000)"}, "_txlock": {"immediate"}}
	db, err := sql.Open("sqlite", "file:"+s.path("estate", "state", "journal", "journal.db")+"?"+q.Encode())
	if err != nil {
		s.t.Fatal(err)
	}
	tx, err := db.BeginTx(s.t.Context(), nil)
	if err != nil {
		s.t.Fatalf("hold the journal: %v", err)
	}
	return func() {
		if err := errors.Join(tx.Rollback(), db.Close()); err != nil {
			s.t.Errorf("release the journal: %v", err)
		}
	}
}

// journal reads all events of a run; "" is those of every run.
func (s *stand) journal(run relight.RunID) []relight.Event {
	s.t.Helper()
	args := []string{"journal", "show"}
	if run != "" {
		args = append(args, "--run", string(run))
	}
	var out []relight.Event
	for line := range bytes.Lines(s.must(args...)) {
		var e relight.Event
		if err := json.Unmarshal(line, &e); err != nil {
			s.t.Fatalf("journal: %v in %s", err, line)
		}
		out = append(out, e)
	}
	return out
}

// ends gives a step's successes as the journal tells them, with who says so.
func ends(events []relight.Event, step string) (attempts int, by []string) {
	for _, e := range events {
		if e.Step != step {
			continue
		}
		switch e.Kind {
		case runbook.EventStepStarted:
			attempts++
		case runbook.EventStepSucceeded:
			var end runbook.StepEnd
			if json.Unmarshal(e.Data, &end) == nil {
				by = append(by, end.By)
			}
		}
	}
	return attempts, by
}

// points are all that a full run's events offer: every event, and after each start or handle of a step the moment before its next record.
func points(golden []seen, all bool) []point {
	var out []point
	for i, e := range golden {
		if i == len(golden)-1 {
			break // after the last one there is nothing left to finish
		}
		name := fmt.Sprintf("%02d-%s-%s", i, e.Kind, e.Step)
		next := golden[i+1].after - e.after
		if all || next > 3*time.Millisecond || i%5 == 0 { // events of one append share their boundary
			out = append(out, point{event: i, name: name})
		}
		if (e.Kind == runbook.EventStepStarted || e.Kind == runbook.EventStepHandle) && (all || slices.Contains(once, e.Step)) {
			out = append(out, point{event: i, stall: next*3/2 + 400*time.Millisecond, name: name + "-unrecorded"})
		}
	}
	return out
}

// once are the steps whose effect must not be had twice.
var once = []string{"stop-database", "keep-evidence", "salvage", "restore", "start-database", "base-backup", "estate", "protect"}
