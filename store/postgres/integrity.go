package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/toolboxai/relight"
)

// relationToCheck is one table or index.
type relationToCheck struct {
	OID  uint32
	Name string
	Kind string // of pg_class; "i" for a btree index
}

// tables reads every table, with amcheck in every detail, and lists what the server objects to.
func (c *checker) tables(ctx context.Context, pg *pgx.Conn) (relight.Verdict, string, error) {
	return c.inspect(ctx, pg, func(r relationToCheck) bool { return r.Kind != "i" }, "tables")
}

// indexes compares every btree index with its table, which only amcheck can.
func (c *checker) indexes(ctx context.Context, pg *pgx.Conn) (relight.Verdict, string, error) {
	return c.inspect(ctx, pg, func(r relationToCheck) bool { return r.Kind == "i" }, "indexes")
}

// inspect looks at the relations that are wanted. All of it happens in a transaction that is rolled back, relation by relation, so that it neither leaves
// anything nor collects locks.
func (c *checker) inspect(ctx context.Context, pg *pgx.Conn, wanted func(relationToCheck) bool, what string) (relight.Verdict, string, error) {
	tx, err := pg.Begin(ctx)
	if err != nil {
		return "", "", err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	schema, err := c.amcheck(ctx, tx)
	if err != nil {
		return "", "", err
	}
	how := "with amcheck"
	if schema == "" {
		if what == "indexes" {
			return relight.Skipped, "amcheck is not installed in this database; CREATE EXTENSION amcheck there, or see `relight backup prove`", nil
		}
		how = "by reading them; amcheck, which sees more, is not installed in this database"
	}
	all, err := relationsToCheck(ctx, tx)
	if err != nil {
		return "", "", err
	}
	relations := slices.DeleteFunc(all, func(r relationToCheck) bool { return !wanted(r) })
	var bad []string
	for i, r := range relations {
		faults, err := inspectRelation(ctx, tx, r, schema)
		if err != nil {
			return "", "", err
		}
		bad = append(bad, faults...)
		if c.o.Progress != nil {
			c.o.Progress(relight.Progress{Phase: "checking " + what, Done: int64(i + 1), Total: int64(len(relations)), Unit: what})
		}
	}
	if len(bad) > 0 {
		return relight.Failed, fmt.Sprintf("%d faults: %s", len(bad), strings.Join(bad[:min(len(bad), 10)], "; ")), nil
	}
	return relight.Passed, fmt.Sprintf("%d %s %s", len(relations), what, how), nil
}

// amcheck gives the quoted schema of the extension, "" when it is not to be had.
func (c *checker) amcheck(ctx context.Context, tx pgx.Tx) (string, error) {
	var available bool
	if err := tx.QueryRow(ctx, `select exists (select from pg_available_extensions where name = 'amcheck')`).Scan(&available); err != nil {
		return "", err
	}
	if c.o.Create && available {
		if _, err := tx.Exec(ctx, `create extension if not exists amcheck with schema pg_catalog`); err != nil {
			return "", fmt.Errorf("create amcheck for the length of the check: %w", err)
		}
	}
	var schema string
	err := tx.QueryRow(ctx, `select quote_ident(nspname) from pg_extension e join pg_namespace n on n.oid = e.extnamespace where extname = 'amcheck'`).Scan(&schema)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", nil
	}
	return schema, err
}

func relationsToCheck(ctx context.Context, tx pgx.Tx) ([]relationToCheck, error) {
	rows, err := tx.Query(ctx, `
		select c.oid, c.oid::regclass::text, c.relkind::text
		  from pg_class c
		 where c.relkind in ('r', 't', 'm') and c.relpersistence = 'p'
		union all
		select c.oid, c.oid::regclass::text, 'i'
		  from pg_class c join pg_index i on i.indexrelid = c.oid join pg_am a on a.oid = c.relam
		 where c.relkind = 'i' and a.amname = 'btree' and c.relpersistence = 'p' and i.indisvalid and i.indisready
		 order by 1`)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[relationToCheck])
}

// inspectRelation gives the faults of one relation. An error of the server about it is a fault; any other error ends the check.
func inspectRelation(ctx context.Context, tx pgx.Tx, r relationToCheck, schema string) ([]string, error) {
	if _, err := tx.Exec(ctx, `savepoint relation`); err != nil {
		return nil, err
	}
	faults, err := askRelation(ctx, tx, r, schema)
	if _, rerr := tx.Exec(ctx, `rollback to savepoint relation`); rerr != nil {
		return nil, errors.Join(err, rerr)
	}
	var server *pgconn.PgError
	if errors.As(err, &server) {
		if server.Code == "42P01" || server.Code == "XX000" && strings.Contains(server.Message, "could not open relation with OID") {
			return nil, nil // dropped meanwhile
		}
		return append(faults, fmt.Sprintf("%s: %s", r.Name, server.Message)), nil
	}
	return faults, err
}

func askRelation(ctx context.Context, tx pgx.Tx, r relationToCheck, schema string) ([]string, error) {
	switch {
	case r.Kind == "i":
		_, err := tx.Exec(ctx, `select `+schema+`.bt_index_check(index => $1::oid::regclass, heapallindexed => true)`, r.OID)
		return nil, err
	case schema == "":
		if r.Kind == "t" {
			return nil, nil // read with its table
		}
		_, err := tx.Exec(ctx, `select count(*) from only `+r.Name) // as regclass prints it: quoted and qualified
		return nil, err
	}
	rows, err := tx.Query(ctx, `select coalesce(blkno, -1), coalesce(offnum, -1), msg from `+schema+`.verify_heapam(relation => $1::oid::regclass, check_toast => true)`, r.OID)
	if err != nil {
		return nil, err
	}
	var faults []string
	var block int64
	var offset int32
	var msg string
	_, err = pgx.ForEachRow(rows, []any{&block, &offset, &msg}, func() error {
		if len(faults) < 100 {
			faults = append(faults, fmt.Sprintf("%s block %d item %d: %s", r.Name, block, offset, msg))
		}
		return nil
	})
	return faults, err
}
