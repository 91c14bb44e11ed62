// Package bank is a workload that can tell whether a database lost anything: transfers between accounts over several connections, with a
// ledger outside the database of every transfer whose commit was acknowledged.
//
// It promises that the ledger holds a transfer only after the server acknowledged its commit, with the time of that acknowledgement, and that
// money is neither made nor lost: the sum of all balances is known at every moment.
package bank

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"

	"github.com/jackc/pgx/v5"
)

// Bank is a set of accounts.
type Bank struct {
	Accounts int
	Balance  int64 // of each account at the beginning
}

// Sum is what all accounts together hold at every moment.
func (b Bank) Sum() int64 { return int64(b.Accounts) * b.Balance }

// SumQuery asks the database for Sum.
const SumQuery = `select sum(balance)::bigint from account`

// Create makes the bank's tables.
func (b Bank) Create(ctx context.Context, conn *pgx.Conn) error {
	statements := []string{
		`create table account (id int primary key, balance bigint not null, filler text)`,
		fmt.Sprintf(`insert into account select i, %d, repeat('x', 100) from generate_series(1, %d) i`, b.Balance, b.Accounts),
		`create table transfer (id text primary key, debit int not null, credit int not null, amount bigint not null,
			at timestamptz not null default clock_timestamp())`,
	}
	return execAll(ctx, conn, statements)
}

// fillBatch rows of documents take about this many bytes with their indexes.
const (
	fillBatch      = 20_000
	fillBatchBytes = 11 << 20
)

// Fill adds about size bytes of mixed data: JSON documents with indexes, and attachments that do not compress. tell is
// called with the bytes so far.
func (b Bank) Fill(ctx context.Context, conn *pgx.Conn, size int64, tell func(done int64)) error {
	err := execAll(ctx, conn, []string{
		`create table document (id bigint primary key, key text not null, body jsonb not null, written timestamptz not null)`,
		`create index document_written on document (written)`,
		`create table attachment (id bigint primary key, body bytea not null)`,
		`alter table attachment alter column body set storage external`,
	})
	for first := int64(1); err == nil && (first-1)/fillBatch*fillBatchBytes < size; first += fillBatch {
		err = fillOnce(ctx, conn, first)
		tell(min(size, (first-1)/fillBatch*fillBatchBytes+fillBatchBytes))
	}
	if err != nil {
		return fmt.Errorf("fill the bank: %w", err)
	}
	return execAll(ctx, conn, []string{`analyze`, `checkpoint`})
}

func fillOnce(ctx context.Context, conn *pgx.Conn, first int64) error {
	_, err := conn.Exec(ctx, `insert into document select g, md5(g::text) || md5((g * 7)::text),
		jsonb_build_object('user', md5((g % 5000)::text), 'path', '/classes/' || (g % 977) || '/lesson/' || (g % 331),
			'note', repeat(md5((g % 20000)::text), 4), 'score', random()),
		now() - random() * interval '90 days' from generate_series($1::bigint, $2::bigint) g`, first, first+fillBatch-1)
	if err != nil {
		return err
	}
	noise := make([]byte, 1<<20)
	source := rand.NewChaCha8([32]byte{byte(first), byte(first >> 8), byte(first >> 16)})
	_, _ = source.Read(noise) // never fails
	_, err = conn.Exec(ctx, `insert into attachment values ($1, $2)`, first, noise)
	return err
}

func execAll(ctx context.Context, conn *pgx.Conn, statements []string) error {
	for _, s := range statements {
		if _, err := conn.Exec(ctx, s); err != nil {
			return fmt.Errorf("%.40s…: %w", s, err)
		}
	}
	return nil
}

