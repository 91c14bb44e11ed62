package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/toolboxai/relight"
)

// Synchronous says that the server's commits wait for relight (RPO 0), and for what exactly. Nothing in it has a default.
type Synchronous struct {
	Repository   bool          // acknowledged is what every repository holds; else what the spool holds
	Degrade      bool          // a receiver that does not answer is taken out of the server's list; else commits wait for it
	DegradeAfter time.Duration // how long commits wait before that
	SpoolOutside string        // how the spool survives the loss of the server, in the operator's words; only where the spool acknowledges
}

// String names both choices.
func (s Synchronous) String() string {
	what, then := "spool", "block"
	if s.Repository {
		what = "repository"
	}
	if s.Degrade {
		then = "degrade after " + s.DegradeAfter.String()
	}
	return "acknowledged by the " + what + ", when the receiver dies: " + then
}

// CheckSpool refuses a spool that would be lost with the data it is to survive. That two paths lie in one file system is seen; that they
// lie in one host or one rack is not, so the operator states it.
func (s Synchronous) CheckSpool(name, data, spool string) error {
	if s.Repository {
		return nil
	}
	refuse := func(format string, args ...any) error {
		return &relight.Error{Op: "acknowledge commits", Subject: "of store " + name, Code: relight.CodeUsage, Err: fmt.Errorf(format, args...),
			Hint: "put the spool (spool: PATH) on storage that outlives the server, or wait for the repository (synchronous: {acknowledge: repository})"}
	}
	if strings.TrimSpace(s.SpoolOutside) == "" {
		return refuse("the spool acknowledges, and nobody has stated how it survives the loss of the server")
	}
	there, err := deviceOf(spool)
	if err != nil {
		return refuse("where the spool lies is not known: %w", err)
	}
	for _, dir := range []string{data, filepath.Join(data, walDir)} {
		here, err := deviceOf(dir)
		if errors.Is(err, os.ErrNotExist) {
			continue // not yet there, or the server is elsewhere
		}
		if err != nil {
			return refuse("where %s lies is not known: %w", dir, err)
		}
		if here == there {
			return refuse("the spool %s and %s lie in one file system: what takes one takes the other", spool, dir)
		}
	}
	return nil
}

// deviceOf is the file system that path lies in, or will lie in once it is made.
func deviceOf(path string) (uint64, error) {
	info, err := os.Stat(path)
	for up := filepath.Dir(path); errors.Is(err, os.ErrNotExist) && up != path; up = filepath.Dir(path) {
		path = up
		info, err = os.Stat(path)
	}
	if err != nil {
		return 0, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, errors.New("this system does not tell")
	}
	return uint64(st.Dev), nil
}

// receiverApplication is the name under which the server knows the receiver, and by which it can be made to wait for it.
func receiverApplication(store string) string { return "relight_" + store }

// standbyNames is the value of synchronous_standby_names that relight sets: the receiver and nobody else.
func standbyNames(store string) string {
	return `"` + strings.ReplaceAll(receiverApplication(store), `"`, `""`) + `"`
}

// syncRow is what a server says of those it waits for.
type syncRow struct {
	names    string // synchronous_standby_names
	fixed    bool   // by the command line: ALTER SYSTEM cannot change it
	commit   string // synchronous_commit
	override string // roles or databases that are set to remote_apply
	state    string // of our WAL sender: "", startup, catchup, streaming
	standby  string // async, potential, sync, quorum
	flush    relight.LSN
	end      relight.LSN // of the server's flushed WAL
	waiting  int         // sessions whose commit waits
	recovery bool        // a standby: it has no commits
}

const syncQuery = `SELECT current_setting('synchronous_standby_names'), (SELECT source = 'command line' FROM pg_settings WHERE name = 'synchronous_standby_names')::text,
	current_setting('synchronous_commit'),
	(SELECT coalesce(string_agg(coalesce(r.rolname::text, '') || '/' || coalesce(d.datname::text, ''), ', '), '') FROM pg_db_role_setting s
	  LEFT JOIN pg_roles r ON r.oid = s.setrole LEFT JOIN pg_database d ON d.oid = s.setdatabase WHERE 'synchronous_commit=remote_apply' = ANY (s.setconfig)),
	coalesce(w.state, ''), coalesce(w.sync_state, ''), coalesce(w.flush_lsn::text, '0/0'),
	CASE WHEN pg_is_in_recovery() THEN '0/0' ELSE pg_current_wal_flush_lsn()::text END,
	(SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep')::text, pg_is_in_recovery()::text
  FROM (SELECT 1) one LEFT JOIN LATERAL (SELECT * FROM pg_stat_replication WHERE application_name = $1 ORDER BY flush_lsn DESC NULLS LAST LIMIT 1) w ON true`

