//go:build pg

package app

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/toolboxai/relight/coordinator"
	"github.com/toolboxai/relight/internal/pgtest"
)

// A server that recovers and cannot be asked meanwhile is no server that is away: who waits for it goes on waiting. As a standby that takes no questions it recovers for ever.
func TestServerThatRecoversIsStarting(t *testing.T) {
	t.Parallel()
	s := pgtest.New(t)
	s.Start() // once: what initdb leaves was written with wal_level=minimal, and a standby refuses that
	s.Stop()
	signal := filepath.Join(s.Dir, "standby.signal")
	if err := errors.Join(os.WriteFile(signal, nil, 0o600), s.Own(signal)); err != nil {
		t.Fatal(err)
	}
	dsn := s.DSN("postgres")
	if _, err := live(t.Context(), dsn); err == nil || errors.Is(err, coordinator.ErrStarting) {
		t.Fatalf("before it was started: %v", err)
	}
	server := s.Command(t.Context(), "postgres", "-D", s.Dir, "-c", "hot_standby=off", "-c", "listen_addresses=", "-c", "unix_socket_directories="+filepath.Join(s.Root, "s"), "-c", "port=5432")
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = server.Process.Signal(os.Interrupt)
		_ = server.Wait() // ended by the signal
	}()
	var err error
	for range 600 {
		if _, err = live(t.Context(), dsn); err == nil || errors.Is(err, coordinator.ErrStarting) {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if !errors.Is(err, coordinator.ErrStarting) {
		t.Errorf("while it recovers: %v", err)
	}
}
