package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"runtime"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/toolboxai/relight"
)

// Facts is what a base backup says of the cluster it was taken from: all that restore must respect.
type Facts struct {
	System       relight.SystemID   `json:"system"`
	Version      int                `json:"server_version"` // server_version_num
	Catalog      uint32             `json:"catalog_version"`
	Architecture string             `json:"architecture"` // GOARCH of the host that read the files
	Timeline     relight.TimelineID `json:"timeline"`
	StartLSN     relight.LSN        `json:"start_lsn"` // redo point: replay begins here
	StopLSN      relight.LSN        `json:"stop_lsn"`  // consistency is reached here
	StartTime    time.Time          `json:"start_time"`
	StopTime     time.Time          `json:"stop_time"` // the server's clock, after the stop record was written
	FromStandby  bool               `json:"from_standby,omitempty"`

	SegmentSize int64       `json:"segment_size"` // of WAL
	BlockSize   int         `json:"block_size"`
	RelSegment  int64       `json:"relation_segment"` // blocks of one relation file
	Checksums   bool        `json:"checksums"`
	Superuser   string      `json:"superuser"` // the bootstrap role
	DataDir     string      `json:"data_dir"`
	DirMode     fs.FileMode `json:"dir_mode"`
	WALDir      string      `json:"wal_dir,omitempty"` // where pg_wal pointed when it was a symbolic link

	Databases   []Database   `json:"databases"`
	Tablespaces []Tablespace `json:"tablespaces,omitempty"`
	Settings    Settings     `json:"settings"`
	Configs     []string     `json:"configs,omitempty"`  // files outside the data directory, kept under relight/etc
	Label       string       `json:"label,omitempty"`    // digest of the backup's label
	Lineage     *Lineage     `json:"lineage,omitempty"`  // missing in snapshots of before there were incremental ones
	Vanished    int          `json:"vanished,omitempty"` // files dropped by the server while they were listed
}

// Database is one database and the library versions that its indexes depend on.
type Database struct {
	OID       uint32 `json:"oid"`
	Name      string `json:"name"`
	Provider  string `json:"provider"` // "libc", "icu", "builtin"
	Collate   string `json:"collate"`
	Ctype     string `json:"ctype"`
	Locale    string `json:"locale,omitempty"`            // of ICU
	Recorded  string `json:"collation_version,omitempty"` // what the indexes were built with
	Actual    string `json:"library_version,omitempty"`   // what the host's library says
	Connect   bool   `json:"connect"`
	Templates bool   `json:"template,omitempty"`
}

// Tablespace is one tablespace outside the data directory.
type Tablespace struct {
	OID      uint32 `json:"oid"`
	Name     string `json:"name"`
	Location string `json:"location"`
}

// Settings are those that a recovering server must not fall below.
type Settings struct {
	MaxConnections  int    `json:"max_connections"`
	MaxWorkers      int    `json:"max_worker_processes"`
	MaxWALSenders   int    `json:"max_wal_senders"`
	MaxPrepared     int    `json:"max_prepared_transactions"`
	MaxLocksPerXact int    `json:"max_locks_per_transaction"`
	WALLevel        string `json:"wal_level"`
	Preload         string `json:"shared_preload_libraries,omitempty"`
}

// Major is the server's major version.
func (f Facts) Major() int { return f.Version / 10000 }

// FactsOf reads the facts of a snapshot of a PostgreSQL store.
func FactsOf(s relight.Snapshot) (Facts, error) {
	var f Facts
	if len(s.Facts) == 0 {
		return f, fmt.Errorf("snapshot %s carries no facts of PostgreSQL", s.ID)
	}
	if err := json.Unmarshal(s.Facts, &f); err != nil {
		return f, fmt.Errorf("read the facts of snapshot %s: %w", s.ID, err)
	}
	if f.System == 0 || f.StopLSN == 0 || f.Timeline == 0 || f.SegmentSize == 0 {
		return f, fmt.Errorf("snapshot %s lacks facts that a restore needs", s.ID)
	}
	return f, nil
}

// oldestVersion is the first whose backup functions are the ones that are used here.
const oldestVersion = 150000

