//go:build pg

package postgres

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob"
	"github.com/toolboxai/relight/blob/file"
	"github.com/toolboxai/relight/internal/pgtest"
	"github.com/toolboxai/relight/repo"
	"github.com/toolboxai/relight/store"
	"github.com/toolboxai/relight/store/postgres/walfile"
)

// suicidal kills its own process before or after the n-th write.
type suicidal struct {
	blob.Storage
	left   atomic.Int64
	before bool
}

func (s *suicidal) Put(ctx context.Context, name string, body io.ReadSeeker, o blob.PutOptions) error {
	last := s.left.Add(-1) == 0
	if last && s.before {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	err := s.Storage.Put(ctx, name, body, o)
	if last {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	return err
}

// receiverChild is how the receiver is described to its own process.
const receiverChild = "RELIGHT_TEST_RECEIVER"

// TestHelperReceiver is a receiver in a process of its own, to be killed.
func TestHelperReceiver(t *testing.T) {
	dir := os.Getenv(receiverChild)
	if dir == "" {
		t.Skip("only run by a test that kills it")
	}
	n, err := strconv.ParseInt(os.Getenv("RELIGHT_TEST_KILL_AT"), 10, 64)
	check(t, err)
	st, err := file.Open("file://" + filepath.Join(dir, "repo"))
	check(t, err)
	s := &suicidal{Storage: st, before: n%2 == 0}
	s.left.Store(n)
	m := openForWriting(t, childStorage(s), dir)
	o := ReceiverOptions{Store: "main", Conn: os.Getenv("RELIGHT_TEST_DSN"), Spool: filepath.Join(dir, "spool"), LiveInterval: 50 * time.Millisecond, SyncInterval: 5 * time.Millisecond}
	synchronousChild(t, &o)
	r, err := NewReceiver(o)
	check(t, err)
	check(t, r.Follow(t.Context(), []repo.Sink{m.Sink("main")}, func(store.Position) {}))
}

func openForWriting(t testing.TB, s blob.Storage, dir string) *repo.Meta {
	t.Helper()
	c, err := repo.ReadCredential(filepath.Join(dir, "credential"))
	check(t, err)
	keys, err := c.Keyring()
	check(t, err)
	m, err := repo.Open(t.Context(), s, keys, repo.Options{Name: "vault"})
	check(t, err)
	return m
}

// fileRepository makes a repository of files under dir and gives the recovery identity.
func fileRepository(t testing.TB, dir string) (blob.Storage, *age.X25519Identity) {
	t.Helper()
	st, err := file.Create("file://" + filepath.Join(dir, "repo"))
	check(t, err)
	id, err := age.GenerateX25519Identity()
	check(t, err)
	rec, err := repo.RecipientOf(id)
	check(t, err)
	init, err := repo.Init(t.Context(), st, repo.InitOptions{Recipients: []repo.Recipient{rec}, Host: "db1"})
	check(t, err)
	check(t, init.Credential.Write(filepath.Join(dir, "credential")))
	return st, id
}

func TestTrap10ReceiverKilledAnywhereLosesNothing(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if v := os.Getenv("RELIGHT_TEST_SEED"); v != "" {
		seed, _ = strconv.ParseUint(v, 10, 64)
	}
	t.Logf("seed %d (RELIGHT_TEST_SEED repeats it)", seed)
	rnd := rand.New(rand.NewPCG(seed, 7))
	srv := pgtest.New(t, "--wal-segsize=1")
	srv.Start("wal_keep_size=0", "max_wal_size=4MB", "min_wal_size=2MB")
	dir := pgtest.Root(t)
	st, id := fileRepository(t, dir)
	srv.Exec("create table t (id int, v text)")
	ctx, cancel := context.WithCancel(t.Context())
	var load sync.WaitGroup
	load.Go(func() {
		for ctx.Err() == nil {
			srv.Exec("insert into t select g, repeat('x', 100) from generate_series(1, 700) g")
			time.Sleep(5 * time.Millisecond)
		}
	})
	for range 10 {
		killReceiver(t, srv, dir, 1+rnd.Int64N(40), time.Duration(100+rnd.IntN(900))*time.Millisecond)
	}
	cancel()
	load.Wait()
	m := openForWriting(t, st, dir)
	r, err := NewReceiver(ReceiverOptions{Store: "main", Conn: srv.DSN("postgres"), Spool: filepath.Join(dir, "spool"), LiveInterval: 50 * time.Millisecond})
	check(t, err)
	ctx, cancel = context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Follow(ctx, []repo.Sink{m.Sink("main")}, func(store.Position) {}) }()
	to := currentLSN(t, srv)
	wait, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	check(t, r.Flush(wait, 1, to))
	cancel()
	check(t, <-done)
	compareRepository(t, srv, st, id, to)
}

// killReceiver runs a receiver that kills itself at its n-th write, or is killed after a while.
func killReceiver(t *testing.T, srv *pgtest.Server, dir string, n int64, after time.Duration) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestHelperReceiver$")
	cmd.Env = append(os.Environ(), receiverChild+"="+dir, "RELIGHT_TEST_DSN="+srv.DSN("postgres"), fmt.Sprintf("RELIGHT_TEST_KILL_AT=%d", n))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	check(t, cmd.Start())
	timer := time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
	err := cmd.Wait()
	timer.Stop()
	status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() {
		t.Fatalf("the receiver ended by itself: %v\n%s", err, out.String())
	}
}

