package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/toolboxai/relight"
)

// PageReport is what an offline look at every page found.
type PageReport struct {
	Files   int64    `json:"files"`
	Pages   int64    `json:"pages"`
	Damaged int      `json:"damaged"`
	First   []Damage `json:"first,omitempty"` // the first damaged pages, up to a thousand
}

// VerifyPages reads every page of a data directory whose server is stopped, and compares checksums. It writes nothing. It works
// on a damaged directory too: without a readable pg_control, the defaults of PostgreSQL are assumed.
func (s *Store) VerifyPages(ctx context.Context, dir string, n int, progress func(relight.Progress)) (PageReport, error) {
	if pid, err := running(dir); err != nil || pid != 0 {
		return PageReport{}, errors.Join(err, s.fail("verify the pages of", relight.CodeUsage, "stop the server first, or check it while it runs", "process %d works in %s", pid, dir))
	}
	c, err := readControl(dir)
	if err != nil {
		s.log.Warn("pg_control cannot be read; the defaults of PostgreSQL are assumed", "directory", dir, "error", err)
		c = control{Block: 8192, RelSegment: 131072, Checksums: true}
	}
	if !c.Checksums {
		return PageReport{}, s.fail("verify the pages of", relight.CodeUsage, "enable them with pg_checksums while the server is stopped", "the cluster in %s has no page checksums", dir)
	}
	v := &pageVerifier{rules: pageRules{block: c.Block, segment: c.RelSegment, checksum: true, sleep: s.d.Sleep}, progress: progress}
	return v.run(ctx, dir, c.Catalog, workers(n), s.log)
}

type pageVerifier struct {
	rules    pageRules
	progress func(relight.Progress)
	mu       sync.Mutex
	report   PageReport
	bytes    int64
}

func (v *pageVerifier) run(ctx context.Context, dir string, catalog uint32, n int, log *slog.Logger) (PageReport, error) {
	walk := &scan{root: dir, log: log, major: versionOf(dir), catalog: catalog}
	err := walk.each(ctx, n, v.file)
	return v.report, err
}

// versionOf reads PG_VERSION; 0 when it cannot be read.
func versionOf(dir string) int {
	b, err := os.ReadFile(filepath.Join(dir, "PG_VERSION"))
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0
	}
	return n
}

func (v *pageVerifier) file(ctx context.Context, it item) error {
	rel, ok := relationFile(it.path)
	if !ok || it.link != "" || it.info.IsDir() {
		return nil
	}
	f, info, err := openRegular(it.abs)
	if err != nil || f == nil {
		return err
	}
	defer func() { _ = f.Close() }()
	n, err := io.Copy(io.Discard, newRelationReader(ctx, f, it.path, rel, info.Size(), v.rules, v.damaged))
	v.mu.Lock()
	defer v.mu.Unlock()
	v.report.Files++
	v.report.Pages += n / int64(v.rules.block)
	v.bytes += n
	if v.progress != nil {
		v.progress(relight.Progress{Phase: "verify pages", Done: v.bytes, Unit: "bytes"})
	}
	return err
}

func (v *pageVerifier) damaged(d Damage) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.report.Damaged++
	if len(v.report.First) < maxListed {
		v.report.First = append(v.report.First, d)
	}
}

// asCheck words a report.
func (r PageReport) asCheck(began, ended time.Time) relight.Check {
	c := relight.Check{Name: "page checksums", Verdict: relight.Passed, Seconds: ended.Sub(began).Seconds(),
		Detail: fmt.Sprintf("%d pages of %d files", r.Pages, r.Files)}
	if r.Damaged > 0 {
		c.Verdict = relight.Failed
		c.Detail = fmt.Sprintf("%d of %d pages are damaged, first %s", r.Damaged, r.Pages, r.First[0])
	}
	return c
}