// synchronous asks what the server waits for.
func (c *controlConn) synchronous(ctx context.Context, store string) (s syncRow, err error) {
	rows, err := c.query(ctx, syncQuery, receiverApplication(store))
	if err == nil && len(rows) != 1 {
		err = errors.New("no answer")
	}
	if err != nil {
		return s, wrapDoing(err, "ask whom the server waits for")
	}
	row := rows[0]
	s = syncRow{names: row[0], fixed: row[1] == "true", commit: row[2], override: row[3], state: row[4], standby: row[5], recovery: row[9] == "true"}
	var errs [3]error
	s.flush, errs[0] = relight.ParseLSN(row[6])
	s.end, errs[1] = relight.ParseLSN(row[7])
	_, errs[2] = fmt.Sscan(row[8], &s.waiting)
	return s, errors.Join(errs[:]...)
}

// ours tells whether the server waits for the receiver of store and for nobody else.
func (s syncRow) ours(store string) bool {
	one := strings.TrimSpace(s.names)
	return one == standbyNames(store) || strings.EqualFold(one, receiverApplication(store))
}

// waitsFor tells whether commits wait for the receiver, by whosever list.
func (s syncRow) waitsFor() bool { return s.standby == "sync" || s.standby == "quorum" }

// unfit names what the server must not be set to.
func (s Synchronous) unfit(store string, row syncRow) string {
	switch foreign := row.names != "" && !row.ours(store); {
	case row.recovery:
		return "the server is a standby: synchronous mode needs the primary"
	case row.commit == "remote_apply":
		return "synchronous_commit is remote_apply: relight never applies, so commits would hang; set it to on"
	case row.override != "":
		return "synchronous_commit is remote_apply for role/database " + row.override + ": relight never applies, so their commits would hang; set it to on"
	case row.commit == "off" || row.commit == "local":
		return "synchronous_commit is " + row.commit + ": commits do not wait for relight; set it to on"
	case row.fixed && row.names == "":
		return "synchronous_standby_names is empty on the server's command line, where relight cannot change it; leave it out there"
	case s.Degrade && (foreign || row.fixed):
		return fmt.Sprintf("synchronous_standby_names is %s, which relight does not change, so it could not degrade: empty it, or use when_receiver_dies: block", row.names)
	case foreign && row.standby == "quorum":
		return fmt.Sprintf("synchronous_standby_names is %s: others can acknowledge in relight's place; list it under FIRST, before them", row.names)
	case foreign && !row.waitsFor():
		return fmt.Sprintf("synchronous_standby_names is %s, which relight does not change: put %s in first place", row.names, standbyNames(store))
	}
	return ""
}

// arm makes the server wait for the receiver of store. Sessions notice when they read their settings anew, which is at their next statement.
func (c *controlConn) arm(ctx context.Context, store string) error {
	if _, err := c.query(ctx, `ALTER SYSTEM SET synchronous_standby_names = `+literal(standbyNames(store))); err != nil {
		return wrapDoing(err, "make the server wait for relight")
	}
	return c.reload(ctx)
}

// release makes the server wait for nobody, where it waits for the receiver of store alone; released tells whether it did. A list that others
// wrote is never touched.
func (c *controlConn) release(ctx context.Context, store string) (released bool, err error) {
	for _, how := range []string{`ALTER SYSTEM RESET synchronous_standby_names`, `ALTER SYSTEM SET synchronous_standby_names = ''`} {
		s, err := c.synchronous(ctx, store)
		if err != nil || !s.ours(store) || s.fixed {
			return released, err
		}
		if _, err := c.query(ctx, how); err != nil {
			return released, wrapDoing(err, "make the server wait for nobody")
		}
		if err := c.reload(ctx); err != nil {
			return released, err
		}
		released = true
		// The server's own file may name the receiver too; then taking ours back is not enough. Reading settings anew takes it a moment.
		for range 40 {
			if s, err = c.synchronous(ctx, store); err != nil || !s.ours(store) {
				return released, err
			}
			if err := sleepFor(ctx, 50*time.Millisecond); err != nil {
				return released, err
			}
		}
	}
	return released, nil
}

func (c *controlConn) reload(ctx context.Context) error {
	_, err := c.query(ctx, `SELECT pg_reload_conf()`)
	return wrapDoing(err, "let the server read its settings")
}

func literal(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// releaseLine is what an operator types to let waiting commits go.
const releaseLine = "ALTER SYSTEM SET synchronous_standby_names = ''; SELECT pg_reload_conf();"
