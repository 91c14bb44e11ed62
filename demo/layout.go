package demo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/demo/bank"
	"github.com/toolboxai/relight/host"
	"github.com/toolboxai/relight/store/postgres"
)

// layout is where a demonstration keeps its things. Each stands for a place that fails alone.
type layout struct{ root string }

func (l layout) estate() string   { return filepath.Join(l.root, "estate") } // the host's own disk: configuration, state, spool, journal
func (l layout) config() string   { return filepath.Join(l.estate(), "relight.yaml") }
func (l layout) data() string     { return filepath.Join(l.root, "data", "main") } // the database host's disk
func (l layout) run() string      { return filepath.Join(l.root, "run") }
func (l layout) vault() string    { return filepath.Join(l.root, "vault") }   // the bucket, somewhere else
func (l layout) offline() string  { return filepath.Join(l.root, "offline") } // the safe
func (l layout) identity() string { return filepath.Join(l.offline(), "recovery.key") }
func (l layout) evidence() string { return filepath.Join(l.root, "evidence") }
func (l layout) ledger() string   { return filepath.Join(l.root, "ledger.jsonl") }
func (l layout) dsn() string      { return "host=" + l.run() + " port=5432 user=postgres dbname=bank" }
func (l layout) maintenance() string {
	return "host=" + l.run() + " port=5432 user=postgres dbname=postgres"
}

const storeName = "main"

// prepare makes the estate: a scratch cluster with data, and relight.yaml.
func (s *stand) prepare(ctx context.Context) error {
	binaries, err := findServer()
	if err != nil {
		return err
	}
	owner, err := s.makePlaces()
	if err != nil {
		return err
	}
	if err := s.stage("a scratch PostgreSQL with page checksums", func() (string, error) {
		return s.layout.data(), s.initCluster(ctx, binaries, owner)
	}); err != nil {
		return err
	}
	return s.stage("live data: accounts, documents, attachments", func() (string, error) { return s.fill(ctx) })
}

// findServer finds the programs of a PostgreSQL that relight is tested with.
func findServer() (string, error) {
	for _, major := range []int{17, 15, 16} {
		if dir, err := postgres.FindBinaries("", major); err == nil {
			return dir, nil
		}
	}
	return "", &relight.Error{Op: "demo", Code: relight.CodeUsage, Err: errors.New("no PostgreSQL server is installed here"),
		Hint: "install one: apt-get install postgresql (make demo does it when run as root)"}
}

// makePlaces makes the directories. PostgreSQL refuses to run as root, so root needs the account that Debian's package makes.
func (s *stand) makePlaces() (*host.User, error) {
	l := s.layout
	if err := os.Chmod(l.root, 0o755); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("make the demonstration's directories: %w", err)
	}
	for _, dir := range []string{l.estate(), filepath.Dir(l.data()), l.run(), l.vault(), l.offline(), l.evidence()} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("make the demonstration's directories: %w", err)
		}
	}
	if os.Geteuid() != 0 {
		return nil, nil
	}
	owner, err := host.LookupUser("postgres")
	if err != nil {
		return nil, err
	}
	for _, dir := range []string{filepath.Dir(l.data()), l.run()} {
		if err := os.Chown(dir, int(owner.UID), int(owner.GID)); err != nil {
			return nil, fmt.Errorf("make the demonstration's directories: %w", err)
		}
	}
	return &owner, nil
}

const settings = `
listen_addresses = ''
unix_socket_directories = '%s'
shared_buffers = 128MB
dynamic_shared_memory_type = mmap
max_wal_size = 2GB
wal_level = replica
max_wal_senders = 10
log_timezone = 'UTC'
timezone = 'UTC'
`

func (s *stand) initCluster(ctx context.Context, binaries string, owner *host.User) error {
	_, err := host.Output(ctx, s.d.Host, host.Command{Argv: []string{filepath.Join(binaries, "initdb"), "--pgdata", s.layout.data(), "--username", "postgres",
		"--auth", "trust", "--data-checksums", "--encoding", "UTF8", "--locale", "C.UTF-8"}, User: owner, Dir: "/", What: "initdb"})
	if err != nil {
		return fmt.Errorf("make a cluster: %w", err)
	}
	conf := filepath.Join(s.layout.data(), "postgresql.conf")
	f, err := os.OpenFile(conf, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("configure the cluster: %w", err)
	}
	_, err = fmt.Fprintf(f, settings, s.layout.run())
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("configure the cluster: %w", err)
	}
	if err := os.WriteFile(s.layout.config(), []byte(s.configuration(binaries, owner)), 0o644); err != nil {
		return fmt.Errorf("write the estate: %w", err)
	}
	_, err = s.relight(ctx, "service", "start", "--service", "postgres")
	if err == nil {
		_, err = s.relight(ctx, "service", "wait", "--service", "postgres", "--timeout", "60s")
	}
	return err
}

