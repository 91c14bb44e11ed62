package walfile

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/toolboxai/relight"
)

// ValidSegmentSize tells whether a server could have been made with segments of size bytes.
func ValidSegmentSize(size int64) bool {
	return size >= MinSegment && size <= MaxSegment && size&(size-1) == 0
}

// SegmentStart is the first byte of the segment that holds lsn.
func SegmentStart(lsn relight.LSN, size int64) relight.LSN {
	return lsn - relight.LSN(uint64(lsn)%uint64(size))
}

// SegmentName is the server's name of the segment that holds lsn.
func SegmentName(tl relight.TimelineID, lsn relight.LSN, size int64) string {
	perID := uint64(1<<32) / uint64(size)
	n := uint64(lsn) / uint64(size)
	return fmt.Sprintf("%08X%08X%08X", uint32(tl), n/perID, n%perID)
}

// ParseSegmentName gives timeline and first byte of a segment.
func ParseSegmentName(name string, size int64) (relight.TimelineID, relight.LSN, error) {
	if !IsSegmentName(name) {
		return 0, 0, fmt.Errorf("%q is not the name of a WAL segment", name)
	}
	tl, _ := strconv.ParseUint(name[:8], 16, 32)
	hi, _ := strconv.ParseUint(name[8:16], 16, 32)
	lo, _ := strconv.ParseUint(name[16:], 16, 32)
	perID := uint64(1<<32) / uint64(size)
	if lo >= perID || tl == 0 {
		return 0, 0, fmt.Errorf("%q is not the name of a WAL segment of %d bytes", name, size)
	}
	return relight.TimelineID(tl), relight.LSN((hi*perID + lo) * uint64(size)), nil
}

// IsSegmentName tells whether name has the form of a segment's: 24 upper-case hex digits.
func IsSegmentName(name string) bool { return len(name) == 24 && isHex(name) }

// HistoryName is the name of a timeline's history file.
func HistoryName(tl relight.TimelineID) string { return fmt.Sprintf("%08X.history", uint32(tl)) }

// ParseHistoryName gives the timeline of a history file's name.
func ParseHistoryName(name string) (relight.TimelineID, error) {
	digits, ok := strings.CutSuffix(name, ".history")
	if !ok || len(digits) != 8 || !isHex(digits) {
		return 0, fmt.Errorf("%q is not the name of a timeline history", name)
	}
	tl, err := strconv.ParseUint(digits, 16, 32)
	return relight.TimelineID(tl), err
}

func isHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'A' || c > 'F') {
			return false
		}
	}
	return true
}
