package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestMedian(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		in   []float64
		want float64
	}{{[]float64{4}, 4}, {[]float64{9, 1}, 5}, {[]float64{3, 1, 100}, 3}, {[]float64{4, 1, 3, 2}, 2.5}} {
		before := append([]float64(nil), c.in...)
		if got := median(c.in); got != c.want {
			t.Errorf("median of %v: %v, want %v", before, got, c.want)
		}
		for i := range before {
			if before[i] != c.in[i] {
				t.Errorf("median changed the order of the rounds: %v", c.in)
			}
		}
	}
}

func TestNumberShowsThreeDigits(t *testing.T) {
	t.Parallel()
	for v, want := range map[float64]string{0.123: "0.12", 9.994: "9.99", 12.34: "12.3", 123.4: "123", -12.34: "-12.3"} {
		if got := number(v); got != want {
			t.Errorf("%v is shown as %s, want %s", v, got, want)
		}
	}
}

// verdict finds the judgement of one target.
func verdict(t *testing.T, r *results, what string) ratio {
	t.Helper()
	r.judge()
	for _, x := range r.Ratios {
		if strings.HasPrefix(x.What, what+":") || strings.HasPrefix(x.What, what+",") {
			return x
		}
	}
	t.Fatalf("%s was not judged: %+v", what, r.Ratios)
	return ratio{}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		what, mine, theirs string
		ours, peer, ratio  float64
		met                bool
	}{
		{"full backup", "relight", "pgBackRest", 2, 4, 2, true},
		{"full backup", "relight", "pgBackRest", 4, 5, 1.25, false},
		{"full backup: repository", "relight", "pgBackRest", 110, 100, 1.1, true},
		{"full backup: repository", "relight", "pgBackRest", 111, 100, 1.11, false},
		{"incremental backup: repository", "relight", "pgBackRest", 60, 100, 0.6, false},
		{"replay", "relight", "cp from a local directory", 3, 3, 1, true},
	} {
		r := &results{}
		r.add("part", c.what, "s", c.mine, c.ours)
		r.add("part", c.what, "s", c.theirs, c.peer)
		if got := verdict(t, r, c.what); got.Ratio != c.ratio || got.Met != c.met {
			t.Errorf("%+v was judged %+v", c, got)
		}
	}
}

func TestJudgeLimits(t *testing.T) {
	t.Parallel()
	for v, met := range map[float64]bool{1.9: true, 2: true, 2.1: false} {
		r := &results{}
		r.add("wal", "exposure, 99 of 100", "s", "relight", v)
		if got := verdict(t, r, "exposure, 99 of 100"); got.Ratio != v || got.Met != met {
			t.Errorf("%v was judged %+v", v, got)
		}
	}
}

// TestJudgeNeedsBoth: what was not measured of both is not judged, neither met nor missed.
func TestJudgeNeedsBoth(t *testing.T) {
	t.Parallel()
	r := &results{}
	r.add("backup", "full backup", "s", "relight", 3)
	r.judge()
	if len(r.Ratios) != 0 {
		t.Errorf("judged %+v", r.Ratios)
	}
}

// TestTheMedianIsJudged, not the best round or the last.
func TestTheMedianIsJudged(t *testing.T) {
	t.Parallel()
	r := &results{}
	for _, v := range []float64{1, 9, 4} {
		r.add("backup", "restore", "s", "relight", v)
		r.add("backup", "restore", "s", "pgBackRest", 3)
	}
	if got := verdict(t, r, "restore"); got.Ratio != 0.75 || got.Met {
		t.Errorf("judged %+v", got)
	}
}

func TestWrite(t *testing.T) {
	t.Parallel()
	r := &results{Type: "bench", Rounds: 2, Database: 3_164_000_000}
	r.backup("full backup", "relight", usage{wall: 5, cpu: 8, memory: 2e8}, 1, 0.5, 4e8)
	r.backup("full backup", "relight", usage{wall: 7, cpu: 8, memory: 2e8}, 1, 0.5, 4e8)
	r.backup("full backup", "pgBackRest", usage{wall: 3}, -1, -1, 4e8)
	r.note("something was left out")
	var out bytes.Buffer
	path := filepath.Join(t.TempDir(), "bench.json")
	if err := r.write(&out, path); err != nil {
		t.Fatal(err)
	}
	text := strings.Join(strings.Fields(out.String()), " ")
	for _, want := range []string{
		"| full backup | relight | 6.00 s | 5.00 – 7.00 |", "| full backup: the copying between | relight | 4.50 s |", "| full backup: speed against pgBackRest | 0.50 | at least 1.30 | missed |",
		"note: something was left out",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	if strings.Contains(text, "the copying between | pgBackRest") {
		t.Error("phases were shown that could not be told apart")
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var back results
	if err := json.Unmarshal(b, &back); err != nil || len(back.Figures) != len(r.Figures) || len(back.Figures[0].Values) != 2 {
		t.Errorf("%v: %+v", err, back)
	}
}
