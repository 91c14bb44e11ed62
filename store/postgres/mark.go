package postgres

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/repo"
)

// maxMark is the server's MAXFNAMELEN, of which one byte ends the name.
const maxMark = 63

// Mark sets a named restore point and returns when the WAL that holds it is durable in m: from then on the name is a recovery target.
// A name that the repository already holds is refused, because recovery to it would be ambiguous.
func (s *Store) Mark(ctx context.Context, m *repo.Meta, name string) (relight.NamedMark, error) {
	if _, held, err := s.FindMark(ctx, m, name); err != nil || held {
		if err == nil {
			err = s.fail("mark", relight.CodeUsage, "choose another name; `relight backup list` shows those there are", "restore point %q is there already", name)
		}
		return relight.NamedMark{Name: name}, err
	}
	mark, k, err := s.mark(ctx, name)
	if err != nil {
		return mark, err
	}
	return mark, s.AwaitMark(ctx, m, k, mark.Point.LSN)
}

// SetMark sets a named restore point, and does not wait for any repository to hold it. That the name is used once is the caller's affair.
func (s *Store) SetMark(ctx context.Context, name string) (relight.NamedMark, error) {
	mark, _, err := s.mark(ctx, name)
	return mark, err
}

func (s *Store) mark(ctx context.Context, name string) (relight.NamedMark, repo.WALKey, error) {
	m, err := s.PrepareMark(ctx, name)
	if err != nil {
		return relight.NamedMark{Name: name}, repo.WALKey{Store: s.c.Name}, err
	}
	defer m.Close(ctx)
	return m.Set(ctx)
}

// Marker is a session that is ready to set one restore point at once.
type Marker struct {
	s    *Store
	name string
	conn *pgx.Conn
	tx   pgx.Tx
}

// PrepareMark does all that takes time, so that the restore points of several stores can be set at one instant.
func (s *Store) PrepareMark(ctx context.Context, name string) (*Marker, error) {
	if name == "" || len(name) > maxMark || strings.ContainsAny(name, "\n\r\x00") {
		return nil, s.fail("mark", relight.CodeUsage, fmt.Sprintf("choose a name of 1 to %d bytes in one line", maxMark), "%q cannot name a restore point", name)
	}
	conn, err := s.connect(ctx, "mark")
	if err != nil {
		return nil, err
	}
	m := &Marker{s: s, name: name, conn: conn}
	if m.tx, err = conn.Begin(ctx); err == nil {
		_, err = m.tx.Exec(ctx, `set local synchronous_commit = local`)
	}
	if err != nil {
		m.Close(ctx)
		return nil, fmt.Errorf("mark store %s: %w", s.c.Name, err)
	}
	return m, nil
}

// Close ends the session; after Set nothing is lost by it.
func (m *Marker) Close(ctx context.Context) {
	ctx = context.WithoutCancel(ctx)
	if m.tx != nil {
		_ = m.tx.Rollback(ctx) // after a commit it does nothing
	}
	closeConn(ctx, m.conn)
}

// Set writes the record. It needs a commit behind it: the server flushes its log for commits, not for restore points.
func (m *Marker) Set(ctx context.Context) (relight.NamedMark, repo.WALKey, error) {
	mark, k := relight.NamedMark{Name: m.name}, repo.WALKey{Store: m.s.c.Name}
	var lsn string
	var system int64
	var line int32
	err := m.tx.QueryRow(ctx, `select pg_create_restore_point($1)::text, clock_timestamp(), system_identifier, ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int4,
		pg_current_xact_id()::text from pg_control_system()`, m.name).Scan(&lsn, &mark.Point.Time, &system, &line, new(string))
	if err != nil {
		return mark, k, m.s.fail("mark", relight.CodeFailed, "the connection needs the right to execute pg_create_restore_point; a standby has none to give", "%w", err)
	}
	if err := m.tx.Commit(ctx); err != nil {
		return mark, k, fmt.Errorf("mark store %s: %w", m.s.c.Name, err)
	}
	k.System, k.Timeline = relight.SystemID(system), relight.TimelineID(uint32(line))
	mark.Point.Time, mark.Point.Timeline = mark.Point.Time.UTC(), k.Timeline
	mark.Point.LSN, err = relight.ParseLSN(lsn)
	return mark, k, err
}

// FindMark looks a restore point up in the repository.
func (s *Store) FindMark(ctx context.Context, m *repo.Meta, name string) (relight.NamedMark, bool, error) {
	w, err := s.Window(ctx, m)
	if err != nil {
		return relight.NamedMark{}, false, err
	}
	for _, mark := range w.Names {
		if mark.Name == name {
			return mark, true, nil
		}
	}
	return relight.NamedMark{}, false, nil
}

// AwaitMark waits until m holds the WAL up to lsn, which a restore point has.
func (s *Store) AwaitMark(ctx context.Context, m *repo.Meta, k repo.WALKey, lsn relight.LSN) error {
	durable := s.d.Durable
	if durable == nil {
		durable = m.Sink(s.c.Name).Durable
	}
	deadline := s.now().Add(s.c.DurableWait)
	for {
		end, err := durable(ctx, k, lsn-1)
		if err != nil {
			return fmt.Errorf("ask the repository for its WAL: %w", err)
		}
		if end >= lsn {
			return nil
		}
		if !s.now().Before(deadline) {
			return s.fail("mark", relight.CodeFailed, "is `relight serve` running? it must stream WAL into this repository",
				"the restore point at %s is set, and not durable in the repository after %s; it holds the log up to %s", lsn, s.c.DurableWait, end)
		}
		if err := s.d.Sleep(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}
