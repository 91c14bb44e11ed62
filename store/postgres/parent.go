package postgres

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/repo"
	"github.com/toolboxai/relight/store/postgres/walfile"
)

// Lineage is what a later incremental backup needs to know to trust page positions: that the history it sees continues this one, and
// that a database of the same number is the same database.
type Lineage struct {
	NextXID   uint64            `json:"next_xid"`          // 64 bits: never wraps
	Databases map[uint32]uint32 `json:"databases"`         // by oid: the transaction that wrote the row of pg_database
	History   string            `json:"history,omitempty"` // of the timeline, as the server has it; "" for a first one
	Origin    string            `json:"origin,omitempty"`  // of the data directory: the digest of the base backup it was restored from, or madeByInitdb
}

// madeByInitdb is the origin of a directory that was restored from no base backup.
const madeByInitdb = "initdb"

// originOf reads what a server leaves of the label of the base backup that its directory was restored from, by whatever tool.
func originOf(root string) (string, error) {
	label, err := os.ReadFile(filepath.Join(root, labelName+".old"))
	if errors.Is(err, fs.ErrNotExist) {
		return madeByInitdb, nil
	}
	if err != nil {
		return "", fmt.Errorf("tell where the data directory comes from: %w", err)
	}
	return labelDigest(string(label)), nil
}

func labelDigest(label string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(label))) }

// maxXIDs is how many transactions may lie between two equal 32-bit transaction ids that mean the same transaction.
const maxXIDs = 1 << 31

// readLineage must be asked after the backup's start: a database that is copied over another afterwards is copied again by replay.
func (s *Store) readLineage(ctx context.Context, conn *pgx.Conn, root string) (l Lineage, tl relight.TimelineID, err error) {
	err = conn.QueryRow(ctx, `select pg_snapshot_xmax(pg_current_snapshot())::text::int8, timeline_id from pg_control_checkpoint()`).Scan(&l.NextXID, &tl)
	if err != nil {
		return l, tl, fmt.Errorf("ask for the server's history: %w", err)
	}
	rows, err := conn.Query(ctx, `select oid, xmin::text::int8 from pg_database`)
	if err != nil {
		return l, tl, fmt.Errorf("identify databases: %w", err)
	}
	if l.Origin, err = originOf(root); err != nil {
		return l, tl, err
	}
	l.Databases = map[uint32]uint32{}
	var oid uint32
	var xid int64
	if _, err := pgx.ForEachRow(rows, []any{&oid, &xid}, func() error { l.Databases[oid] = uint32(xid); return nil }); err != nil {
		return l, tl, fmt.Errorf("identify databases: %w", err)
	}
	if tl == 1 {
		return l, tl, nil
	}
	text, err := os.ReadFile(filepath.Join(root, walDir, fmt.Sprintf("%08X.history", uint32(tl))))
	if errors.Is(err, fs.ErrNotExist) { // no evidence: the next backup is a full one
		return l, tl, nil
	}
	l.History = string(text)
	return l, tl, err
}

// FindParent gives the newest snapshot that an incremental backup can take unchanged pages from; nil, and why, when there is
// none. Backup judges again: the server may change meanwhile.
func (s *Store) FindParent(ctx context.Context, m *repo.Meta) (*repo.Manifest, string, error) {
	conn, err := s.connect(ctx, "back up")
	if err != nil {
		return nil, "", err
	}
	defer closeConn(ctx, conn)
	now, err := s.readFacts(ctx, conn)
	if err != nil {
		return nil, "", err
	}
	root := s.c.DataDir
	if root == "" {
		root = now.DataDir
	}
	l, tl, err := s.readLineage(ctx, conn, root)
	if err != nil {
		return nil, "", err
	}
	now.Lineage, now.Timeline = &l, tl
	// The backup's start will not lie before this.
	var lsn string
	err = conn.QueryRow(ctx, `select case when pg_is_in_recovery() then redo_lsn else pg_current_wal_insert_lsn() end::text from pg_control_checkpoint()`).Scan(&lsn)
	if err != nil {
		return nil, "", fmt.Errorf("ask for the server's position: %w", err)
	}
	if now.StartLSN, err = relight.ParseLSN(lsn); err != nil {
		return nil, "", err
	}
	snaps, err := m.Snapshots(ctx, s.c.Name)
	if err != nil {
		return nil, "", fmt.Errorf("list the snapshots of store %s: %w", s.c.Name, err)
	}
	man, why := newestParent(snaps, now)
	return man, why, nil
}

