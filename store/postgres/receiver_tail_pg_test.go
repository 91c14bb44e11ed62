//go:build pg

package postgres

import (
	"context"
	"io"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/toolboxai/relight/blob"
	"github.com/toolboxai/relight/internal/pgtest"
)

// stuckSegments is a storage in which no upload of a whole segment ever ends by itself.
type stuckSegments struct {
	blob.Storage
	free chan struct{}
}

func (s stuckSegments) Put(ctx context.Context, name string, body io.ReadSeeker, o blob.PutOptions) error {
	if segment := regexp.MustCompile(`^wal/main/[0-9]+/[0-9A-F]{8}/[0-9A-F]{24}`); segment.MatchString(name) {
		select {
		case <-s.free:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return s.Storage.Put(ctx, name, body, o)
}

// What was committed last must not wait behind the upload of a whole segment, however long that takes.
func TestTheLiveTailDoesNotWaitForASegmentsUpload(t *testing.T) {
	s := pgtest.New(t, "--wal-segsize=1")
	s.Start("wal_keep_size=1GB")
	dir := pgtest.Root(t)
	st, id := fileRepository(t, dir)
	stuck := stuckSegments{st, make(chan struct{})}
	m := openForWriting(t, stuck, dir)
	f := follow(t, ReceiverOptions{Conn: s.DSN("postgres"), Spool: spoolDir(t)}, m.Sink("main"))
	s.Exec("create table t (id int, v text)", "insert into t select g, repeat('x', 200) from generate_series(1, 20000) g")
	to := f.flush(s) // several segments on
	compareRepository(t, s, st, id, to)
	close(stuck.free)
	eventually(t, "the spool lets go of segments once they are whole", func() bool {
		names, _ := filepath.Glob(filepath.Join(f.o.Spool, "wal", "*"))
		return len(names) == 1
	})
	s.Exec("insert into t values (1, 'afterwards')")
	compareRepository(t, s, st, id, f.flush(s))
}
