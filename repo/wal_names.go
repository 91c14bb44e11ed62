package repo

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/toolboxai/relight"
)

// walClass orders the WAL objects of one timeline as they are reported.
type walClass int

const (
	walSegment walClass = iota
	walLive
	walHistory
)

const metaSuffix = ".meta"

// walName is what a sidecar's object name says.
type walName struct {
	WALKey
	class      walClass
	name       string      // the segment's or the history file's
	start, end relight.LSN // of a live range
}

func walPrefix(store string) string { return "wal/" + store + "/" }

func (k WALKey) prefix() string {
	return fmt.Sprintf("wal/%s/%s/%08X/", k.Store, k.System, uint32(k.Timeline))
}

func (k WALKey) livePrefix(segment string) string { return k.prefix() + "live/" + segment + "/" }

// base is the object name that the body's and the sidecar's names begin with.
func (w walName) base() string {
	if w.class == walLive {
		return fmt.Sprintf("%s%016X-%016X", w.livePrefix(w.name), uint64(w.start), uint64(w.end))
	}
	return w.prefix() + w.name
}

func (w walName) sidecar() string { return w.base() + metaSuffix }

// parseSidecarName reads the object name of a sidecar; ok is false for every other object.
func parseSidecarName(name string) (walName, bool) {
	base, found := strings.CutSuffix(name, metaSuffix)
	parts := strings.Split(base, "/")
	if !found || len(parts) < 5 || parts[0] != "wal" {
		return walName{}, false
	}
	system, err := strconv.ParseUint(parts[2], 10, 64)
	tli, ok := parseUpperHex(parts[3], 8)
	if err != nil || !ok {
		return walName{}, false
	}
	w := walName{WALKey: WALKey{Store: parts[1], System: relight.SystemID(system), Timeline: relight.TimelineID(tli)}}
	if !w.parseRest(parts[4:]) || w.sidecar() != name {
		return walName{}, false
	}
	return w, true
}

func (w *walName) parseRest(parts []string) bool {
	if len(parts) == 1 {
		w.name = parts[0]
		if strings.HasSuffix(w.name, ".history") {
			w.class = walHistory
			return w.name == historyName(w.Timeline)
		}
		return w.validSegment()
	}
	if len(parts) != 3 || parts[0] != "live" {
		return false
	}
	w.class, w.name = walLive, parts[1]
	from, to, found := strings.Cut(parts[2], "-")
	a, ok1 := parseUpperHex(from, 16)
	b, ok2 := parseUpperHex(to, 16)
	w.start, w.end = relight.LSN(a), relight.LSN(b)
	return found && ok1 && ok2 && a < b && w.validSegment()
}

func (w *walName) validSegment() bool {
	tli, _, ok := parseSegment(w.name)
	return ok && tli == w.Timeline
}

func historyName(t relight.TimelineID) string { return fmt.Sprintf("%08X.history", uint32(t)) }

// parseSegment splits a segment's name into its timeline and the two halves of its number.
func parseSegment(name string) (relight.TimelineID, segmentNo, bool) {
	if len(name) != 24 {
		return 0, segmentNo{}, false
	}
	t, ok1 := parseUpperHex(name[:8], 8)
	hi, ok2 := parseUpperHex(name[8:16], 8)
	lo, ok3 := parseUpperHex(name[16:], 8)
	return relight.TimelineID(t), segmentNo{hi: hi, lo: lo}, ok1 && ok2 && ok3 && t > 0
}

// segmentNo is a segment's number as its name writes it.
type segmentNo struct{ hi, lo uint64 }

// start is the first byte of the segment, for a segment size.
func (n segmentNo) start(size int64) (relight.LSN, bool) {
	if !validSegmentSize(size) || n.lo >= (1<<32)/uint64(size) {
		return 0, false
	}
	return relight.LSN(n.hi<<32 | n.lo*uint64(size)), true
}

// validSegmentSize says whether PostgreSQL can use a segment size: a power of two from 1 MiB to 1 GiB.
func validSegmentSize(n int64) bool { return n >= 1<<20 && n <= 1<<30 && n&(n-1) == 0 }

func parseUpperHex(s string, digits int) (uint64, bool) {
	if len(s) != digits || strings.ToUpper(s) != s {
		return 0, false
	}
	v, err := strconv.ParseUint(s, 16, 64)
	return v, err == nil
}

// checkSidecar verifies that a sidecar fits the name of its object.
func (w walName) checkSidecar(s Sidecar) error {
	name := w.sidecar()
	switch {
	case s.System != w.System:
		return refused(name, "it belongs to the cluster with system id %s", s.System)
	case s.Timeline != w.Timeline || s.Name != w.name:
		return refused(name, "it describes %s of timeline %d", s.Name, s.Timeline)
	case !strings.HasPrefix(s.Body, w.base()+"."):
		return refused(name, "its body is said to be %q", s.Body)
	case s.Size < 0 || s.Stored <= 0:
		return refused(name, "it describes %d bytes, stored as %d", s.Size, s.Stored)
	case w.class == walHistory:
		return nil
	}
	_, no, ok := parseSegment(w.name)
	start, fits := no.start(s.SegmentSize)
	if !ok || !fits {
		return refused(name, "a segment size of %d does not fit it", s.SegmentSize)
	}
	end := start + relight.LSN(s.SegmentSize)
	if w.class == walLive {
		if s.Start != w.start || s.End != w.end || s.Start < start || s.End > end {
			return refused(name, "it describes %s to %s", s.Start, s.End)
		}
	} else if s.Start != start || s.End != end {
		return refused(name, "it describes %s to %s", s.Start, s.End)
	}
	if uint64(s.Size) != uint64(s.End-s.Start) {
		return refused(name, "it describes %d bytes for %s to %s", s.Size, s.Start, s.End)
	}
	return nil
}
