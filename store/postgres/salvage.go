package postgres

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/host"
	"github.com/toolboxai/relight/repo"
	"github.com/toolboxai/relight/store/postgres/walfile"
)

const longPageHeader = 40 // of a segment's first page

// SalvageOptions of a Salvage.
type SalvageOptions struct {
	DataDir string    // of the damaged server; "": the store's
	Into    string    // where to save the WAL; "": beside the data directory
	Sink    repo.Sink // also push what was won into the repository; nil: only save
}

// Salvaged is what a damaged server's own WAL holds beyond the repository.
type Salvaged struct {
	System     relight.SystemID   `json:"system"`
	Timeline   relight.TimelineID `json:"timeline"`
	From       relight.LSN        `json:"from"` // end of what the repository held
	To         relight.LSN        `json:"to"`   // end of valid WAL on disk
	Commits    int                `json:"commits"`
	LastCommit time.Time          `json:"last_commit,omitzero"`
	Segments   []string           `json:"segments,omitempty"`
	Bytes      int64              `json:"bytes"`               // beyond the repository
	Directory  string             `json:"directory,omitempty"` // where it was saved; "" when nothing was to win
	Pushed     bool               `json:"pushed"`
	// Broken says that WAL goes on after To, behind a damaged place, and cannot be used. Then commits after To are lost.
	Broken string `json:"broken,omitempty"`
}

// Salvage validates the WAL that a damaged, stopped server left in pg_wal and in the receiver's spool, saves what goes beyond the
// repository, and pushes it there. It reads the data directory and never writes it, and needs nothing of it but pg_wal: pg_control and
// all data files may be ruined.
func (s *Store) Salvage(ctx context.Context, m *repo.Meta, o SalvageOptions) (Salvaged, error) {
	if o.DataDir == "" {
		o.DataDir = s.c.DataDir
	}
	if err := s.awaitIdle(ctx, "salvage", o.DataDir); err != nil {
		return Salvaged{}, err
	}
	a, err := loadArchive(ctx, m, s.c.Name)
	if err != nil {
		return Salvaged{}, err
	}
	v := &salvage{s: s, o: o, a: a}
	if err := v.survey(); err != nil {
		return Salvaged{}, err
	}
	if err := v.read(ctx); err != nil {
		return v.out, err
	}
	if v.out.To <= v.out.From {
		s.log.Info("the server's own WAL holds nothing beyond the repository", "to", v.out.To.String())
		return v.out, v.cover(ctx)
	}
	if err := v.save(); err != nil {
		return v.out, err
	}
	if o.Sink != nil {
		if err := v.push(ctx); err != nil {
			return v.out, err
		}
	}
	s.log.Info("salvaged WAL", "commits", v.out.Commits, "from", v.out.From.String(), "to", v.out.To.String(), "directory", v.out.Directory)
	return v.out, nil
}

// cover records that the repository holds all that the stopped server ever wrote: without it, the time since the last write would count as lost.
func (v *salvage) cover(ctx context.Context) error {
	c, ok := v.o.Sink.(coverer)
	if !ok || v.out.Broken != "" || v.out.To < v.out.From {
		return nil
	}
	k := repo.WALKey{Store: v.s.c.Name, System: v.out.System, Timeline: v.out.Timeline}
	return c.Cover(ctx, k, relight.Point{Timeline: v.out.Timeline, LSN: v.out.To, Time: v.s.now().UTC()})
}

// salvage is one salvage under way.
type salvage struct {
	s       *Store
	o       SalvageOptions
	a       *archive
	size    int64 // of segments
	version int
	files   map[relight.LSN]string // best copy of each segment of the timeline, by start
	history string                 // path of the timeline's history file; "" when there is none
	parts   []salvagedPart
	out     Salvaged
}

// salvagedPart is the WAL of one segment beyond the repository.
type salvagedPart struct {
	sc   repo.Sidecar
	path string
}

// survey finds out whose WAL is there, and the newest timeline of it.
func (v *salvage) survey() error {
	v.out.System = v.a.newestSystem()
	for k := range v.a.lines {
		if v.out.System == 0 {
			v.out.System = k.System
		}
	}
	found, err := v.list()
	if err != nil {
		return err
	}
	for _, f := range found {
		if v.out.System == 0 {
			v.out.System = f.page.System
		}
		if f.page.System == v.out.System {
			v.out.Timeline = max(v.out.Timeline, f.tl)
			v.size, v.version = int64(f.page.SegmentSize), walfile.Major(f.page.Magic)*10000
		}
	}
	if v.size == 0 {
		return v.s.fail("salvage", relight.CodeNotFound, "recover from the repository alone", "no WAL of cluster %s is in %s", v.out.System, strings.Join(v.dirs(), " or "))
	}
	if n := len(v.a.bases); n > 0 && v.a.bases[n-1].Facts.System == v.out.System {
		v.version = v.a.bases[n-1].Facts.Version
	}
	v.files = map[relight.LSN]string{}
	for _, f := range found { // pg_wal comes first; the spool fills what it lacks, and wins where it has more
		if f.page.System != v.out.System || f.tl != v.out.Timeline {
			continue
		}
		if have, ok := v.files[f.start]; !ok || validBytes(f.path, v.out.System, v.size) > validBytes(have, v.out.System, v.size) {
			v.files[f.start] = f.path
		}
	}
	v.out.From = v.durable()
	return nil
}