// Run transfers over n connections until ctx ends or the server goes away, and returns when every connection has ended. An error says that
// acknowledged transfers could not be kept in the ledger: then it cannot be believed.
func (b Bank) Run(ctx context.Context, dsn string, n int, l *Ledger) error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = b.teller(ctx, dsn, i, l) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (b Bank) teller(ctx context.Context, dsn string, number int, l *Ledger) error {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return nil // the server is not there: nothing is acknowledged
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	name := fmt.Sprintf("%d-%08x", number, rand.Uint32())
	for i := 0; ctx.Err() == nil; i++ {
		t := b.pick(fmt.Sprintf("%s-%d", name, i))
		if err := t.commit(ctx, conn); err != nil {
			if conn.IsClosed() {
				return nil
			}
			continue
		}
		if err := l.Add(t); err != nil {
			return err
		}
	}
	return nil
}

func (b Bank) pick(id string) Transfer {
	debit, credit := 1+rand.IntN(b.Accounts), 1+rand.IntN(b.Accounts)
	if debit == credit {
		credit = debit%b.Accounts + 1
	}
	return Transfer{ID: id, Debit: debit, Credit: credit, Amount: 1 + rand.Int64N(100)}
}

// commit moves the money. Accounts are locked in one order by all, so that tellers never deadlock.
func (t Transfer) commit(ctx context.Context, conn *pgx.Conn) error {
	change := map[int]int64{t.Debit: -t.Amount, t.Credit: t.Amount}
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		for _, account := range []int{min(t.Debit, t.Credit), max(t.Debit, t.Credit)} {
			if _, err := tx.Exec(ctx, `update account set balance = balance + $1 where id = $2`, change[account], account); err != nil {
				return err
			}
		}
		_, err := tx.Exec(ctx, `insert into transfer (id, debit, credit, amount) values ($1, $2, $3, $4)`, t.ID, t.Debit, t.Credit, t.Amount)
		return err
	})
}

// Comparison of a database with the ledger.
type Comparison struct {
	Acknowledged int        `json:"acknowledged"`
	Recovered    int        `json:"recovered"`   // acknowledged transfers that the database holds, unaltered
	Lost         []Transfer `json:"lost"`        // acknowledged and not there, oldest first
	Altered      []Transfer `json:"altered"`     // there with other contents
	Unconfirmed  int        `json:"unconfirmed"` // there, though no acknowledgement arrived before the disaster; legitimate
	Sum          int64      `json:"sum"`
	WantSum      int64      `json:"want_sum"`
}

// Whole says that nothing acknowledged is missing or altered and no money was made or lost.
func (c Comparison) Whole() bool {
	return len(c.Lost) == 0 && len(c.Altered) == 0 && c.Sum == c.WantSum
}

// Compare holds every row of the database against the ledger.
func (b Bank) Compare(ctx context.Context, dsn string, ledger []Transfer) (Comparison, error) {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return Comparison{}, fmt.Errorf("compare with the ledger: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	c := Comparison{Acknowledged: len(ledger), WantSum: b.Sum()}
	if err := conn.QueryRow(ctx, SumQuery).Scan(&c.Sum); err != nil {
		return c, fmt.Errorf("add the balances: %w", err)
	}
	rows, err := conn.Query(ctx, `select id, debit, credit, amount from transfer`)
	if err != nil {
		return c, fmt.Errorf("read the transfers: %w", err)
	}
	have := make(map[string]Transfer)
	for rows.Next() {
		var t Transfer
		if err := rows.Scan(&t.ID, &t.Debit, &t.Credit, &t.Amount); err != nil {
			return c, fmt.Errorf("read the transfers: %w", err)
		}
		have[t.ID] = t
	}
	if err := rows.Err(); err != nil {
		return c, fmt.Errorf("read the transfers: %w", err)
	}
	c.match(have, ledger)
	return c, nil
}

func (c *Comparison) match(have map[string]Transfer, ledger []Transfer) {
	for _, want := range ledger {
		got, ok := have[want.ID]
		switch {
		case !ok:
			c.Lost = append(c.Lost, want)
		case got.Debit != want.Debit || got.Credit != want.Credit || got.Amount != want.Amount:
			c.Altered = append(c.Altered, want)
		default:
			c.Recovered++
		}
	}
	c.Unconfirmed = len(have) - c.Recovered - len(c.Altered)
}
