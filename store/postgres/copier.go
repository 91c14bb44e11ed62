package postgres

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/jackc/pgx/v5"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/repo"
)

// maxListed bounds the list of damaged pages; all are counted.
const maxListed = 1000

// copier takes the files of a scan into a snapshot, several at a time.
type copier struct {
	w        *repo.Writer
	rules    pageRules
	progress func(relight.Progress)
	total    int64
	old      *ancestor // nil for a full backup

	taken atomic.Int64 // chunks that the parent had

	mu       sync.Mutex
	done     int64
	vanished int
	hurt     []Damage
	hurts    int
}

func newCopier(w *repo.Writer, rules pageRules, progress func(relight.Progress), total int64) *copier {
	return &copier{w: w, rules: rules, progress: progress, total: total}
}

// run walks and copies.
func (c *copier) run(ctx context.Context, n int, walk *scan) error {
	return walk.each(ctx, n, c.take)
}

func (c *copier) take(ctx context.Context, it item) error {
	e := entryOf(it.path, it.info)
	switch {
	case it.link != "":
		e.Link = it.link
		_, err := c.w.AddLink(ctx, e)
		return err
	case it.info.IsDir():
		_, err := c.w.AddDir(ctx, e)
		return err
	}
	return c.file(ctx, it)
}

func (c *copier) file(ctx context.Context, it item) error {
	f, info, err := openRegular(it.abs)
	if err != nil {
		return err
	}
	if f == nil {
		c.mu.Lock()
		c.vanished++
		c.mu.Unlock()
		return nil
	}
	defer func() { _ = f.Close() }()
	e := entryOf(it.path, info)
	if rel, ok := relationFile(it.path); ok {
		e.Paged = true
		r := newRelationReader(ctx, f, it.path, rel, info.Size(), c.rules, c.damaged)
		if c.old.holds(it.path, rel) {
			return c.keepPages(ctx, e, r)
		}
		return c.keep(ctx, e, r)
	}
	return c.keep(ctx, e, io.LimitReader(f, info.Size()))
}

// keep stores one file.
func (c *copier) keep(ctx context.Context, e repo.Entry, src io.Reader) error {
	_, err := c.w.AddFile(ctx, e, &counted{r: src, stride: stride{add: c.add}})
	return err
}

// keepPages stores what changed of a relation file since the parent.
func (c *copier) keepPages(ctx context.Context, e repo.Entry, r *relationReader) error {
	parent, ok, err := c.w.ParentEntry(ctx, e.Path)
	if err != nil {
		return err
	}
	if !ok || c.w.Page()%c.rules.block != 0 {
		return c.keep(ctx, e, r)
	}
	stride := &stride{add: c.add}
	defer stride.end()
	src := newPageSource(r, c.old, parent, stride.count)
	_, err = c.w.AddPages(ctx, e, src)
	c.taken.Add(src.taken)
	return err
}

func (c *copier) add(n int64) {
	c.mu.Lock()
	c.done += n
	p := relight.Progress{Phase: "copy", Done: c.done, Total: max(c.total, c.done), Unit: "bytes"}
	c.mu.Unlock()
	if c.progress != nil {
		c.progress(p)
	}
}

// read is how many bytes of files were read.
func (c *copier) read() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.done
}

func (c *copier) damaged(d Damage) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hurts++
	if len(c.hurt) < maxListed {
		c.hurt = append(c.hurt, d)
	}
}

func (c *copier) damage() []Damage {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.hurt
}

func (c *copier) hurtPages() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.hurts
}

// counted reports the bytes that are read through it.
type counted struct {
	r io.Reader
	stride
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.count(int64(n))
	if err != nil {
		c.end()
	}
	return n, err
}

// stride reports bytes in strides, so that progress costs nothing.
type stride struct {
	add  func(int64)
	left int64
}

const progressStride = 4 << 20

func (s *stride) count(n int64) {
	if s.left += n; s.left >= progressStride {
		s.end()
	}
}

func (s *stride) end() {
	if s.left > 0 {
		s.add(s.left)
		s.left = 0
	}
}

// sideConn asks for the server's end of WAL beside the session that holds the backup. It connects when first needed.
type sideConn struct {
	conn string

	mu  sync.Mutex
	pg  *pgx.Conn
	end relight.LSN
}

func (c *sideConn) endOfWAL(ctx context.Context) (relight.LSN, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pg == nil {
		pg, err := dial(ctx, c.conn)
		if err != nil {
			return 0, err
		}
		c.pg = pg
	}
	var text string
	err := c.pg.QueryRow(ctx, `select case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_insert_lsn() end::text`).Scan(&text)
	if err != nil {
		return 0, err
	}
	lsn, err := relight.ParseLSN(text)
	c.end = lsn
	return lsn, err
}

func (c *sideConn) close(ctx context.Context) {
	if c.pg != nil {
		closeConn(ctx, c.pg)
	}
}

// maxConfig bounds one file of configuration outside the data directory.
const maxConfig = 4 << 20

// addConfigs keeps the configuration that lies outside the data directory (Debian: /etc/postgresql) under relight/etc, with its
// absolute path below.
func (b *backup) addConfigs(ctx context.Context) error {
	var main, hba, ident string
	err := b.conn.QueryRow(ctx, `select current_setting('config_file'), current_setting('hba_file'), current_setting('ident_file')`).Scan(&main, &hba, &ident)
	if err != nil {
		return fmt.Errorf("ask for the configuration files: %w", err)
	}
	files := map[string]bool{}
	for _, f := range []string{main, hba, ident} {
		if outside(b.root, f) {
			files[f] = true
		}
	}
	if outside(b.root, main) {
		for _, extra := range beside(main) {
			files[extra] = true
		}
	}
	made := map[string]bool{}
	for f := range files {
		if err := b.addConfig(ctx, f, made); err != nil {
			return err
		}
	}
	return nil
}

// beside finds what a main configuration file may include by Debian's custom: conf.d and its neighbours.
func beside(main string) []string {
	dir := filepath.Dir(main)
	var out []string
	for _, pattern := range []string{"*.conf", "conf.d/*.conf", "environment", "pg_ctl.conf"} {
		found, err := filepath.Glob(filepath.Join(dir, pattern))
		if err == nil {
			out = append(out, found...)
		}
	}
	return out
}

func outside(root, path string) bool {
	rel, err := filepath.Rel(root, path)
	return err != nil || len(rel) >= 2 && rel[:2] == ".."
}

func (b *backup) addConfig(ctx context.Context, path string, made map[string]bool) error {
	f, info, err := openRegular(path)
	if err != nil {
		return b.unreadable(err)
	}
	if f == nil || !info.Mode().IsRegular() || info.Size() > maxConfig {
		b.s.log.Warn("configuration file is left out", "path", path)
		return nil
	}
	defer func() { _ = f.Close() }()
	kept := keptEtc + filepath.ToSlash(path)
	if err := b.addParents(ctx, kept, made); err != nil {
		return err
	}
	b.facts.Configs = append(b.facts.Configs, path)
	return b.copied.keep(ctx, entryOf(kept, info), io.LimitReader(f, info.Size()))
}

func (b *backup) addParents(ctx context.Context, path string, made map[string]bool) error {
	dir := filepath.Dir(path)
	if dir == "." || made[dir] {
		return nil
	}
	if err := b.addParents(ctx, dir, made); err != nil {
		return err
	}
	made[dir] = true
	info, err := os.Stat(b.root)
	if err != nil {
		return b.unreadable(err)
	}
	_, err = b.w.AddDir(ctx, entryOf(dir, info))
	return err
}
