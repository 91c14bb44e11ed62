package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/demo/bank"
	"github.com/toolboxai/relight/host"
	"github.com/toolboxai/relight/store/postgres"
)

const storeName = "main"

// prepare makes the estate: a scratch cluster with data, and relight.yaml.
func (s *stand) prepare(ctx context.Context) error {
	owner, err := s.makePlaces()
	if err != nil {
		return err
	}
	if err := s.stage("a scratch PostgreSQL with page checksums", func() (string, error) {
		return s.layout.data(), s.initCluster(ctx, owner)
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

func (s *stand) initCluster(ctx context.Context, owner *host.User) error {
	_, err := host.Output(ctx, s.d.Host, host.Command{Argv: []string{filepath.Join(s.server, "initdb"), "--pgdata", s.layout.data(), "--username", "postgres",
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
	if err := os.WriteFile(s.layout.config(), []byte(s.configuration(owner)), 0o644); err != nil {
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

func (s *stand) configuration(owner *host.User) string {
	name := ""
	if owner != nil {
		name = owner.Name
	}
	return fmt.Sprintf(estateFile, s.layout.root, s.layout.dsn(), s.server, bank.SumQuery, s.bank.Sum(), name)
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
