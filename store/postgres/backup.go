package postgres

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/repo"
	"github.com/toolboxai/relight/store"
)

// Backup takes a base backup through w and commits it: an incremental one when w has a parent, which FindParent finds. It returns once
// the backup and the WAL that makes it consistent are durable in w's repository. On an error the snapshot is abandoned.
func (s *Store) Backup(ctx context.Context, w *repo.Writer, o store.BackupOptions) (relight.Snapshot, error) {
	if p := w.Parent(); o.Parent != "" && (p == nil || p.ID != o.Parent) {
		return relight.Snapshot{}, s.fail("back up", relight.CodeUsage, "begin the snapshot with its parent", "snapshot %s is not the parent of the snapshot that was begun", o.Parent)
	}
	b := &backup{s: s, w: w, o: o}
	snap, err := b.run(ctx)
	if err != nil {
		b.abandon(ctx)
		return relight.Snapshot{}, fmt.Errorf("back up store %s: %w", s.c.Name, err)
	}
	return snap, nil
}

// backup is one backup under way.
type backup struct {
	s       *Store
	w       *repo.Writer
	o       store.BackupOptions
	conn    *pgx.Conn // holds the backup open
	side    *sideConn // asks for the end of WAL meanwhile
	facts   Facts
	label   string
	spcmap  string
	root    string
	copied  *copier
	old     *ancestor // nil for a full backup
	started time.Time
}

func (b *backup) run(ctx context.Context) (relight.Snapshot, error) {
	var none relight.Snapshot
	conn, err := b.s.connect(ctx, "back up")
	if err != nil {
		return none, err
	}
	defer closeConn(ctx, conn) // also ends an unfinished backup on the server
	b.conn = conn
	if err := b.prepare(ctx); err != nil {
		return none, err
	}
	b.side = &sideConn{conn: b.s.c.Conn}
	defer b.side.close(ctx)
	if err := b.start(ctx); err != nil {
		return none, err
	}
	if err := b.identify(ctx); err != nil {
		return none, err
	}
	if err := b.copyFiles(ctx); err != nil {
		return none, err
	}
	if err := b.stop(ctx); err != nil {
		return none, err
	}
	if err := b.addServerFiles(ctx); err != nil {
		return none, err
	}
	if err := b.judgeDamage(); err != nil {
		return none, err
	}
	if err := b.waitDurable(ctx); err != nil {
		return none, err
	}
	return b.commit(ctx)
}

// prepare reads the facts and makes sure that the directory at hand is this server's.
func (b *backup) prepare(ctx context.Context) error {
	f, err := b.s.readFacts(ctx, b.conn)
	if err != nil {
		return err
	}
	if f.Settings.WALLevel == "minimal" {
		return b.s.fail("back up", relight.CodeUsage, "set wal_level = replica and restart the server", "wal_level is minimal: nothing could be recovered from such WAL")
	}
	b.root = b.s.c.DataDir
	if b.root == "" {
		b.root = f.DataDir
	}
	info, err := os.Stat(b.root)
	if err != nil {
		return b.unreadable(err)
	}
	f.DirMode, f.DataDir = info.Mode().Perm(), b.root
	c, err := b.readControl(ctx)
	if err != nil {
		return b.unreadable(err)
	}
	here, err := parseControl(c)
	if err != nil {
		return fmt.Errorf("read %s: %w", filepath.Join(b.root, controlName), err)
	}
	if here.System != f.System {
		return b.s.fail("back up", relight.CodeUsage, "correct the store's connection or its data directory",
			"%s belongs to cluster %s, and the connection leads to cluster %s", b.root, here.System, f.System)
	}
	b.facts = f
	return nil
}

func (b *backup) unreadable(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return b.s.fail("back up", relight.CodeUsage, "run relight as root or as the owner of the data directory", "read the data directory: %w", err)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return b.s.fail("back up", relight.CodeUsage, "relight must run on the server's host, with data_directory naming its directory", "read the data directory: %w", err)
	}
	return fmt.Errorf("read the data directory: %w", err)
}

// start opens the backup on the server. Everything until stop happens while this session lives.
func (b *backup) start(ctx context.Context) error {
	label := "relight " + b.s.c.Name
	var lsn string
	err := b.conn.QueryRow(ctx, `select pg_backup_start($1, true)::text, clock_timestamp()`, label).Scan(&lsn, &b.facts.StartTime)
	if err != nil {
		return b.s.fail("start the backup of", relight.CodeFailed, "the connection needs the right to execute pg_backup_start and pg_backup_stop", "%w", err)
	}
	b.facts.StartTime = b.facts.StartTime.UTC()
	b.facts.StartLSN, err = relight.ParseLSN(lsn)
	b.started = b.facts.StartTime
	b.s.log.Info("base backup started", "start", lsn, "directory", b.root)
	return err
}

