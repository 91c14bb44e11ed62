//go:build slow

package crash_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/toolboxai/relight/demo/bank"
	"github.com/toolboxai/relight/host"
	"github.com/toolboxai/relight/internal/pgtest"
	"github.com/toolboxai/relight/store/postgres"
)

// stand is an estate with a protected database that has a ledger outside. It always lies at one place, since an estate names its places; a copy of it as it
// was when its machine lost power stands beside, and puts it back there for each kill point.
type stand struct {
	t       *testing.T
	home    string
	bin     string // the server's programs
	bank    bank.Bank
	ledger  []bank.Transfer
	struck  []string          // files of live relations
	started func(*os.Process) // told of the next relight that is watched
	held    time.Time         // every commit acknowledged before it lies in the repository
}

func (s *stand) root() string     { return filepath.Join(s.home, "root") }
func (s *stand) template() string { return filepath.Join(s.home, "template") }
func (s *stand) path(p ...string) string {
	return filepath.Join(append([]string{s.root()}, p...)...)
}
func (s *stand) config() string   { return s.path("estate", "relight.yaml") }
func (s *stand) data() string     { return s.path("data", "main") }
func (s *stand) identity() string { return s.path("offline", "recovery.key") }
func (s *stand) dsn(db string) string {
	return fmt.Sprintf("host=%s port=5432 user=postgres dbname=%s", s.path("run"), db)
}

const estateFile = `estate: crash
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
    connection: host=%[1]s/run port=5432 user=postgres dbname=bank
    binaries: %[2]s
    evidence: %[1]s/evidence
    invariants:
      - name: money is neither made nor lost
        database: bank
        query: %[3]s
        expect: "%[4]d"
services:
  postgres:
    tier: 1
    store: main
    process:
      command: [%[2]s/postgres, -D, %[1]s/data/main]
      user: "%[5]s"
      directory: /
      stop_signal: INT
      ready: [%[2]s/pg_isready, -q, -h, %[1]s/run, -p, "5432"]
`

// newEstate makes a small database and a repository; nothing protects it yet.
func newEstate(t *testing.T) *stand {
	t.Helper()
	home, err := os.MkdirTemp(pgtest.Place(), "rlcrash-")
	if err != nil {
		t.Fatal(err)
	}
	s := &stand{t: t, home: home, bank: bank.Bank{Accounts: 2000, Balance: 1000}}
	t.Cleanup(func() {
		s.endAll()
		if t.Failed() && os.Getenv("RELIGHT_CRASH_KEEP") != "" {
			t.Logf("kept: %s", home)
			return
		}
		pgtest.Forget(s.root())
		if err := os.RemoveAll(home); err != nil {
			t.Error(err)
		}
	})
	s.makePlaces(home, s.root(), s.path("estate"), s.path("data"), s.path("run"), s.path("vault"), s.path("offline"), s.path("evidence"), s.path("tmp"))
	s.initCluster()
	s.must("service", "start", "--service", "postgres")
	s.must("service", "wait", "--service", "postgres", "--timeout", "60s")
	s.fill()
	s.must("key", "generate", s.identity())
	s.must("repo", "init", "--recipient", s.identity(), "--host", "db1")
	return s
}

// newStand protects an estate under load and cuts its power: the receiver a little earlier than the server, so that the server's own log holds commits
// that the repository has not.
func newStand(t *testing.T) *stand {
	t.Helper()
	s := newEstate(t)
	s.must("protect", "start")
	s.must("protect", "wait", "--timeout", "120s")
	s.underLoad(func() {
		time.Sleep(2 * time.Second)
		s.cutPower("last-seen")
	})
	s.awaitNobody()
	s.copyTree(s.root(), s.template())
	return s
}

// cutPower ends the receiver and then the server. A restore point tells what the repository holds by then, however slow the machine is.
func (s *stand) cutPower(mark string) {
	s.t.Helper()
	s.held = time.Now()
	s.must("backup", "mark", "--store", "main", "--name", mark)
	s.killService("relight-serve")
	time.Sleep(400 * time.Millisecond)
	s.killService("postgres")
}

// makePlaces makes directories; PostgreSQL's user needs to own those it writes into.
func (s *stand) makePlaces(dirs ...string) {
	s.t.Helper()
	for _, dir := range dirs {
		if err := errors.Join(os.MkdirAll(dir, 0o755), os.Chmod(dir, 0o755)); err != nil {
			s.t.Fatal(err)
		}
		if base := filepath.Base(dir); os.Geteuid() == 0 && (base == "data" || base == "run") {
			u, err := host.LookupUser("postgres")
			if err == nil {
				err = os.Chown(dir, int(u.UID), int(u.GID))
			}
			if err != nil {
				s.t.Fatal(err)
			}
		}
	}
}

