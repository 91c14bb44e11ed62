// Package postgres protects a PostgreSQL cluster and brings it back.
//
// The data side (this file's Store) promises:
//
//   - A backup is reported only when every byte of it, and the WAL from its start to its stop, is durable in the repository; damaged pages
//     fail it, and are named.
//   - A target that cannot be reached is refused before anything is touched, together with what is possible instead.
//   - A restore never deletes what it did not make: an occupied directory is renamed aside. Until the last byte is in place and synced, the
//     directory has no pg_control, so no server can start from it.
//   - Replay ends promoted only at the target. If WAL that the repository holds cannot be fetched, the server stops and stays
//     unpromoted.
//   - Two processes never work on one data directory: a kernel lock beside it and the server's own pid file are respected.
//
// The WAL side (receiver, spool, wal-get) is described where it is written.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/host"
	"github.com/toolboxai/relight/repo"
	"github.com/toolboxai/relight/store"
)

// Config is what relight must know of one cluster.
type Config struct {
	Name        string        // the store's name in the estate
	Conn        string        // libpq keywords or URI of a superuser's connection; only backup, check and doctor need it
	Peers       []string      // connections of the cluster's other servers, for doctor
	DataDir     string        // "": asked from the server
	BinDir      string        // "": found, see FindBinaries
	Owner       string        // operating system user of the cluster; "": the owner of DataDir
	Spool       string        // the receiver's spool, for salvage; "": none
	Bound       SlotBound     // of what the receiver's slot retains, for doctor
	Synchronous *Synchronous  // what the receiver is asked for, for doctor; nil: commits do not wait
	DurableWait time.Duration // how long a finished backup waits for its WAL to be durable; 0: five minutes
	ReplayStall time.Duration // replay without any sign of progress for so long is given up; 0: thirty minutes
	SandboxRoot string        // where proofs restore to; "": the system's directory for temporary files
	Preload     string        // shared_preload_libraries during replay; needed only for extensions with own WAL records
	Invariants  []Invariant   // questions with expectations, put by Check and Prove
}

// Deps is what the store works with. Log and Host are needed; the rest has defaults.
type Deps struct {
	Log   *slog.Logger
	Host  host.Runner
	Now   func() time.Time
	Sleep func(ctx context.Context, d time.Duration) error

	// Durable gives the end of the contiguous WAL that the repository being backed up to holds on k at and after from.
	// nil: it is asked from the Writer's own repository.
	Durable func(ctx context.Context, k repo.WALKey, from relight.LSN) (relight.LSN, error)

	// WALGet is the command that fetches WAL for a recovering server from the socket that Restore serves: it is called
	// with the arguments SOCKET FILE PATH appended. {"/usr/bin/relight", "wal-get"}.
	WALGet []string
}

// Store is one PostgreSQL cluster. It is safe for concurrent use, except that one data directory takes one
// restore at a time, which a lock enforces.
type Store struct {
	c    Config
	d    Deps
	log  *slog.Logger
	now  func() time.Time
	host host.Runner
}

var (
	_ store.Store  = (*Store)(nil)
	_ store.Prover = (*Store)(nil)
)

// New joins a configuration and what it works with.
func New(c Config, d Deps) *Store {
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.Sleep == nil {
		d.Sleep = sleepFor
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	if c.DurableWait <= 0 {
		c.DurableWait = 5 * time.Minute
	}
	if c.ReplayStall <= 0 {
		c.ReplayStall = 30 * time.Minute
	}
	return &Store{c: c, d: d, log: d.Log.With("store", c.Name), now: d.Now, host: d.Host}
}

// Config is what the store was made with.
func (s *Store) Config() Config { return s.c }

func sleepFor(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// fail is an error of this store.
func (s *Store) fail(op string, code relight.Code, hint, format string, args ...any) error {
	return &relight.Error{Op: op, Subject: "store " + s.c.Name, Code: code, Err: fmt.Errorf(format, args...), Hint: hint}
}

// connect opens one session that keeps no plan of ours and is never interrupted by the server's own time limits.
func (s *Store) connect(ctx context.Context, op string) (*pgx.Conn, error) {
	conn, err := dial(ctx, s.c.Conn)
	if err != nil {
		return nil, s.fail(op, relight.CodeFailed, "check that the server runs and that the store's connection names a superuser", "connect: %w", err)
	}
	return conn, nil
}

func dial(ctx context.Context, conn string) (*pgx.Conn, error) {
	cfg, err := pgx.ParseConfig(conn)
	if err != nil {
		return nil, err
	}
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = 10 * time.Second
	}
	for name, value := range map[string]string{
		"application_name": "relight", "statement_timeout": "0", "lock_timeout": "0", "idle_in_transaction_session_timeout": "0",
		"datestyle": "ISO", "timezone": "UTC", "search_path": "pg_catalog", "client_encoding": "UTF8",
	} {
		cfg.RuntimeParams[name] = value
	}
	return pgx.ConnectConfig(ctx, cfg)
}

func closeConn(ctx context.Context, conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	_ = conn.Close(ctx)
}

func workers(n int) int {
	if n > 0 {
		return n
	}
	return max(2, runtime.NumCPU())
}

// FindBinaries finds the directory of the server binaries of one major version: dir if it is given, else where
// distributions put them, else PATH.
func FindBinaries(dir string, major int) (string, error) {
	candidates := []string{dir}
	if dir == "" {
		candidates = []string{
			fmt.Sprintf("/usr/lib/postgresql/%d/bin", major), fmt.Sprintf("/usr/pgsql-%d/bin", major), fmt.Sprintf("/usr/lib/postgresql%d/bin", major),
			fmt.Sprintf("/opt/homebrew/opt/postgresql@%d/bin", major), "/usr/local/pgsql/bin", "/usr/local/bin", "/usr/bin",
		}
		candidates = append(candidates, filepath.SplitList(os.Getenv("PATH"))...)
	}
	var other []string
	for _, c := range candidates {
		have, err := majorOf(c)
		if err != nil {
			continue
		}
		if have == major {
			return c, nil
		}
		other = append(other, fmt.Sprintf("%s has version %d", c, have))
	}
	err := errors.New("no server binaries are installed here")
	switch {
	case len(other) == 0 && dir != "":
		err = fmt.Errorf("%s holds no server binaries", dir)
	case len(other) > 0:
		err = errors.New(strings.Join(other, ", "))
	}
	return "", &relight.Error{
		Op: "find the binaries of", Subject: fmt.Sprintf("PostgreSQL %d", major), Code: relight.CodeUsage, Err: err,
		Hint: fmt.Sprintf("install them (Debian: apt-get install postgresql-%d), or name their directory (binaries: in relight.yaml)", major),
	}
}

// majorOf reads the version that a server binary prints, without running it as root: postgres --version is
// allowed for root.
func majorOf(dir string) (int, error) {
	out, err := runVersion(filepath.Join(dir, "postgres"))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(out) // "postgres (PostgreSQL) 15.14 (Debian …)"
	if len(fields) < 3 {
		return 0, fmt.Errorf("%q is not a version", out)
	}
	number := fields[2]
	end := strings.IndexFunc(number, func(r rune) bool { return r < '0' || r > '9' })
	if end >= 0 {
		number = number[:end]
	}
	return strconv.Atoi(number)
}
