package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/repo"
	"github.com/toolboxai/relight/store/postgres/walfile"
)

// walCatalog is what repository and overlays hold of one cluster.
type walCatalog struct {
	size      int64
	segments  map[string]walHeld
	histories map[relight.TimelineID][]byte
	begins    map[relight.TimelineID]relight.LSN // where a timeline's own WAL can begin, as its history says
	newest    map[relight.TimelineID]relight.LSN // end of the furthest WAL of each timeline
	gaps      []relight.Gap
}

// walHeld says how much of a segment is to be had.
type walHeld struct {
	end        relight.LSN // of what the repository holds, from the segment's beginning
	overlay    string      // path of the server's own copy
	overlayEnd relight.LSN // of valid WAL in it
}

func readCatalog(ctx context.Context, o WALServerOptions) (*walCatalog, error) {
	c := &walCatalog{segments: map[string]walHeld{}, begins: map[relight.TimelineID]relight.LSN{}, newest: map[relight.TimelineID]relight.LSN{}}
	live := map[string][]repo.Sidecar{}
	err := o.Repository.Sidecars(ctx, o.Store, func(k repo.WALKey, s repo.Sidecar, isLive bool) error {
		if k.System != o.System || !walfile.IsSegmentName(s.Name) {
			return nil
		}
		if c.size == 0 {
			c.size = s.SegmentSize
		}
		c.newest[k.Timeline] = max(c.newest[k.Timeline], s.End)
		if isLive {
			live[s.Name] = append(live[s.Name], s)
			return nil
		}
		c.segments[s.Name] = walHeld{end: s.End}
		return nil
	})
	if err != nil {
		return nil, err
	}
	c.joinLive(live)
	if err := c.readHistories(ctx, o); err != nil {
		return nil, err
	}
	if c.gaps, err = o.Repository.Gaps(ctx, o.Store, o.System); err != nil {
		return nil, err
	}
	for _, dir := range o.Overlays {
		if err := c.overlay(dir, o.System); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// joinLive finds how far the live ranges of a segment reach from its beginning without a hole.
func (c *walCatalog) joinLive(live map[string][]repo.Sidecar) {
	for name, ranges := range live {
		_, at, err := walfile.ParseSegmentName(name, c.size)
		held := c.segments[name]
		if err != nil || held.end > 0 {
			continue
		}
		begin := at
		for moved := true; moved; {
			moved = false
			for _, r := range ranges {
				if r.Start <= at && r.End > at {
					at, moved = r.End, true
				}
			}
		}
		if at > begin {
			held.end = at
			c.segments[name] = held
		}
	}
}

func (c *walCatalog) readHistories(ctx context.Context, o WALServerOptions) error {
	var err error
	if c.histories, err = o.Repository.Histories(ctx, o.Store, o.System); err != nil {
		return err
	}
	if c.histories == nil {
		c.histories = map[relight.TimelineID][]byte{}
	}
	for _, dir := range o.Overlays {
		names, err := filepath.Glob(filepath.Join(dir, "*.history"))
		if err != nil {
			return err
		}
		for _, path := range names {
			tl, err := walfile.ParseHistoryName(filepath.Base(path))
			if err != nil || c.histories[tl] != nil {
				continue
			}
			if c.histories[tl], err = os.ReadFile(path); err != nil {
				return err
			}
		}
	}
	for tl, text := range c.histories {
		path, err := walfile.ParseHistory(tl, string(text))
		if err != nil {
			return err
		}
		for _, b := range path {
			c.begins[b.Timeline] = b.Begin
		}
	}
	return nil
}

// overlay adds the segments of a directory, as far as they are valid WAL of the cluster.
func (c *walCatalog) overlay(dir string, system relight.SystemID) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the server's own WAL: %w", err)
	}
	for _, e := range entries {
		if !walfile.IsSegmentName(e.Name()) || !e.Type().IsRegular() {
			continue
		}
		path := filepath.Join(dir, e.Name())
		tl, end, size, err := validSegment(path, system, c.size)
		if err != nil {
			return fmt.Errorf("read the server's own WAL: %w", err)
		}
		if end == 0 {
			continue
		}
		c.size = size
		held := c.segments[e.Name()]
		if end > held.overlayEnd {
			held.overlay, held.overlayEnd = path, end
		}
		c.segments[e.Name()] = held
		c.newest[tl] = max(c.newest[tl], end)
	}
	return nil
}

