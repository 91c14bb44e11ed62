package estate

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/toolboxai/relight"
)

// ParseTime reads a moment as people write it. A time without an offset is in zone; one that occurs twice or never there, because clocks were
// changed, is refused.
func ParseTime(text string, zone *time.Location) (time.Time, error) {
	exact := text
	if wall, ok := strings.CutSuffix(text, " UTC"); ok { // as in the server's log
		exact = wall + "Z"
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02 15:04:05.999999999Z07:00", "2006-01-02 15:04:05.999999999Z07" /* as psql shows it */, "2006-01-02T15:04:05.999999999Z0700"} {
		if t, err := time.Parse(layout, exact); err == nil {
			return t, nil
		}
	}
	for _, layout := range []string{"2006-01-02 15:04:05.999999999", "2006-01-02T15:04:05.999999999", "2006-01-02 15:04", "2006-01-02T15:04"} {
		wall, err := time.Parse(layout, text)
		if err != nil {
			continue
		}
		return inZone(text, wall, zone)
	}
	return time.Time{}, timeError(text, errors.New("it is not a time"), `write it as "2006-01-02 15:04:05", with an offset such as +02:00 if it is not in the estate's zone`)
}

// inZone finds the instants at which zone's clocks show wall.
func inZone(text string, wall time.Time, zone *time.Location) (time.Time, error) {
	var found []time.Time
	seen := map[int]bool{}
	for _, near := range []time.Time{wall.Add(-26 * time.Hour), wall, wall.Add(26 * time.Hour)} {
		_, offset := near.In(zone).Zone()
		if seen[offset] {
			continue
		}
		seen[offset] = true
		t := wall.Add(-time.Duration(offset) * time.Second)
		if _, actual := t.In(zone).Zone(); actual == offset {
			found = append(found, t)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return time.Time{}, timeError(text, fmt.Errorf("clocks in %s never showed it: they were put forward", zone), "give the offset: 2006-01-02T15:04:05+02:00")
	default:
		return time.Time{}, timeError(text, fmt.Errorf("clocks in %s showed it twice: %s and %s", zone, found[0].Format(time.RFC3339), found[1].Format(time.RFC3339)),
			"give the offset of the one that is meant")
	}
}

func timeError(text string, err error, hint string) error {
	return &relight.Error{Op: "read time", Subject: fmt.Sprintf("%q", text), Code: relight.CodeUsage, Err: err, Hint: hint}
}
