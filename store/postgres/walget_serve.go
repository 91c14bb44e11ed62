package postgres

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/zeebo/blake3"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/store/postgres/walfile"
)

// The protocol of wal-get: the client sends "give <name>\n" or "get <name>\n"; the server answers one line, to "give" with the open file beside it,
// to "get" with the bytes behind it.
//
//	file <size>\n
//	ok <size> <BLAKE3 in hex>\n<bytes>
//	absent\n
//	error <what>\n
const (
	askFile     = "give"
	askBytes    = "get"
	replyFile   = "file"
	replyOK     = "ok"
	replyAbsent = "absent"
	replyError  = "error"
)

// answer serves one connection: one request.
func (s *WALServer) answer(ctx context.Context, conn net.Conn, ahead chan<- walRequest) {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	defer func() { _ = conn.Close() }()
	line, err := bufio.NewReader(io.LimitReader(conn, 256)).ReadString('\n')
	verb, name, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
	if err != nil || !ok || verb != askFile && verb != askBytes {
		return
	}
	f, err := s.persist(ctx, name)
	if err == nil {
		s.want(name, ahead)
		send := s.send
		if verb == askFile {
			send = s.give
		}
		err = send(conn, name, f)
		_ = f.Close()
	}
	s.note(name, err)
	switch {
	case err == nil:
	case errors.Is(err, errAbsent):
		_, _ = fmt.Fprintln(conn, replyAbsent)
	default:
		s.o.Log.Error("a recovering server could not be given WAL", "file", name, "error", err)
		_, _ = fmt.Fprintln(conn, replyError, strings.ReplaceAll(err.Error(), "\n", "; "))
	}
}

// persist opens a file, fetching it where need be, and tries again what may be a passing fault.
func (s *WALServer) persist(ctx context.Context, name string) (f *os.File, err error) {
	wait := 100 * time.Millisecond
	for n := 1; ; n++ {
		if err = s.fetch(ctx, name); err == nil {
			if f, err = s.cache.open(name); errors.Is(err, os.ErrNotExist) && n < s.o.Attempts {
				continue // the server has taken it, and asks for it once more
			}
		}
		if err == nil || errors.Is(err, errAbsent) || n >= s.o.Attempts || ctx.Err() != nil {
			return f, err
		}
		s.o.Log.Warn("reading WAL failed", "file", name, "attempt", n, "error", err)
		if werr := s.o.Wait(ctx, wait); werr != nil {
			return nil, errors.Join(err, werr)
		}
		wait = min(4*wait, 5*time.Second)
	}
}

// give hands over the cached file itself, open for reading: its bytes need not pass through two processes while a server waits.
func (s *WALServer) give(conn net.Conn, name string, f *os.File) error {
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return s.send(conn, name, f)
	}
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("look at a cached WAL file: %w", err)
	}
	// As below, an error cannot be told any more: the client gets the line with the file, or fails.
	if _, _, err := u.WriteMsgUnix(fmt.Appendf(nil, "%s %d\n", replyFile, info.Size()), syscall.UnixRights(int(f.Fd())), nil); err == nil {
		s.cache.served(name)
	}
	return nil
}

// send writes the header and the bytes of a cached file.
func (s *WALServer) send(conn net.Conn, name string, f *os.File) error {
	h := blake3.New()
	size, err := io.Copy(h, f)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return fmt.Errorf("read a cached WAL file: %w", err)
	}
	// From here on an error cannot be told to the client any more: it counts bytes and compares the digest.
	w := bufio.NewWriterSize(conn, 256<<10)
	_, _ = fmt.Fprintf(w, "%s %d %x\n", replyOK, size, h.Sum(nil))
	if _, err := io.Copy(w, f); err == nil && w.Flush() == nil {
		s.cache.served(name)
	}
	return nil
}

// want asks for the segments that the server is going to need next.
func (s *WALServer) want(name string, ahead chan<- walRequest) {
	c := s.current()
	if c.size == 0 {
		return
	}
	n := max(1, min(32, int(s.o.CacheBytes/c.size)))
	for _, next := range c.after(name, n) {
		if s.cache.has(next) {
			continue
		}
		select {
		case ahead <- walRequest{name: next}:
		default:
			return // enough is under way
		}
	}
}

// fetchAhead fills the cache; a failure is left to the request itself, which tries again.
func (s *WALServer) fetchAhead(ctx context.Context, ahead <-chan walRequest) {
	for {
		select {
		case <-ctx.Done():
			return
		case r := <-ahead:
			if s.cache.has(r.name) {
				continue
			}
			if err := s.fetch(ctx, r.name); err != nil && ctx.Err() == nil {
				s.o.Log.Debug("fetching WAL ahead failed", "file", r.name, "error", err)
			}
		}
	}
}

// watchEvery is how often the cache is looked at for files that were taken.
const watchEvery = 20 * time.Millisecond

// watch notices which files the server took out of the cache by itself, and has the next ones fetched.
func (s *WALServer) watch(ctx context.Context, ahead chan<- walRequest) {
	for sleepFor(ctx, watchEvery) == nil {
		for _, name := range s.cache.taken() {
			s.note(name, nil)
			s.want(name, ahead)
		}
	}
}

func (s *WALServer) note(name string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = name
	switch {
	case err == nil:
		s.served++
		if _, start, perr := walfile.ParseSegmentName(name, max(s.catalog.size, walfile.MinSegment)); perr == nil {
			s.reached = max(s.reached, start+relight.LSN(s.catalog.size))
		}
	case !errors.Is(err, errAbsent):
		s.failed = fmt.Errorf("WAL file %s: %w", name, err)
	}
}
