package repo

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/zeebo/blake3"
)

// sidecarCache keeps opened sidecars of one store on disk, one envelope a line. It is not trusted: every
// envelope is verified again, name and signature, whenever it is used.
type sidecarCache struct {
	mu    sync.Mutex
	f     *os.File
	size  int64
	at    map[uint64]span // where each object's line lies, by a hash of its name; the line says whether it is this one
	fresh []byte          // lines that are not yet written
}

// nameHash stands for a name where there are many.
func nameHash(name string) uint64 {
	sum := blake3.Sum256([]byte(name))
	return binary.BigEndian.Uint64(sum[:])
}

type span struct{ off, n int64 }

// cachedSidecar gives a sidecar, verified, from the cache or the storage.
func (m *Meta) cachedSidecar(ctx context.Context, w walName) (Sidecar, error) {
	c := m.cacheOf(ctx, w.Store)
	if c == nil {
		return m.sidecar(ctx, w)
	}
	var sc Sidecar
	if s, ok := c.get(w.sidecar()); ok {
		if _, err := m.verifySigner(ctx, s); err != nil {
			return Sidecar{}, err
		}
		if err := s.decode(&sc); err != nil {
			return Sidecar{}, err
		}
		sc.signed = s.At
		return sc, w.checkSidecar(sc)
	}
	s, err := m.getSigned(ctx, "sidecar", w.sidecar(), &sc)
	if err != nil {
		return Sidecar{}, err
	}
	c.add(s)
	sc.signed = s.At
	return sc, w.checkSidecar(sc)
}

// cacheOf opens the cache of a store; nil without a cache directory or when it cannot be used, for a cache
// must never stand in the way.
func (m *Meta) cacheOf(ctx context.Context, store string) *sidecarCache {
	path := m.cachePath("sidecars-" + store + ".jsonl")
	if path == "" {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if c, ok := m.cache[store]; ok {
		return c
	}
	c, err := openSidecarCache(path)
	if err != nil {
		m.log.WarnContext(ctx, "the cache of sidecars cannot be used", "path", path, "err", err)
	}
	m.cache[store] = c
	return c
}

func openSidecarCache(path string) (*sidecarCache, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	c := &sidecarCache{at: map[uint64]span{}}
	b, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return c.openAppend(path)
	}
	if err != nil {
		return nil, err
	}
	err = c.scan(b)
	if err = errors.Join(err, b.Close()); err != nil {
		return nil, err
	}
	return c.openAppend(path)
}

func (c *sidecarCache) openAppend(path string) (*sidecarCache, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	c.f = f
	return c, nil
}

// scan finds the lines. A line that is torn or no envelope is passed over.
func (c *sidecarCache) scan(r io.Reader) error {
	b := bufio.NewReaderSize(r, 1<<16)
	for {
		line, err := b.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			c.size += int64(len(line))
			return nil
		}
		if err != nil {
			return err
		}
		var head struct {
			Name string `json:"name"`
		}
		if json.Unmarshal(line, &head) == nil && head.Name != "" {
			c.at[nameHash(head.Name)] = span{c.size, int64(len(line))}
		}
		c.size += int64(len(line))
	}
}

func (c *sidecarCache) get(name string) (Signed, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at, ok := c.at[nameHash(name)]
	if !ok || at.n > 1<<20 {
		return Signed{}, false
	}
	line := make([]byte, at.n)
	if _, err := c.f.ReadAt(line, at.off); err != nil {
		return Signed{}, false
	}
	s, err := parseEnvelope(line, "sidecar", name)
	return s, err == nil
}

func (c *sidecarCache) add(s Signed) {
	line, err := json.Marshal(s)
	if err != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fresh = append(append(c.fresh, line...), '\n')
	if len(c.fresh) > 1<<20 {
		c.flush() //nolint:errcheck // tried again at the end
	}
}

// flush appends the fresh lines. Other processes append to the same file, so the lines are found by the next
// scan and not by counting.
func (c *sidecarCache) flush() error {
	if len(c.fresh) == 0 {
		return nil
	}
	before, err := c.f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	lead := []byte{}
	if before > 0 && before != c.size {
		lead = append(lead, '\n') // another process, or a torn line, came between
	}
	n, err := c.f.Write(append(lead, c.fresh...))
	c.fresh = c.fresh[:0]
	if err != nil {
		return err
	}
	end, err := c.f.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	start := end - int64(n)
	err = (&sidecarCache{at: c.at, size: start}).scan(io.NewSectionReader(c.f, start, int64(n)))
	c.size = end
	return err
}

// saveCache writes what was learned, and forgets what the storage no longer holds once that is most of it:
// live ranges come and go.
func (m *Meta) saveCache(store string, l walListing) error {
	m.mu.Lock()
	c := m.cache[store]
	m.mu.Unlock()
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.flush(); err != nil {
		return fmt.Errorf("write the cache of sidecars: %w", err)
	}
	stale := len(c.at)
	for name := range l.objects.all() {
		if _, ok := c.at[nameHash(name)]; ok {
			stale--
		}
	}
	if stale < 1000 || stale < len(c.at)/2 {
		return nil
	}
	if err := c.compact(m.cachePath("sidecars-"+store+".jsonl"), l); err != nil {
		return fmt.Errorf("compact the cache of sidecars: %w", err)
	}
	return nil
}

// compact rewrites the cache with what a listing holds. A process that has the former file open goes on with
// it, and loses nothing but the cache.
func (c *sidecarCache) compact(path string, l walListing) error {
	t, err := os.CreateTemp(filepath.Dir(path), "sidecars-*")
	if err != nil {
		return err
	}
	next := &sidecarCache{at: map[uint64]span{}, f: t}
	w := bufio.NewWriterSize(t, 1<<16)
	for name := range l.objects.all() {
		at, ok := c.at[nameHash(name)]
		if !ok {
			continue
		}
		if _, err := io.Copy(w, io.NewSectionReader(c.f, at.off, at.n)); err != nil {
			return errors.Join(err, t.Close(), os.Remove(t.Name()))
		}
		next.at[nameHash(name)] = span{next.size, at.n}
		next.size += at.n
	}
	if err := errors.Join(w.Flush(), os.Rename(t.Name(), path), c.f.Close()); err != nil {
		return err
	}
	c.f, c.at, c.size = next.f, next.at, next.size
	return nil
}

// Close gives back what Open and its use opened: the files of the cache.
func (m *Meta) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var errs []error
	for _, c := range m.cache {
		if c != nil {
			errs = append(errs, c.f.Close())
		}
	}
	m.cache = map[string]*sidecarCache{}
	return errors.Join(errs...)
}