// validSegment finds the end of valid WAL in a segment file, 0 if it holds none of this cluster under this name. A file that is valid
// to its last byte ends there, because the record at its end may go on in the next one.
func validSegment(path string, system relight.SystemID, size int64) (tl relight.TimelineID, end relight.LSN, segment int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, 0, 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	head := make([]byte, 40)
	if _, err := io.ReadFull(f, head); err != nil {
		return 0, 0, 0, nil // too short to hold anything
	}
	page, perr := walfile.ParsePage(head)
	if perr != nil || !page.Long() || size != 0 && int64(page.SegmentSize) != size {
		return 0, 0, 0, nil
	}
	size = int64(page.SegmentSize)
	tl, start, nerr := walfile.ParseSegmentName(filepath.Base(path), size)
	if nerr != nil || start != page.Address {
		return 0, 0, 0, nil // recycled, not yet written
	}
	scan, serr := walfile.NewScanner(walfile.Options{Start: start, SegmentSize: size, Check: true, System: system, Timeline: tl})
	if serr != nil {
		return 0, 0, 0, nil
	}
	end, err = scanFile(f, scan, start)
	if end <= start {
		end = 0
	}
	return tl, min(end, start+relight.LSN(size)), size, err
}

// scanFile feeds a whole file and gives the end of valid WAL in it.
func scanFile(f io.ReadSeeker, scan *walfile.Scanner, start relight.LSN) (relight.LSN, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return 0, err
	}
	buf := make([]byte, 256<<10)
	for {
		n, err := f.Read(buf)
		if ferr := scan.Feed(buf[:n], nil); ferr != nil {
			return scan.ValidEnd(), nil
		}
		if errors.Is(err, io.EOF) {
			return max(scan.Pos(), start), nil
		}
		if err != nil {
			return 0, err
		}
	}
}

// copyOverlay writes the server's own copy, valid bytes only, padded with zeros.
func copyOverlay(h walHeld, size int64, w io.Writer) error {
	f, err := os.Open(h.overlay)
	if err != nil {
		return err
	}
	_, start, err := walfile.ParseSegmentName(filepath.Base(h.overlay), size)
	if err == nil {
		valid := int64(h.overlayEnd - start)
		if _, err = io.CopyN(w, f, valid); err == nil {
			_, err = io.CopyN(w, zeros{}, size-valid)
		}
	}
	return errors.Join(err, f.Close())
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func (c *walCatalog) has(name string) bool {
	if tl, err := walfile.ParseHistoryName(name); err == nil {
		return c.histories[tl] != nil
	}
	_, ok := c.segments[name]
	return ok
}

func (c *walCatalog) history(name string) []byte {
	tl, _ := walfile.ParseHistoryName(name)
	return c.histories[tl]
}

// impossible says why a file that is not to be had cannot be called absent: WAL after it exists, so it existed. "" means
// that nothing speaks against absence.
func (c *walCatalog) impossible(name string) string {
	if strings.HasSuffix(name, ".history") {
		return c.impossibleHistory(name)
	}
	if c.size == 0 || !walfile.IsSegmentName(name) {
		return "" // ".partial", ".backup": never stored here, never needed
	}
	tl, start, err := walfile.ParseSegmentName(name, c.size)
	if err != nil {
		return err.Error()
	}
	begin, known := c.begins[tl]
	if known && start < walfile.SegmentStart(begin, c.size) {
		return "" // before the timeline branched off: it never was on it
	}
	if c.newest[tl] > start {
		return fmt.Sprintf("WAL up to %s of timeline %d is there", c.newest[tl], tl)
	}
	for _, g := range c.gaps {
		if g.Timeline == tl && g.To > start {
			return fmt.Sprintf("it lies in the gap from %s to %s: %s", g.From, g.To, g.Why)
		}
	}
	return ""
}

// impossibleHistory: a timeline of which WAL is there has a history, except the first.
func (c *walCatalog) impossibleHistory(name string) string {
	tl, err := walfile.ParseHistoryName(name)
	if err != nil {
		return err.Error()
	}
	if tl > 1 && c.newest[tl] > 0 {
		return fmt.Sprintf("WAL of timeline %d is there", tl)
	}
	return ""
}

// after lists the names of up to n segments to be had that follow name on its timeline.
func (c *walCatalog) after(name string, n int) []string {
	if c.size == 0 || !walfile.IsSegmentName(name) {
		return nil
	}
	tl, start, err := walfile.ParseSegmentName(name, c.size)
	if err != nil {
		return nil
	}
	var list []string
	for i := range n {
		next := walfile.SegmentName(tl, start+relight.LSN(int64(i+1)*c.size), c.size)
		if !c.has(next) {
			break
		}
		list = append(list, next)
	}
	return list
}
