// Package relight is the vocabulary of an executable disaster-recovery runbook: the nouns that every
// room shares. It promises to stay small, to hold no behaviour beyond parsing and printing its own
// values and guessing at a misspelt name, and to import only the standard library.
//
// Times are UTC unless a name says otherwise. Sizes are bytes. Durations are wall-clock.
package relight

import (
	"encoding/json"
	"time"
)

// Tier orders services by how soon they must be back: 1 is first.
type Tier int

// Objective is what recovery is measured against.
type Objective struct {
	RTO       time.Duration `json:"rto"`                 // time from declaration to verified service
	RPO       time.Duration `json:"rpo"`                 // most data, in time, that may be lost
	Immediate bool          `json:"immediate,omitempty"` // RTO is "immediate": five minutes to the end of containment
}

// Service is a running thing of the estate.
type Service struct {
	Name   string   `json:"name"`
	Tier   Tier     `json:"tier"`
	Store  string   `json:"store,omitempty"`  // the store whose data the service holds
	Writes []string `json:"writes,omitempty"` // stores the service writes to
}

// SnapshotID names a snapshot: "<UTC time>-<store>-<random>", sortable by time.
type SnapshotID string

// SnapshotState says how far a snapshot has been verified.
type SnapshotState string

// The states, weakest first. A state is earned by evidence in the repository, never assumed.
const (
	Complete SnapshotState = "complete" // committed, with everything it needs durable in the repository
	Intact   SnapshotState = "intact"   // every byte was read back and matched
	Proven   SnapshotState = "proven"   // restored into a sandbox and queried
)

// Snapshot is one restorable state of one store in one repository.
type Snapshot struct {
	ID       SnapshotID      `json:"id"`
	Store    string          `json:"store"`
	Kind     string          `json:"kind"` // "full", "incremental", "restore-point"
	State    SnapshotState   `json:"state"`
	Epoch    int             `json:"epoch"` // key epoch that sealed it
	Host     string          `json:"host"`  // the writer that signed it
	Started  time.Time       `json:"started"`
	Finished time.Time       `json:"finished"`
	Files    int64           `json:"files"`
	Size     int64           `json:"size"`           // bytes of the protected data
	Read     int64           `json:"read,omitempty"` // bytes read from the store; 0 where it was not counted
	Stored   int64           `json:"stored"`         // bytes added to the repository
	Parent   SnapshotID      `json:"parent,omitempty"`
	Facts    json.RawMessage `json:"facts,omitempty"` // the store's own facts (store/postgres.Facts)
}

// Point is an instant to which data can be brought.
type Point struct {
	Timeline TimelineID `json:"timeline,omitempty"`
	LSN      LSN        `json:"lsn,omitempty"`
	Time     time.Time  `json:"time,omitzero"`
}

// Window is what a repository can restore of one store.
type Window struct {
	Store string      `json:"store"`
	Spans []Span      `json:"spans"`          // continuous stretches, oldest first
	Gaps  []Gap       `json:"gaps,omitempty"` // what lies between them and why
	Names []NamedMark `json:"names,omitempty"`
}

// Span is one continuous stretch on one timeline: every point in it can be recovered.
type Span struct {
	Snapshot   SnapshotID `json:"snapshot"` // the oldest base backup from which the stretch starts
	From       Point      `json:"from"`     // its stop point: the earliest consistent instant
	To         Point      `json:"to"`       // the end of durable WAL
	LastCommit time.Time  `json:"last_commit,omitzero"`
	LastXID    uint32     `json:"last_xid,omitempty"`
	CoveredAt  time.Time  `json:"covered_at,omitzero"` // latest server clock at which the server's WAL end was at or before To
}

// Gap is a stretch of WAL that the repository lacks.
type Gap struct {
	Timeline TimelineID `json:"timeline"`
	From     LSN        `json:"from"`
	To       LSN        `json:"to"`
	Why      string     `json:"why"`
}

// NamedMark is a named restore point.
type NamedMark struct {
	Name  string `json:"name"`
	Point Point  `json:"point"`
}

