package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/store/postgres/walfile"
)

// spool is the receiver's directory: wal/ holds segments under the server's names, a segment under way being as long as
// what has been received, beside timeline histories and records of gaps; spool.json says whose WAL it is.
//
// It promises that sync returns only when bytes and names survive the loss of power, and that load finds exactly the
// valid WAL that was there, whatever the moment of a crash.
type spool struct {
	dir  string
	lock *os.File

	mu    sync.Mutex
	id    spoolIdentity
	files map[string]int64 // segments and their lengths
	bytes int64
}

// spoolIdentity is spool.json.
type spoolIdentity struct {
	Format      int              `json:"format"`
	System      relight.SystemID `json:"system"`
	SegmentSize int64            `json:"segment_size"`
	Version     int              `json:"server_version"`
}

// errSpoolBusy says that another process follows into the spool.
var errSpoolBusy = errors.New("another receiver uses the spool")

func openSpool(dir string) (*spool, error) {
	if err := os.MkdirAll(filepath.Join(dir, "wal"), 0o700); err != nil {
		return nil, fmt.Errorf("make the spool: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the spool: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("%w at %s", errSpoolBusy, dir), lock.Close())
	}
	s := &spool{dir: dir, lock: lock, files: map[string]int64{}}
	if err := s.readIdentity(); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return s, nil
}

func (s *spool) close() error { return s.lock.Close() }

func (s *spool) path(name string) string { return filepath.Join(s.dir, "wal", name) }

func (s *spool) identity() spoolIdentity {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.id
}

func (s *spool) readIdentity() error {
	b, err := os.ReadFile(filepath.Join(s.dir, "spool.json"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the spool's identity: %w", err)
	}
	if err := json.Unmarshal(b, &s.id); err != nil {
		return fmt.Errorf("read the spool's identity: %w", err)
	}
	if s.id.Format != 1 || !walfile.ValidSegmentSize(s.id.SegmentSize) {
		return fmt.Errorf("the spool at %s has format %d, or segments of %d bytes: made by another version", s.dir, s.id.Format, s.id.SegmentSize)
	}
	return nil
}

// adopt makes the spool the cluster's, or refuses: an empty spool may change hands.
func (s *spool) adopt(id spoolIdentity) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	id.Format = 1
	if s.id == id {
		return nil
	}
	if len(s.files) > 0 && (s.id.System != id.System || s.id.SegmentSize != id.SegmentSize) {
		return fmt.Errorf("the spool at %s holds WAL of system %s with segments of %d bytes; the server is system %s with %d",
			s.dir, s.id.System, s.id.SegmentSize, id.System, id.SegmentSize)
	}
	b, err := json.Marshal(id)
	if err != nil {
		return err
	}
	if err := replaceFile(filepath.Join(s.dir, "spool.json"), b); err != nil {
		return fmt.Errorf("write the spool's identity: %w", err)
	}
	s.id = id
	return nil
}

// spoolRun is a piece of continuous WAL found in the spool.
type spoolRun struct {
	tl         relight.TimelineID
	begin, end relight.LSN
	gap        *relight.Gap
	history    []byte
}

// load validates what is there, cuts off what is not valid, and gives the pieces in order.
func (s *spool) load(ctx context.Context) ([]spoolRun, error) {
	entries, err := os.ReadDir(filepath.Join(s.dir, "wal"))
	if err != nil {
		return nil, fmt.Errorf("read the spool: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var runs []spoolRun
	var scan *walfile.Scanner
	for _, e := range entries { // names sort by timeline, then position
		if strings.Contains(e.Name(), ".tmp") {
			if err := os.Remove(s.path(e.Name())); err != nil {
				return nil, err
			}
			continue
		}
		if !walfile.IsSegmentName(e.Name()) {
			continue
		}
		if s.id.System == 0 {
			return nil, errors.New("the spool holds WAL but does not say of which system: spool.json is missing")
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if runs, scan, err = s.loadSegment(e.Name(), runs, scan); err != nil {
			return nil, err
		}
	}
	for i := range runs {
		if err := s.loadContext(&runs[i], i == 0 || runs[i-1].tl != runs[i].tl); err != nil {
			return nil, err
		}
	}
	return runs, nil
}

// loadSegment adds one segment to the last run, or begins a new one.
func (s *spool) loadSegment(name string, runs []spoolRun, scan *walfile.Scanner) ([]spoolRun, *walfile.Scanner, error) {
	tl, start, err := walfile.ParseSegmentName(name, s.id.SegmentSize)
	if err != nil {
		return nil, nil, fmt.Errorf("read the spool: %w", err)
	}
	n := len(runs)
	if n == 0 || runs[n-1].tl != tl || runs[n-1].end != start {
		runs = append(runs, spoolRun{tl: tl, begin: start, end: start})
		n++
		scan, err = walfile.NewScanner(walfile.Options{Start: start, SegmentSize: s.id.SegmentSize, Check: true, System: s.id.System, Timeline: tl})
		if err != nil {
			return nil, nil, err
		}
	}
	end, err := s.validate(name, start, scan)
	if err != nil {
		return nil, nil, err
	}
	if end <= start {
		if runs[n-1].begin == runs[n-1].end {
			runs = runs[:n-1]
		}
		return runs, scan, os.Remove(s.path(name))
	}
	s.files[name] = int64(end - start)
	s.bytes += int64(end - start)
	runs[n-1].end = end
	return runs, scan, nil
}

// validate finds the end of valid WAL in a segment and cuts the file there. A record that ends in a later segment, or has not
// been received whole, is kept as far as it goes.
func (s *spool) validate(name string, start relight.LSN, scan *walfile.Scanner) (relight.LSN, error) {
	f, err := os.OpenFile(s.path(name), os.O_RDWR, 0)
	if err != nil {
		return 0, fmt.Errorf("read the spool: %w", err)
	}
	end, err := scanFile(f, scan, start)
	end = min(end, start+relight.LSN(s.id.SegmentSize))
	if err == nil && end >= start {
		err = f.Truncate(int64(end - start))
	}
	if err == nil {
		err = f.Sync() // whether it was before the crash is not known
	}
	return end, errors.Join(err, f.Close())
}

// loadContext finds history and gap that belong before a run.
func (s *spool) loadContext(run *spoolRun, first bool) error {
	var err error
	if first && run.tl > 1 {
		run.history, err = os.ReadFile(s.path(walfile.HistoryName(run.tl)))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("read the spool: %w", err)
		}
	}
	b, err := os.ReadFile(s.path(gapName(run.tl, run.begin)))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the spool: %w", err)
	}
	run.gap = &relight.Gap{}
	if err := json.Unmarshal(b, run.gap); err != nil {
		return fmt.Errorf("read the spool: %s: %w", gapName(run.tl, run.begin), err)
	}
	return nil
}

func gapName(tl relight.TimelineID, before relight.LSN) string {
	return fmt.Sprintf("%08X%016X.gap", uint32(tl), uint64(before))
}

// remember writes down, before the first byte of a stretch, what comes before it.
func (s *spool) remember(st *stretch) error {
	if len(st.history) > 0 {
		if err := replaceFile(s.path(walfile.HistoryName(st.tl)), st.history); err != nil {
			return fmt.Errorf("spool a timeline's history: %w", err)
		}
	}
	if st.gap == nil {
		return nil
	}
	b, err := json.Marshal(st.gap)
	if err != nil {
		return err
	}
	if err := replaceFile(s.path(gapName(st.tl, st.begin)), b); err != nil {
		return fmt.Errorf("spool a gap: %w", err)
	}
	return nil
}

// used is the number of bytes held.
func (s *spool) used() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes
}

func (s *spool) grew(name string, length int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bytes += length - s.files[name]
	s.files[name] = length
}

// drop removes the segments of a stretch, written so far, that end at or before lsn; with all, the one under way and the gap, too.
func (s *spool) drop(st *stretch, written, lsn relight.LSN, all bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for name := range s.files {
		tl, start, err := walfile.ParseSegmentName(name, s.id.SegmentSize)
		mine := err == nil && tl == st.tl && start >= st.begin && start < max(written, st.begin+1)
		if mine && (all || start+relight.LSN(s.id.SegmentSize) <= lsn) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		if err := removeIfThere(s.path(name)); err != nil {
			return fmt.Errorf("remove a shipped segment: %w", err)
		}
		s.bytes -= s.files[name]
		delete(s.files, name)
	}
	if !all {
		return nil
	}
	return removeIfThere(s.path(gapName(st.tl, st.begin)))
}

// open reads from a segment of the spool.
func (s *spool) open(tl relight.TimelineID, start relight.LSN) (*os.File, error) {
	f, err := os.Open(s.path(walfile.SegmentName(tl, start, s.identity().SegmentSize)))
	if err != nil {
		return nil, fmt.Errorf("read the spool: %w", err)
	}
	return f, nil
}

// replaceFile writes a small file so that it is there whole or not at all, after a crash, too.
func replaceFile(path string, b []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".tmp*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, removeIfThere(f.Name()))
		}
	}()
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDirectory(filepath.Dir(path))
}

// syncDirectory makes names durable.
func syncDirectory(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
