//go:build pg

package pgtest_test

import (
	"context"
	"testing"
	"time"

	"github.com/toolboxai/relight/internal/pgtest"
)

func TestServerSurvivesACrashWithItsAcknowledgedCommits(t *testing.T) {
	t.Parallel()
	s := pgtest.New(t)
	s.Start("fsync=on", "checkpoint_timeout=1h")
	if got := s.Query("show data_checksums"); got != "on" {
		t.Fatalf("data_checksums = %s", got)
	}
	bank := &pgtest.Bank{Accounts: 50, Balance: 1000}
	bank.Create(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); bank.Run(ctx, s.DSN("postgres"), 3) }()
	for bank.Count() < 100 {
		time.Sleep(5 * time.Millisecond)
	}
	s.Kill()
	cancel()
	<-done
	s.Restart()
	if lost := bank.Missing(t, s.DSN("postgres")); len(lost) > 0 {
		t.Fatalf("lost %d acknowledged commits", len(lost))
	}
}

func TestMissingNoticesALostCommit(t *testing.T) {
	t.Parallel()
	s := pgtest.New(t)
	s.Start()
	bank := &pgtest.Bank{Accounts: 10, Balance: 1000}
	bank.Create(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); bank.Run(ctx, s.DSN("postgres"), 1) }()
	for bank.Count() < 10 {
		time.Sleep(5 * time.Millisecond)
	}
	cancel()
	<-done
	s.Exec(`delete from transfer where id = (select min(id) from transfer)`)
	if lost := bank.Missing(t, s.DSN("postgres")); len(lost) != 1 {
		t.Fatalf("noticed %d lost commits, want 1", len(lost))
	}
}