func (v *salvage) dirs() []string {
	dirs := []string{filepath.Join(v.o.DataDir, walDir)}
	if v.s.c.Spool != "" {
		dirs = append(dirs, filepath.Join(v.s.c.Spool, "wal"))
	}
	return dirs
}

// foundSegment is a segment file whose first page is what its name says.
type foundSegment struct {
	path  string
	tl    relight.TimelineID
	start relight.LSN
	page  walfile.Page
}

func (v *salvage) list() ([]foundSegment, error) {
	var out []foundSegment
	for _, dir := range v.dirs() {
		entries, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read the server's own WAL: %w", err)
		}
		for _, e := range entries {
			if f, ok := lookAt(filepath.Join(dir, e.Name())); ok {
				out = append(out, f)
			}
		}
	}
	return out, nil
}

// lookAt reads the first page's header. A recycled file still carries the address of its former life.
func lookAt(path string) (foundSegment, bool) {
	f := foundSegment{path: path}
	if !walfile.IsSegmentName(filepath.Base(path)) {
		return f, false
	}
	file, err := os.Open(path)
	if err != nil {
		return f, false
	}
	defer func() { _ = file.Close() }()
	head := make([]byte, longPageHeader)
	if _, err := io.ReadFull(file, head); err != nil {
		return f, false
	}
	if f.page, err = walfile.ParsePage(head); err != nil || !f.page.Long() || !walfile.ValidSegmentSize(int64(f.page.SegmentSize)) {
		return f, false
	}
	f.tl, f.start, err = walfile.ParseSegmentName(filepath.Base(path), int64(f.page.SegmentSize))
	return f, err == nil && f.page.Address == f.start
}

func validBytes(path string, system relight.SystemID, size int64) relight.LSN {
	_, end, _, err := validSegment(path, system, size)
	if err != nil {
		return 0
	}
	return end
}

// durable is the end of what the repository holds without interruption. A repository that has nothing of the timeline gets it
// from the first segment on disk that leads to the end.
func (v *salvage) durable() relight.LSN {
	l := v.a.lines[lineKey{v.out.System, v.out.Timeline}]
	if l != nil {
		for _, b := range slices.Backward(v.a.bases) {
			if b.Facts.System == v.out.System && usable(b, l.path) {
				return v.a.reach(b, l).End
			}
		}
		if n := len(l.pieces); n > 0 {
			return l.pieces[n-1].End
		}
	}
	if l == nil {
		for _, b := range slices.Backward(v.a.bases) { // the timeline is new: what leads up to it is durable on its parent
			if parent := v.a.lines[lineKey{v.out.System, b.Facts.Timeline}]; parent != nil && b.Facts.System == v.out.System {
				if start, ok := v.firstContiguous(); ok {
					return min(start, v.a.reach(b, parent).End)
				}
			}
		}
	}
	start, _ := v.firstContiguous()
	return start
}

// firstContiguous is the start of the segments that lead without a hole to the newest.
func (v *salvage) firstContiguous() (relight.LSN, bool) {
	starts := make([]relight.LSN, 0, len(v.files))
	for at := range v.files {
		starts = append(starts, at)
	}
	if len(starts) == 0 {
		return 0, false
	}
	slices.SortFunc(starts, func(a, b relight.LSN) int { return cmp.Compare(b, a) })
	first := starts[0]
	for _, at := range starts[1:] {
		if at+relight.LSN(v.size) != first {
			break
		}
		first = at
	}
	return first, true
}

// read validates every record from the durable end on, and makes the sidecars of what is beyond.
func (v *salvage) read(ctx context.Context) error {
	size := relight.LSN(v.size)
	at := walfile.SegmentStart(v.out.From, v.size)
	if first, ok := v.firstContiguous(); ok && at < first {
		if v.files[at] == "" { // the server has recycled what the repository lacks
			v.out.Broken = fmt.Sprintf("WAL from %s to %s is neither in the repository nor on disk", v.out.From, first)
			v.out.To = v.out.From
			return nil
		}
	}
	begin := at
	if at >= size && v.files[at-size] != "" { // so that a record that spans the border is seen
		begin = at - size
	}
	scan, err := walfile.NewScanner(walfile.Options{Start: begin, SegmentSize: v.size, Check: true, System: v.out.System, Timeline: v.out.Timeline})
	if err != nil {
		return err
	}
	v.out.To = v.out.From
	for pos := begin; v.files[pos] != ""; pos += size {
		if err := ctx.Err(); err != nil {
			return err
		}
		whole, err := v.segment(scan, pos)
		if err != nil {
			return err
		}
		if !whole {
			break
		}
	}
	return nil
}

