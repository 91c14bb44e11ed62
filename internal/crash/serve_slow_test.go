//go:build slow

package crash_test

import (
	"encoding/json"
	"errors"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/store/postgres"
)

// TestProtectionKilledAnywhere kills `relight serve` in the middle of its first base backup and of streaming, `relight backup create` anywhere, and the server, its
// processes and its clients' connections under load; each time the next process protects again. In the end the machine is lost, and what comes back must lack nothing that the repository had to hold.
func TestProtectionKilledAnywhere(t *testing.T) {
	t.Parallel()
	for round := range *rounds {
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
			s.killServers(r)
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

// killBackups kills base backups after they have begun to write, at least one of them before its end; the next one completes.
func (s *stand) killBackups(r *rand.Rand) {
	s.t.Helper()
	begun := len(s.registrations()) // a backup that died leaves its registration
	for n := 0; n < 2*moments || len(s.registrations()) == begun && n < 20*moments; n++ {
		cmd := s.command(s.t.Context(), "backup", "create", "--store", "main")
		already := len(s.registrations())
		if err := cmd.Start(); err != nil {
			s.t.Fatal(err)
		}
		for range 1000 {
			if len(s.registrations()) > already {
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
		pause(s.t, r, 300*time.Millisecond)
		if err := cmd.Process.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			s.t.Logf("it had ended: %v", err)
		}
		_ = cmd.Wait() // killed, or done before
		s.awaitNobody()
	}
	died := len(s.registrations()) - begun
	if s.t.Logf("%d base backups died on their way", died); died == 0 {
		s.t.Error("every base backup had ended before it was killed")
	}
	s.must("backup", "create", "--store", "main")
}

func (s *stand) registrations() []string {
	s.t.Helper()
	out, err := filepath.Glob(s.path("vault", "pending", "*"))
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// killServers kills what protection stands on, alone and together with relight; each time all of it comes back.
func (s *stand) killServers(r *rand.Rand) {
	s.t.Helper()
	ends := map[string]func(){
		"the server":             func() { s.killService("postgres") },
		"one of its processes":   func() { s.signalTellers(syscall.SIGKILL, 1) },
		"the tellers":            func() { s.signalTellers(syscall.SIGTERM, 3) },
		"the server and relight": func() { s.killService("postgres"); s.killService("relight-serve") },
	}
	for range moments {
		for _, what := range slices.Sorted(maps.Keys(ends)) {
			pause(s.t, r, time.Second)
			s.t.Logf("killed: %s", what)
			ends[what]()
			s.must("service", "start", "--service", "postgres")
			s.must("service", "wait", "--service", "postgres", "--timeout", "60s")
			s.must("protect", "start")
			s.must("protect", "wait", "--timeout", "60s")
		}
	}
}

// signalTellers signals up to n of the processes that serve tellers.
func (s *stand) signalTellers(sig syscall.Signal, n int) {
	s.t.Helper()
	conn := s.connect(s.t.Context(), "postgres")
	defer func() { _ = conn.Close(s.t.Context()) }() // the server may have ended it
	rows, err := conn.Query(s.t.Context(), `select pid from pg_stat_activity where datname = 'bank' and backend_type = 'client backend' limit $1`, n)
	if err != nil {
		s.t.Fatal(err)
	}
	pids, err := pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil || len(pids) == 0 {
		s.t.Fatalf("there are %d tellers to end: %v", len(pids), err)
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			s.t.Fatalf("signal %d: %v", pid, err)
		}
	}
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
