package pgtest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sort"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Transfer is one acknowledged commit: after the server said "committed" it may never be lost.
type Transfer struct {
	ID           string
	Acknowledged time.Time
}

// Bank moves money between accounts over several connections and keeps, outside the database, a ledger of
// the transfers whose commit was acknowledged.
type Bank struct {
	Accounts int
	Balance  int

	mu     sync.Mutex
	ledger []Transfer
}

// Create makes the bank's tables.
func (b *Bank) Create(t testing.TB, s *Server) {
	t.Helper()
	s.Exec(
		`create table account (id int primary key, balance bigint not null, filler text)`,
		fmt.Sprintf(`insert into account select i, %d, repeat('x', 100) from generate_series(1, %d) i`, b.Balance, b.Accounts),
		`create table transfer (id text primary key, debit int not null, credit int not null, amount bigint not null, at timestamptz not null default clock_timestamp())`,
	)
}

// Run transfers over n connections until ctx ends or the server goes away. It returns when every connection has.
func (b *Bank) Run(ctx context.Context, dsn string, n int) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { b.teller(ctx, dsn, fmt.Sprintf("%d-%d", i, time.Now().UnixNano())) })
	}
	wg.Wait()
}

func (b *Bank) teller(ctx context.Context, dsn, name string) {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	for i := 0; ctx.Err() == nil; i++ {
		id := fmt.Sprintf("%s-%d", name, i)
		if err := b.transfer(ctx, conn, id); err != nil {
			if conn.IsClosed() {
				return
			}
			continue
		}
		b.mu.Lock()
		b.ledger = append(b.ledger, Transfer{ID: id, Acknowledged: time.Now()})
		b.mu.Unlock()
	}
}

func (b *Bank) transfer(ctx context.Context, conn *pgx.Conn, id string) error {
	from, to := 1+rand.IntN(b.Accounts), 1+rand.IntN(b.Accounts)
	if from == to {
		to = from%b.Accounts + 1
	}
	amount := 1 + rand.IntN(100)
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		first, second := min(from, to), max(from, to) // one order for all: no deadlock
		change := map[int]int{from: -amount, to: amount}
		for _, account := range []int{first, second} {
			if _, err := tx.Exec(ctx, `update account set balance = balance + $1 where id = $2`, change[account], account); err != nil {
				return err
			}
		}
		_, err := tx.Exec(ctx, `insert into transfer (id, debit, credit, amount) values ($1, $2, $3, $4)`, id, from, to, amount)
		return err
	})
}

// Ledger is the acknowledged transfers so far, oldest first.
func (b *Bank) Ledger() []Transfer {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := append([]Transfer(nil), b.ledger...)
	sort.Slice(out, func(i, j int) bool { return out[i].Acknowledged.Before(out[j].Acknowledged) })
	return out
}

// Missing compares the database with the ledger, row by row, and checks that no money was made or lost.
func (b *Bank) Missing(t testing.TB, dsn string) []Transfer {
	t.Helper()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	var sum int64
	if err := conn.QueryRow(ctx, `select sum(balance)::bigint from account`).Scan(&sum); err != nil {
		t.Fatal(err)
	}
	if want := int64(b.Accounts) * int64(b.Balance); sum != want {
		t.Errorf("the accounts hold %d, not %d", sum, want)
	}
	rows, err := conn.Query(ctx, `select id from transfer`)
	if err != nil {
		t.Fatal(err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	have := make(map[string]bool, len(ids))
	for _, id := range ids {
		have[id] = true
	}
	var missing []Transfer
	for _, tr := range b.Ledger() {
		if !have[tr.ID] {
			missing = append(missing, tr)
		}
	}
	return missing
}
