package relight

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// LSN is a position in a PostgreSQL write-ahead log, in bytes since its beginning.
type LSN uint64

// String prints the form that PostgreSQL prints: "16/B374D848".
func (l LSN) String() string { return fmt.Sprintf("%X/%X", uint32(l>>32), uint32(l)) }

// ParseLSN reads what String prints.
func ParseLSN(s string) (LSN, error) {
	hi, lo, ok := strings.Cut(s, "/")
	if !ok {
		return 0, fmt.Errorf("LSN %q is not of the form 16/B374D848", s)
	}
	h, err := strconv.ParseUint(hi, 16, 32)
	if err != nil {
		return 0, fmt.Errorf("LSN %q is not of the form 16/B374D848", s)
	}
	l, err := strconv.ParseUint(lo, 16, 32)
	if err != nil {
		return 0, fmt.Errorf("LSN %q is not of the form 16/B374D848", s)
	}
	return LSN(h<<32 | l), nil
}

// MarshalText makes an LSN readable in JSON.
func (l LSN) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (l *LSN) UnmarshalText(b []byte) error {
	v, err := ParseLSN(string(b))
	*l = v
	return err
}

// TimelineID numbers a history of a PostgreSQL cluster.
type TimelineID uint32

// SystemID is the identity that initdb gave a PostgreSQL cluster.
type SystemID uint64

// String prints the decimal form of pg_controldata.
func (s SystemID) String() string { return strconv.FormatUint(uint64(s), 10) }

// MarshalText keeps the 64 bits whole in JSON.
func (s SystemID) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (s *SystemID) UnmarshalText(b []byte) error {
	v, err := strconv.ParseUint(string(b), 10, 64)
	*s = SystemID(v)
	return err
}

// TargetKind says how a recovery target is named.
type TargetKind string

// The kinds of recovery target.
const (
	TargetLatest    TargetKind = "latest"    // the end of durable WAL
	TargetImmediate TargetKind = "immediate" // as soon as the base backup is consistent
	TargetTime      TargetKind = "time"
	TargetLSN       TargetKind = "lsn"
	TargetXID       TargetKind = "xid"
	TargetName      TargetKind = "name" // a named restore point
)

// RecoveryTarget is the instant to which recovery goes.
type RecoveryTarget struct {
	Kind      TargetKind `json:"kind"`
	Time      time.Time  `json:"time,omitzero"`
	LSN       LSN        `json:"lsn,omitempty"`
	XID       uint32     `json:"xid,omitempty"`
	Name      string     `json:"name,omitempty"`
	Exclusive bool       `json:"exclusive,omitempty"` // stop just before it; commits at the instant are kept otherwise
	Timeline  TimelineID `json:"timeline,omitempty"`  // 0: the newest timeline that descends from the base backup
}

// String is for people and for plans: "time 2025-10-02T14:30:00Z", "latest".
func (t RecoveryTarget) String() string {
	switch t.Kind {
	case TargetTime:
		return "time " + t.Time.UTC().Format(time.RFC3339Nano)
	case TargetLSN:
		return "lsn " + t.LSN.String()
	case TargetXID:
		return "xid " + strconv.FormatUint(uint64(t.XID), 10)
	case TargetName:
		return "name " + strconv.Quote(t.Name)
	default:
		return string(t.Kind)
	}
}

// RecoveryPoint names what to bring back: a store, optionally from one snapshot, to a target.
type RecoveryPoint struct {
	Store    string         `json:"store"`
	Snapshot SnapshotID     `json:"snapshot,omitempty"` // "": the newest that reaches the target
	Target   RecoveryTarget `json:"target"`
}
