package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/repo"
	"github.com/toolboxai/relight/store/postgres/walfile"
)

// WALRepository is what a WALServer reads; RepositoryWAL makes one of a repo.Reader.
type WALRepository interface {
	// Segment writes the segment, complete and padded to its full length. blob.ErrNotFound only if proven absent.
	Segment(ctx context.Context, k repo.WALKey, name string, w io.Writer) error
	// Sidecars calls fn for everything that the repository holds of the store.
	Sidecars(ctx context.Context, store string, fn func(k repo.WALKey, s repo.Sidecar, live bool) error) error
	// Histories gives the timeline histories of the store's cluster.
	Histories(ctx context.Context, store string, system relight.SystemID) (map[relight.TimelineID][]byte, error)
	// Gaps lists what is known never to come.
	Gaps(ctx context.Context, store string, system relight.SystemID) ([]relight.Gap, error)
}

// WALServerOptions of a WALServer.
type WALServerOptions struct {
	Repository WALRepository
	Store      string
	System     relight.SystemID
	Overlays   []string // directories with segments of the server itself: salvaged pg_wal, the receiver's spool
	Socket     string   // where to listen; the directory exists
	CacheDir   string   // for segments fetched ahead; not inside pg_wal. It is made, and removed at the end; what a dead server left in it is removed first
	// Own gives a directory or file to the recovering server's user, so that its restore_command can take files out of CacheDir; nil: it is the same user.
	Own        func(path string) error
	CacheBytes int64 // how much is fetched ahead; 0: 256 MiB
	Workers    int   // parallel fetches ahead; 0: 4
	Attempts   int   // to read an object before the server is told that it failed; 0: 4
	Wait       func(ctx context.Context, d time.Duration) error
	Log        *slog.Logger
}

// WALServer answers a recovering server's restore_command out of a repository.
//
// It promises that a server is told "absent" only when that is proven: the repository was listed afresh, holds neither the file
// nor anything that comes after it, and no overlay has it. Every other failure reaches PostgreSQL as an exit code that
// stops recovery, because a recovery that believes WAL to be absent ends, promotes, and has lost data.
type WALServer struct {
	o        WALServerOptions
	listener net.Listener
	cache    *walCache

	mu      sync.Mutex
	catalog *walCatalog
	served  int64
	reached relight.LSN
	failed  error
	last    string
}

// NewWALServer lists the repository and listens; Serve answers.
func NewWALServer(ctx context.Context, o WALServerOptions) (*WALServer, error) {
	if o.CacheBytes == 0 {
		o.CacheBytes = 256 << 20
	}
	if o.Workers == 0 {
		o.Workers = 4
	}
	if o.Attempts == 0 {
		o.Attempts = 4
	}
	if o.Own == nil {
		o.Own = func(string) error { return nil }
	}
	if o.Wait == nil {
		o.Wait = sleepFor
	}
	s := &WALServer{o: o}
	if _, err := s.refresh(ctx); err != nil {
		return nil, err
	}
	// A server takes what it finds there unasked: nothing of another recovery must lie there.
	if err := errors.Join(os.RemoveAll(o.CacheDir), os.MkdirAll(o.CacheDir, 0o700), o.Own(o.CacheDir)); err != nil {
		return nil, fmt.Errorf("make the cache of WAL segments: %w", err)
	}
	_ = os.Remove(o.Socket) // of a server that died; a live one still holds its own file open
	l, err := (&net.ListenConfig{}).Listen(ctx, "unix", o.Socket)
	if err != nil {
		return nil, fmt.Errorf("listen for WAL requests: %w", err)
	}
	if err := os.Chmod(o.Socket, 0o666); err != nil { // the recovering server runs as another user; the directory guards it
		return nil, errors.Join(err, l.Close())
	}
	s.listener = l
	s.cache = newWALCache(o.CacheDir, o.Own)
	return s, nil
}

// WALStats says how far a recovery has asked.
type WALStats struct {
	Served  int64       // files handed out
	Reached relight.LSN // end of the furthest segment handed out
	Last    string      // name of the last file asked for
	Failed  error       // the last failure that was not "absent"; recovery stops at it
}

// Stats of the server so far.
func (s *WALServer) Stats() WALStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return WALStats{Served: s.served, Reached: s.reached, Last: s.last, Failed: s.failed}
}

