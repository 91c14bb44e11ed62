//go:build slow

package crash_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/runbook"
)

const markBook = `---
runbook: mark
title: Leave a mark
priority: P2
objective: {rto: 1h, rpo: 1h}
version: 1.0.0
status: draft
owner: nobody
---
# Leave a mark

## Recover

### Leave a mark
Writes one line, then takes its time.
` + "```step\nid: mark\nrun: [/bin/sh, -c, \"echo marked >> %[1]s; test -e %[1]s.quick || sleep 30\"]\n%[2]s```" + `

### Go on
` + "```step\nid: after\nrun: [/bin/true]\n```\n"

// TestInFlightStep kills relight while a step has had its effect. With a probe the step is not done again; without one a person is asked, and what the person
// says is done.
func TestInFlightStep(t *testing.T) {
	t.Parallel()
	s := newEstate(t)
	for _, c := range []struct {
		name, probe, answer string
		asks                bool
		marks               int
	}{
		{"probe says done", "probe: {run: [/bin/grep, -q, marked, %[1]s]}\n", "", false, 1},
		{"asked, said done", "", "done", true, 1},
		{"asked, said skip", "", "skip", true, 1},
		{"asked, said retry", "", "retry", true, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			s.t = t
			s.inFlight(c.probe, c.answer, c.asks, c.marks)
		})
	}
	s.t = t
}

func (s *stand) inFlight(probe, answer string, asks bool, marks int) {
	s.t.Helper()
	file, book := s.path("marks"), s.path("mark.md")
	if probe != "" {
		probe = fmt.Sprintf(probe, file)
	}
	text := fmt.Sprintf(markBook, file, probe)
	for _, old := range []string{file, file + ".quick"} { // of the case before
		if err := os.RemoveAll(old); err != nil {
			s.t.Fatal(err)
		}
	}
	if err := os.WriteFile(book, []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
	s.must("runbook", "approve", book)
	events, _, said := s.watched(func(_ int, e seen) bool {
		if e.Step != "mark" || e.Kind != runbook.EventStepHandle {
			return false
		}
		for range 200 {
			if s.marks() > 0 {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		if answer == "retry" { // nobody waits half a minute for the second time
			if err := os.WriteFile(file+".quick", nil, 0o600); err != nil {
				s.t.Error(err)
			}
		}
		return true
	}, "run", "start", book)
	if s.marks() != 1 {
		s.t.Fatalf("the step left %d marks before relight was killed\n%s", s.marks(), said)
	}
	run := string(events[0].Run)
	if asks {
		_, code, said := s.relight("run", "resume", run, "--yes")
		if code != relight.CodeWaiting.Exit() || !strings.Contains(said, "cannot tell whether its effect is there") {
			s.t.Fatalf("resumed with nobody to ask: exit %d, want %d\n%s", code, relight.CodeWaiting.Exit(), said)
		}
		if s.marks() != 1 {
			s.t.Fatalf("the step was done again without asking")
		}
	}
	s.awaitNobody() // the command that the dead relight had started
	args := []string{"run", "resume", run}
	if answer != "" {
		args = append(args, "--answer", "mark="+answer)
	}
	if _, code, said := s.relight(args...); code != 0 {
		s.t.Fatalf("the next process does not finish: exit %d\n%s", code, said)
	}
	if s.marks() != marks {
		s.t.Errorf("%d marks, want %d", s.marks(), marks)
	}
}

func (s *stand) marks() int {
	b, err := os.ReadFile(s.path("marks"))
	if err != nil && !os.IsNotExist(err) {
		s.t.Fatal(err)
	}
	return strings.Count(string(b), "marked")
}

// TestOneHolder has a second process resume a run that is under way: it is refused and changes nothing, also when it is killed in the attempt.
func TestOneHolder(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	s.corrupt()
	tried := 0
	events, code, said := s.watched(func(_ int, e seen) bool {
		if e.Kind != runbook.EventStepStarted || tried > 5 {
			return false
		}
		tried++
		resume := []string{"run", "resume", string(e.Run), "--identity", s.identity(), "--confirm", "main", "--yes"}
		if tried%2 == 0 {
			cmd := s.command(t.Context(), resume...)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(30 * time.Millisecond)
			_ = cmd.Process.Kill() // it may have been refused already
			_ = cmd.Wait()
			return false
		}
		if _, code, said := s.relight(resume...); code != relight.CodeLeaseHeld.Exit() {
			t.Errorf("a second process: exit %d, want %d\n%s", code, relight.CodeLeaseHeld.Exit(), said)
		}
		return false
	}, scenarios()[0].start(s)...)
	if code != 0 {
		t.Fatalf("the holder: exit %d\n%s", code, said)
	}
	for _, e := range events {
		if e.Kind == runbook.EventResumed || e.Kind == runbook.EventTakeover {
			t.Errorf("somebody took the run up: %+v", e)
		}
	}
	if lost := s.verify(events[0].Run); lost != 0 {
		t.Errorf("%d commits are lost", lost)
	}
}
