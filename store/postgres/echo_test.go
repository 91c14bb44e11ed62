package postgres

import (
	"testing"
	"time"
)

func TestAMomentIsEchoedWithItsOffsetAndItsDistance(t *testing.T) {
	t.Parallel()
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	last := time.Date(2025, 10, 26, 0, 31, 2, 500e6, time.UTC)
	for _, c := range []struct {
		at   time.Time
		last time.Time
		zone *time.Location
		want string
	}{
		{time.Date(2025, 10, 26, 0, 30, 0, 0, time.UTC), last, berlin, "the moment is 2025-10-26 02:30:00+02:00 in Europe/Berlin, 2025-10-26T00:30:00Z: 1m2.5s before the last commit"},
		{time.Date(2025, 10, 26, 1, 30, 0, 0, time.UTC), last, berlin, "the moment is 2025-10-26 02:30:00+01:00 in Europe/Berlin, 2025-10-26T01:30:00Z: 58m57.5s after the last commit"},
		{last, last, nil, "the moment is 2025-10-26 00:31:02.5+00:00: 0s after the last commit"},
		{last, time.Time{}, time.UTC, "the moment is 2025-10-26 00:31:02.5+00:00"},
	} {
		if got := echo(c.at, c.last, c.zone); got != c.want {
			t.Errorf("%s\nwant %s", got, c.want)
		}
	}
}