const estateFile = `estate: relight-demo
platform: process
state: state

repositories:
  vault:
    url: file://%[1]s/vault

stores:
  main:
    kind: postgres
    service: postgres
    data: %[1]s/data/main
    connection: %[2]s
    binaries: %[3]s
    evidence: %[1]s/evidence
    objective: {rto: 2h, rpo: 15m}
    invariants:
      - name: money is neither made nor lost
        database: bank
        query: %[4]s
        expect: "%[5]d"

services:
  postgres:
    tier: 1
    store: main
    process:
      command: [%[3]s/postgres, -D, %[1]s/data/main]
      user: "%[6]s"
      directory: /
      stop_signal: INT
      ready: [%[3]s/pg_isready, -q, -h, %[1]s/run, -p, "5432"]

contacts:
  hotline: "+1 555 0100 (demonstration)"
  bridge: https://bridge.example/demo
`

func (s *stand) configuration(binaries string, owner *host.User) string {
	name := ""
	if owner != nil {
		name = owner.Name
	}
	return fmt.Sprintf(estateFile, s.layout.root, s.layout.dsn(), binaries, bank.SumQuery, s.bank.Sum(), name)
}

func (s *stand) fill(ctx context.Context) (string, error) {
	conn, err := s.connect(ctx, s.layout.maintenance())
	if err != nil {
		return "", err
	}
	_, err = conn.Exec(ctx, "create database bank")
	if err := errors.Join(err, conn.Close(ctx)); err != nil {
		return "", fmt.Errorf("make the database: %w", err)
	}
	conn, err = s.connect(ctx, s.layout.dsn())
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if err := s.bank.Create(ctx, conn); err != nil {
		return "", err
	}
	if _, err := conn.Exec(ctx, "create extension amcheck"); err != nil { // so that the proof on the live server reads indexes too
		return "", fmt.Errorf("install amcheck: %w", err)
	}
	if err := s.bank.Fill(ctx, conn, s.o.Size, func(int64) {}); err != nil {
		return "", err
	}
	var size int64
	if err := conn.QueryRow(ctx, "select pg_database_size('bank')").Scan(&size); err != nil {
		return "", fmt.Errorf("measure the database: %w", err)
	}
	return strconv.FormatInt(size/1_000_000, 10) + " MB", nil
}

// lookAround says how to inspect what was kept.
func (s *stand) lookAround() {
	l := s.layout
	s.d.Report.Note("everything is kept in %s; look around with:", l.root)
	for _, args := range [][]string{
		{"status"}, {"run", "list"}, {"backup", "list"}, {"postgres", "window", "--store", storeName}, {"journal", "verify"},
		{"repo", "check", "--identity", l.identity()},
	} {
		s.d.Report.Command(append([]string{"--config", l.config()}, args...))
	}
	s.d.Report.Note("psql '%s'", l.dsn())
	s.d.Report.Note("end it with: relight --config %s protect stop && relight --config %s service stop --all && rm -rf %s", l.config(), l.config(), l.root)
}

// tearDown stops what runs and removes the directory; nothing is removed while anything still runs in it.
func (s *stand) tearDown(ctx context.Context) error {
	var errs []error
	if _, err := os.Stat(s.layout.config()); err == nil {
		_, stopped := s.relight(ctx, "protect", "stop")
		_, down := s.relight(ctx, "service", "stop", "--all")
		errs = append(errs, stopped, down)
	}
	if err := errors.Join(errs...); err != nil {
		return &relight.Error{Op: "tear down the demonstration", Subject: s.layout.root, Err: err, Hint: "stop what still runs there, then remove the directory"}
	}
	if !strings.Contains(filepath.Base(s.layout.root), "relight-demo-") && s.o.Dir == "" {
		return fmt.Errorf("tear down the demonstration: %s is not its own directory", s.layout.root)
	}
	return os.RemoveAll(s.layout.root)
}
