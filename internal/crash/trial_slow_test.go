//go:build slow

package crash_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"syscall"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/runbook"
)

// seen is an event with the time since the command began at which it was printed.
type seen struct {
	relight.Event
	after time.Duration
}

// point is where a relight is killed: some time after the event with this index was printed, or where that event cannot be recorded.
type point struct {
	event      int
	later      time.Duration
	unrecorded bool // all that comes before the event is on record, and all that it would tell of is done
	name       string
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
	if s.started != nil {
		s.started(cmd.Process)
	}
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 64<<20)
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
func (s *stand) interrupt(p point, golden []seen, args ...string) (events []seen, reached bool) {
	s.t.Helper()
	want := golden[p.event]
	if p.unrecorded {
		return s.killUnrecorded(want, rank(golden, p.event), args...)
	}
	left := rank(golden, p.event)
	events, _, said := s.watched(func(_ int, e seen) bool {
		if !like(want, e.Event) {
			return false
		}
		if left--; left > 0 {
			return false
		}
		reached = true
		time.Sleep(p.later)
		return true
	}, args...)
	if !reached {
		s.t.Logf("%s was not reached; relight said:\n%s", p.name, said)
	}
	return events, reached
}

// rank says how many events like this one a run has up to it.
func rank(golden []seen, event int) (n int) {
	for _, e := range golden[:event+1] {
		if like(golden[event], e.Event) {
			n++
		}
	}
	return n
}

// like tells whether a run's event tells of the same as one of another run.
func like(a seen, b relight.Event) bool { return a.Kind == b.Kind && a.Step == b.Step }

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

// points are all that a full run's events offer: each boundary, held until what the next record tells of is done; and some of the moments, or all,
// at which an event has just been printed, when next to nothing of what follows is done.
func points(golden []seen, round int) []point {
	var out []point
	for i, e := range golden {
		name := fmt.Sprintf("%02d-%s-%s", i, e.Kind, e.Step)
		out = append(out, point{event: i, unrecorded: true, name: name + "-unrecorded"})
		if i < len(golden)-1 && (i+int(*seed)+round)%prompt == 0 { // after the last one there is nothing left to finish
			out = append(out, point{event: i, name: name})
		}
	}
	return out
}

// once are the steps whose effect must not be had twice.
var once = []string{"stop-database", "keep-evidence", "salvage", "restore", "start-database", "estate", "protect"}