// identify keeps what a later incremental backup must know, and judges this one's parent by it.
func (b *backup) identify(ctx context.Context) error {
	l, tl, err := b.s.readLineage(ctx, b.conn, b.root)
	if err != nil {
		return err
	}
	b.facts.Lineage, b.facts.Timeline = &l, tl
	man := b.w.Parent()
	if man == nil {
		return nil
	}
	p, err := FactsOf(man.Snapshot)
	if err != nil {
		return err
	}
	if why := parentFault(p, b.facts); why != "" {
		return b.s.fail("back up", relight.CodeFailed, "take the backup again with another parent, or a full one", "snapshot %s cannot be its parent: %s", man.ID, why)
	}
	b.old = &ancestor{start: p.StartLSN, first: relight.LSN(b.facts.SegmentSize), databases: sameDatabases(p, b.facts)}
	return nil
}

// stop ends the backup on the server and learns where it is consistent.
func (b *backup) stop(ctx context.Context) error {
	var lsn string
	err := b.conn.QueryRow(ctx, `select lsn::text, labelfile, spcmapfile from pg_backup_stop(wait_for_archive => false)`).Scan(&lsn, &b.label, &b.spcmap)
	if err != nil {
		return b.s.fail("stop the backup of", relight.CodeFailed, "take the backup again; a standby that was promoted meanwhile invalidates it", "%w", err)
	}
	if b.facts.StopLSN, err = relight.ParseLSN(lsn); err != nil {
		return err
	}
	var standby bool
	if err := b.conn.QueryRow(ctx, `select clock_timestamp(), pg_is_in_recovery()`).Scan(&b.facts.StopTime, &standby); err != nil {
		return fmt.Errorf("ask the server for its clock: %w", err)
	}
	b.facts.StopTime = b.facts.StopTime.UTC()
	if standby != b.facts.FromStandby {
		return b.s.fail("back up", relight.CodeFailed, "take the backup again", "the standby was promoted during the backup")
	}
	if err := b.sameTimeline(ctx); err != nil {
		return err
	}
	l, err := parseLabel(b.label)
	if err != nil {
		return err
	}
	if l.timeline != b.facts.Timeline || l.start != b.facts.StartLSN {
		return b.s.fail("back up", relight.CodeFailed, "take the backup again", "the server says at its end that it began at %s of timeline %d, and said %s of timeline %d then",
			l.start, l.timeline, b.facts.StartLSN, b.facts.Timeline)
	}
	b.facts.Label = labelDigest(b.label)
	return nil
}

// sameTimeline: a standby goes over to another timeline when its primary is replaced, and WAL from start to stop then lies on two.
func (b *backup) sameTimeline(ctx context.Context) error {
	if !b.facts.FromStandby {
		return nil
	}
	var end relight.TimelineID
	if err := b.conn.QueryRow(ctx, `select min_recovery_end_timeline from pg_control_recovery()`).Scan(&end); err != nil {
		return fmt.Errorf("ask the standby for its timeline: %w", err)
	}
	if end > b.facts.Timeline {
		return b.s.fail("back up", relight.CodeFailed, "take the backup again, once the standby has made a restart point on its new timeline",
			"the standby went from timeline %d to %d during the backup", b.facts.Timeline, end)
	}
	return nil
}

// backupLabel is what matters of a backup_label.
type backupLabel struct {
	start    relight.LSN
	timeline relight.TimelineID
}

func parseLabel(text string) (backupLabel, error) {
	var l backupLabel
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		switch key {
		case "START WAL LOCATION":
			at, _, _ := strings.Cut(value, " ")
			lsn, err := relight.ParseLSN(at)
			if err != nil {
				return l, fmt.Errorf("backup label: %w", err)
			}
			l.start = lsn
		case "START TIMELINE":
			n, err := strconv.ParseUint(value, 10, 32)
			if err != nil {
				return l, fmt.Errorf("backup label: timeline %q", value)
			}
			l.timeline = relight.TimelineID(n)
		}
	}
	if l.start == 0 || l.timeline == 0 {
		return l, errors.New("backup label names no start position or timeline")
	}
	return l, nil
}

// readControl reads pg_control until its checksum is right: the server may be writing it.
func (b *backup) readControl(ctx context.Context) ([]byte, error) {
	path := filepath.Join(b.root, controlName)
	return readSettledControl(ctx, func() ([]byte, error) { return os.ReadFile(path) }, b.s.d.Sleep)
}

