package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/toolboxai/relight"
)

// Invariant is a question with the answer that sound data gives.
type Invariant struct {
	Name     string
	Database string // "": the one of the store's connection
	Query    string // SELECT with one row and one column
	Want     string // its text
}

// CheckOptions of a Check.
type CheckOptions struct {
	Integrity bool // read every table and index: amcheck where it is installed, plain reading otherwise
	// Create makes the extension amcheck for the length of the check, in a transaction that is rolled back. It is meant for
	// servers that hold nobody's live data.
	Create   bool
	Progress func(relight.Progress)
}

// Check puts questions to the running server, over the store's connection. What cannot be asked is listed as skipped. An error
// means that the check itself could not run.
func (s *Store) Check(ctx context.Context, o CheckOptions) ([]relight.Check, error) {
	conn, err := s.connect(ctx, "check")
	if err != nil {
		return nil, err
	}
	closeConn(ctx, conn)
	return s.checkServer(ctx, s.c.Conn, o)
}

func (s *Store) checkServer(ctx context.Context, conn string, o CheckOptions) ([]relight.Check, error) {
	names, err := databases(ctx, conn)
	if err != nil {
		return nil, fmt.Errorf("list databases: %w", err)
	}
	c := &checker{s: s, o: o, conn: conn}
	for _, name := range names {
		if err := c.database(ctx, name); err != nil {
			return c.out, err
		}
	}
	return c.out, c.invariants(ctx)
}

func databases(ctx context.Context, conn string) ([]string, error) {
	pg, err := dial(ctx, conn)
	if err != nil {
		return nil, err
	}
	defer closeConn(ctx, pg)
	return column(ctx, pg, `select datname::text from pg_database where datallowconn order by oid`)
}

// dialDatabase connects like conn, to another database.
func dialDatabase(ctx context.Context, conn, database string) (*pgx.Conn, error) {
	if database == "" {
		return dial(ctx, conn)
	}
	cfg, err := pgx.ParseConfig(conn)
	if err != nil {
		return nil, err
	}
	cfg.Database = database
	cfg.RuntimeParams["application_name"] = "relight"
	cfg.RuntimeParams["statement_timeout"] = "0"
	cfg.RuntimeParams["search_path"] = "pg_catalog"
	cfg.RuntimeParams["timezone"] = "UTC"
	return pgx.ConnectConfig(ctx, cfg)
}

type checker struct {
	s    *Store
	o    CheckOptions
	conn string
	out  []relight.Check
}

// add runs one check and notes how long it took. Only an error that ends the session ends the whole.
func (c *checker) add(name string, fn func() (relight.Verdict, string, error)) error {
	began := c.s.now()
	verdict, detail, err := fn()
	if err != nil {
		verdict, detail = relight.Failed, err.Error()
		var server *pgconn.PgError
		if !errors.As(err, &server) {
			verdict = relight.Unknown
		}
	}
	c.out = append(c.out, relight.Check{Name: name, Verdict: verdict, Detail: detail, Seconds: c.s.now().Sub(began).Seconds()})
	return nil
}

// databaseCheck is one question to one database.
type databaseCheck struct {
	name string
	fn   func(context.Context, *pgx.Conn) (relight.Verdict, string, error)
}

