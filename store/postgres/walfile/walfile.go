// Package walfile reads PostgreSQL write-ahead log: page headers, records, and the few kinds of record that
// disaster recovery asks about (commits, aborts, restore points, checkpoints, switches, removed relations, new tablespaces).
//
// It promises to work on a stream of any length in constant memory (one record of interest at most), to accept
// bytes that begin in the middle of a record, never to panic on damaged input, and to report as valid only what
// a server replaying the same bytes would accept: with Options.Check every record's CRC-32C is verified.
//
// It knows the formats of PostgreSQL 15, 16 and 17 on little-endian machines; another page magic is an
// error that says so.
package walfile

import (
	"errors"
	"fmt"
	"time"

	"github.com/toolboxai/relight"
)

// PageSize is XLOG_BLCKSZ of every packaged server.
const PageSize = 8192

// Sizes of the segment that a server accepts at initdb.
const (
	MinSegment = 1 << 20
	MaxSegment = 1 << 30
)

const (
	shortHeader  = 24
	longHeader   = 40
	recordHeader = 24
	maxRecord    = 1020 << 20 // XLogRecordMaxSize; older servers stay below 1 GiB, too
)

// ErrInvalid marks the place where valid WAL ends; errors.As with *InvalidError gives it.
var ErrInvalid = errors.New("invalid WAL")

// InvalidError says where WAL stops being valid and why.
type InvalidError struct {
	At  relight.LSN // first byte that is not part of a valid record
	Why string
}

// Error names the position.
func (e *InvalidError) Error() string { return fmt.Sprintf("invalid WAL at %s: %s", e.At, e.Why) }

// Is matches ErrInvalid.
func (e *InvalidError) Is(target error) bool { return target == ErrInvalid }

// Kind of an event.
type Kind uint8

// The kinds of event that a Scanner reports.
const (
	Commit Kind = iota + 1
	Abort
	RestorePoint
	CheckpointShutdown
	CheckpointOnline
	Switch        // the rest of the segment is zero
	EndOfRecovery // a new timeline begins without a checkpoint
	BackupEnd
	Truncate     // a relation file was cut
	DropDatabase // files of a database were removed
	CreateTablespace
)

// String names the kind for people.
func (k Kind) String() string {
	names := [...]string{"", "commit", "abort", "restore point", "shutdown checkpoint", "checkpoint", "segment switch",
		"end of recovery", "backup end", "truncate", "drop database", "create tablespace"}
	if int(k) < len(names) {
		return names[k]
	}
	return "unknown"
}

// Relation is a relation's file: RelFileLocator of the server.
type Relation struct {
	Tablespace uint32
	Database   uint32
	Number     uint32
}

// String prints "spcOid/dbOid/relNumber".
func (r Relation) String() string {
	return fmt.Sprintf("%d/%d/%d", r.Tablespace, r.Database, r.Number)
}

// Event is one record of interest.
type Event struct {
	Kind     Kind
	Start    relight.LSN // first byte of the record
	End      relight.LSN // one past its last byte, before alignment
	XID      uint32      // of the transaction; a prepared one's own
	Time     time.Time   // commit, abort, restore point, end of recovery, checkpoint: the server's clock, UTC
	Name     string      // restore point; create tablespace: its directory
	Redo     relight.LSN // checkpoints: where replay starts; backup end: where the backup started
	Timeline relight.TimelineID
	Previous relight.TimelineID // checkpoints and end of recovery: the timeline before
	Dropped  []Relation         // relation files removed at commit or abort, or cut by a truncate
	Blocks   uint32             // truncate: blocks that are left
	Database uint32             // drop database

	Tablespace uint32 // create tablespace: its oid
	record     []byte // create tablespace: all of it
}

// pgEpoch is 2000-01-01 in Unix seconds.
const pgEpoch = 946684800

// Time turns the server's TimestampTz (microseconds since 2000-01-01 UTC) into a time.
func Time(us int64) time.Time {
	sec, rest := us/1_000_000, us%1_000_000
	if rest < 0 {
		sec, rest = sec-1, rest+1_000_000
	}
	return time.Unix(pgEpoch+sec, rest*1000).UTC()
}

// Micros is the inverse of Time.
func Micros(t time.Time) int64 { return t.UnixMicro() - pgEpoch*1_000_000 }