// Serve answers requests until ctx ends, then waits for those under way and removes socket and cache.
func (s *WALServer) Serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = s.listener.Close() })
	defer stop()
	var group sync.WaitGroup
	ahead := make(chan walRequest, 64)
	for range s.o.Workers {
		group.Go(func() { s.fetchAhead(ctx, ahead) })
	}
	group.Go(func() { s.watch(ctx, ahead) })
	var err error
	for {
		var conn net.Conn
		if conn, err = s.listener.Accept(); err != nil {
			break
		}
		group.Go(func() { s.answer(ctx, conn, ahead) })
	}
	if ctx.Err() != nil {
		err = nil
	}
	cancel()
	group.Wait()
	return errors.Join(err, s.cleanUp())
}

// Close releases a server that is not going to Serve.
func (s *WALServer) Close() error { return errors.Join(s.listener.Close(), s.cleanUp()) }

func (s *WALServer) cleanUp() error {
	err := os.Remove(s.o.Socket)
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, os.RemoveAll(s.o.CacheDir))
}

// refresh lists repository and overlays anew.
func (s *WALServer) refresh(ctx context.Context) (*walCatalog, error) {
	c, err := readCatalog(ctx, s.o)
	if err != nil {
		return nil, fmt.Errorf("list the WAL of store %s: %w", s.o.Store, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.catalog = c
	return c, nil
}

func (s *WALServer) current() *walCatalog {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.catalog
}

// walRequest names one file.
type walRequest struct{ name string }

// errAbsent is the proof that a file does not exist.
var errAbsent = errors.New("absent")

// fetch brings a file into the cache, or gives errAbsent, or the reason why it could not be found out.
func (s *WALServer) fetch(ctx context.Context, name string) (err error) {
	if strings.ContainsRune(name, filepath.Separator) || name == "" || len(name) > 128 {
		return fmt.Errorf("%q is not the name of a WAL file", name)
	}
	c := s.current()
	if !c.has(name) {
		if c, err = s.refresh(ctx); err != nil {
			return err
		}
	}
	if !c.has(name) {
		if why := c.impossible(name); why != "" {
			return fmt.Errorf("%s is missing: %s", name, why)
		}
		return errAbsent
	}
	return s.cache.get(ctx, name, func(w io.Writer) error { return s.copy(ctx, c, name, w) })
}

// copy writes the best copy of a file that there is.
func (s *WALServer) copy(ctx context.Context, c *walCatalog, name string, w io.Writer) error {
	if strings.HasSuffix(name, ".history") {
		_, err := w.Write(c.history(name))
		return err
	}
	held := c.segments[name]
	if held.overlay != "" && held.overlayEnd > held.end {
		return copyOverlay(held, c.size, w)
	}
	tl, _, err := walfile.ParseSegmentName(name, c.size)
	if err != nil {
		return err
	}
	n := &countingWriter{w: w}
	err = s.o.Repository.Segment(ctx, repo.WALKey{Store: s.o.Store, System: s.o.System, Timeline: tl}, name, n)
	if err == nil && n.n != c.size {
		err = fmt.Errorf("segment %s has %d bytes, not %d", name, n.n, c.size)
	}
	if err != nil && held.overlay != "" && held.overlayEnd >= held.end && ctx.Err() == nil {
		s.o.Log.Warn("reading a segment from the repository failed; the server's own copy holds as much", "segment", name, "error", err)
		if rerr := rewind(w); rerr != nil {
			return errors.Join(err, rerr)
		}
		return copyOverlay(held, c.size, w)
	}
	return err
}

func rewind(w io.Writer) error {
	f, ok := w.(*os.File)
	if !ok {
		return errors.New("cannot begin again")
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return f.Truncate(0)
}

type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// RestoreCommand is what a recovering server on this host is to run, by a shell in its data directory. It takes a file that is ready out of the cache by
// itself, which costs a server that waits a rename instead of a program's start, and asks with walGet for every other. That alone can say "absent".
func (s *WALServer) RestoreCommand(walGet []string) string {
	var words []string
	for _, w := range append(slices.Clone(walGet), s.o.Socket) {
		words = append(words, restoreWord(w))
	}
	return fmt.Sprintf(`mv -f %s/"%%f" "%%p" 2>/dev/null || exec %s "%%f" "%%p"`, restoreWord(s.o.CacheDir), strings.Join(words, " "))
}

// restoreWord quotes for the shell, and for the server, to which % begins a placeholder.
func restoreWord(s string) string {
	return "'" + strings.ReplaceAll(strings.ReplaceAll(s, "'", `'\''`), "%", "%%") + "'"
}
