//go:build pg

package postgres

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob"
	"github.com/toolboxai/relight/blob/mem"
	"github.com/toolboxai/relight/host"
	"github.com/toolboxai/relight/internal/pgtest"
	"github.com/toolboxai/relight/repo"
	"github.com/toolboxai/relight/store"
)

// TestHelperWALGet is restore_command: the test's own binary, called by the recovering server.
func TestHelperWALGet(t *testing.T) {
	args := flag.Args()
	if len(args) != 3 {
		t.Skip("only called by a recovering server")
	}
	code, err := WALGet(context.Background(), args[0], args[1], args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

// pgStand is a real server, a repository and what joins them.
type pgStand struct {
	t      testing.TB
	srv    *pgtest.Server
	blobs  *mem.Storage
	id     *age.X25519Identity
	meta   *repo.Meta
	store  *Store
	deps   Deps
	config Config

	mu     sync.Mutex
	cancel context.CancelFunc
	done   chan struct{}
	log    *slog.Logger
}

// newPGStand starts a server with small segments, so that tests cross them.
func newPGStand(t testing.TB, settings ...string) *pgStand {
	t.Helper()
	return startedStand(t, pgtest.New(t, "--wal-segsize=1"), settings)
}

// newMajorStand does so with a certain major version.
func newMajorStand(t testing.TB, major int, settings ...string) *pgStand {
	t.Helper()
	return startedStand(t, pgtest.NewMajor(t, major, "--wal-segsize=1"), settings)
}

func startedStand(t testing.TB, srv *pgtest.Server, settings []string) *pgStand {
	t.Helper()
	srv.Start(append([]string{"checkpoint_timeout=1h", "max_wal_size=1GB", "wal_keep_size=0"}, settings...)...)
	return standOver(t, srv)
}

func standOver(t testing.TB, srv *pgtest.Server) *pgStand {
	t.Helper()
	st := &pgStand{t: t, srv: srv, blobs: mem.New(), log: slog.New(slog.NewTextHandler(testLog{t}, &slog.HandlerOptions{Level: slog.LevelInfo}))}
	id, err := age.GenerateX25519Identity()
	check(t, err)
	st.id = id
	rec, err := repo.RecipientOf(id)
	check(t, err)
	init, err := repo.Init(t.Context(), st.blobs, repo.InitOptions{Recipients: []repo.Recipient{rec}, Host: "db1"})
	check(t, err)
	keys, err := init.Credential.Keyring()
	check(t, err)
	st.meta, err = repo.Open(t.Context(), st.blobs, keys, repo.Options{Name: "vault", CacheDir: t.TempDir()})
	check(t, err)
	local := host.NewLocal(host.Options{Log: st.log})
	t.Cleanup(func() { _ = local.Close() })
	st.config = Config{Name: "main", Conn: srv.DSN("postgres"), DataDir: srv.Dir, BinDir: srv.BinDir, Owner: srv.User, DurableWait: 30 * time.Second, SandboxRoot: srv.Root}
	st.deps = Deps{Log: st.log, Host: local, WALGet: []string{testBinary(t, srv.Root), "-test.run=^TestHelperWALGet$", "--"}}
	st.store = New(st.config, st.deps)
	t.Cleanup(st.unfollow)
	return st
}

// testLog keeps the log of a test quiet unless it fails.
type testLog struct{ t testing.TB }

func (l testLog) Write(p []byte) (int, error) {
	if l.t.Context().Err() == nil {
		l.t.Log(string(p))
	}
	return len(p), nil
}

func testBinary(t testing.TB, root string) string {
	t.Helper()
	self, err := os.Executable()
	check(t, err)
	in, err := os.Open(self)
	check(t, err)
	defer func() { _ = in.Close() }()
	path := filepath.Join(root, "wal-get")
	out, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
	check(t, err)
	_, err = io.Copy(out, in)
	check(t, err)
	check(t, out.Close())
	return path
}

// follow streams WAL into the repository until unfollow.
func (st *pgStand) follow() {
	st.t.Helper()
	rec, err := NewReceiver(ReceiverOptions{Store: "main", Conn: st.srv.DSN("postgres"), Spool: filepath.Join(st.srv.Root, "spool"), LiveInterval: 50 * time.Millisecond, Log: st.log})
	check(st.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	st.mu.Lock()
	st.cancel, st.done = cancel, done
	st.mu.Unlock()
	go func() {
		defer close(done)
		if err := rec.Follow(ctx, []repo.Sink{st.meta.Sink("main")}, func(store.Position) {}); err != nil {
			st.log.Error("receiver ended", "error", err)
		}
	}()
}

func (st *pgStand) unfollow() {
	st.mu.Lock()
	cancel, done := st.cancel, st.done
	st.cancel = nil
	st.mu.Unlock()
	if cancel != nil {
		cancel()
		<-done
	}
}

func (st *pgStand) backup() relight.Snapshot {
	st.t.Helper()
	w, err := st.meta.NewSnapshot(st.t.Context(), "main", repo.SnapshotOptions{Kind: "full"})
	check(st.t, err)
	snap, err := st.store.Backup(st.t.Context(), w, store.BackupOptions{})
	check(st.t, err)
	return snap
}

// durable waits until the repository holds everything that the server has flushed.
func (st *pgStand) durable() relight.LSN {
	st.t.Helper()
	lsn, err := relight.ParseLSN(st.srv.Query(`select pg_current_wal_flush_lsn()::text`))
	check(st.t, err)
	deadline := time.Now().Add(30 * time.Second)
	for time.Now().Before(deadline) {
		w, err := st.store.Window(st.t.Context(), st.meta)
		check(st.t, err)
		if n := len(w.Spans); n > 0 && w.Spans[n-1].To.LSN >= lsn {
			return lsn
		}
		time.Sleep(20 * time.Millisecond)
	}
	st.t.Fatalf("WAL up to %s does not become durable", lsn)
	return 0
}

// reader opens the repository as the recovery side does, through any storage.
func (st *pgStand) reader(blobs blob.Storage) *repo.Reader {
	st.t.Helper()
	keys, err := repo.Unlock(st.t.Context(), st.blobs, st.id)
	check(st.t, err)
	m, err := repo.Open(st.t.Context(), blobs, keys, repo.Options{Name: "vault", CacheDir: st.t.TempDir()})
	check(st.t, err)
	r, err := m.Reader()
	check(st.t, err)
	return r
}

func (st *pgStand) restoreInto(dir string, target relight.RecoveryTarget, o store.RestoreOptions) (relight.Restored, error) {
	st.t.Helper()
	return st.store.Restore(st.t.Context(), st.reader(st.blobs), relight.RecoveryPoint{Store: "main", Target: target}, store.Target{Directory: dir}, o)
}

// mustRestore restores and starts what came out.
func (st *pgStand) mustRestore(dir string, target relight.RecoveryTarget, o store.RestoreOptions) (relight.Restored, *pgtest.Server) {
	st.t.Helper()
	out, err := st.restoreInto(dir, target, o)
	check(st.t, err)
	root := pgtest.Root(st.t)
	srv := pgtest.At(st.t, root, dir)
	srv.Start()
	return out, srv
}

// bankFor runs the workload until n transfers were acknowledged.
func (st *pgStand) bankFor(b *pgtest.Bank, n int) {
	st.t.Helper()
	ctx, cancel := context.WithCancel(st.t.Context())
	done := make(chan struct{})
	go func() { defer close(done); b.Run(ctx, st.srv.DSN("postgres"), 3) }()
	want := b.Count() + n
	for b.Count() < want && ctx.Err() == nil {
		time.Sleep(2 * time.Millisecond)
	}
	cancel()
	<-done
}

func startedInto(h *relight.Handle) func(context.Context, relight.Handle) error {
	return func(_ context.Context, got relight.Handle) error {
		*h = got
		return nil
	}
}

// onEachMajor runs a test with each major version, side by side.
func onEachMajor(t *testing.T, test func(t *testing.T, major int)) {
	t.Helper()
	for _, major := range pgtest.Majors {
		t.Run(strconv.Itoa(major), func(t *testing.T) {
			t.Parallel()
			test(t, major)
		})
	}
}