func newestParent(snaps []repo.Manifest, now Facts) (*repo.Manifest, string) {
	first := ""
	for _, man := range slices.Backward(snaps) {
		if man.Kind == "restore-point" {
			continue
		}
		why := "what was read last of it is damaged"
		if f, err := FactsOf(man.Snapshot); err != nil {
			why = err.Error()
		} else if !man.Damaged {
			why = parentFault(f, now)
		}
		if why == "" {
			return &man, ""
		}
		if first == "" {
			first = fmt.Sprintf("snapshot %s cannot be its parent: %s", man.ID, why)
		}
	}
	if first == "" {
		first = "there is no snapshot yet"
	}
	return nil, first
}

// parentFault says why pages with positions below p's start may differ from p's copies of them; "" when they cannot.
func parentFault(p, now Facts) string {
	switch {
	case p.System != now.System:
		return fmt.Sprintf("it is of cluster %s, and the server is of cluster %s", p.System, now.System)
	case p.Catalog != now.Catalog || p.Architecture != now.Architecture:
		return "it is of another version or architecture"
	case p.BlockSize != now.BlockSize || p.RelSegment != now.RelSegment || p.SegmentSize != now.SegmentSize:
		return "its pages or segments have another size"
	case p.Checksums != now.Checksums:
		return "page checksums were switched on or off"
	case !now.Checksums: // nor does the server log hints then: vacuum marks a page all-visible, and its position stays
		return "the cluster has no page checksums, and without them a page can change under its old position"
	case p.Lineage == nil || now.Lineage == nil:
		return "it does not say which databases it holds"
	case now.Lineage.NextXID < p.Lineage.NextXID || now.Lineage.NextXID-p.Lineage.NextXID >= maxXIDs:
		return "the server's transaction counter does not continue its"
	}
	return cmp.Or(ancestryFault(p, now), originFault(p, now))
}

// originFault tells apart data directories of one cluster. A page that replay made anew, on a standby or after a recovery, has the position of the page it stands for, and not
// its bytes: hints that the one server set were written to no log. So a parent is a backup of this very directory, or the one that it was restored from.
func originFault(p, now Facts) string {
	switch here := now.Lineage.Origin; {
	case p.Lineage.Origin == "" || here == "":
		return "it does not say which data directory it is of"
	case here == p.Label:
		return ""
	case here != p.Lineage.Origin:
		return "it is of another data directory of the cluster, where equal positions are no proof of equal pages"
	case here == madeByInitdb && now.Timeline != p.Timeline: // a server that was promoted or recovered has an origin
		return "the server's directory does not say anymore what it was restored from"
	}
	return ""
}

// ancestryFault judges the timelines. The whole of p must lie before the history left p's timeline: a page that p read after that
// point may be newer than the server's.
func ancestryFault(p, now Facts) string {
	theirs, err := pathOf(p)
	if err != nil {
		return err.Error()
	}
	path, err := pathOf(now)
	if err != nil {
		return err.Error()
	}
	last := len(theirs) - 1
	if len(path) <= last || !slices.Equal(path[:last], theirs[:last]) || path[last].Timeline != p.Timeline || path[last].Begin != theirs[last].Begin {
		return fmt.Sprintf("its timeline %d is no ancestor of the server's timeline %d", p.Timeline, now.Timeline)
	}
	if p.StopLSN > path[last].End {
		return fmt.Sprintf("it ends at %s, and the server left timeline %d at %s", p.StopLSN, p.Timeline, path[last].End)
	}
	least := p.StopLSN
	if now.FromStandby { // two backups between two restart points begin at the same
		least = p.StartLSN
	}
	if now.StartLSN < least {
		return fmt.Sprintf("the server is at %s, before its end at %s", now.StartLSN, p.StopLSN)
	}
	return ""
}

func pathOf(f Facts) ([]walfile.Branch, error) {
	if f.Timeline != 1 && f.Lineage.History == "" {
		return nil, fmt.Errorf("the history of timeline %d is not known", f.Timeline)
	}
	return walfile.ParseHistory(f.Timeline, f.Lineage.History)
}

// sameDatabases are those that exist under the same number since the parent: no file was put in their directories by copying, which
// would bring pages of other origin with old positions.
func sameDatabases(p, now Facts) map[uint32]bool {
	out := map[uint32]bool{}
	for oid, xid := range now.Lineage.Databases {
		if old, ok := p.Lineage.Databases[oid]; ok && old == xid {
			out[oid] = true
		}
	}
	return out
}
