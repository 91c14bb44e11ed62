// Package replication speaks PostgreSQL's streaming replication protocol for physical WAL: identify the system, make a slot,
// fetch a timeline's history, stream.
//
// It promises that nothing is acknowledged that the caller did not state: write, flush and apply positions are sent as given,
// each by itself, and never filled in from one another. One goroutine receives while another may send status.
package replication

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/toolboxai/relight"
)

// Conn is a connection in replication mode.
type Conn struct {
	conn    net.Conn
	front   *pgproto3.Frontend
	version int
	write   sync.Mutex // serialises what is sent while streaming
	now     func() time.Time
}

// System is the answer to IDENTIFY_SYSTEM.
type System struct {
	ID       relight.SystemID
	Timeline relight.TimelineID
	Flushed  relight.LSN
}

// Connect opens a replication connection with the settings of dsn. now stamps status updates.
func Connect(ctx context.Context, dsn, application string, now func() time.Time) (*Conn, error) {
	cfg, err := pgconn.ParseConfig(dsn)
	if err != nil {
		return nil, fmt.Errorf("read connection string: %w", err)
	}
	cfg.RuntimeParams["replication"] = "true"
	cfg.RuntimeParams["application_name"] = application
	pg, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("connect for replication: %w", err)
	}
	h, err := pg.Hijack()
	if err != nil {
		return nil, errors.Join(err, pg.Close(ctx))
	}
	version, err := Version(h.ParameterStatuses["server_version"])
	if err != nil {
		return nil, errors.Join(err, h.Conn.Close())
	}
	return &Conn{conn: h.Conn, front: h.Frontend, version: version, now: now}, nil
}

// Close ends the connection without ceremony; the server notices at once.
func (c *Conn) Close() error { return c.conn.Close() }

// Version is server_version_num.
func (c *Conn) Version() int { return c.version }

// Identify asks for system id, timeline and the end of flushed WAL.
func (c *Conn) Identify(ctx context.Context) (System, error) {
	row, err := c.row(ctx, "IDENTIFY_SYSTEM", 3)
	if err != nil {
		return System{}, err
	}
	id, err := strconv.ParseUint(row[0], 10, 64)
	if err != nil {
		return System{}, fmt.Errorf("identify system: %w", err)
	}
	tl, err := strconv.ParseUint(row[1], 10, 32)
	if err != nil {
		return System{}, fmt.Errorf("identify system: %w", err)
	}
	lsn, err := relight.ParseLSN(row[2])
	return System{ID: relight.SystemID(id), Timeline: relight.TimelineID(tl), Flushed: lsn}, err
}

// SegmentSize is the server's wal_segment_size in bytes.
func (c *Conn) SegmentSize(ctx context.Context) (int64, error) {
	row, err := c.row(ctx, "SHOW wal_segment_size", 1)
	if err != nil {
		return 0, err
	}
	return parseSize(row[0])
}

// CreateSlot makes a physical slot that retains WAL from now on: RESERVE_WAL, so that it does not wait for a first client.
func (c *Conn) CreateSlot(ctx context.Context, name string) error {
	_, err := c.row(ctx, "CREATE_REPLICATION_SLOT "+quote(name)+" PHYSICAL RESERVE_WAL", 1)
	return err
}

// History fetches the history file of a timeline.
func (c *Conn) History(ctx context.Context, tl relight.TimelineID) ([]byte, error) {
	row, err := c.row(ctx, fmt.Sprintf("TIMELINE_HISTORY %d", tl), 2)
	if err != nil {
		return nil, err
	}
	return []byte(row[1]), nil
}

// row runs a command that answers with one row of at least n columns.
func (c *Conn) row(ctx context.Context, command string, n int) ([]string, error) {
	defer c.watch(ctx)()
	if err := c.query(command); err != nil {
		return nil, contextual(ctx, command, err)
	}
	var row []string
	var failure error
	for {
		m, err := c.front.Receive()
		if err != nil {
			return nil, contextual(ctx, command, err)
		}
		switch m := m.(type) {
		case *pgproto3.DataRow:
			row = texts(m)
		case *pgproto3.ErrorResponse:
			failure = pgconn.ErrorResponseToPgError(m)
		case *pgproto3.ReadyForQuery:
			if failure == nil && len(row) < n {
				failure = fmt.Errorf("answer has %d columns, not %d", len(row), n)
			}
			return row, wrap(command, failure)
		}
	}
}

func (c *Conn) query(command string) error {
	c.front.SendQuery(&pgproto3.Query{String: command})
	return c.front.Flush()
}

// watch breaks blocked reads and writes when ctx ends; the returned function stops watching.
func (c *Conn) watch(ctx context.Context) func() {
	stop := context.AfterFunc(ctx, func() { _ = c.conn.SetDeadline(time.Unix(1, 0)) })
	return func() { stop() }
}

func texts(m *pgproto3.DataRow) []string {
	row := make([]string, len(m.Values))
	for i, v := range m.Values {
		row[i] = string(v)
	}
	return row
}

func wrap(command string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", command, err)
}

func contextual(ctx context.Context, command string, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return wrap(command, err)
}