// compareRepository reads all WAL back through a recovery keyring: it has no hole, it is valid to its end, and where the server still has
// the segment, the bytes are the server's.
func compareRepository(t *testing.T, srv *pgtest.Server, st blob.Storage, id age.Identity, to relight.LSN) {
	t.Helper()
	keys, err := repo.Unlock(t.Context(), st, id)
	check(t, err)
	m, err := repo.Open(t.Context(), st, keys, repo.Options{Name: "vault"})
	check(t, err)
	r, err := m.Reader()
	check(t, err)
	var key repo.WALKey
	first := walfile.MaxLSN
	whole, live := map[string]int{}, map[string]int{}
	check(t, m.Sidecars(t.Context(), "main", func(k repo.WALKey, s repo.Sidecar, isLive bool) error {
		key, first = k, min(first, s.Start)
		if isLive {
			live[s.Name] += s.Commits
		} else {
			whole[s.Name] += s.Commits
		}
		return nil
	}))
	said, found := 0, 0
	for name, n := range live {
		if _, done := whole[name]; !done {
			said += n
		}
	}
	for _, n := range whole {
		said += n
	}
	gaps, err := m.GapsOf(t.Context(), "main")
	check(t, err)
	if len(gaps) > 0 {
		t.Errorf("gaps %v", gaps)
	}
	scan, err := walfile.NewScanner(walfile.Options{Start: first, SegmentSize: 1 << 20, Check: true, System: key.System})
	check(t, err)
	for at := first; at < to; at += 1 << 20 {
		name := walfile.SegmentName(1, at, 1<<20)
		var b bytes.Buffer
		check(t, r.WALSegment(t.Context(), key, name, &b))
		end := min(to, at+1<<20)
		if err := scan.Feed(b.Bytes()[:end-at], func(e walfile.Event) error {
			if e.Kind == walfile.Commit {
				found++
			}
			return nil
		}); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		want, err := os.ReadFile(filepath.Join(srv.Dir, "pg_wal", name))
		if err == nil && !bytes.Equal(want[:end-at], b.Bytes()[:end-at]) {
			t.Errorf("%s differs from the server's", name)
		}
	}
	if first >= to || scan.ValidEnd()+8 < to {
		t.Errorf("WAL from %s is valid to %s, the server's ends at %s", first, scan.ValidEnd(), to)
	}
	if said != found || found == 0 {
		t.Errorf("the sidecars count %d commits, the WAL holds %d", said, found)
	}
	t.Logf("compared %s to %s, %d commits", first, to, found)
}

// TestExposure measures how long an acknowledged commit is not yet in the repository, under pgbench. It asserts no time; it reports the
// distribution, and that every commit arrived.
func TestExposure(t *testing.T) {
	srv := pgtest.New(t)
	srv.Start("wal_keep_size=0")
	dir := pgtest.Root(t)
	st, _ := fileRepository(t, dir)
	m := openForWriting(t, st, dir)
	out, err := srv.Command(t.Context(), "pgbench", "-i", "-s", "5", "-q", srv.DSN("postgres")).CombinedOutput()
	if err != nil {
		t.Fatalf("pgbench -i: %v\n%s", err, out)
	}
	type mark struct {
		lsn relight.LSN
		at  time.Time
	}
	var mu sync.Mutex
	var waiting []mark
	var took []time.Duration
	r, err := NewReceiver(ReceiverOptions{Store: "main", Conn: srv.DSN("postgres"), Spool: filepath.Join(dir, "spool")})
	check(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- r.Follow(ctx, []repo.Sink{m.Sink("main")}, func(p store.Position) {
			mu.Lock()
			defer mu.Unlock()
			now := time.Now()
			for len(waiting) > 0 && waiting[0].lsn <= p.Durable["vault"] {
				took = append(took, now.Sub(waiting[0].at))
				waiting = waiting[1:]
			}
		})
	}()
	bench := srv.Command(ctx, "pgbench", "-c", "4", "-T", "4", srv.DSN("postgres"))
	benchOut := make(chan []byte, 1)
	go func() { b, _ := bench.CombinedOutput(); benchOut <- b }()
	for range 40 {
		srv.Exec("select txid_current()")
		at, lsn := time.Now(), currentLSN(t, srv)
		mu.Lock()
		waiting = append(waiting, mark{lsn, at})
		mu.Unlock()
		time.Sleep(80 * time.Millisecond)
	}
	t.Logf("%s", <-benchOut)
	wait, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	check(t, r.Flush(wait, 1, currentLSN(t, srv)))
	eventually(t, "all marks", func() bool { mu.Lock(); defer mu.Unlock(); return len(waiting) == 0 })
	cancel()
	check(t, <-done)
	slices.Sort(took)
	q := func(p float64) time.Duration {
		return took[min(len(took)-1, int(p*float64(len(took))))].Round(time.Millisecond)
	}
	t.Logf("exposure of %d commits: p50 %s, p90 %s, p99 %s, max %s", len(took), q(0.5), q(0.9), q(0.99), took[len(took)-1].Round(time.Millisecond))
}
