package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/toolboxai/relight"
)

// member is what one server of a cluster says of itself.
type member struct {
	system   relight.SystemID
	timeline relight.TimelineID
	recovery bool        // a standby
	replayed relight.LSN // of a standby
}

const memberQuery = `SELECT s.system_identifier::text, pg_is_in_recovery()::text,
	CASE WHEN pg_is_in_recovery() THEN greatest(c.timeline_id, r.min_recovery_end_timeline)::text
	ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int8::text END,
	coalesce(pg_last_wal_replay_lsn()::text, '0/0')
  FROM pg_control_system() s, pg_control_checkpoint() c, pg_control_recovery() r`

func (c *controlConn) member(ctx context.Context) (m member, err error) {
	rows, err := c.query(ctx, memberQuery)
	if err == nil && len(rows) != 1 {
		err = errors.New("no answer")
	}
	if err != nil {
		return m, wrapDoing(err, "ask the server what it is")
	}
	system, err := strconv.ParseUint(rows[0][0], 10, 64)
	if err != nil {
		return m, wrapDoing(err, "ask the server what it is")
	}
	line, err := strconv.ParseUint(rows[0][2], 10, 32)
	if err != nil {
		return m, wrapDoing(err, "ask the server what it is")
	}
	m = member{system: relight.SystemID(system), recovery: rows[0][1] == "true", timeline: relight.TimelineID(line)}
	m.replayed, err = relight.ParseLSN(rows[0][3])
	return m, err
}

// serverLabel names a server without its secrets.
func serverLabel(conn string) string {
	cfg, err := pgconn.ParseConfig(conn)
	if err != nil {
		return "?"
	}
	return net.JoinHostPort(strings.Trim(cfg.Host, "[]"), strconv.Itoa(int(cfg.Port)))
}

// lookTimeout bounds what one server that does not answer costs.
const lookTimeout = 5 * time.Second

func askMember(ctx context.Context, conn string) (m member, err error) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	c, err := dialControl(ctx, conn, "relight_look")
	if err != nil {
		return m, err
	}
	defer c.close(context.WithoutCancel(ctx))
	return c.member(ctx)
}

// Lead finds the server of a cluster to follow: the primary on the newest timeline, and while none answers the first standby that does. One
// connection alone is taken as it is.
func Lead(ctx context.Context, conns []string) (string, error) {
	if len(conns) == 1 {
		return conns[0], nil
	}
	var best string
	var found member
	var errs []error
	for _, conn := range conns {
		m, err := askMember(ctx, conn)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("%s: %w", serverLabel(conn), err))
		case best == "", m.leads(found):
			best, found = conn, m
		}
	}
	if best == "" {
		return "", errors.Join(errs...)
	}
	return best, nil
}

// leads tells whether m is to be followed rather than o.
func (m member) leads(o member) bool {
	if m.recovery || m.system != o.system {
		return false
	}
	return o.recovery || m.timeline > o.timeline
}

// standing keeps a slot on every other server of the cluster, at what the repositories hold: a server that is promoted then still has the WAL
// that comes after. PostgreSQL does not copy slots to standbys. It returns an error when another server has become the one to follow.
func (r *Receiver) standing(ctx context.Context, here string) error {
	every := max(5*r.o.LiveInterval, 250*time.Millisecond)
	for {
		for _, conn := range r.servers() {
			if conn == here {
				continue
			}
			source := "standing slot on " + serverLabel(conn)
			fault, err := r.stand(ctx, conn)
			var moved errMoved
			switch {
			case ctx.Err() != nil:
				return nil
			case errors.As(err, &moved):
				return err
			case err != nil:
				r.trouble(source, err.Error(), r.o.AlarmAfter)
			case fault != "":
				r.trouble(source, fault, 0)
			default:
				r.well(source)
			}
		}
		if sleepFor(ctx, every) != nil {
			return nil
		}
	}
}

// errMoved says that another server is to be followed.
type errMoved struct{ error }

// stand looks after the slot on one other server.
func (r *Receiver) stand(ctx context.Context, conn string) (fault string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 4*lookTimeout)
	defer cancel()
	c, err := dialControl(ctx, conn, "relight_control")
	if err != nil {
		return "", err
	}
	defer c.close(context.WithoutCancel(ctx))
	m, err := c.member(ctx)
	if err != nil {
		return "", err
	}
	r.mu.Lock()
	ours := r.member
	r.mu.Unlock()
	switch {
	case m.system != ours.system:
		return fmt.Sprintf("it belongs to cluster %s, not %s: correct peers in relight.yaml", m.system, ours.system), nil
	case m.leads(ours):
		return "", errMoved{fmt.Errorf("%s is the primary, on timeline %d", serverLabel(conn), m.timeline)}
	case !m.recovery:
		return fmt.Sprintf("it takes writes on timeline %d, beside the primary that is followed on timeline %d: stop it", m.timeline, ours.timeline), nil
	}
	return r.keepSlot(ctx, c, m)
}

// keepSlot makes and moves the slot of a standby.
func (r *Receiver) keepSlot(ctx context.Context, c *controlConn, m member) (fault string, err error) {
	slot, err := c.slot(ctx, r.o.Slot)
	if err != nil {
		return "", err
	}
	if slot.exists && slot.status == "lost" {
		if err := c.dropSlot(ctx, r.o.Slot); err != nil {
			return "", err
		}
		slot.exists = false
	}
	if !slot.exists {
		if _, err := c.query(ctx, `SELECT pg_create_physical_replication_slot($1, true)`, r.o.Slot); err != nil {
			return "", wrapDoing(err, "make slot %s", r.o.Slot)
		}
		if slot, err = c.slot(ctx, r.o.Slot); err != nil {
			return "", err
		}
	}
	least, ok := r.tape.forgettable()
	if !ok {
		return "", nil
	}
	if slot.restart > least { // made when the standby had already removed what a repository lacks
		return fmt.Sprintf("it begins at %s, and a repository holds WAL only up to %s: a promotion now would lose what lies between", slot.restart, least), nil
	}
	if over, err := r.o.Bound.at(false).excess(slot); err != nil || over.why != "" && !r.o.Bound.Hold {
		return "it is released: " + over.why + "; a promotion now would lose what the standby removes", errors.Join(err, c.advance(ctx, r.o.Slot, slot.end))
	}
	if to := min(least, m.replayed); to > slot.restart {
		return "", c.advance(ctx, r.o.Slot, to)
	}
	return "", nil
}

func (r *Receiver) servers() []string { return append([]string{r.o.Conn}, r.o.Peers...) }

// leader is the connection of the server that is followed.
func (r *Receiver) leader() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lead == "" {
		return r.o.Conn
	}
	return r.lead
}

// lookup chooses whom to follow and notes what it is.
func (r *Receiver) lookup(ctx context.Context) (string, error) {
	conn, err := Lead(ctx, r.servers())
	if err != nil {
		return "", fmt.Errorf("no server of the cluster answers: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lead != conn && r.lead != "" {
		r.log.Info("another server is followed", "server", serverLabel(conn))
	}
	r.lead = conn
	return conn, nil
}

// recognise notes what the followed server is, so that others can be held against it.
func (r *Receiver) recognise(ctx context.Context, c *controlConn) error {
	if len(r.o.Peers) == 0 {
		return nil // and a role that may not ask need not
	}
	m, err := c.member(ctx)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.member = m
	return nil
}
