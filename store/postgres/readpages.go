package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/toolboxai/relight"
)

// Damage is a page whose bytes on disk are wrong.
type Damage struct {
	Path  string `json:"path"`
	Block uint32 `json:"block"` // absolute in the relation's fork
	Why   string `json:"why"`
}

func (d Damage) String() string { return fmt.Sprintf("%s block %d: %s", d.Path, d.Block, d.Why) }

// pageRules say how pages are judged.
type pageRules struct {
	block    int         // bytes of a page
	segment  int64       // blocks of a whole file
	checksum bool        // the cluster has checksums
	start    relight.LSN // pages at or past it are rewritten by replay; MaxUint64-like 0 in an offline check
	// end gives the server's current end of WAL: a page that claims to be newer was never written by it. nil: offline.
	end   func(ctx context.Context) (relight.LSN, error)
	sleep func(ctx context.Context, d time.Duration) error
}

const (
	readPages   = 8                     // pages read at once: one chunk of 64 KiB
	settleReads = 8                     // reads of a page that looks damaged before it counts as damaged
	settlePause = 25 * time.Millisecond // between two of them; grows with each
)

// relationReader reads one relation file up to the length that it had when it was opened, and judges each page
// before it hands it on. A page torn by a concurrent write is read again; a file that was cut meanwhile ends early, which replay of
// the cut makes good.
type relationReader struct {
	ctx   context.Context
	f     io.ReaderAt
	path  string
	first uint32 // absolute number of the file's first block
	size  int64
	rules pageRules
	hurt  func(Damage)

	next int64  // file position of the bytes that were not read yet
	buf  []byte // one page, where less was asked for
	rest []byte // what is left of it
}

// newRelationReader takes f, whose length now is size.
func newRelationReader(ctx context.Context, f io.ReaderAt, path string, rel relation, size int64, rules pageRules, hurt func(Damage)) *relationReader {
	page := int64(rules.block)
	return &relationReader{
		ctx: ctx, f: f, path: path, size: size - size%page, rules: rules, hurt: hurt,
		first: uint32(int64(rel.Segment) * rules.segment),
	}
}

// Read implements io.Reader. Where there is room for whole pages, they are read to where they are wanted.
func (r *relationReader) Read(p []byte) (int, error) {
	if page := r.rules.block; len(r.rest) == 0 && len(p) >= page {
		return r.fill(p[:min(len(p)/page, readPages)*page])
	}
	if len(r.rest) == 0 {
		if r.buf == nil {
			r.buf = make([]byte, r.rules.block)
		}
		n, err := r.fill(r.buf)
		if err != nil {
			return 0, err
		}
		r.rest = r.buf[:n]
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// fill reads the next pages, as many as buf holds, and judges them.
func (r *relationReader) fill(buf []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	want := min(int64(len(buf)), r.size-r.next)
	if want <= 0 {
		return 0, io.EOF
	}
	n, err := r.f.ReadAt(buf[:want], r.next)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	n -= n % r.rules.block
	if n == 0 {
		r.size = r.next // truncated
		return 0, io.EOF
	}
	if r.rules.checksum {
		for i := 0; i < n; i += r.rules.block {
			if err := r.judge(buf[i:i+r.rules.block], r.next+int64(i)); err != nil {
				return 0, err
			}
		}
	}
	r.next += int64(n)
	return n, nil
}

// judge looks at the page that was read from at, and settles what looks damaged.
func (r *relationReader) judge(page []byte, at int64) error {
	block := r.first + uint32(at/int64(r.rules.block))
	if pageFault(page, block) == "" {
		return nil
	}
	return r.settle(page, block, at)
}

// settle reads a suspicious page again until it is good, is one that replay rewrites, or has been wrong and unchanged often enough
// to be called damaged. page ends up with the bytes to keep.
func (r *relationReader) settle(page []byte, block uint32, at int64) error {
	before := make([]byte, len(page))
	same := 0
	for try := 1; ; try++ {
		rewritten, err := r.rewritten(page)
		if err != nil || rewritten {
			return err
		}
		if same >= settleReads {
			r.hurt(Damage{Path: r.path, Block: block, Why: pageFault(page, block)})
			return nil
		}
		if r.rules.end == nil && same > 0 { // nobody writes: reading again proves nothing
			same = settleReads
			continue
		}
		copy(before, page)
		if err := r.rules.sleep(r.ctx, time.Duration(min(try, 10))*settlePause); err != nil {
			return err
		}
		n, err := r.f.ReadAt(page, at)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if n < len(page) { // cut off meanwhile: as if never written
			clear(page)
			return nil
		}
		if pageFault(page, block) == "" {
			return nil
		}
		if string(before) == string(page) {
			same++
		} else {
			same = 0 // someone is writing it
		}
	}
}

// rewritten tells whether replay restores the page whole: the server logged a full image of it since the backup
// began. A position beyond the server's end of WAL is no position but damage.
func (r *relationReader) rewritten(page []byte) (bool, error) {
	if r.rules.end == nil || newPage(page) {
		return false, nil
	}
	lsn := pageLSN(page)
	if lsn < r.rules.start {
		return false, nil
	}
	end, err := r.rules.end(r.ctx)
	if err != nil {
		return false, fmt.Errorf("ask the server for its end of WAL: %w", err)
	}
	return lsn <= end, nil
}

// openRelation opens a relation file; a nil file means that the server removed it.
func openRegular(path string) (*os.File, os.FileInfo, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return f, info, nil
}