// segment reads one file; whole tells that it is valid to its last byte, so that the next one follows.
func (v *salvage) segment(scan *walfile.Scanner, start relight.LSN) (whole bool, err error) {
	path := v.files[start]
	end := start + relight.LSN(v.size)
	sc := repo.Sidecar{
		System: v.out.System, Timeline: v.out.Timeline, Name: walfile.SegmentName(v.out.Timeline, start, v.size),
		SegmentSize: v.size, Version: v.version, Start: start, End: end,
	}
	fresh := sc // facts of what lies beyond the repository
	valid, stopped, err := feedFile(path, scan, v.size, func(e walfile.Event) error {
		addFact(&sc, e)
		if e.End > v.out.From {
			addFact(&fresh, e)
		}
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("read %s: %w", path, err)
	}
	if stopped {
		end = min(valid, end)
		v.out.Broken = v.beyond(path, start, valid)
	}
	if end <= v.out.From {
		return !stopped, nil
	}
	if stopped || start < v.out.From { // not to be known as a whole segment: a live range
		sc = fresh
		sc.Start, sc.End = max(start, v.out.From), end
	}
	if !stopped {
		sc.Start, sc.End = start, end
	}
	v.parts = append(v.parts, salvagedPart{sc: sc, path: path})
	v.out.To, v.out.Segments = end, append(v.out.Segments, sc.Name)
	v.out.Bytes += int64(end - max(start, v.out.From))
	v.out.Commits += fresh.Commits
	if fresh.LastCommit.After(v.out.LastCommit) {
		v.out.LastCommit = fresh.LastCommit
	}
	return !stopped, nil
}

// feedFile feeds a segment file; stopped tells that WAL ends in it, at valid.
func feedFile(path string, scan *walfile.Scanner, size int64, fn func(walfile.Event) error) (valid relight.LSN, stopped bool, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, false, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	buf := make([]byte, 256<<10)
	for left := size; left > 0; {
		n, rerr := f.Read(buf[:min(int64(len(buf)), left)])
		left -= int64(n)
		if ferr := scan.Feed(buf[:n], fn); errors.Is(ferr, walfile.ErrInvalid) {
			return scan.ValidEnd(), true, nil
		} else if ferr != nil {
			return 0, false, ferr
		}
		if errors.Is(rerr, io.EOF) { // a spool's segment under way
			return scan.ValidEnd(), left > 0, nil
		}
		if rerr != nil {
			return 0, false, rerr
		}
	}
	return scan.ValidEnd(), false, nil
}

// beyond looks for pages after the end of valid WAL that carry their right address: then WAL was not at its end there but damaged.
func (v *salvage) beyond(path string, start, valid relight.LSN) string {
	next := (valid + walfile.PageSize) &^ (walfile.PageSize - 1)
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	head := make([]byte, longPageHeader)
	for at := next; at < start+relight.LSN(v.size); at += walfile.PageSize {
		if _, err := f.ReadAt(head, int64(at-start)); err != nil {
			break
		}
		if p, err := walfile.ParsePage(head); err == nil && p.Address == at && p.Timeline == v.out.Timeline {
			return fmt.Sprintf("WAL is damaged at %s and goes on at %s", valid, at)
		}
	}
	if after := start + relight.LSN(v.size); v.files[after] != "" {
		return fmt.Sprintf("WAL is damaged at %s and goes on at %s", valid, after)
	}
	return ""
}

// save copies the files, durably, with a note of what they are.
func (v *salvage) save() error {
	dir := v.o.Into
	if dir == "" {
		dir = filepath.Clean(v.o.DataDir) + ".salvaged-" + v.s.now().UTC().Format("20060102T150405Z")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return v.s.fail("salvage", relight.CodeFailed, "name another directory to save into", "%w", err)
	}
	name := walfile.HistoryName(v.out.Timeline)
	for _, from := range v.dirs() {
		if path := filepath.Join(from, name); v.history == "" && exists(path) {
			v.history = path
		}
	}
	paths := []string{}
	if v.history != "" {
		paths = append(paths, v.history)
	}
	for _, p := range v.parts {
		paths = append(paths, p.path)
	}
	for _, path := range paths {
		if err := copyDurable(path, filepath.Join(dir, filepath.Base(path))); err != nil {
			return v.s.fail("salvage", relight.CodeFailed, "make room, or name another directory to save into", "%w", err)
		}
	}
	v.out.Directory = dir
	note, err := json.MarshalIndent(v.out, "", "  ")
	if err != nil {
		return err
	}
	return host.WriteFileDurable(filepath.Join(dir, "salvage.json"), append(note, '\n'), 0o600)
}

func copyDurable(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(to+".part", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err == nil {
		err = out.Sync()
	}
	if err = errors.Join(err, out.Close()); err != nil {
		return err
	}
	if err := os.Rename(to+".part", to); err != nil {
		return err
	}
	return host.SyncDir(filepath.Dir(to))
}
