package postgres

import (
	"archive/tar"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/zeebo/blake3"
	"golang.org/x/sys/unix"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/action"
	"github.com/toolboxai/relight/host"
)

// Evidence is a forensic copy.
type Evidence struct {
	Path   string `json:"path"`
	Bytes  int64  `json:"bytes"`
	BLAKE3 string `json:"blake3"`
	Files  int64  `json:"files"`
	// Missing are tablespaces, or a directory of log, that a link leads to and that could not be found: their disk is lost, perhaps.
	Missing []string `json:"missing,omitempty"`
}

// evidenceName is how the copies of the seed's runbook are named.
const evidenceName = "corrupted-20060102-150405.tar.gz"

// KeepEvidence packs the data directory of a stopped server, with its tablespaces, into dir, as corrupted-YYYYMMDD-HHMMSS.tar.gz with its digest beside it. It is
// refused beforehand when space is short. The source is only read.
func (s *Store) KeepEvidence(ctx context.Context, data, dir string, progress func(relight.Progress)) (Evidence, error) {
	if pid, err := running(data); err != nil || pid != 0 {
		return Evidence{}, errors.Join(err, s.fail("keep evidence of", relight.CodeUsage, "stop the server first", "process %d works in %s", pid, data))
	}
	src, err := evidenceOf(data)
	if err != nil {
		return Evidence{}, s.fail("keep evidence of", relight.CodeFailed, "run relight as root or as the owner of the data", "%w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Evidence{}, s.fail("keep evidence of", relight.CodeFailed, "name another place as `evidence:` of the store", "%w", err)
	}
	if err := dropPartials(dir); err != nil {
		return Evidence{}, fmt.Errorf("keep evidence of store %s: %w", s.c.Name, err)
	}
	if err := s.roomFor(src.size, dir); err != nil {
		return Evidence{}, err
	}
	path := filepath.Join(dir, s.now().UTC().Format(evidenceName))
	e, err := packEvidence(ctx, src, path, progress)
	if err != nil {
		return Evidence{}, fmt.Errorf("keep evidence of store %s: %w", s.c.Name, err)
	}
	return e, nil
}

// roomFor takes the uncompressed size, since nobody knows beforehand how well damaged files compress.
func (s *Store) roomFor(size int64, dir string) error {
	free, err := host.FreeSpace(dir)
	if err != nil {
		return err
	}
	if free < size {
		return s.fail("keep evidence of", relight.CodeFailed, "make room, or name another place as `evidence:` of the store; skipping the step is recorded",
			"%s has %d MB free, the copy may need %d MB", dir, free>>20, size>>20)
	}
	return nil
}

// packEvidence writes under a temporary name, so that a copy that is there is whole. Its report comes first: a copy without one would be made again by
// whoever takes over, and a report without its copy says nothing to the probe.
func packEvidence(ctx context.Context, src evidenceSource, path string, progress func(relight.Progress)) (Evidence, error) {
	f, err := openPartial(path + ".partial")
	if err != nil {
		return Evidence{}, err
	}
	defer func() { _ = os.Remove(path + ".partial") }() // it is gone once renamed
	sum := blake3.New()
	e := Evidence{Path: path, Missing: src.missing}
	zip, err := gzip.NewWriterLevel(io.MultiWriter(f, sum), gzip.BestSpeed)
	if err != nil {
		return Evidence{}, errors.Join(err, f.Close())
	}
	p := &evidencePacker{ctx: ctx, out: tar.NewWriter(zip), size: src.size, progress: progress}
	for _, t := range src.trees {
		if err = filepath.WalkDir(t.dir, func(path string, d fs.DirEntry, err error) error { return p.add(t, path, d, err) }); err != nil {
			break
		}
	}
	err = errors.Join(err, p.out.Close(), zip.Close(), f.Sync())
	info, serr := f.Stat()
	if err := errors.Join(err, serr, f.Close()); err != nil {
		return Evidence{}, err
	}
	e.Files, e.BLAKE3, e.Bytes = p.files, hex.EncodeToString(sum.Sum(nil)), info.Size()
	if err := keepReport(path+".json", e); err != nil {
		return Evidence{}, err
	}
	return e, host.Move(path+".partial", path)
}

// openPartial makes the file that a copy is written to, and holds a lock on it while it is open.
func openPartial(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("%s is being written by another process: %w", path, err), f.Close())
	}
	return f, nil
}

