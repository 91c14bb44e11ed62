package estate

import (
	"slices"
	"testing"
	"time"
)

func TestKeep(t *testing.T) {
	t.Parallel()
	src := "estate: shop\nrepositories: {vault: {url: b}}\nstores:\n  main:\n    kind: postgres\n    data: d\n    policy:\n      keep:\n" +
		"        - {every: 15m, for: 30d, point_in_time: true}\n        - {every: hourly, for: 7d}\n        - {every: monthly, for: 365d}\n        - {every: backup, for: 2d}\n"
	e, err := Parse("/etc/shop/relight.yaml", []byte(src))
	if err != nil {
		t.Fatal(err)
	}
	want := []Keep{
		{Every: 15 * time.Minute, For: 30 * day, PointInTime: true, text: "15m for 30d, every instant"},
		{Every: time.Hour, For: 7 * day, text: "hourly for 7d"},
		{Months: 1, For: 365 * day, text: "monthly for 365d"},
		{For: 2 * day, text: "backup for 2d"},
	}
	if got := e.Stores["main"].Keep; !slices.Equal(got, want) {
		t.Fatalf("%+v", got)
	}
	if got := e.View().Stores["main"].Keep; !slices.Equal(got, []string{"15m for 30d, every instant", "hourly for 7d", "monthly for 365d", "backup for 2d"}) {
		t.Fatalf("%q", got)
	}
}