func (s *stand) initCluster() {
	s.t.Helper()
	var err error
	for _, major := range []int{15, 17, 16} {
		if s.bin, err = postgres.FindBinaries("", major); err == nil {
			break
		}
	}
	if err != nil {
		s.t.Fatalf("the crash suite needs a real PostgreSQL: %v", err)
	}
	owner := ""
	if os.Geteuid() == 0 {
		owner = "postgres"
	}
	if err := pgtest.MakeCluster(s.bin, owner, s.data()); err != nil {
		s.t.Fatal(err)
	}
	f, err := os.OpenFile(filepath.Join(s.data(), "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	_, err = fmt.Fprintf(f, "\nlisten_addresses = ''\nunix_socket_directories = '%s'\nshared_buffers = 32MB\ndynamic_shared_memory_type = mmap\nmin_wal_size = 32MB\nmax_wal_size = 256MB\n", s.path("run"))
	text := fmt.Sprintf(estateFile, s.root(), s.bin, bank.SumQuery, s.bank.Sum(), owner)
	if err := errors.Join(err, f.Close(), os.WriteFile(s.config(), []byte(text), 0o644)); err != nil {
		s.t.Fatal(err)
	}
}

func (s *stand) connect(ctx context.Context, db string) *pgx.Conn {
	s.t.Helper()
	conn, err := pgx.Connect(ctx, s.dsn(db))
	if err != nil {
		s.t.Fatal(err)
	}
	return conn
}

func (s *stand) fill() {
	s.t.Helper()
	ctx := s.t.Context()
	conn := s.connect(ctx, "postgres")
	_, err := conn.Exec(ctx, "create database bank")
	if err := errors.Join(err, conn.Close(ctx)); err != nil {
		s.t.Fatal(err)
	}
	conn = s.connect(ctx, "bank")
	_, err = conn.Exec(ctx, "create extension amcheck") // so that the run's own check can look into indexes
	err = errors.Join(err, s.bank.Create(ctx, conn), s.bank.Fill(ctx, conn, 8<<20, func(int64) {}))
	for _, relation := range []string{"account", "document"} {
		var file string
		err = errors.Join(err, conn.QueryRow(ctx, "select pg_relation_filepath($1::regclass)", relation).Scan(&file))
		s.struck = append(s.struck, file)
	}
	if err := errors.Join(err, conn.Close(ctx)); err != nil {
		s.t.Fatal(err)
	}
}

// underLoad lets tellers work until do is done, each coming back whenever its connection is cut, and reads the ledger of what was acknowledged to them.
func (s *stand) underLoad(do func()) {
	s.t.Helper()
	path := filepath.Join(s.home, "ledger.jsonl") // beside the estate: no disaster reaches it
	ledger, err := bank.OpenLedger(path, time.Now)
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(s.t.Context())
	tellers, ctx := errgroup.WithContext(ctx)
	for range 3 {
		tellers.Go(func() error {
			for ctx.Err() == nil {
				if err := s.bank.Run(ctx, s.dsn("bank"), 1, ledger); err != nil {
					return err
				}
				time.Sleep(50 * time.Millisecond)
			}
			return nil
		})
	}
	do()
	stop()
	if err := errors.Join(tellers.Wait(), ledger.Close()); err != nil {
		s.t.Fatal(err)
	}
	if s.ledger, err = bank.ReadLedger(path); err != nil || len(s.ledger) == 0 {
		s.t.Fatalf("no commit was acknowledged, so nothing could be lost: %v", err)
	}
}

func (s *stand) killService(name string) {
	s.t.Helper()
	h, err := host.ReadHandle(s.path("estate", "state", "services", name+".handle"))
	if err == nil {
		err = host.EndBy(s.t.Context(), h, syscall.SIGKILL, 0)
	}
	if err != nil {
		s.t.Fatalf("cut %s off: %v", name, err)
	}
}

func (s *stand) copyTree(from, to string) {
	s.t.Helper()
	if out, err := exec.CommandContext(s.t.Context(), "cp", "-a", "--reflink=auto", from, to).CombinedOutput(); err != nil {
		s.t.Fatalf("copy the estate: %v\n%s", err, out)
	}
}

// corrupt puts the estate back to the moment its power was cut, and writes noise over pages of live tables.
func (s *stand) corrupt() {
	s.t.Helper()
	s.reset()
	noise := bytes.Repeat([]byte{0xDB, 0x5A}, 4096)
	for _, file := range s.struck {
		f, err := os.OpenFile(filepath.Join(s.data(), file), os.O_WRONLY, 0)
		if err != nil {
			s.t.Fatal(err)
		}
		for page := range int64(4) {
			_, werr := f.WriteAt(noise, page*8192)
			err = errors.Join(err, werr)
		}
		if err := errors.Join(err, f.Close()); err != nil {
			s.t.Fatal(err)
		}
	}
}

// lose puts the estate back and takes its machine away: what is left is the repository and what is kept offline.
func (s *stand) lose() {
	s.t.Helper()
	s.reset()
	for _, gone := range []string{"data", "estate", "run", "evidence"} {
		if err := os.RemoveAll(s.path(gone)); err != nil {
			s.t.Fatal(err)
		}
	}
	s.makePlaces(s.path("data"), s.path("run"), s.path("evidence"))
}

func (s *stand) reset() {
	s.t.Helper()
	s.endAll()
	pgtest.Forget(s.root())
	if err := os.RemoveAll(s.root()); err != nil {
		s.t.Fatal(err)
	}
	s.copyTree(s.template(), s.root())
}

// must runs a relight command that has to succeed.
func (s *stand) must(args ...string) []byte {
	s.t.Helper()
	out, code, said := s.relight(args...)
	if code != 0 {
		s.t.Fatalf("relight %s: exit %d\n%s", strings.Join(args, " "), code, said)
	}
	return out
}

// relight runs a command to its end.
func (s *stand) relight(args ...string) (out []byte, code int, said string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 150*time.Second)
	defer cancel()
	cmd := s.command(ctx, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var ended *exec.ExitError
	if err != nil && !errors.As(err, &ended) || ctx.Err() != nil {
		s.t.Fatalf("relight %s: %v %v\n%s", strings.Join(args, " "), err, ctx.Err(), stderr.String())
	}
	return stdout.Bytes(), cmd.ProcessState.ExitCode(), stderr.String()
}

func (s *stand) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, binary, append([]string{"--config", s.config(), "--json", "--no-input"}, args...)...)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "RELIGHT_ACTOR=crash", "TMPDIR="+s.path("tmp"))
	cmd.WaitDelay = 5 * time.Second // what it started in the background must not hold its streams, and cannot hold the test
	return cmd
}
