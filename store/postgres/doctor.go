package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/host"
	"github.com/toolboxai/relight/repo"
)

// DoctorOptions of a Doctor.
type DoctorOptions struct {
	Meta      *repo.Meta // the repository to be used; nil: its part is skipped
	KeyTested time.Time  // when the offline key last opened; zero: never
	Slot      string     // replication slot of the receiver; "": the default
}

// Doctor finds out, before protection starts, whether it can work. It changes nothing.
func (s *Store) Doctor(ctx context.Context, o DoctorOptions) []relight.Check {
	d := &doctor{s: s, o: o}
	conn, err := s.connect(ctx, "examine")
	d.note("connection", err, "")
	if err == nil {
		defer closeConn(ctx, conn)
		d.server(ctx, conn)
	}
	d.disk()
	d.key()
	d.repository(ctx)
	return d.out
}

type doctor struct {
	s       *Store
	o       DoctorOptions
	facts   Facts
	dataDir string
	out     []relight.Check
}

func (d *doctor) say(name string, v relight.Verdict, format string, args ...any) {
	d.out = append(d.out, relight.Check{Name: name, Verdict: v, Detail: fmt.Sprintf(format, args...)})
}

// note turns an error into a failed check; the hint becomes part of it.
func (d *doctor) note(name string, err error, good string) {
	if err == nil {
		d.say(name, relight.Passed, "%s", good)
		return
	}
	d.say(name, relight.Failed, "%s", relight.Told(err))
}

func (d *doctor) server(ctx context.Context, conn *pgx.Conn) {
	f, err := d.s.readFacts(ctx, conn)
	if err != nil {
		d.note("server", err, "")
		return
	}
	d.facts, d.dataDir = f, f.DataDir
	d.version()
	d.settings(ctx, conn)
	d.privileges(ctx, conn)
	d.clock(ctx, conn)
	d.binaries()
	d.dataDirectory()
	if !f.Checksums {
		d.say("page checksums", relight.Failed, "are off: damage on disk is not noticed; stop the server and run pg_checksums --enable")
	} else {
		d.say("page checksums", relight.Passed, "on")
	}
	d.collations(ctx)
	d.synchronous(ctx, conn)
	for _, peer := range d.s.c.Peers {
		d.standing(ctx, peer)
	}
}

// standing looks whether another server of the cluster could take over without losing WAL.
func (d *doctor) standing(ctx context.Context, peer string) {
	name := "standing slot on " + serverLabel(peer)
	ctx, cancel := context.WithTimeout(ctx, 2*lookTimeout)
	defer cancel()
	c, err := dialControl(ctx, peer, "relight_look")
	if err != nil {
		d.note(name, err, "")
		return
	}
	defer c.close(context.WithoutCancel(ctx))
	m, err := c.member(ctx)
	if err != nil {
		d.note(name, err, "")
		return
	}
	slot, err := c.slot(ctx, d.slotName())
	switch {
	case err != nil:
		d.note(name, err, "")
	case m.system != d.facts.System:
		d.say(name, relight.Failed, "the server belongs to cluster %s, not %s: correct peers in relight.yaml", m.system, d.facts.System)
	case !slot.exists:
		d.say(name, relight.Failed, "there is no slot %s: a promotion now could lose WAL; `relight serve` makes it", d.slotName())
	case slot.status == "lost":
		d.say(name, relight.Failed, "%s is lost: `relight serve` makes it anew", d.slotName())
	default:
		d.say(name, relight.Passed, "%s retains WAL from %s", d.slotName(), slot.restart)
	}
}

func (d *doctor) slotName() string {
	if d.o.Slot != "" {
		return d.o.Slot
	}
	return slotOf(d.s.c.Name)
}

// synchronous asks whom commits wait for, and holds it against what was asked for.
func (d *doctor) synchronous(ctx context.Context, conn *pgx.Conn) {
	const name = "synchronous mode"
	s, err := (&controlConn{pg: conn.PgConn()}).synchronous(ctx, d.s.c.Name)
	y := d.s.c.Synchronous
	switch {
	case err != nil:
		d.note(name, err, "")
	case y == nil && (s.waitsFor() || s.ours(d.s.c.Name)):
		d.say(name, relight.Failed, "the server's commits wait for relight (synchronous_standby_names is %s), and relight.yaml does not say so: add synchronous:, or type %s", s.names, releaseLine)
	case y == nil:
	case y.CheckSpool(d.s.c.Name, d.dataDir, d.s.c.Spool) != nil:
		d.note(name, y.CheckSpool(d.s.c.Name, d.dataDir, d.s.c.Spool), "")
	case y.unfit(d.s.c.Name, s) != "":
		d.say(name, relight.Failed, "%s", y.unfit(d.s.c.Name, s))
	case s.waitsFor():
		d.say(name, relight.Passed, "commits wait for relight: %s", y)
	case s.ours(d.s.c.Name):
		d.say(name, relight.Failed, "commits wait (%d now), and no receiver answers: `relight protect start`; or let them go: `relight postgres release`", s.waiting)
	case s.state != "":
		d.say(name, relight.Failed, "commits do not wait although relight streams: the receiver is behind, or commits were released; `relight status` says which")
	default:
		d.say(name, relight.Passed, "ready: %s; commits wait once `relight serve` has caught up", y)
	}
}

