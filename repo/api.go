package repo

import (
	"context"
	"encoding/json"
	"io"
	"io/fs"
	"time"

	"github.com/toolboxai/relight"
)

// ChunkID is the keyed BLAKE3 digest of a chunk's plain bytes.
type ChunkID [32]byte

// Entry is one file, directory or symbolic link of a snapshot.
type Entry struct {
	Path    string      `json:"path"` // relative to the snapshot's root, slash-separated
	Mode    fs.FileMode `json:"mode"`
	UID     int         `json:"uid"`
	GID     int         `json:"gid"`
	ModTime time.Time   `json:"mtime"`
	Size    int64       `json:"size"`
	Link    string      `json:"link,omitempty"`   // target of a symbolic link
	Digest  string      `json:"blake3,omitempty"` // hex, unkeyed, of the whole file as stored; "" for a paged one
	Paged   bool        `json:"paged,omitempty"`  // cut at fixed 64 KiB, mapped by Maps; else by content, listed in Chunks
	Chunks  []ChunkID   `json:"chunks,omitempty"` // files of at most a few chunks
	Maps    []ChunkID   `json:"maps,omitempty"`   // one per 1 GiB segment: the root of its block map
}

// Manifest is the signed record that makes a snapshot exist.
type Manifest struct {
	relight.Snapshot
	Format  int       `json:"format"`
	Tree    []ChunkID `json:"tree"` // metadata chunks whose joined bytes are the entries, one JSON line each, in path order
	Packs   int       `json:"packs"`
	Entries int64     `json:"entries"`

	Damaged bool `json:"-"` // what was read last of it was damaged, says the evidence
}

// WALKey places one WAL object: a store's cluster and timeline.
type WALKey struct {
	Store    string
	System   relight.SystemID
	Timeline relight.TimelineID
}

// Sidecar is the signed metadata of one WAL segment, live range or history file. It is written after the body
// and makes the body count.
type Sidecar struct {
	Format      int                 `json:"format"`
	System      relight.SystemID    `json:"system"`
	Timeline    relight.TimelineID  `json:"timeline"`
	Name        string              `json:"name"`  // "000000010000000000000003", "00000002.history"
	Start       relight.LSN         `json:"start"` // first byte
	End         relight.LSN         `json:"end"`   // one past the last byte
	SegmentSize int64               `json:"segment_size"`
	Size        int64               `json:"size"`           // plain bytes
	Digest      string              `json:"blake3"`         // of the plain bytes
	Version     int                 `json:"server_version"` // server_version_num
	FirstCommit time.Time           `json:"first_commit,omitzero"`
	LastCommit  time.Time           `json:"last_commit,omitzero"`
	FirstXID    uint32              `json:"first_xid,omitempty"` // of a commit record
	LastXID     uint32              `json:"last_xid,omitempty"`
	LastEnd     relight.LSN         `json:"last_commit_end,omitempty"` // one past the last commit record
	Commits     int                 `json:"commits,omitempty"`
	CoveredAt   time.Time           `json:"covered_at,omitzero"` // latest server clock at which the server's WAL end was ≤ End
	Marks       []relight.NamedMark `json:"marks,omitempty"`     // named restore points inside
	Dropped     []DroppedRelation   `json:"dropped,omitempty"`
	Tablespaces *int                `json:"tablespaces,omitempty"` // how many records inside create one; nil: nobody has looked
	Host        string              `json:"host"`
	Epoch       int                 `json:"epoch"`
	Body        string              `json:"body"`          // the body's object name; the sink fills it, as the next two
	Stored      int64               `json:"stored"`        // sealed bytes of the body
	Sealed      string              `json:"sealed_blake3"` // of the sealed bytes: checked without the data identity

	signed time.Time // when its host signed it, by that host's clock
}

// DroppedRelation is a relation file removed at commit.
type DroppedRelation struct {
	XID      uint32      `json:"xid"`
	At       time.Time   `json:"at"`
	LSN      relight.LSN `json:"lsn"`
	Relation string      `json:"relation"` // "spcOid/dbOid/relNumber"
}

// Sink takes a store's WAL into one repository. Each Put returns only when the object is durable there; the same name with the same
// digest is no error, with another digest or system id a hard stop (ErrConflict).
type Sink interface {
	Name() string // the repository's name in the estate
	PutSegment(ctx context.Context, k WALKey, s Sidecar, body io.ReadSeeker) error
	PutLive(ctx context.Context, k WALKey, s Sidecar, body io.ReadSeeker) error // s.Start..s.End lie in segment s.Name
	PutHistory(ctx context.Context, k WALKey, s Sidecar, body io.ReadSeeker) error
	// Durable is the end of the contiguous WAL that this repository holds on k at and after from (segments, then live ranges).
	Durable(ctx context.Context, k WALKey, from relight.LSN) (relight.LSN, error)
	// Gap records that from..to will never come, so that it is announced and not searched for.
	Gap(ctx context.Context, k WALKey, g relight.Gap) error
	// SweepLive deletes the live ranges of segments that are themselves durable.
	SweepLive(ctx context.Context, k WALKey) error
}

// Signed is the envelope of every signed object, before sealing.
type Signed struct {
	Kind    string          `json:"kind"`    // "manifest", "sidecar", "proof", "host", …
	Name    string          `json:"name"`    // the object's own name, so that none can be passed off as another
	Signer  string          `json:"signer"`  // host name, or "recovery"
	At      time.Time       `json:"at"`      // the signer's clock
	Payload json.RawMessage `json:"payload"` // the very bytes that were signed
	Sig     []byte          `json:"sig"`     // Ed25519 over "relight/1", kind, name, signer and at, each followed by a zero byte, then payload
}
