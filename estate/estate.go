// Package estate is what relight protects, written down in one file, relight.yaml: repositories, stores, services, objectives, contacts.
//
// It promises that a file is either read whole and understood to the last key, or refused with line, column and the nearest known key;
// that every value can be shown with the place it came from; and that the estate can be packed into one bundle from which a bare
// machine starts (configuration, runbooks and secrets; see Bundle).
package estate

import (
	"os"
	"path/filepath"
	"time"

	"github.com/toolboxai/relight"
)

// FileName of an estate's configuration.
const FileName = "relight.yaml"

// Estate is a parsed and resolved relight.yaml: defaults filled in, paths absolute.
type Estate struct {
	Name         string
	File         string // absolute path of relight.yaml
	Directory    string // where it lies; relative paths begin here
	State        string // directory of the journal, spools, credentials, handles
	Zone         *time.Location
	Platform     string
	Repositories map[string]Repository
	Stores       map[string]Store
	Services     map[string]Service
	Runbooks     []string // directories with further runbooks
	Contacts     Contacts
	Secrets      map[string]string // name → reference
	Approvers    string            // file of people who may sign approvals, as OpenSSH's allowed_signers; "" for none
	SignedOnly   bool              // an approval without a signature does not count
}

// Approvals is the file that decisions about runbooks are kept in. It lies beside relight.yaml, so that it comes back with it.
func (e *Estate) Approvals() string { return filepath.Join(e.Directory, "approvals.json") }

// Repository is a place that snapshots and WAL go to.
type Repository struct {
	Name       string
	URL        string
	Credential string // file with the writer or prover credential
}

// Store is a data store and how it is protected.
type Store struct {
	Name         string
	Kind         string // "postgres"
	Service      string
	Data         string   // data directory
	Connection   string   // libpq keywords or URI; a password comes from Password
	Peers        []string // connections of the cluster's other servers
	Password     string   // secret reference, or ""
	Owner        string   // user of the data files, or "" for whoever owns Data
	Binaries     string   // directory of server programs, or "" to search
	Repositories []string
	Spool        string // directory for log that no repository has taken yet
	SpoolLimit   int64  // bytes
	Slot         Slot
	Evidence     string // directory that forensic copies go to
	Sandbox      string // directory that proofs restore into
	Policy
	Objective   relight.Objective
	Synchronous *Synchronous // commits wait for relight; nil: they do not
	Invariants  []Invariant
}

// Slot says how much log a store's replication slot may retain on the server.
type Slot struct {
	Limit    int64 // bytes
	KeepFree int64 // bytes of the file system of the server's log, where it is this host's
	Hold     bool  // nothing is released at the limit: the server may stop
}

// Invariant is a query whose answer is known.
type Invariant struct {
	Name     string `yaml:"name"`
	Database string `yaml:"database"`
	Query    string `yaml:"query"`
	Expect   string `yaml:"expect"`
}

// Service is a running thing.
type Service struct {
	relight.Service
	Process *Process
}

// Process says how the process platform runs a service.
type Process struct {
	Command   []string      `yaml:"command"`
	User      string        `yaml:"user"`
	Directory string        `yaml:"directory"`
	Log       string        `yaml:"log"`
	Signal    string        `yaml:"stop_signal"` // TERM, INT, QUIT; default TERM
	Ready     []string      `yaml:"ready"`       // exits 0 when the service answers
	StopAfter time.Duration `yaml:"-"`           // grace before KILL
	StopGrace string        `yaml:"stop_grace"`
}

// Contacts are shown on every printed plan and stopped run.
type Contacts struct {
	Hotline string `yaml:"hotline"`
	Bridge  string `yaml:"bridge"`
	OnCall  string `yaml:"on_call"`
}

// Find locates relight.yaml: the given path, else $RELIGHT_CONFIG, else ./relight.yaml, else /etc/relight/relight.yaml.
func Find(given string) (string, error) {
	for _, c := range []string{given, os.Getenv("RELIGHT_CONFIG")} {
		if c != "" {
			return filepath.Abs(c)
		}
	}
	for _, c := range []string{FileName, filepath.Join("/etc/relight", FileName)} {
		if _, err := os.Stat(c); err == nil {
			return filepath.Abs(c)
		}
	}
	return "", &relight.Error{Op: "find configuration", Subject: FileName, Code: relight.CodeUsage, Err: os.ErrNotExist,
		Hint: "name one with --config FILE or RELIGHT_CONFIG, or begin with `relight config example > relight.yaml`"}
}