// Phase is a measured part of a longer work.
type Phase struct {
	Name    string  `json:"name"`
	Seconds float64 `json:"seconds"`
	Bytes   int64   `json:"bytes,omitempty"`
}

// Restored says what a restore brought back.
type Restored struct {
	Store      string        `json:"store"`
	Snapshot   SnapshotID    `json:"snapshot"`
	Target     RecoveryPoint `json:"target"`
	Reached    Point         `json:"reached"` // position and last commit that the recovered server holds
	NewLine    TimelineID    `json:"new_timeline,omitempty"`
	LastCommit time.Time     `json:"last_commit,omitzero"`
	CoveredAt  time.Time     `json:"covered_at,omitzero"`
	Directory  string        `json:"directory"`
	SetAside   string        `json:"set_aside,omitempty"` // where the damaged directory was renamed to
	// Tablespaces are those that lie elsewhere than in the source: location there → location here.
	Tablespaces map[string]string `json:"tablespaces,omitempty"`
	Files       int64             `json:"files"`
	Bytes       int64             `json:"bytes"`
	Phases      []Phase           `json:"phases"`
	Verified    bool              `json:"verified"`
}

// Verdict of one check.
type Verdict string

// A check that could not run is skipped and listed, never passed.
const (
	Passed  Verdict = "passed"
	Failed  Verdict = "failed"
	Skipped Verdict = "skipped"
	Unknown Verdict = "unknown"
)

// Check is one question put to a system, and its answer.
type Check struct {
	Name    string  `json:"name"`
	Verdict Verdict `json:"verdict"`
	Detail  string  `json:"detail,omitempty"`
	Seconds float64 `json:"seconds,omitempty"`
}

// Proof is the record that a recovery point was restored into a sandbox and queried.
type Proof struct {
	ID       string        `json:"id"`
	Store    string        `json:"store"`
	Snapshot SnapshotID    `json:"snapshot"`
	Point    RecoveryPoint `json:"point"`
	At       time.Time     `json:"at"`
	Restored Restored      `json:"restored"`
	Checks   []Check       `json:"checks"`
	OK       bool          `json:"ok"`
}

// RunID names an execution of a runbook.
type RunID string

// RunState is where a run stands; it is a fold of the run's events.
type RunState string

// The states of a run.
const (
	RunRunning        RunState = "running"
	RunWaiting        RunState = "waiting" // for a person
	RunPaused         RunState = "paused"  // at a failed step
	RunCompleted      RunState = "completed"
	RunWithExceptions RunState = "completed-with-exceptions"
	RunFailed         RunState = "failed"
	RunAborted        RunState = "aborted"
)

// Handle is what an effect left running, journaled before the effect so that a successor can end or
// await it.
type Handle struct {
	Kind    string `json:"kind"`              // "process", "container", "unit"
	Host    string `json:"host,omitempty"`    // "" is this host
	PID     int    `json:"pid,omitempty"`     // processes
	Started uint64 `json:"started,omitempty"` // process start time in clock ticks since boot: with PID it names one process for ever
	Boot    string `json:"boot,omitempty"`    // boot id: after a reboot every process handle is dead
	Label   string `json:"label,omitempty"`   // containers and units
	What    string `json:"what,omitempty"`    // for people: "postgres recovering /data/pg"
	// Detached says that it is meant to outlive relight, as a service does. Where it was started by a step that was then cut off, it may be the step's very
	// effect, and only that step's probe decides whether it is kept.
	Detached bool `json:"detached,omitempty"`
}

// Event is one fact of the journal.
type Event struct {
	Seq   int64           `json:"seq"`
	At    time.Time       `json:"at"`
	Host  string          `json:"host"`
	Actor string          `json:"actor"`
	Run   RunID           `json:"run,omitempty"`
	Step  string          `json:"step,omitempty"`
	Kind  string          `json:"kind"`
	Data  json.RawMessage `json:"data,omitempty"`
}

// Progress of long work. Total is 0 while unknown.
type Progress struct {
	Phase string
	Done  int64
	Total int64
	Unit  string // "bytes", "files", "segments"
}
