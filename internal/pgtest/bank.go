package pgtest

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/toolboxai/relight/demo/bank"
)

// Transfer is one acknowledged commit: after the server said "committed" it may never be lost.
type Transfer = bank.Transfer

// Bank is the demonstration's workload with a ledger in the test's directory.
type Bank struct {
	Accounts int
	Balance  int64

	t      testing.TB
	path   string
	ledger *bank.Ledger
}

func (b *Bank) bank() bank.Bank { return bank.Bank{Accounts: b.Accounts, Balance: b.Balance} }

// Create makes the bank's tables, and an empty ledger.
func (b *Bank) Create(t testing.TB, s *Server) {
	t.Helper()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, s.DSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	if err := b.bank().Create(ctx, conn); err != nil {
		t.Fatal(err)
	}
	b.keep(t)
}

func (b *Bank) keep(t testing.TB) {
	t.Helper()
	b.t, b.path = t, filepath.Join(t.TempDir(), "ledger.jsonl")
	var err error
	if b.ledger, err = bank.OpenLedger(b.path, time.Now); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.ledger.Close(); err != nil {
			t.Error(err)
		}
	})
}

// Run transfers over n connections until ctx ends or the server goes away. It returns when every connection has.
func (b *Bank) Run(ctx context.Context, dsn string, n int) {
	if err := b.bank().Run(ctx, dsn, n, b.ledger); err != nil {
		b.t.Error(err)
	}
}

// Count is how many transfers were acknowledged so far.
func (b *Bank) Count() int { return b.ledger.Count() }

// Missing compares the database with the ledger, row by row, and checks that no money was made or lost.
func (b *Bank) Missing(t testing.TB, dsn string) []Transfer {
	t.Helper()
	ledger, err := bank.ReadLedger(b.path)
	if err != nil {
		t.Fatal(err)
	}
	c, err := b.bank().Compare(context.Background(), dsn, ledger)
	if err != nil {
		t.Fatal(err)
	}
	if c.Sum != c.WantSum || len(c.Altered) > 0 {
		t.Errorf("the accounts hold %d, not %d; %d transfers were altered", c.Sum, c.WantSum, len(c.Altered))
	}
	return c.Lost
}