func (s *Store) readFacts(ctx context.Context, conn *pgx.Conn) (Facts, error) {
	f := Facts{Architecture: runtime.GOARCH}
	var checksums, version string
	var system, wal, block, rel int64
	err := conn.QueryRow(ctx, `
		select current_setting('server_version_num'), c.system_identifier, c.catalog_version_no::int8, i.bytes_per_wal_segment, i.database_block_size,
		       i.blocks_per_segment, current_setting('data_checksums'), pg_is_in_recovery(), (select rolname::text from pg_roles where oid = 10)
		  from pg_control_system() c, pg_control_init() i`).
		Scan(&version, &system, &f.Catalog, &wal, &block, &rel, &checksums, &f.FromStandby, &f.Superuser)
	if err != nil {
		return f, s.fail("read the facts of", relight.CodeFailed, "the connection must be a superuser's, or a member of pg_monitor with the backup functions granted", "%w", err)
	}
	if _, err := fmt.Sscan(version, &f.Version); err != nil {
		return f, fmt.Errorf("server_version_num %q: %w", version, err)
	}
	if f.Version < oldestVersion {
		return f, s.fail("protect", relight.CodeUsage, "upgrade the server to 15 or later", "server version %d is older than 15", f.Version)
	}
	f.System, f.SegmentSize, f.BlockSize, f.RelSegment = relight.SystemID(system), wal, int(block), rel
	f.Checksums = checksums == "on"
	if err := f.readSettings(ctx, conn); err != nil {
		return f, err
	}
	if err := f.readDatabases(ctx, conn); err != nil {
		return f, err
	}
	return f, f.readTablespaces(ctx, conn)
}

func (f *Facts) readSettings(ctx context.Context, conn *pgx.Conn) error {
	s := &f.Settings
	err := conn.QueryRow(ctx, `
		select current_setting('max_connections')::int, current_setting('max_worker_processes')::int, current_setting('max_wal_senders')::int,
		       current_setting('max_prepared_transactions')::int, current_setting('max_locks_per_transaction')::int, current_setting('wal_level'),
		       current_setting('shared_preload_libraries'), current_setting('data_directory')`).
		Scan(&s.MaxConnections, &s.MaxWorkers, &s.MaxWALSenders, &s.MaxPrepared, &s.MaxLocksPerXact, &s.WALLevel, &s.Preload, &f.DataDir)
	if err != nil {
		return &relight.Error{Op: "read settings", Err: err, Hint: "the store's connection must name a superuser; `relight postgres doctor` checks it"}
	}
	return nil
}

func (f *Facts) readDatabases(ctx context.Context, conn *pgx.Conn) error {
	locale := "daticulocale"
	if f.Major() >= 17 {
		locale = "datlocale"
	}
	rows, err := conn.Query(ctx, `
		select oid, datname::text, case datlocprovider when 'c' then 'libc' when 'i' then 'icu' when 'b' then 'builtin' else datlocprovider::text end,
		       datcollate, datctype, coalesce(`+locale+`, ''), coalesce(datcollversion, ''), coalesce(pg_database_collation_actual_version(oid), ''),
		       datallowconn, datistemplate
		  from pg_database order by oid`)
	if err != nil {
		return fmt.Errorf("read databases: %w", err)
	}
	f.Databases, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Database])
	if err != nil {
		return fmt.Errorf("read databases: %w", err)
	}
	return nil
}

func (f *Facts) readTablespaces(ctx context.Context, conn *pgx.Conn) error {
	rows, err := conn.Query(ctx, `
		select oid, spcname::text, pg_tablespace_location(oid) from pg_tablespace where pg_tablespace_location(oid) <> '' order by oid`)
	if err != nil {
		return fmt.Errorf("read tablespaces: %w", err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Tablespace])
	if err != nil {
		return fmt.Errorf("read tablespaces: %w", err)
	}
	for _, t := range all {
		if !strings.HasPrefix(t.Location, "pg_tblspc/") { // those in place are ordinary directories
			f.Tablespaces = append(f.Tablespaces, t)
		}
	}
	return nil
}
