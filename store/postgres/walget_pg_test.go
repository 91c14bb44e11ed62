//go:build pg

package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/toolboxai/relight/internal/pgtest"
	"github.com/toolboxai/relight/repo"
	"github.com/toolboxai/relight/store/postgres/walfile"
)

// A bare server recovers with wal-get and nothing of relight around it that could notice: wherever in replay the repository fails, it ends, and never
// opens for writing.
func TestTrap20AServerOnItsOwnNeverPromotesWhenAFetchFails(t *testing.T) {
	s := pgtest.New(t, "--wal-segsize=1")
	s.Start("wal_keep_size=1GB", "max_wal_size=1GB")
	m := newMemSink("a")
	f := follow(t, ReceiverOptions{Conn: s.DSN("postgres"), Spool: spoolDir(t)}, m)
	s.Exec("create table t (id int, v text)")
	root := pgtest.Root(t)
	check(t, os.Chmod(root, 0o777))
	base := filepath.Join(root, "base")
	if out, err := s.Command(t.Context(), "pg_basebackup", "-d", s.DSN("postgres"), "-D", base, "-X", "none", "-c", "fast", "--no-sync").CombinedOutput(); err != nil {
		t.Fatalf("pg_basebackup: %v\n%s", err, out)
	}
	for range 5 {
		s.Exec("insert into t select g, repeat('x', 200) from generate_series(1, 3000) g")
	}
	to := f.flush(s)
	check(t, f.stop())
	label, err := os.ReadFile(filepath.Join(base, "backup_label"))
	check(t, err)
	_, first, ok := strings.Cut(string(label), "(file ")
	if !ok {
		t.Fatalf("label %s", label)
	}
	_, at, err := walfile.ParseSegmentName(first[:24], 1<<20)
	check(t, err)
	names := []string{"", "00000002.history"}
	for ; at < to; at += 1 << 20 {
		names = append(names, walfile.SegmentName(1, at, 1<<20))
	}
	self := testBinary(t, root)
	for _, bad := range names {
		promoted, rows := recoverWith(t, s, m, root, base, self, bad)
		switch {
		case bad == "" && (!promoted || rows != "15000"):
			t.Errorf("nothing failed: promoted %v, %s rows", promoted, rows)
		case bad != "" && promoted:
			t.Errorf("fetching %s failed, and the server promoted with %s rows", bad, rows)
		}
	}
}

// recoverWith lets a copy of base recover while fetching one file fails.
func recoverWith(t *testing.T, s *pgtest.Server, m *memSink, root, base, self, bad string) (promoted bool, rows string) {
	t.Helper()
	work := pgtest.Root(t)
	check(t, os.Chmod(work, 0o777))
	dir := filepath.Join(work, "data")
	cp := s.Command(t.Context(), "postgres", "-a", base, dir) // for its user; cp is everywhere
	cp.Path = "/bin/cp"
	if out, err := cp.CombinedOutput(); err != nil {
		t.Fatalf("cp: %v\n%s", err, out)
	}
	check(t, os.WriteFile(filepath.Join(dir, "recovery.signal"), nil, 0o644))
	r := memRepository{sink: m, key: repo.WALKey{Store: "main", System: m.system}, fail: func(name string) error {
		if name == bad || name == "list" && strings.HasSuffix(bad, ".history") {
			return errors.New("503 slow down")
		}
		return nil
	}}
	socket := filepath.Join(work, "wal")
	server, err := NewWALServer(t.Context(), WALServerOptions{Repository: memRepository{sink: m, key: r.key}, Store: "main", System: m.system, Socket: socket,
		CacheDir: filepath.Join(work, "cache"), Own: s.Own, Log: slog.New(slog.DiscardHandler), Wait: func(context.Context, time.Duration) error { return nil }})
	check(t, err)
	server.o.Repository = r // it was well when recovery began
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx) }()
	defer func() { cancel(); check(t, <-done) }()
	pg := s.Command(ctx, "postgres", "-D", dir, "-c", "listen_addresses=", "-c", "unix_socket_directories="+work, "-c", "port=5433", "-c", "fsync=off",
		"-c", "restore_command="+server.RestoreCommand([]string{self, "-test.run=^TestHelperWALGet$", "--"}))
	ended := make(chan struct{})
	check(t, pg.Start())
	go func() {
		defer close(ended)
		_ = pg.Wait() // how it ended is read from its data directory
	}()
	dsn := fmt.Sprintf("host=%s port=5433 user=postgres dbname=postgres sslmode=disable", work)
	for {
		select {
		case <-ended:
			return promotedOnDisk(t, s, dir), ""
		case <-time.After(50 * time.Millisecond):
		}
		if rows, ok := countRows(ctx, dsn); ok {
			check(t, pg.Process.Signal(os.Interrupt))
			<-ended
			return true, rows
		}
	}
}

// countRows answers once the server is writable.
func countRows(ctx context.Context, dsn string) (string, bool) {
	r, err := NewReceiver(ReceiverOptions{Store: "x", Conn: dsn, Spool: "x"})
	if err != nil {
		return "", false
	}
	c, err := r.openControl(ctx)
	if err != nil {
		return "", false
	}
	defer c.close(ctx)
	// In two statements: one that begins during recovery sees what was replayed until then.
	if writable, err := c.query(ctx, "select 1 where not pg_is_in_recovery()"); err != nil || len(writable) == 0 {
		return "", false
	}
	rows, err := c.query(ctx, "select count(*) from t")
	if err != nil || len(rows) != 1 || rows[0][0] == "0" {
		return "", false
	}
	return rows[0][0], true
}

// promotedOnDisk asks pg_control: a promoted server has left its first timeline.
func promotedOnDisk(t *testing.T, s *pgtest.Server, dir string) bool {
	t.Helper()
	out, err := s.Command(t.Context(), "pg_controldata", dir).CombinedOutput()
	check(t, err)
	history, err := filepath.Glob(filepath.Join(dir, "pg_wal", "00000002*"))
	check(t, err)
	return len(history) > 0 || !regexp.MustCompile(`(?m)^Latest checkpoint's TimeLineID: +1$`).Match(out)
}
