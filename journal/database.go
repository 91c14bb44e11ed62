package journal

import (
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/toolboxai/relight"
	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"
)

const applicationID = 0x524C4A31 // "RLJ1"

const patience = 15 * time.Second // with other writers

const schema = `
CREATE TABLE journal (id TEXT NOT NULL, host TEXT NOT NULL, format INTEGER NOT NULL) STRICT;
CREATE TABLE event (
	seq INTEGER PRIMARY KEY, run TEXT NOT NULL, kind TEXT NOT NULL, body BLOB NOT NULL,
	hash BLOB NOT NULL, signer TEXT NOT NULL, sig BLOB NOT NULL) STRICT;
CREATE INDEX event_run ON event (run, seq);
CREATE TABLE lease (what TEXT PRIMARY KEY, epoch INTEGER NOT NULL, owner TEXT NOT NULL, released INTEGER NOT NULL) STRICT;
`

type mode int

const (
	writing mode = iota
	reading
	foreign   // a file that is examined: nothing in it is trusted, nothing is written
	immutable // foreign, on a medium where not even the shared-memory file can be made
)

// connect describes a connection pool; nothing is opened before its first use.
func connect(path string, m mode) (*sql.DB, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	q := url.Values{"_pragma": {"trusted_schema(0)"}}
	if m != writing { // which insists by itself
		q.Add("_pragma", fmt.Sprintf("busy_timeout(%d)", patience.Milliseconds()))
	}
	switch m {
	case writing:
		q.Set("_txlock", "immediate")
		q.Add("_pragma", "journal_mode(wal)")
		q.Add("_pragma", "synchronous(full)")
	case reading:
		q.Set("mode", "rw")
		q.Add("_pragma", "query_only(1)")
	case foreign:
		q.Set("mode", "ro")
	case immutable:
		q.Set("mode", "ro")
		q.Set("immutable", "1")
	}
	u := url.URL{Scheme: "file", Path: abs, RawQuery: q.Encode()}
	return sql.Open("sqlite", u.String())
}

// insist does fn again while other writers are in its way. SQLite's own patience sleeps up to 100 ms at a time, in which a process that writes without
// pause gives the lock back and takes it again unseen: others starved. Nor does SQLite wait at all while several turn a new file to write-ahead logging.
func insist(ctx context.Context, fn func() error) error {
	tired := time.NewTimer(patience)
	defer tired.Stop()
	for {
		err := fn()
		var se *sqlite.Error
		if !errors.As(err, &se) || se.Code()&0xff != lib.SQLITE_BUSY {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-tired.C:
			return err
		case <-time.After(time.Millisecond):
		}
	}
}

// prepare makes the tables if the file has none. Of several processes that come at once, one makes them.
func prepare(ctx context.Context, db *sql.DB, path, host string, rand io.Reader) error {
	var app int
	if err := db.QueryRowContext(ctx, "PRAGMA application_id").Scan(&app); err != nil {
		return err
	}
	if app == applicationID {
		return nil
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	var tables int
	if err := tx.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_schema").Scan(&tables); err != nil {
		return err
	}
	if err := tx.QueryRowContext(ctx, "PRAGMA application_id").Scan(&app); err != nil || app == applicationID {
		return err
	}
	if app != 0 || tables != 0 {
		return hinted(errors.New("the file is a database, but no journal"), "name another path; relight changes no file that it does not know")
	}
	if err := create(ctx, tx, host, rand); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func create(ctx context.Context, tx *sql.Tx, host string, rand io.Reader) error {
	var id [16]byte
	if _, err := io.ReadFull(rand, id[:]); err != nil {
		return fmt.Errorf("make an id: %w", err)
	}
	if _, err := tx.ExecContext(ctx, schema+fmt.Sprintf("PRAGMA application_id = %d;", applicationID)); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, "INSERT INTO journal VALUES (?, ?, ?)", hex.EncodeToString(id[:]), host, format)
	return err
}

// syncDir makes the new file's name durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func identity(ctx context.Context, db *sql.DB) (id, host string, err error) {
	var version, rows int
	err = db.QueryRowContext(ctx, "SELECT id, host, format, (SELECT count(*) FROM journal) FROM journal").Scan(&id, &host, &version, &rows)
	if errors.Is(err, sql.ErrNoRows) || err == nil && rows != 1 {
		return "", "", fmt.Errorf("the table that names the journal has %d rows", rows)
	}
	if err != nil {
		return "", "", err
	}
	if version != format {
		return "", "", hinted(fmt.Errorf("it has format %d, this relight reads format %d", version, format), "use a newer relight")
	}
	return id, host, nil
}

type querier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

func head(ctx context.Context, q querier, id, host string) (Head, error) {
	h := Head{Hash: origin(id, host)}
	var raw []byte
	err := q.QueryRowContext(ctx, "SELECT seq, hash FROM event ORDER BY seq DESC LIMIT 1").Scan(&h.Seq, &raw)
	if errors.Is(err, sql.ErrNoRows) {
		return h, nil
	}
	if err != nil {
		return h, err
	}
	if len(raw) != len(h.Hash) {
		return h, fmt.Errorf("event %d: %w", h.Seq, ErrTampered)
	}
	copy(h.Hash[:], raw)
	return h, nil
}

func hinted(err error, hint string) error { return &relight.Error{Err: err, Hint: hint} }

// explain turns a cause into an error that says what to do.
func explain(op, path string, err error) error {
	if err == nil {
		return nil
	}
	e := &relight.Error{Op: op, Subject: path, Err: err, Hint: relight.HintOf(err)}
	if errors.Is(err, ErrTampered) {
		e.Code, e.Hint = relight.CodeVerification, "stop, keep the file, and run: relight journal verify"
	}
	var se *sqlite.Error
	if !errors.As(err, &se) || e.Hint != "" {
		return e
	}
	switch se.Code() & 0xff {
	case lib.SQLITE_CORRUPT, lib.SQLITE_NOTADB:
		e.Err = fmt.Errorf("the file is damaged or no journal: %w", err)
		e.Hint = "move the file and its -wal and -shm aside (keep them: they are evidence) and start again; the repositories hold what was shipped: relight journal verify"
	case lib.SQLITE_FULL:
		e.Hint = "free space on the file system of " + filepath.Dir(path)
	case lib.SQLITE_READONLY, lib.SQLITE_PERM, lib.SQLITE_CANTOPEN:
		e.Hint = "check that " + filepath.Dir(path) + " exists and that this user may write in it (group relight)"
	case lib.SQLITE_BUSY:
		e.Hint = fmt.Sprintf("another process has been writing for %s; find it with: fuser %s", patience, path)
	case lib.SQLITE_IOERR:
		e.Hint = "the disk reports errors: look at the kernel's log before anything else"
	}
	return e
}
