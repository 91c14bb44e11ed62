package estate

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/toolboxai/relight"
)

// Keep is one rule of what is kept of a store's backups. A store may have several; whatever one of them wants is kept.
type Keep struct {
	Every       time.Duration // one point of each stretch of this length; 0: every point, unless Months is set
	Months      int           // instead of Every: one of each so many calendar months
	For         time.Duration
	PointInTime bool // and every instant between
	text        string
}

// name is the stretch as it was written: "15m", "hourly".
func (k Keep) name() string {
	stretch, _, _ := strings.Cut(k.text, " for ")
	return stretch
}

// String is the rule as it was written.
func (k Keep) String() string { return k.text }

type keepFile struct {
	Every       string `yaml:"every"`
	For         string `yaml:"for"`
	PointInTime bool   `yaml:"point_in_time"`
}

const day = 24 * time.Hour

// stretches are the words for `every`.
var stretches = map[string]Keep{
	"backup": {}, "hourly": {Every: time.Hour}, "daily": {Every: day}, "weekly": {Every: 7 * day}, "monthly": {Months: 1}, "yearly": {Months: 12},
}

func (r *resolver) keeps(where string, in []keepFile) []Keep {
	var out []Keep
	for i, f := range in {
		out = append(out, r.keep(fmt.Sprintf("%s[%d]", where, i), f))
	}
	return out
}

func (r *resolver) keep(where string, in keepFile) Keep {
	k, known := stretches[in.Every]
	switch {
	case in.Every == "":
		r.failf("%s.every: missing; it is a word (%s) or a duration such as 15m", where, strings.Join(slices.Sorted(maps.Keys(stretches)), ", "))
	case !known:
		d, err := ParseDuration(in.Every)
		if err != nil || d < time.Minute {
			r.failf("%s.every: %q is neither %s nor a duration of at least 1m%s", where, in.Every, strings.Join(slices.Sorted(maps.Keys(stretches)), ", "), meant(in.Every))
		}
		k.Every = d
	}
	if in.For == "" {
		r.failf("%s.for: missing; it is a duration such as 7d", where)
		return k
	}
	k.For = r.duration(where+".for", in.For, 0)
	if k.For < k.Every {
		r.failf("%s: one of every %s for %s keeps nothing", where, in.Every, in.For)
	}
	k.PointInTime = in.PointInTime
	k.text = in.Every + " for " + in.For
	if k.PointInTime {
		k.text += ", every instant"
	}
	return k
}

func meant(word string) string {
	if near := relight.Nearest(word, slices.Sorted(maps.Keys(stretches))); near != "" {
		return fmt.Sprintf(" (did you mean %q?)", near)
	}
	return ""
}
