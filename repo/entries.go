package repo

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"unicode/utf8"
)

// maxLine bounds one entry: a file of many TiB lists one root per GiB.
const maxLine = 64 << 20

var errEntry = errors.New("entry is damaged")

// check refuses an entry that could lead a restore outside its directory, or that no restore can make.
func (e Entry) check() error {
	if err := checkPath(e.Path); err != nil {
		return err
	}
	switch e.Mode.Type() {
	case 0, fs.ModeDir:
		if e.Link != "" {
			return fmt.Errorf("%w: %q has a link target and is no link", errEntry, e.Path)
		}
	case fs.ModeSymlink:
		if e.Link == "" || strings.ContainsRune(e.Link, 0) || !utf8.ValidString(e.Link) {
			return fmt.Errorf("%w: %q links to %q", errEntry, e.Path, e.Link)
		}
	default:
		return fmt.Errorf("%w: %q is a %s; only files, directories and symbolic links are kept", errEntry, e.Path, e.Mode.Type())
	}
	if e.Size < 0 || e.Mode.Type() != 0 && (e.Size != 0 || len(e.Chunks)+len(e.Maps) > 0) {
		return fmt.Errorf("%w: %q has an impossible size", errEntry, e.Path)
	}
	if len(e.Chunks) > 0 && len(e.Maps) > 0 {
		return fmt.Errorf("%w: %q has two lists of chunks", errEntry, e.Path)
	}
	return nil
}

func checkPath(p string) error {
	if p == "" || path.IsAbs(p) || path.Clean(p) != p || p == ".." || strings.HasPrefix(p, "../") ||
		strings.ContainsRune(p, 0) || !utf8.ValidString(p) {
		return fmt.Errorf("%w: path %q is not a clean relative path in UTF-8", errEntry, p)
	}
	return nil
}

// decodeEntry reads one line of a tree.
func decodeEntry(line []byte) (Entry, error) {
	var e Entry
	if err := json.Unmarshal(line, &e); err != nil {
		return Entry{}, fmt.Errorf("%w: %w", errEntry, err)
	}
	return e, e.check()
}

// eachLine calls fn for the lines of a tree, which must be in strictly ascending order of paths. The line is valid
// until fn returns.
func eachLine(tree io.Reader, fn func(e Entry, line []byte) error) error {
	sc := bufio.NewScanner(tree)
	sc.Buffer(make([]byte, 64<<10), maxLine)
	last := ""
	for sc.Scan() {
		e, err := decodeEntry(sc.Bytes())
		if err != nil {
			return err
		}
		if last != "" && e.Path <= last {
			return fmt.Errorf("%w: %q stands after %q", errEntry, e.Path, last)
		}
		last = e.Path
		if err := fn(e, sc.Bytes()); err != nil {
			return err
		}
	}
	if err := sc.Err(); err != nil {
		return fmt.Errorf("read entries: %w", err)
	}
	return nil
}

// treeReader joins metadata chunks into a stream. It lives as long as one walk of a tree, whose context it carries.
type treeReader struct {
	ctx  context.Context
	load loadFunc
	ids  []ChunkID
	rest []byte
}

func (t *treeReader) Read(p []byte) (int, error) {
	for len(t.rest) == 0 {
		if len(t.ids) == 0 {
			return 0, io.EOF
		}
		b, err := t.load(t.ctx, t.ids[0])
		if err != nil {
			return 0, err
		}
		// fn may load other chunks before the next Read.
		t.rest, t.ids = append(t.rest[:0], b...), t.ids[1:]
	}
	n := copy(p, t.rest)
	t.rest = t.rest[n:]
	return n, nil
}

// treeWriter cuts a stream by content into metadata chunks: an unchanged stretch of entries costs nothing.
type treeWriter struct {
	store func(ctx context.Context, plain []byte) (ChunkID, error)
	cut   *cutter
	buf   []byte
	ids   []ChunkID
}

func (t *treeWriter) add(ctx context.Context, line []byte) error {
	t.buf = append(append(t.buf, line...), '\n')
	if len(t.buf) < 2*maxChunk {
		return nil
	}
	return t.drain(ctx, maxChunk)
}

func (t *treeWriter) drain(ctx context.Context, keep int) error {
	rest := t.buf
	for len(rest) > 0 && len(rest) >= keep {
		n := t.cut.cut(rest)
		id, err := t.store(ctx, rest[:n])
		if err != nil {
			return err
		}
		t.ids, rest = append(t.ids, id), rest[n:]
	}
	t.buf = t.buf[:copy(t.buf, rest)]
	return nil
}

func (t *treeWriter) finish(ctx context.Context) ([]ChunkID, error) {
	err := t.drain(ctx, 0)
	return t.ids, err
}
