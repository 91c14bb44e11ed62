package estate

import (
	"fmt"
	"testing"
	"time"
)

// policyOf parses a store's policy.
func policyOf(t *testing.T, text string) Policy {
	t.Helper()
	e, err := Parse("/etc/shop/relight.yaml", []byte("estate: shop\nrepositories: {vault: {url: b}}\nstores:\n  main: {kind: postgres, data: d, policy: "+text+"}\n"))
	if err != nil {
		t.Fatal(err)
	}
	return e.Stores["main"].Policy
}

func TestRestorePointsFollowFromWhatIsKept(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{
		"{}": 0,
		"{keep: [{every: 15m, for: 30d, point_in_time: true}, {every: hourly, for: 7d}]}": 15 * time.Minute,
		"{base_backup: 1h, keep: [{every: hourly, for: 7d}]}":                             time.Hour, // a base backup may be late
		"{base_backup: 1h, keep: [{every: daily, for: 7d}]}":                              0,
		"{keep: [{every: backup, for: 7d}, {every: monthly, for: 365d}]}":                 0,
		"{restore_point: never}":                                              0,
		"{restore_point: 0s}":                                                 0,
		"{restore_point: 5m, keep: [{every: 15m, for: 30d}]}":                 5 * time.Minute,
		"{base_backup: 5m, restore_point: 0, keep: [{every: 15m, for: 30d}]}": 0,
	} {
		if got := policyOf(t, text).MarkEvery; got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}

func TestIOBudget(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"50GiB/day": "621378 bytes/s", "4 GiB / hour": "1193046 bytes/s", "100GiB/week": "177537 bytes/s", "5%": "share 0.05", "0.5%": "share 0.005", "100%": "share 1",
		"": "", "50GiB": "", "50GiB/month": "", "/day": "", "0/day": "", "101%": "", "-1%": "", "NaN%": "", "five%": "",
	} {
		b, err := ParseIOBudget(text)
		got := ""
		switch {
		case err == nil && b.Share > 0:
			got = fmt.Sprint("share ", b.Share)
		case err == nil:
			got = fmt.Sprintf("%.0f bytes/s", b.Rate())
		}
		if got != want || err == nil && b.String() != text {
			t.Errorf("%q: %q (%v), want %q", text, got, err, want)
		}
	}
	if p := policyOf(t, "{io_budget: 5%, longest_replay: 30m}"); p.Budget.Share != 0.05 || p.LongestReplay != 30*time.Minute {
		t.Errorf("%+v", p)
	}
}
