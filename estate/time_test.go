package estate

import (
	"strings"
	"testing"
	"time"

	"github.com/toolboxai/relight"
)

func zone(t *testing.T, name string) *time.Location {
	t.Helper()
	z, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

func TestParseTime(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ text, zone, want string }{
		{"2025-10-02T14:30:00Z", "Europe/Berlin", "2025-10-02T14:30:00Z"},
		{"2025-10-02T14:30:00.123456789+02:00", "UTC", "2025-10-02T12:30:00.123456789Z"},
		{"2025-10-02 14:30:00+02:00", "UTC", "2025-10-02T12:30:00Z"},
		{"2025-10-02 14:30:00.123456+02", "UTC", "2025-10-02T12:30:00.123456Z"},      // psql's now()
		{"2025-10-02 14:30:00.123 UTC", "Europe/Berlin", "2025-10-02T14:30:00.123Z"}, // the server's log
		{"2025-10-02T14:30:00+0200", "UTC", "2025-10-02T12:30:00Z"},
		{"2025-10-02 14:30:00", "UTC", "2025-10-02T14:30:00Z"},
		{"2025-10-02 14:30", "Europe/Berlin", "2025-10-02T12:30:00Z"},
		{"2025-12-02 14:30", "Europe/Berlin", "2025-12-02T13:30:00Z"},
		{"2025-10-02T14:30:00.5", "America/New_York", "2025-10-02T18:30:00.5Z"},
		{"2025-10-02 14:30", "Asia/Kathmandu", "2025-10-02T08:45:00Z"},
		{"2025-10-26 01:59:59", "Europe/Berlin", "2025-10-25T23:59:59Z"}, // the last second before the doubled hour
		{"2025-10-26 03:00:00", "Europe/Berlin", "2025-10-26T02:00:00Z"}, // the first after it
		{"2025-10-26 02:30:00+01:00", "Europe/Berlin", "2025-10-26T01:30:00Z"},
		{"2025-03-30 01:59:59", "Europe/Berlin", "2025-03-30T00:59:59Z"},
		{"2025-03-30 03:00:00", "Europe/Berlin", "2025-03-30T01:00:00Z"},
		{"2011-12-31 12:00:00", "Pacific/Apia", "2011-12-30T22:00:00Z"}, // the day after the one that never was
	} {
		got, err := ParseTime(c.text, zone(t, c.zone))
		if err != nil || got.UTC().Format(time.RFC3339Nano) != c.want {
			t.Errorf("%s in %s: %s %v; want %s", c.text, c.zone, got.UTC().Format(time.RFC3339Nano), err, c.want)
		}
	}
}

func TestParseTimeRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ text, zone, want string }{
		{"2025-10-26 02:00:00", "Europe/Berlin", "showed it twice: 2025-10-26T00:00:00Z and 2025-10-26T01:00:00Z"},
		{"2025-10-26 02:59:59.9", "Europe/Berlin", "twice"},
		{"2025-11-02 01:30", "America/New_York", "twice"},
		{"2025-04-06 01:45", "Australia/Lord_Howe", "twice"}, // half an hour only
		{"2025-03-30 02:00:00", "Europe/Berlin", "never showed it"},
		{"2025-03-30 02:59:59", "Europe/Berlin", "never showed it"},
		{"2011-12-30 12:00", "Pacific/Apia", "never showed it"}, // a whole day was left out
		{"yesterday", "UTC", "it is not a time"},
		{"", "UTC", "it is not a time"},
		{"2025-13-02 14:30", "UTC", "it is not a time"},
		{"2025-02-30 14:30", "UTC", "it is not a time"},
		{"14:30", "UTC", "it is not a time"},
		{"2025-10-02 14:30:00 CET", "UTC", "it is not a time"}, // what an abbreviation means depends on who reads it
	} {
		got, err := ParseTime(c.text, zone(t, c.zone))
		if err == nil || !strings.Contains(err.Error(), c.want) || !got.IsZero() {
			t.Errorf("%q in %s: %s, %v; want %q", c.text, c.zone, got, err, c.want)
			continue
		}
		if relight.CodeOf(err) != relight.CodeUsage || relight.HintOf(err) == "" {
			t.Errorf("%q: code %q, hint %q", c.text, relight.CodeOf(err), relight.HintOf(err))
		}
	}
}

// Every instant, written as the zone's clocks show it, is read back as itself or refused as ambiguous: never as another one.
func FuzzParseTime(f *testing.F) {
	f.Add(int64(1761438600), "Europe/Berlin")
	f.Add(int64(1743296400), "Europe/Berlin")
	f.Add(int64(1325239200), "Pacific/Apia")
	f.Fuzz(func(t *testing.T, unix int64, name string) {
		z, err := time.LoadLocation(name)
		if err != nil || unix < 0 || unix > 4e9 {
			return
		}
		want := time.Unix(unix, 0)
		got, err := ParseTime(want.In(z).Format("2006-01-02 15:04:05"), z)
		if err != nil && !strings.Contains(err.Error(), "twice") {
			t.Fatalf("%s: %v", want.In(z), err)
		}
		if err == nil && !got.Equal(want) {
			t.Fatalf("%s was read as %s", want.In(z), got)
		}
	})
}
