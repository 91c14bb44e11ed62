//go:build slow

package crash_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"sync"
	"time"

	_ "modernc.org/sqlite"
)

// killUnrecorded runs a command whose journal hangs in the transaction that would record the nth event like e, and kills it there: everything before that
// transaction is on record, and nothing of it.
func (s *stand) killUnrecorded(e seen, nth int, args ...string) (events []seen, reached bool) {
	s.t.Helper()
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(s.t.Context())
	s.started = func(p *os.Process) {
		wg.Go(func() {
			if reached = s.hang(ctx, e, nth) && s.hung(ctx); reached {
				_ = p.Kill() // waited for by whoever started it
			}
		})
	}
	events, _, said := s.watched(nil, args...)
	cancel()
	wg.Wait()
	s.started = nil
	s.alterJournal(s.t.Context(), `DROP TRIGGER IF EXISTS hang; DROP VIEW IF EXISTS forever`)
	if !reached {
		s.t.Logf("event %s of %q was not reached, or recorded before the journal could be made to hang; relight said:\n%s", e.Kind, e.Step, said)
		return nil, false
	}
	return events, true
}

// hang makes the journal hang at a run's nth event like e, as soon as there is a journal. It tells whether it came in time. What services record goes on: one that
// hung would keep the journal locked after the run was killed.
func (s *stand) hang(ctx context.Context, e seen, nth int) bool {
	const before = `SELECT count(*) FROM event WHERE run <> '' AND kind = '%[1]s' AND coalesce(json_extract(CAST(body AS TEXT), '$.step'), '') = '%[2]s'`
	for ctx.Err() == nil {
		err := s.tryAlter(ctx, fmt.Sprintf(`
			CREATE VIEW forever AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n) SELECT i FROM n;
			CREATE TRIGGER hang BEFORE INSERT ON event WHEN NEW.run <> '' AND NEW.kind = '%[1]s' AND coalesce(json_extract(CAST(NEW.body AS TEXT), '$.step'), '') = '%[2]s'
				AND (`+before+`) >= %[3]d BEGIN SELECT count(*) FROM forever; END`, e.Kind, e.Step, nth-1))
		if err == nil {
			break
		}
		time.Sleep(time.Millisecond)
	}
	var already int
	return s.inJournal(ctx, func(db *sql.DB) error {
		return db.QueryRowContext(ctx, fmt.Sprintf(before, e.Kind, e.Step)).Scan(&already)
	}) == nil && already < nth
}

// hung waits until somebody has held the journal's write lock for so long that it can only be the hanging transaction.
func (s *stand) hung(ctx context.Context) bool {
	for busy := 0; busy < 10; {
		if ctx.Err() != nil {
			return false
		}
		if s.tryAlter(ctx, `SELECT 1`) == nil {
			busy = 0
		} else {
			busy++
		}
		time.Sleep(10 * time.Millisecond)
	}
	return true
}

// alterJournal changes the journal behind relight's back, which a service may be writing to.
func (s *stand) alterJournal(ctx context.Context, statements string) {
	s.t.Helper()
	var err error
	for range 200 {
		if err = s.tryAlter(ctx, statements); err == nil {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	s.t.Fatalf("alter the journal: %v", err)
}

// tryAlter does so in one transaction, and does not wait long.
func (s *stand) tryAlter(ctx context.Context, statements string) error {
	return s.inJournal(ctx, func(db *sql.DB) error {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, statements); err != nil {
			return errors.Join(err, tx.Rollback())
		}
		return tx.Commit()
	})
}

func (s *stand) inJournal(ctx context.Context, do func(*sql.DB) error) error {
	q := url.Values{"mode": {"rw"}, "_txlock": {"immediate"}, "_pragma": {"busy_timeout(30)"}}
	db, err := sql.Open("sqlite", "file:"+s.path("estate", "state", "journal", "journal.db")+"?"+q.Encode())
	if err != nil {
		return err
	}
	return errors.Join(do(db), db.Close())
}
