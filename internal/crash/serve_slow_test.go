//go:build slow

package crash_test

import (
	"encoding/json"
	"errors"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/store/postgres"
)

// TestProtectionKilledAnywhere kills `relight serve` in the middle of its first base backup and of streaming, and `relight backup create` anywhere; each time the
// next process protects again. In the end the machine is lost, and what comes back must lack nothing that the repository had to hold.
func TestProtectionKilledAnywhere(t *testing.T) {
	t.Parallel()
	for round := range rounds {
		s := newEstate(t)
		r := random(t.Name(), round)
		for range 2 * moments { // no base backup is there yet
			s.must("protect", "start")
			pause(t, r, 700*time.Millisecond)
			s.killService("relight-serve")
		}
		s.underLoad(func() {
			for range 2 * moments {
				s.must("protect", "start")
				s.must("protect", "wait", "--timeout", "60s")
				pause(t, r, 1500*time.Millisecond)
				s.killService("relight-serve")
			}
			s.must("protect", "start")
			s.must("protect", "wait", "--timeout", "60s")
			s.killBackups(r)
			s.must("protect", "wait", "--timeout", "60s")
			s.cutPower("last-seen")
		})
		s.awaitNobody()
		s.must("repo", "check", "--identity", s.identity())
		s.continuous()
		s.copyTree(s.root(), s.template())
		s.lose()
		events, code, said := s.watched(nil, scenarios()[1].start(s)...)
		if code != 0 {
			t.Fatalf("recovery after all these kills: exit %d\n%s", code, said)
		}
		t.Logf("%d of %d acknowledged commits lost", s.verify(events[0].Run), len(s.ledger))
	}
}

func pause(t *testing.T, r *rand.Rand, most time.Duration) {
	t.Helper()
	d := time.Duration(r.Int64N(int64(most)))
	t.Logf("killed after %s", d)
	time.Sleep(d)
}

// killBackups kills base backups somewhere; the next one completes.
func (s *stand) killBackups(r *rand.Rand) {
	s.t.Helper()
	for range 2 * moments {
		cmd := s.command(s.t.Context(), "backup", "create", "--store", "main")
		if err := cmd.Start(); err != nil {
			s.t.Fatal(err)
		}
		pause(s.t, r, time.Second)
		if err := cmd.Process.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			s.t.Logf("it had ended: %v", err)
		}
		_ = cmd.Wait() // killed, or done before
		s.awaitNobody()
	}
	s.must("backup", "create", "--store", "main")
}

// continuous makes sure that the repository's log has no gap from the first base backup to the end.
func (s *stand) continuous() {
	s.t.Helper()
	var w postgres.WindowReport
	if err := json.Unmarshal(s.must("postgres", "window", "--store", "main"), &w); err != nil {
		s.t.Fatal(err)
	}
	if len(w.Gaps) != 0 || len(w.Spans) != 1 || w.Spans[0].To.Timeline != relight.TimelineID(1) {
		s.t.Errorf("the log is not continuous: %d spans %+v, gaps %+v", len(w.Spans), w.Spans, w.Gaps)
	}
}
