// Package store is what holds data: the port through which relight protects a data store and brings it back.
//
// A store promises that a snapshot it reports is restorable from the repository alone, that a target it cannot
// reach is refused before anything is touched, and that it never reports a position durable that is not.
package store

import (
	"context"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/repo"
)

// BackupOptions of one backup.
type BackupOptions struct {
	Parent   relight.SnapshotID // "" for a full backup
	Workers  int                // 0: the number of CPUs
	Progress func(relight.Progress)
}

// Target is where a restore puts data.
type Target struct {
	Directory   string            // the data directory to fill
	Tablespaces map[string]string // the source's location, name or oid → location here; an unmapped one keeps its own in the store's data directory, and is put beside Directory elsewhere
	Owner       string            // user that must own the files; "": the owner of Directory or of its parent
	Sandbox     bool              // archiving, replication and outside connections stay off
}

// RestoreOptions of one restore.
type RestoreOptions struct {
	VerifyBefore bool // read every needed chunk and WAL object before touching the target
	Verify       bool // run the checkers afterwards; on failure the server is left stopped
	Force        bool // the target may be occupied or newer
	Delta        bool // an occupied target is changed in place, where it differs
	Workers      int
	Progress     func(relight.Progress)
	Started      func(ctx context.Context, h relight.Handle) error
	Run          relight.RunID // the run that restores; "" outside one
	Epoch        int64         // under which the run is held: a holder that was replaced is refused
}

// Store protects one data store and brings it back.
type Store interface {
	Backup(ctx context.Context, w *repo.Writer, o BackupOptions) (relight.Snapshot, error)
	Window(ctx context.Context, m *repo.Meta) (relight.Window, error)
	Restore(ctx context.Context, r *repo.Reader, p relight.RecoveryPoint, t Target, o RestoreOptions) (relight.Restored, error)
}

// Position is how far a follower has come. Written ≥ Spooled ≥ Durable.
type Position struct {
	Timeline relight.TimelineID
	Written  relight.LSN              // received from the server
	Spooled  relight.LSN              // fsynced on this host
	Durable  map[string]relight.LSN   // per repository
	Covered  map[string]relight.Point // per repository: the latest server clock at which its WAL end was ≤ Durable
	Alarm    string                   // "" when all is well; else what a person must know
	StandsBy string                   // the host that follows in this one's place; "" when this one does
	NeedBase time.Time                // when WAL was last found lost for good: a base backup older than this cannot reach beyond the gap

	Synchronous Waited // whether commits wait for the follower; zero where that was not asked for
}

// SyncState is how far synchronous mode is what was asked for.
type SyncState string

// The states.
const (
	SyncArming   SyncState = "arming"   // commits do not wait yet
	SyncArmed    SyncState = "armed"    // commits wait until they are safe
	SyncBlocked  SyncState = "blocked"  // commits wait, and nobody answers
	SyncDegraded SyncState = "degraded" // commits were released, and do not wait
	SyncRefused  SyncState = "refused"  // the server is set in a way that does not allow it
)

// Waited is the state of synchronous mode.
type Waited struct {
	State  SyncState `json:"state,omitempty"` // "": not asked for
	Detail string    `json:"detail,omitempty"`
	Since  time.Time `json:"since,omitzero"`
}

// Follower streams changes into the sinks until ctx ends.
type Follower interface {
	Follow(ctx context.Context, sinks []repo.Sink, report func(Position)) error
}

// Prover restores into a sandbox and queries.
type Prover interface {
	Prove(ctx context.Context, r *repo.Reader, p relight.RecoveryPoint) (relight.Proof, error)
}