func (c *checker) database(ctx context.Context, name string) error {
	pg, err := dialDatabase(ctx, c.conn, name)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return c.add("connect to "+name, func() (relight.Verdict, string, error) { return relight.Failed, err.Error(), nil })
	}
	defer closeConn(ctx, pg)
	steps := []databaseCheck{{"collations", c.collations}, {"invalid indexes", c.invalidIndexes}, {"checksum failures", c.checksumFailures}}
	if c.o.Integrity {
		steps = append(steps, databaseCheck{"tables", c.tables}, databaseCheck{"indexes", c.indexes})
	}
	for _, st := range steps {
		if err := c.add(st.name+" of "+name, func() (relight.Verdict, string, error) { return st.fn(ctx, pg) }); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

// collations compares what the indexes were built with and what the host's library sorts by: another version silently breaks
// text indexes.
func (c *checker) collations(ctx context.Context, pg *pgx.Conn) (relight.Verdict, string, error) {
	n, stale, err := staleCollations(ctx, pg)
	if err != nil {
		return "", "", err
	}
	var text []string
	for _, c := range stale {
		text = append(text, c.String())
	}
	if len(text) > 0 {
		return relight.Failed, strings.Join(text, "; ") + "; rebuild the indexes: relight postgres reindex", nil
	}
	return relight.Passed, fmt.Sprintf("%d compared", n), nil
}

func (c *checker) invalidIndexes(ctx context.Context, pg *pgx.Conn) (relight.Verdict, string, error) {
	names, err := column(ctx, pg, `select indexrelid::regclass::text from pg_index where not (indisvalid and indisready) order by 1`)
	if err != nil {
		return "", "", err
	}
	if len(names) > 0 {
		return relight.Skipped, fmt.Sprintf("%d indexes are marked invalid and are not checked; rebuild them: %s", len(names), strings.Join(names, ", ")), nil
	}
	return relight.Passed, "none", nil
}

// checksumFailures asks the server whether it has met damaged pages itself.
func (c *checker) checksumFailures(ctx context.Context, pg *pgx.Conn) (relight.Verdict, string, error) {
	var n *int64
	var last *time.Time
	err := pg.QueryRow(ctx, `select checksum_failures, checksum_last_failure from pg_stat_database where datname = current_database()`).Scan(&n, &last)
	switch {
	case err != nil:
		return "", "", err
	case n == nil:
		return relight.Skipped, "the cluster has no page checksums", nil
	case *n > 0:
		return relight.Failed, fmt.Sprintf("the server met %d damaged pages, the last at %s", *n, last.UTC().Format(time.RFC3339)), nil
	}
	return relight.Passed, "none met so far", nil
}

func (c *checker) invariants(ctx context.Context) error {
	for _, inv := range c.s.c.Invariants {
		err := c.add("invariant "+inv.Name, func() (relight.Verdict, string, error) {
			database := inv.Database
			if database == "" {
				cfg, err := pgx.ParseConfig(c.s.c.Conn)
				if err != nil {
					return "", "", err
				}
				database = cfg.Database
			}
			pg, err := dialDatabase(ctx, c.conn, database)
			if err != nil {
				return "", "", err
			}
			defer closeConn(ctx, pg)
			return ask(ctx, pg, inv)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func ask(ctx context.Context, pg *pgx.Conn, inv Invariant) (relight.Verdict, string, error) {
	tx, err := pg.BeginTx(ctx, pgx.TxOptions{AccessMode: pgx.ReadOnly, IsoLevel: pgx.RepeatableRead})
	if err != nil {
		return "", "", err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	if _, err := tx.Exec(ctx, `set local search_path = "$user", public, pg_catalog`); err != nil {
		return "", "", err
	}
	res := tx.Conn().PgConn().ExecParams(ctx, inv.Query, nil, nil, nil, nil).Read() // text format
	if res.Err != nil {
		return "", "", res.Err
	}
	if len(res.Rows) != 1 || len(res.Rows[0]) != 1 {
		return relight.Failed, fmt.Sprintf("gave %d rows instead of one value", len(res.Rows)), nil
	}
	if got := string(res.Rows[0][0]); got != inv.Want {
		return relight.Failed, fmt.Sprintf("is %q and must be %q", got, inv.Want), nil
	}
	return relight.Passed, inv.Want, nil
}

// WorstOf is the verdict of several checks: failed before unknown before passed; skipped ones do not count.
func WorstOf(checks []relight.Check) relight.Verdict {
	order := []relight.Verdict{relight.Failed, relight.Unknown, relight.Passed}
	for _, v := range order {
		if slices.ContainsFunc(checks, func(c relight.Check) bool { return c.Verdict == v }) {
			return v
		}
	}
	return relight.Skipped
}