func (d *doctor) version() {
	switch m := d.facts.Major(); m {
	case 15, 17:
		d.say("server version", relight.Passed, "%d, tested", m)
	default:
		d.say("server version", relight.Unknown, "%d is not tested with this version of relight; 15 and 17 are", m)
	}
}

func (d *doctor) settings(ctx context.Context, conn *pgx.Conn) {
	s := d.facts.Settings
	if s.WALLevel == "minimal" {
		d.say("wal_level", relight.Failed, "minimal: set it to replica and restart the server")
	} else {
		d.say("wal_level", relight.Passed, "%s", s.WALLevel)
	}
	var senders, slots, maxSlots int
	var own bool
	err := conn.QueryRow(ctx, `
		select (select count(*) from pg_stat_replication)::int, (select count(*) from pg_replication_slots)::int, current_setting('max_replication_slots')::int,
		       exists (select from pg_replication_slots where slot_name = $1)`, d.slotName()).Scan(&senders, &slots, &maxSlots, &own)
	if err != nil {
		d.note("replication slots", err, "")
		return
	}
	d.enough("replication slots", maxSlots-slots, own, "max_replication_slots")
	d.enough("WAL senders", s.MaxWALSenders-senders, own, "max_wal_senders")
	d.fullPageWrites(ctx, conn)
	d.slotBound(ctx, conn)
}

// slotBound holds the server's own bound of what a slot retains against relight's.
func (d *doctor) slotBound(ctx context.Context, conn *pgx.Conn) {
	const name = "slot bound"
	var keep int64
	if err := conn.QueryRow(ctx, `select setting::int8 from pg_settings where name = 'max_slot_wal_keep_size'`).Scan(&keep); err != nil {
		d.note(name, err, "")
		return
	}
	b := d.s.c.Bound.withDefaults()
	limit := b.Limit >> 20
	switch {
	case b.Hold && keep < 0:
		d.say(name, relight.Unknown, "nothing bounds what %s retains (max_slot_wal_keep_size is -1, slot: {when_full: hold}): when repositories are away for long, the disk fills and the server stops", d.slotName())
	case b.Hold:
		d.say(name, relight.Failed, "what %s retains is to be held, and the server gives it up at %d MB: set max_slot_wal_keep_size = -1, or slot: {when_full: release}", d.slotName(), keep)
	case keep >= 0 && keep < limit:
		d.say(name, relight.Failed, "the server gives %s up at %d MB, before relight releases it at %d MB: raise max_slot_wal_keep_size, or lower slot: {limit}", d.slotName(), keep, limit)
	default:
		d.say(name, relight.Passed, "%s is released when it retains %d MB, or earlier to keep %d MB free", d.slotName(), limit, b.KeepFree>>20)
	}
}

func (d *doctor) enough(name string, free int, own bool, setting string) {
	switch {
	case free > 0:
		d.say(name, relight.Passed, "%d free", free)
	case own:
		d.say(name, relight.Passed, "none free, and relight has its own")
	default:
		d.say(name, relight.Failed, "none free: raise %s and restart the server", setting)
	}
}

func (d *doctor) fullPageWrites(ctx context.Context, conn *pgx.Conn) {
	var fpw, fsync string
	if err := conn.QueryRow(ctx, `select current_setting('full_page_writes'), current_setting('fsync')`).Scan(&fpw, &fsync); err != nil {
		d.note("durability", err, "")
		return
	}
	if fpw != "on" || fsync != "on" {
		d.say("durability", relight.Failed, "fsync is %s and full_page_writes %s: a power cut can ruin the server", fsync, fpw)
		return
	}
	d.say("durability", relight.Passed, "fsync and full_page_writes are on")
}