// dropPartials removes the unfinished copies of processes that died over them: each may be as large as the data, and would take the room of the next one.
func dropPartials(dir string) error {
	found, err := filepath.Glob(filepath.Join(dir, "corrupted-*.tar.gz.partial"))
	if err != nil {
		return err
	}
	for _, path := range found {
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("look at an unfinished copy: %w", err)
		}
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			err = removeIfThere(path)
		}
		if cerr := f.Close(); err != nil && !errors.Is(err, unix.EWOULDBLOCK) || cerr != nil {
			return fmt.Errorf("remove an unfinished copy: %w", errors.Join(err, cerr))
		}
	}
	return nil
}

// evidencePacker walks what belongs to a cluster into a tar file.
type evidencePacker struct {
	ctx      context.Context // for the walk only, whose callback takes none
	out      *tar.Writer
	files    int64
	done     int64
	size     int64
	progress func(relight.Progress)
}

func (p *evidencePacker) add(t evidenceTree, path string, d fs.DirEntry, err error) error {
	if err != nil {
		return err
	}
	if err := p.ctx.Err(); err != nil {
		return err
	}
	info, err := d.Info()
	if err != nil {
		return err
	}
	link := ""
	if info.Mode()&fs.ModeSymlink != 0 {
		if link, err = os.Readlink(path); err != nil {
			return err
		}
	}
	if info.Mode()&(fs.ModeSocket|fs.ModeNamedPipe|fs.ModeDevice) != 0 {
		return nil
	}
	h, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return err
	}
	rel, err := filepath.Rel(t.dir, path)
	if err != nil {
		return err
	}
	h.Name = filepath.ToSlash(filepath.Join(t.name, rel))
	if err := p.out.WriteHeader(h); err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return nil
	}
	p.files++
	return p.body(path, info.Size())
}

func (p *evidencePacker) body(path string, size int64) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	n, err := io.Copy(p.out, io.LimitReader(f, size))
	p.done += n
	if p.progress != nil {
		p.progress(relight.Progress{Phase: "keeping evidence", Done: p.done, Total: p.size, Unit: "bytes"})
	}
	return errors.Join(err, f.Close())
}

func treeSize(root string) (int64, error) {
	var size int64
	err := filepath.WalkDir(root, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		size += info.Size()
		return nil
	})
	return size, err
}

func (a *actions) evidence(ctx context.Context, env action.Env, in storeInput) (Evidence, error) {
	c, err := a.open(ctx, in.Store)
	if err != nil {
		return Evidence{}, err
	}
	return c.Store.KeepEvidence(ctx, c.Data, c.Evidence, env.Progress)
}

// probeEvidence finds a whole copy that was made since the step began.
func (a *actions) probeEvidence(ctx context.Context, env action.Env, in storeInput) (action.Probed, error) {
	c, err := a.open(ctx, in.Store)
	if err != nil {
		return action.Probed{}, err
	}
	return evidenceSince(c.Evidence, env.Since)
}

// evidenceSince believes a report only when the copy that it tells of is there.
func evidenceSince(dir string, since time.Time) (action.Probed, error) {
	p, err := reportSince[Evidence](dir, evidenceName+".json", since)
	if e, ok := p.Out.(Evidence); ok && !exists(e.Path) {
		return action.Probed{State: action.NotDone, Detail: e.Path + " was not finished"}, err
	}
	return p, err
}
