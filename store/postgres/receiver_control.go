package postgres

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/store/postgres/walfile"
)

// controlConn is the receiver's ordinary connection: it watches and moves the slot and reads the clock.
type controlConn struct {
	pg *pgconn.PgConn
}

// slotState is a row of pg_replication_slots.
type slotState struct {
	exists  bool
	kind    string
	status  string // reserved, extended, unreserved, lost
	restart relight.LSN
	end     relight.LSN // of the server's WAL; on a standby, of what is replayed
	safe    int64       // bytes that may yet be written before the slot is given up; -1 no limit
}

func (r *Receiver) openControl(ctx context.Context) (*controlConn, error) {
	return dialControl(ctx, r.leader(), "relight_control")
}

func dialControl(ctx context.Context, conn, application string) (*controlConn, error) {
	cfg, err := pgconn.ParseConfig(conn)
	if err != nil {
		return nil, fmt.Errorf("read connection string: %w", err)
	}
	cfg.RuntimeParams["application_name"] = application
	pg, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	return &controlConn{pg: pg}, nil
}

func (c *controlConn) close(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_ = c.pg.Close(ctx)
}

// query runs one statement and gives its rows as text; NULL is "".
func (c *controlConn) query(ctx context.Context, sql string, args ...string) ([][]string, error) {
	params := make([][]byte, len(args))
	for i, a := range args {
		params[i] = []byte(a)
	}
	res := c.pg.ExecParams(ctx, sql, params, nil, nil, nil).Read()
	if res.Err != nil {
		return nil, res.Err
	}
	var rows [][]string
	for _, row := range res.Rows {
		texts := make([]string, len(row))
		for i, v := range row {
			texts[i] = string(v)
		}
		rows = append(rows, texts)
	}
	return rows, nil
}

func (c *controlConn) slot(ctx context.Context, name string) (slotState, error) {
	rows, err := c.query(ctx, `SELECT slot_type, coalesce(wal_status, ''), coalesce(restart_lsn::text, ''), coalesce(safe_wal_size, -1),
		coalesce(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END, '0/0')::text
		FROM pg_replication_slots WHERE slot_name = $1`, name)
	if err != nil || len(rows) == 0 {
		return slotState{}, wrapDoing(err, "look at slot %s", name)
	}
	s := slotState{exists: true, kind: rows[0][0], status: rows[0][1]}
	if s.safe, err = strconv.ParseInt(rows[0][3], 10, 64); err != nil {
		return s, err
	}
	if s.end, err = relight.ParseLSN(rows[0][4]); err == nil && rows[0][2] != "" {
		s.restart, err = relight.ParseLSN(rows[0][2])
	}
	return s, err
}

func (c *controlConn) dropSlot(ctx context.Context, name string) error {
	_, err := c.query(ctx, `SELECT pg_drop_replication_slot($1)`, name)
	return wrapDoing(err, "drop slot %s", name)
}

// advance lets the server forget WAL before lsn.
func (c *controlConn) advance(ctx context.Context, name string, lsn relight.LSN) error {
	_, err := c.query(ctx, `SELECT pg_replication_slot_advance($1, $2::pg_lsn)`, name, lsn.String())
	return wrapDoing(err, "advance slot %s to %s", name, lsn)
}

// sample reads clock and end of WAL. The clock is read first: whatever was committed up to then ends at or before the position read after
// it. (A keepalive's position is no substitute: it says how far the server has sent.) ok is false on a standby.
func (c *controlConn) sample(ctx context.Context, segment int64) (s sample, ok bool, err error) {
	rows, err := c.query(ctx, `SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8,
		CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_current_wal_insert_lsn() END,
		CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_walfile_name(pg_current_wal_insert_lsn()) END`)
	if err != nil || len(rows) != 1 {
		return s, false, wrapDoing(err, "read the server's clock")
	}
	us, err := strconv.ParseInt(rows[0][0], 10, 64)
	if err != nil || rows[0][1] == "" || len(rows[0][2]) < 8 {
		return s, false, err
	}
	lsn, err := relight.ParseLSN(rows[0][1])
	if err != nil {
		return s, false, err
	}
	tl, err := strconv.ParseUint(rows[0][2][:8], 16, 32)
	return sample{tl: relight.TimelineID(tl), clock: time.UnixMicro(us).UTC(), lsn: walfile.Trim(lsn, segment)}, err == nil, err
}

func wrapDoing(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf(format+": %w", append(args, err)...)
}

// control samples the clock and moves the slot until ctx ends.
func (r *Receiver) control(ctx context.Context, c *controlConn) error {
	every := max(r.o.LiveInterval/2, 50*time.Millisecond)
	var moved relight.LSN
	for n := 0; ; n++ {
		if err := r.controlOnce(ctx, c, n, &moved); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		if sleepFor(ctx, every) != nil {
			return nil
		}
	}
}

// slotEvery is how many samples are taken between two looks at the slot's health, while it retains no more than the server keeps by itself.
const slotEvery = 10

func (r *Receiver) controlOnce(ctx context.Context, c *controlConn, n int, moved *relight.LSN) error {
	if s, ok, err := c.sample(ctx, r.segmentSize()); err != nil {
		return err
	} else if ok {
		r.tape.observe(s)
	}
	if least, ok := r.tape.forgettable(); ok && least > *moved {
		slot, err := c.slot(ctx, r.o.Slot)
		if err != nil {
			return err
		}
		if slot.exists && slot.restart != 0 && slot.status != "lost" && least > slot.restart {
			if err := c.advance(ctx, r.o.Slot, least); err != nil {
				return err
			}
		}
		*moved = least
	}
	if n%slotEvery != 0 && !r.strained {
		return nil
	}
	if err := r.watchSlot(ctx, c); err != nil {
		return err
	}
	return r.watchSynchronous(ctx, c, &r.armed)
}

// watchSlot raises an alarm before and when the server gives up the slot. Streaming needs no slot and goes on; the session is
// ended when it is lost, so that the next one makes it anew.
func (r *Receiver) watchSlot(ctx context.Context, c *controlConn) error {
	slot, err := c.slot(ctx, r.o.Slot)
	if err != nil {
		return err
	}
	switch {
	case !slot.exists:
		return fmt.Errorf("slot %s has vanished", r.o.Slot)
	case slot.status == "lost":
		return fmt.Errorf("the server has given up slot %s", r.o.Slot)
	case slot.status == "unreserved":
		r.trouble("slot", fmt.Sprintf("%s is about to be lost: the server removes its WAL at the next checkpoint", r.o.Slot), 0)
	case slot.status == "extended" && slot.safe >= 0:
		r.trouble("slot", fmt.Sprintf("%s retains more than max_wal_size; after another %d bytes it is lost", r.o.Slot, slot.safe), r.o.AlarmAfter)
	default:
		r.well("slot")
	}
	r.strained = slot.status != "reserved"
	return r.bound(ctx, c, slot)
}

// segmentSize of the server, once it is known.
func (r *Receiver) segmentSize() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.segment
}
