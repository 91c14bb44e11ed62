package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/toolboxai/relight"
)

// StaleCollation is an order of text that the host's library may see otherwise than the one under which a database's indexes were built.
type StaleCollation struct {
	Database string `json:"database"`
	Name     string `json:"name"` // of the collation; "" is the database's own
	Recorded string `json:"recorded"`
	Actual   string `json:"actual"` // "" when the library does not know it any more
	oid      uint32
}

// String says which collation, and what differs.
func (s StaleCollation) String() string {
	what := "database"
	if s.Name != "" {
		what = "collation " + s.Name
	}
	return fmt.Sprintf("%s was built with version %s, the library has %s", what, s.Recorded, s.Actual)
}

// Reindexed is what a Reindex found and did.
type Reindexed struct {
	Stale   []StaleCollation `json:"stale"`
	Rebuilt []string         `json:"rebuilt"` // indexes, as database: schema.index
	Failed  []string         `json:"failed"`  // those that could not be rebuilt, with the server's word; their collations stay stale on record
	// Unsure are partitioned tables whose bounds are compared in a stale order: a row may lie in a partition where the server no longer looks for
	// it, and no rebuilt index mends that.
	Unsure []string `json:"unsure"`
}

// defaultCollation stands for the order of the database itself.
const defaultCollation = 100

// staleCollations are those of the connection's database that something in it depends on.
func staleCollations(ctx context.Context, pg *pgx.Conn) (all int, stale []StaleCollation, err error) {
	rows, err := pg.Query(ctx, `
		select datname::text, ''::text, coalesce(datcollversion, ''), coalesce(pg_database_collation_actual_version(oid), ''), $1::oid
		  from pg_database where datname = current_database()
		union all
		select distinct current_database()::text, c.oid::regcollation::text, collversion, coalesce(pg_collation_actual_version(c.oid), ''), c.oid
		  from pg_collation c join pg_depend d on d.refclassid = 'pg_collation'::regclass and d.refobjid = c.oid
		 where collversion is not null`, uint32(defaultCollation))
	if err != nil {
		return 0, nil, err
	}
	var s StaleCollation
	_, err = pgx.ForEachRow(rows, []any{&s.Database, &s.Name, &s.Recorded, &s.Actual, &s.oid}, func() error {
		if all++; s.Recorded != "" && s.Recorded != s.Actual {
			stale = append(stale, s)
		}
		return nil
	})
	return all, stale, err
}

// Stale lists the stale collations of every database.
func (s *Store) Stale(ctx context.Context) ([]StaleCollation, error) {
	var out []StaleCollation
	err := s.eachDatabase(ctx, func(pg *pgx.Conn) error {
		_, stale, err := staleCollations(ctx, pg)
		out = append(out, stale...)
		return err
	})
	return out, err
}

// eachDatabase connects to one database after the other.
func (s *Store) eachDatabase(ctx context.Context, fn func(*pgx.Conn) error) error {
	names, err := databases(ctx, s.c.Conn)
	if err != nil {
		return fmt.Errorf("list databases of store %s: %w", s.c.Name, err)
	}
	for _, name := range names {
		err := func() error {
			pg, err := dialDatabase(ctx, s.c.Conn, name)
			if err != nil {
				return err
			}
			defer closeConn(ctx, pg)
			return fn(pg)
		}()
		if err != nil {
			return fmt.Errorf("database %s of store %s: %w", name, s.c.Name, err)
		}
	}
	return nil
}

// Reindex rebuilds every index whose order may have changed under it, and then puts the library's versions on record. It is meant for the time
// before writers start: an index that is rebuilt is locked. What cannot be rebuilt is in the report, and an error.
func (s *Store) Reindex(ctx context.Context, progress func(relight.Progress)) (Reindexed, error) {
	var out Reindexed
	err := s.eachDatabase(ctx, func(pg *pgx.Conn) error {
		_, stale, err := staleCollations(ctx, pg)
		if err != nil || len(stale) == 0 {
			return err
		}
		out.Stale = append(out.Stale, stale...)
		return out.rebuild(ctx, pg, stale, progress)
	})
	if err == nil && len(out.Failed) > 0 {
		err = s.fail("rebuild indexes", relight.CodeVerification, "mend the rows that the message names, then rebuild again; do not let writers start", "%s", strings.Join(out.Failed, "; "))
	}
	return out, err
}

// rebuild takes one database.
func (r *Reindexed) rebuild(ctx context.Context, pg *pgx.Conn, stale []StaleCollation, progress func(relight.Progress)) error {
	var oids []uint32
	for _, c := range stale {
		oids = append(oids, c.oid)
	}
	database := stale[0].Database
	unsure, err := column(ctx, pg, `select partrelid::regclass::text from pg_partitioned_table where partcollation::oid[] && $1::oid[] order by 1`, oids)
	if err != nil {
		return err
	}
	for _, table := range unsure {
		r.Unsure = append(r.Unsure, database+": "+table)
	}
	names, err := column(ctx, pg, orderedBy, oids, uint32(defaultCollation))
	if err != nil {
		return err
	}
	failed := len(r.Failed)
	for i, name := range names {
		if progress != nil {
			progress(relight.Progress{Phase: "rebuild indexes of " + database, Done: int64(i), Total: int64(len(names)), Unit: "indexes"})
		}
		_, err := pg.Exec(ctx, "reindex index "+name)
		var server *pgconn.PgError
		switch {
		case err == nil:
			r.Rebuilt = append(r.Rebuilt, database+": "+name)
		case errors.As(err, &server):
			r.Failed = append(r.Failed, strings.TrimSpace(fmt.Sprintf("%s: %s: %s %s", database, name, server.Message, server.Detail)))
		default:
			return fmt.Errorf("rebuild index %s: %w", name, err)
		}
	}
	if len(r.Failed) > failed {
		return nil // what is on record stays: it is what the others were built with
	}
	return record(ctx, pg, stale)
}

// orderedBy finds the indexes that compare by one of the collations: by a column, or by an expression or a condition that depends on it. What
// depends on the database's own order is on record nowhere, so that with it every expression and condition counts.
const orderedBy = `
	select i.indexrelid::regclass::text
	  from pg_index i join pg_class c on c.oid = i.indexrelid
	 where c.relkind = 'i' and c.relpersistence <> 't'
	   and (i.indcollation::oid[] && $1::oid[]
	     or exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = i.indexrelid
	                   and d.refclassid = 'pg_collation'::regclass and d.refobjid = any ($1::oid[]))
	     or $2::oid = any ($1::oid[]) and i.indrelid >= 16384 and (i.indexprs is not null or i.indpred is not null))
	 order by 1`

// record puts the versions of the library on record.
func record(ctx context.Context, pg *pgx.Conn, stale []StaleCollation) error {
	for _, c := range stale {
		refresh := "alter database " + pgx.Identifier{c.Database}.Sanitize() + " refresh collation version"
		if c.Name != "" {
			refresh = "alter collation " + c.Name + " refresh version"
		}
		if _, err := pg.Exec(ctx, refresh); err != nil {
			return fmt.Errorf("put the version of %s on record: %w", c, err)
		}
	}
	return nil
}

// column reads one column of text.
func column(ctx context.Context, pg *pgx.Conn, query string, args ...any) ([]string, error) {
	rows, err := pg.Query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}