func readSettledControl(ctx context.Context, read func() ([]byte, error), sleep func(context.Context, time.Duration) error) ([]byte, error) {
	for try := 0; ; try++ {
		c, err := read()
		if err != nil {
			return nil, err
		}
		if _, err = parseControl(c); err == nil {
			return c, nil
		}
		if !errors.Is(err, errControlCRC) || try == 50 {
			return nil, err
		}
		if err := sleep(ctx, 20*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

// copyFiles keeps everything but pg_control, and then pg_control.
func (b *backup) copyFiles(ctx context.Context) error {
	rules := pageRules{
		block: b.facts.BlockSize, segment: b.facts.RelSegment, checksum: b.facts.Checksums,
		start: b.facts.StartLSN, end: b.side.endOfWAL, sleep: b.s.d.Sleep,
	}
	b.copied = newCopier(b.w, rules, b.o.Progress, b.totalBytes(ctx))
	b.copied.old = b.old
	walk := &scan{root: b.root, log: b.s.log, major: b.facts.Major(), catalog: b.facts.Catalog}
	if err := b.copied.run(ctx, workers(b.o.Workers), walk); err != nil {
		return b.unreadable(err)
	}
	b.facts.WALDir, b.facts.Vanished = walk.walLink, walk.vanished+b.copied.vanished
	path := filepath.Join(b.root, controlName)
	info, err := os.Stat(path)
	if err != nil {
		return b.unreadable(err)
	}
	c, err := b.readControl(ctx)
	if err != nil {
		return b.unreadable(err)
	}
	e := entryOf(controlName, info)
	return b.copied.keep(ctx, e, bytes.NewReader(c))
}

// totalBytes is an estimate for the progress; 0 when the server does not tell.
func (b *backup) totalBytes(ctx context.Context) int64 {
	var n int64
	if err := b.conn.QueryRow(ctx, `select coalesce(sum(pg_tablespace_size(oid)), 0)::int8 from pg_tablespace`).Scan(&n); err != nil {
		b.s.log.Debug("size of the cluster is unknown", "error", err)
		return 0
	}
	return n
}

// addServerFiles keeps what the server returned at stop, byte for byte, and its configuration outside the directory.
func (b *backup) addServerFiles(ctx context.Context) error {
	info, err := os.Stat(filepath.Join(b.root, "PG_VERSION"))
	if err != nil {
		return b.unreadable(err)
	}
	for name, text := range map[string]string{labelName: b.label, mapName: b.spcmap} {
		if text == "" {
			continue
		}
		e := entryOf(name, info)
		e.ModTime = b.facts.StopTime
		if err := b.copied.keep(ctx, e, strings.NewReader(text)); err != nil {
			return err
		}
	}
	return b.addConfigs(ctx)
}

// judgeDamage fails the backup for damaged pages.
func (b *backup) judgeDamage() error {
	hurt := b.copied.damage()
	if len(hurt) == 0 {
		return nil
	}
	for _, d := range hurt {
		b.s.log.Error("damaged page", "path", d.Path, "block", d.Block, "why", d.Why)
	}
	return b.s.fail("back up", relight.CodeVerification,
		"recover with `relight run start database-corruption`, or rebuild what is damaged (REINDEX, or a table from a restore beside) and back up again; snapshots and log that are there stay good",
		"%d damaged pages, first %s", b.copied.hurtPages(), hurt[0])
}

// waitDurable waits until the WAL from start to stop is in the repository: without it the files are no backup.
func (b *backup) waitDurable(ctx context.Context) error {
	k := repo.WALKey{Store: b.s.c.Name, System: b.facts.System, Timeline: b.facts.Timeline}
	durable := b.s.d.Durable
	if durable == nil {
		durable = b.w.Meta().Sink(b.s.c.Name).Durable
	}
	deadline := b.s.now().Add(b.s.c.DurableWait)
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		end, err := durable(ctx, k, b.facts.StartLSN)
		if err != nil {
			return fmt.Errorf("ask the repository for its WAL: %w", err)
		}
		if end >= b.facts.StopLSN {
			return nil
		}
		if !b.s.now().Before(deadline) {
			return b.s.fail("back up", relight.CodeFailed, "is `relight serve` running? it must stream WAL into this repository",
				"the WAL of the backup (%s to %s) is not durable in the repository after %s; it holds it up to %s", b.facts.StartLSN, b.facts.StopLSN, b.s.c.DurableWait, end)
		}
		if err := b.s.d.Sleep(ctx, pause); err != nil {
			return err
		}
	}
}

func (b *backup) commit(ctx context.Context) (relight.Snapshot, error) {
	facts, err := json.Marshal(b.facts)
	if err != nil {
		return relight.Snapshot{}, err
	}
	kind := "full"
	if b.old != nil {
		kind = "incremental"
	}
	snap, err := b.w.Commit(ctx, relight.Snapshot{
		Store: b.s.c.Name, Kind: kind, State: relight.Complete, Started: b.started, Finished: b.facts.StopTime, Facts: facts, Read: b.copied.read(),
	})
	if err != nil {
		return snap, err
	}
	b.s.log.Info("base backup is complete", "snapshot", snap.ID, "kind", snap.Kind, "stop", b.facts.StopLSN.String(), "files", snap.Files, "bytes", snap.Size)
	return snap, nil
}

func (b *backup) abandon(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	b.w.Abort(ctx)
}

// entryOf describes a file for the snapshot.
func entryOf(path string, info fs.FileInfo) repo.Entry {
	e := repo.Entry{Path: path, Mode: info.Mode(), ModTime: info.ModTime().UTC()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		e.UID, e.GID = int(st.Uid), int(st.Gid)
	}
	return e
}