func (d *doctor) privileges(ctx context.Context, conn *pgx.Conn) {
	var super, repl, start, stop, advance bool
	var user string
	err := conn.QueryRow(ctx, `
		select current_user::text, rolsuper, rolreplication, has_function_privilege('pg_backup_start(text, bool)', 'execute'),
		       has_function_privilege('pg_backup_stop(bool)', 'execute'), has_function_privilege('pg_replication_slot_advance(name, pg_lsn)', 'execute')
		  from pg_roles where rolname = current_user`).Scan(&user, &super, &repl, &start, &stop, &advance)
	if err != nil {
		d.note("privileges", err, "")
		return
	}
	var lacks []string
	if !super && !repl {
		lacks = append(lacks, "REPLICATION")
	}
	for name, has := range map[string]bool{"pg_backup_start": start, "pg_backup_stop": stop, "pg_replication_slot_advance": advance} {
		if !has {
			lacks = append(lacks, "execute on "+name)
		}
	}
	if len(lacks) > 0 {
		d.say("privileges", relight.Failed, "role %s lacks %s", user, strings.Join(lacks, ", "))
		return
	}
	d.say("privileges", relight.Passed, "role %s", user)
}

// clockTolerance is how far the server's clock may be off before measured times mislead.
const clockTolerance = 2 * time.Second

func (d *doctor) clock(ctx context.Context, conn *pgx.Conn) {
	var there time.Time
	before := d.s.now()
	if err := conn.QueryRow(ctx, `select clock_timestamp()`).Scan(&there); err != nil {
		d.note("clock", err, "")
		return
	}
	after := d.s.now()
	off := there.Sub(before.Add(after.Sub(before) / 2))
	if off.Abs() > clockTolerance+after.Sub(before) {
		d.say("clock", relight.Failed, "the server's clock is %s away from this host's; synchronise them", off.Round(time.Millisecond))
		return
	}
	d.say("clock", relight.Passed, "%s away from this host's", off.Round(time.Millisecond))
}

func (d *doctor) binaries() {
	dir, err := FindBinaries(d.s.c.BinDir, d.facts.Major())
	d.note("server binaries", err, dir)
}

func (d *doctor) dataDirectory() {
	if d.s.c.DataDir != "" {
		d.dataDir = d.s.c.DataDir
	}
	c, err := readControl(d.dataDir)
	switch {
	case errors.Is(err, os.ErrPermission):
		d.say("data directory", relight.Failed, "%s cannot be read: run relight as root or as its owner", d.dataDir)
	case err != nil:
		d.say("data directory", relight.Failed, "%v", err)
	case c.System != d.facts.System:
		d.say("data directory", relight.Failed, "%s belongs to cluster %s, the connection leads to cluster %s", d.dataDir, c.System, d.facts.System)
	default:
		d.say("data directory", relight.Passed, "%s, cluster %s, WAL segments of %d MB", d.dataDir, c.System, d.facts.SegmentSize>>20)
	}
}

// collations asks in every database, as a collation with a name is on record only there.
func (d *doctor) collations(ctx context.Context) {
	stale, err := d.s.Stale(ctx)
	if err != nil {
		d.note("collations", err, "")
		return
	}
	if len(stale) == 0 {
		d.say("collations", relight.Passed, "%d databases", len(d.facts.Databases))
		return
	}
	const shown = 5
	var names []string
	for _, c := range stale[:min(shown, len(stale))] {
		names = append(names, c.Database+": "+c.String())
	}
	if more := len(stale) - shown; more > 0 {
		names = append(names, fmt.Sprintf("and %d more", more))
	}
	d.say("collations", relight.Failed, "text indexes may be wrong, and `relight postgres reindex` rebuilds them: %s", strings.Join(names, ", "))
}

// spoolRoom is the least free space for the receiver's spool.
const spoolRoom = 1 << 30

func (d *doctor) disk() {
	if d.s.c.Spool == "" {
		d.say("spool", relight.Skipped, "none is configured")
		return
	}
	free, err := host.FreeSpace(filepath.Dir(d.s.c.Spool))
	if err == nil && free < spoolRoom {
		err = fmt.Errorf("%d MB are free at %s, and 1024 MB are the least", free>>20, d.s.c.Spool)
	}
	d.note("spool", err, fmt.Sprintf("%d MB free", free>>20))
}

func (d *doctor) key() {
	if d.o.KeyTested.IsZero() {
		d.say("recovery key", relight.Failed, "was never tested: run `relight repo key-test` with the offline key")
		return
	}
	d.say("recovery key", relight.Passed, "opened at %s", d.o.KeyTested.UTC().Format(time.RFC3339))
}

// repository makes sure that what the repository holds is of this cluster.
func (d *doctor) repository(ctx context.Context) {
	if d.o.Meta == nil {
		d.say("repository", relight.Skipped, "none was opened")
		return
	}
	a, err := loadArchive(ctx, d.o.Meta, d.s.c.Name)
	if err != nil {
		d.note("repository", err, "")
		return
	}
	if other := a.newestSystem(); other != 0 && d.facts.System != 0 && other != d.facts.System {
		d.say("repository", relight.Failed, "holds cluster %s under this store's name, and the server is cluster %s: give the store another name", other, d.facts.System)
		return
	}
	d.say("repository", relight.Passed, "%d base backups", len(a.bases))
}
