package demo

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/demo/bank"
	"github.com/toolboxai/relight/host"
)

const (
	tellers  = 4
	pageSize = 8192
)

// protect makes the repository and turns protection on.
func (s *stand) protect(ctx context.Context) error {
	l := s.layout
	return s.stage("protection on: a repository, a recovery key kept elsewhere, the first base backup", func() (string, error) {
		if _, err := s.relightAt(ctx, "key", "generate", l.identity()); err != nil {
			return "", err
		}
		for _, args := range [][]string{
			{"repo", "init", "--recipient", l.identity(), "--host", "demo-db1"},
			{"repo", "key-test", "--identity", l.identity()},
			{"protect", "start"},
		} {
			if _, err := s.relight(ctx, args...); err != nil {
				return "", err
			}
		}
		done, err := decode[protected](s.relight(ctx, "protect", "wait", "--timeout", "120s"))
		return fmt.Sprintf("base backup %s, write-ahead log durable to %s", done.Snapshot, done.Durable), err
	})
}

// protected is the answer of `relight protect wait`.
type protected struct {
	Timeline relight.TimelineID `json:"timeline"`
	Durable  relight.LSN        `json:"durable_lsn"`
	Snapshot relight.SnapshotID `json:"snapshot"`
}

// traffic runs the workload and, while it runs, the disaster.
func (s *stand) traffic(ctx context.Context, sc scenario) error {
	ledger, err := bank.OpenLedger(s.layout.ledger(), s.d.Now)
	if err != nil {
		return err
	}
	s.ledger = ledger
	end := s.d.Report.Stage(fmt.Sprintf("bank transfers over %d connections for %s; every acknowledged commit goes to a ledger outside", tellers, s.o.Traffic))
	working, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- s.bank.Run(working, s.layout.dsn(), tellers, ledger) }()
	select {
	case <-ctx.Done():
		return errors.Join(ctx.Err(), <-ended)
	case err := <-ended:
		return errors.Join(errors.New("the workload ended before the disaster"), err)
	case <-time.After(s.o.Traffic):
	}
	struck := sc.strike(s, ctx)
	stop()
	err = errors.Join(struck, <-ended, ledger.Close())
	end(fmt.Sprintf("%d commits acknowledged, then: %s", ledger.Count(), s.o.Scenario))
	if err == nil && ledger.Count() == 0 {
		err = errors.New("no commit was acknowledged, so nothing could be lost: the demonstration would prove nothing")
	}
	return err
}

// handleOf finds a process of the demonstration by the handle that relight wrote down.
func (s *stand) handleOf(name string) (relight.Handle, error) {
	return host.ReadHandle(filepath.Join(s.layout.estate(), "state", "services", name+".handle"))
}

// kill ends a process with no chance to do anything more.
func (s *stand) kill(ctx context.Context, name string) error {
	h, err := s.handleOf(name)
	if err != nil {
		return err
	}
	return host.EndBy(ctx, h, syscall.SIGKILL, 0)
}

// corrupt kills the server in the middle of its work and overwrites pages of live tables on disk.
func (s *stand) corrupt(ctx context.Context) error {
	victims, err := s.victims(ctx)
	if err != nil {
		return err
	}
	if err := s.kill(ctx, "postgres"); err != nil {
		return err
	}
	s.failed = s.d.Now()
	pages := 0
	for _, file := range victims {
		n, err := overwritePages(filepath.Join(s.layout.data(), file), 16)
		if err != nil {
			return err
		}
		pages += n
	}
	s.d.Report.Note("server killed (SIGKILL), %d pages of %d live relations overwritten on disk", pages, len(victims))
	return nil
}

// victims are the files of the live tables and of an index.
func (s *stand) victims(ctx context.Context) ([]string, error) {
	conn, err := s.connect(ctx, s.layout.dsn())
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	var files []string
	for _, relation := range []string{"account", "document", "document_written"} {
		var path string
		if err := conn.QueryRow(ctx, "select pg_relation_filepath($1::regclass)", relation).Scan(&path); err != nil {
			return nil, fmt.Errorf("find the file of %s: %w", relation, err)
		}
		files = append(files, path)
	}
	return files, nil
}

// overwritePages writes noise over up to n pages, spread evenly, and gives how many.
func overwritePages(path string, n int) (int, error) {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return 0, fmt.Errorf("strike: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return 0, errors.Join(fmt.Errorf("strike: %w", err), f.Close())
	}
	pages := info.Size() / pageSize
	step := max(1, pages/int64(n))
	struck := 0
	for page := step / 2; page < pages && err == nil; page += step {
		noise := make([]byte, pageSize)
		_, _ = rand.Read(noise) // never fails
		_, err = f.WriteAt(noise, page*pageSize)
		struck++
	}
	return struck, errors.Join(err, f.Sync(), f.Close())
}

// detectCorruption does what an operator would: start the server again, and let its own checks read everything.
func (s *stand) detectCorruption(ctx context.Context) error {
	if _, err := s.relight(ctx, "service", "start", "--service", "postgres"); err != nil {
		return err
	}
	if _, err := s.relight(ctx, "service", "wait", "--service", "postgres", "--timeout", "60s"); err != nil {
		s.seen = s.d.Now()
		s.d.Report.Note("the server does not come up again; it says: %s", s.complaint(err))
		return nil
	}
	_, err := s.relight(ctx, "postgres", "check", "--store", storeName, "--integrity")
	s.seen = s.d.Now()
	switch relight.CodeOf(err) {
	case relight.CodeVerification:
		first, _, _ := strings.Cut(err.Error(), "\n")
		s.d.Report.Note("the server's own checks say: %s", first)
		return nil
	case "":
		return errors.New("the server's own checks found nothing, though pages were overwritten")
	default:
		return err
	}
}

// complaint is the last thing that the server's log gives as the reason of its end, or err where it gives none.
func (s *stand) complaint(err error) string {
	text, rerr := os.ReadFile(filepath.Join(s.layout.estate(), "state", "services", "postgres.log"))
	if rerr != nil {
		return err.Error()
	}
	lines := strings.Split(string(text), "\n")
	for _, line := range slices.Backward(lines) {
		for _, level := range []string{"PANIC:", "FATAL:", "ERROR:"} {
			if _, said, ok := strings.Cut(line, level); ok {
				return level + said
			}
		}
	}
	return err.Error()
}

// destroy takes the machine away: everything on it ends at once, and its disks are gone.
func (s *stand) destroy(ctx context.Context) error {
	err := errors.Join(s.kill(ctx, "relight-serve"), s.kill(ctx, "postgres"))
	s.failed = s.d.Now()
	if err != nil {
		return err
	}
	for _, gone := range []string{s.layout.data(), s.layout.estate(), s.layout.run()} {
		if err := os.RemoveAll(gone); err != nil {
			return fmt.Errorf("strike: %w", err)
		}
	}
	s.d.Report.Note("server and relight killed; data directory, spool, journal, state and configuration deleted")
	return nil
}

func (s *stand) detectLoss(context.Context) error {
	defer func() { s.seen = s.d.Now() }()
	if _, err := os.Stat(s.layout.config()); !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("the estate is still there: %v", err)
	}
	return nil
}
