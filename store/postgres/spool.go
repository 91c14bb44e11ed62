package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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
	disk spoolDisk
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

func openSpool(dir string) (*spool, error) { return openSpoolOn(systemDisk{}, dir) }

func openSpoolOn(disk spoolDisk, dir string) (*spool, error) {
	if err := makeDurable(disk, filepath.Join(dir, "wal")); err != nil {
		return nil, fmt.Errorf("make the spool: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the spool: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("%w at %s", errSpoolBusy, dir), lock.Close())
	}
	s := &spool{dir: dir, disk: disk, lock: lock, files: map[string]int64{}}
	if err := s.readIdentity(); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return s, nil
}

func (s *spool) close() error {
	// Said aloud: a child that is just being created may share the descriptor for a moment.
	return errors.Join(unix.Flock(int(s.lock.Fd()), unix.LOCK_UN), s.lock.Close())
}

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
	if err := replaceFile(s.disk, filepath.Join(s.dir, "spool.json"), b); err != nil {
		return fmt.Errorf("write the spool's identity: %w", err)
	}
	s.id = id
	return nil
}

// spoolRun is a piece of continuous WAL found in the spool.
type spoolRun struct {
	tl         relight.TimelineID
	begin, end relight.LSN
	whole      relight.LSN // where its last whole record ends
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
			if err := s.disk.Remove(s.path(e.Name())); err != nil {
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
	if err := s.disk.SyncDir(filepath.Join(s.dir, "wal")); err != nil { // whose names the dead process may not have come to sync
		return nil, fmt.Errorf("read the spool: %w", err)
	}
	if runs, err = s.cutHalves(runs); err != nil {
		return nil, err
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
		return runs, scan, s.disk.Remove(s.path(name))
	}
	s.files[name] = int64(end - start)
	s.bytes += int64(end - start)
	runs[n-1].end, runs[n-1].whole = end, max(runs[n-1].begin, min(end, aligned(scan.ValidEnd())))
	return runs, scan, nil
}

// validate finds the end of valid WAL in a segment and cuts the file there. A record that ends in a later segment is kept as far as it goes.
func (s *spool) validate(name string, start relight.LSN, scan *walfile.Scanner) (relight.LSN, error) {
	f, err := s.disk.Open(s.path(name))
	if err != nil {
		return 0, fmt.Errorf("read the spool: %w", err)
	}
	end, err := scanFile(f, scan, start)
	length, serr := f.Seek(0, io.SeekEnd)
	err = errors.Join(err, serr)
	end = min(aligned(end), start+relight.LSN(length), start+relight.LSN(s.id.SegmentSize))
	if err == nil && end >= start {
		err = f.Truncate(int64(end - start))
	}
	if err == nil {
		err = f.Sync() // whether it was before the crash is not known
	}
	return end, errors.Join(err, f.Close())
}

// aligned is where a record may begin that comes after one which ends at lsn: what a commit waits for.
func aligned(lsn relight.LSN) relight.LSN { return (lsn + 7) &^ 7 }

// cutHalves cuts off the record that a run ends within. What has come of it cannot be verified before its end has: a loss of power may have left a hole in it, and
// the server, whose slot has not moved, sends it once more. A timeline that another follows ends where the server left it, whatever lies there.
func (s *spool) cutHalves(runs []spoolRun) ([]spoolRun, error) {
	kept := runs[:0]
	for i, run := range runs {
		if i == len(runs)-1 || runs[i+1].tl == run.tl {
			if err := s.cut(run); err != nil {
				return nil, fmt.Errorf("read the spool: %w", err)
			}
			run.end = run.whole
		}
		if run.end > run.begin {
			kept = append(kept, run)
		}
	}
	return kept, nil
}

// cut removes what a run holds behind its last whole record, the last of it first.
func (s *spool) cut(run spoolRun) error {
	size := relight.LSN(s.id.SegmentSize)
	for start := walfile.SegmentStart(run.end-1, s.id.SegmentSize); start+size > run.whole && start >= run.begin && run.end > run.whole; start -= size {
		name := walfile.SegmentName(run.tl, start, s.id.SegmentSize)
		left := max(0, int64(run.whole)-int64(start))
		if err := s.shorten(name, left); err != nil {
			return err
		}
		s.bytes -= s.files[name] - left
		if s.files[name] = left; left == 0 {
			delete(s.files, name)
		}
	}
	return nil
}

// shorten cuts a segment to a length, 0 removes it.
func (s *spool) shorten(name string, length int64) error {
	if length == 0 {
		return s.disk.Remove(s.path(name))
	}
	f, err := s.disk.Open(s.path(name))
	if err != nil {
		return err
	}
	err = f.Truncate(length)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
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
		if err := replaceFile(s.disk, s.path(walfile.HistoryName(st.tl)), st.history); err != nil {
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
	if err := replaceFile(s.disk, s.path(gapName(st.tl, st.begin)), b); err != nil {
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
		if err := s.remove(name); err != nil {
			return fmt.Errorf("remove a shipped segment: %w", err)
		}
		s.bytes -= s.files[name]
		delete(s.files, name)
	}
	if !all {
		return nil
	}
	return s.remove(gapName(st.tl, st.begin))
}

func (s *spool) remove(name string) error {
	if err := s.disk.Remove(s.path(name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// open reads from a segment of the spool.
func (s *spool) open(tl relight.TimelineID, start relight.LSN) (*os.File, error) {
	f, err := os.Open(s.path(walfile.SegmentName(tl, start, s.identity().SegmentSize)))
	if err != nil {
		return nil, fmt.Errorf("read the spool: %w", err)
	}
	return f, nil
}
