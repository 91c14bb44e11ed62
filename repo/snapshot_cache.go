package repo

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/toolboxai/relight/blob"
)

// signedCache spares listings the download of envelopes that were read before. Every signature is verified
// again each time, so that the cache can hide nothing and forge nothing.
type signedCache struct {
	m    *Meta
	kind string
	path string // "": no cache

	mu    sync.Mutex
	known map[string]cachedSigned
	used  []cachedSigned
	fresh []cachedSigned
}

type cachedSigned struct {
	Size   int64  `json:"size"`
	Mod    int64  `json:"modified"` // nanoseconds
	Signed Signed `json:"signed"`
}

func (m *Meta) openSignedCache(kind, prefix string) *signedCache {
	c := &signedCache{m: m, kind: kind, known: map[string]cachedSigned{}}
	// A prefix that ends in one snapshot reads few objects.
	if parts := strings.Split(strings.Trim(prefix, "/"), "/"); m.o.CacheDir != "" && len(parts) == 2 {
		c.path = m.cachePath("signed-" + parts[0] + "-" + parts[1] + ".jsonl")
	}
	if c.path == "" {
		return c
	}
	f, err := os.Open(c.path)
	if err != nil {
		return c // none yet: everything is read from the repository
	}
	defer func() { _ = f.Close() }()
	sc := bufio.NewScanner(f)
	sc.Buffer(make([]byte, 64<<10), maxLine)
	for sc.Scan() {
		var e cachedSigned
		if json.Unmarshal(sc.Bytes(), &e) == nil {
			c.known[e.Signed.Name] = e
		}
	}
	return c
}

func (c *signedCache) get(ctx context.Context, i blob.Info) (Signed, error) {
	e, ok := c.lookup(i)
	if ok && e.Signed.Kind == c.kind {
		if _, err := c.m.verifySigner(ctx, e.Signed); err == nil {
			return e.Signed, nil
		}
	}
	s, err := c.m.getVerified(ctx, c.kind, i.Name)
	if err != nil {
		return Signed{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fresh = append(c.fresh, cachedSigned{Size: i.Size, Mod: i.Modified.UnixNano(), Signed: s})
	return s, nil
}

func (c *signedCache) lookup(i blob.Info) (cachedSigned, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.known[i.Name]
	if !ok || e.Size != i.Size || e.Mod != i.Modified.UnixNano() {
		return cachedSigned{}, false
	}
	c.used = append(c.used, e)
	return e, true
}

// save appends what was read, or rewrites the file when most of it is no longer there. A cache that cannot be
// written costs time, nothing else.
func (c *signedCache) save(ctx context.Context) {
	if c.path == "" || len(c.fresh) == 0 && len(c.used)*2 >= len(c.known) {
		return
	}
	if err := c.write(); err != nil {
		c.m.log.WarnContext(ctx, "the cache of signed records is not kept", "err", err)
	}
}

func (c *signedCache) write() error {
	if err := os.MkdirAll(filepath.Dir(c.path), 0o700); err != nil {
		return err
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	flags, lines := os.O_WRONLY|os.O_CREATE|os.O_APPEND, c.fresh
	if len(c.used)*2 < len(c.known) {
		flags, lines = os.O_WRONLY|os.O_CREATE|os.O_TRUNC, append(c.used, c.fresh...)
	}
	for _, e := range lines {
		if err := enc.Encode(e); err != nil {
			return fmt.Errorf("encode: %w", err)
		}
	}
	f, err := os.OpenFile(c.path, flags, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b.Bytes())
	return errors.Join(err, f.Close())
}
