package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// results are what a run found out.
type results struct {
	Type     string            `json:"type"` // "bench"
	Version  int               `json:"version"`
	At       time.Time         `json:"at"`
	Suite    string            `json:"suite"`
	Scale    int               `json:"scale"`
	Rounds   int               `json:"rounds"`
	Database int64             `json:"database_bytes"`
	Machine  machine           `json:"machine"`
	Versions map[string]string `json:"versions"`
	Figures  []*figure         `json:"figures"`
	Ratios   []ratio           `json:"ratios"`
	Notes    []string          `json:"notes,omitempty"`
}

type machine struct {
	Processors int    `json:"processors"`
	Model      string `json:"model"`
	Kernel     string `json:"kernel"`
	Memory     string `json:"memory"`
}

// figure is one thing measured of one contestant.
type figure struct {
	Part   string    `json:"part"`
	What   string    `json:"what"`
	Unit   string    `json:"unit"`
	Of     string    `json:"of"`
	Values []float64 `json:"values"` // one a round
	Median float64   `json:"median"`
}

// ratio holds relight against a target.
type ratio struct {
	What   string  `json:"what"`
	Ratio  float64 `json:"ratio"`
	Target string  `json:"target"`
	Met    bool    `json:"met"`
}

func newResults(o options) *results {
	kernel, _ := exec.Command("uname", "-r").Output() // for the reader only
	return &results{Type: "bench", Version: 1, At: time.Now().UTC(), Suite: o.suite, Scale: o.scale, Rounds: o.rounds, Versions: map[string]string{},
		Machine: machine{Processors: runtime.NumCPU(), Model: lineOf("/proc/cpuinfo", "model name"), Memory: lineOf("/proc/meminfo", "MemTotal"), Kernel: strings.TrimSpace(string(kernel))}}
}

func lineOf(path, key string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	for s := bufio.NewScanner(f); s.Scan(); {
		if name, value, _ := strings.Cut(s.Text(), ":"); strings.TrimSpace(name) == key {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func (r *results) add(part, what, unit, of string, v float64) {
	i := slices.IndexFunc(r.Figures, func(f *figure) bool { return f.What == what && f.Of == of })
	if i < 0 {
		i = len(r.Figures)
		r.Figures = append(r.Figures, &figure{Part: part, What: what, Unit: unit, Of: of})
	}
	f := r.Figures[i]
	f.Values = append(f.Values, v)
	f.Median = median(f.Values)
	note("  %-46s %-26s %9.3f %s", what, of, v, unit)
}

// backup adds what one backup took; start and wait are negative where they cannot be told apart.
func (r *results) backup(what, of string, u usage, start, wait float64, size int64) {
	r.add("backup", what, "s", of, u.wall)
	r.add("backup", what+": repository", "MB", of, float64(size)/1e6)
	r.add("backup", what+": CPU of the client", "s", of, u.cpu)
	r.add("memory", what+", most resident", "MB", of, float64(u.memory)/1e6)
	if start >= 0 && wait >= 0 {
		r.add("backup", what+": start and checkpoint", "s", of, start)
		r.add("backup", what+": stop, wait for WAL, commit", "s", of, wait)
		r.add("backup", what+": the copying between", "s", of, u.wall-start-wait)
	}
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}

func (r *results) note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
	note("  "+format, args...)
}

func (r *results) of(what, of string) (float64, bool) {
	for _, f := range r.Figures {
		if f.What == what && f.Of == of {
			return f.Median, true
		}
	}
	return 0, false
}

// target is what the project holds itself to.
type target struct {
	what, mine, theirs string
	inverse            bool // ours divided by theirs, where less is better; else theirs by ours
	bound              float64
}

var targets = []target{
	{"full backup", "relight", "pgBackRest", false, 1.3},
	{"full backup: repository", "relight", "pgBackRest", true, 1.1},
	{"incremental backup", "relight", "pgBackRest", false, 2.5},
	{"incremental backup: repository", "relight", "pgBackRest", true, 0.5},
	{"restore", "relight", "pgBackRest", false, 1},
	{"delta restore, 1 % of pages damaged", "relight", "pgBackRest", false, 1.5},
	{"replay", "relight", "cp from a local directory", false, 1},
}

// limits are what relight is held to by itself.
var limits = []struct {
	what, unit string
	bound      float64
}{
	{"exposure, 99 of 100", "seconds", 2},
	{"repository drained after the COPY's end", "seconds", 2},
	{"a runbook's step", "ms", 10},
	{"restore, most resident", "MB", 300},
	{"relight serve, most resident", "MB", 300},
}

func (r *results) judge() {
	for _, t := range targets {
		a, ok := r.of(t.what, t.mine)
		b, ok2 := r.of(t.what, t.theirs)
		if !ok || !ok2 || a == 0 || b == 0 {
			continue
		}
		if t.inverse {
			r.Ratios = append(r.Ratios, ratio{t.what + ": size against " + t.theirs, a / b, fmt.Sprintf("at most %.2f", t.bound), a/b <= t.bound})
			continue
		}
		r.Ratios = append(r.Ratios, ratio{t.what + ": speed against " + t.theirs, b / a, fmt.Sprintf("at least %.2f", t.bound), b/a >= t.bound})
	}
	for _, limit := range limits {
		if v, ok := r.of(limit.what, "relight"); ok {
			r.Ratios = append(r.Ratios, ratio{limit.what + ", " + limit.unit, v, fmt.Sprintf("at most %.0f", limit.bound), v <= limit.bound})
		}
	}
}

func (r *results) write(w io.Writer, path string) error {
	r.judge()
	if path != "" {
		b, err := json.MarshalIndent(r, "", " ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(path, append(b, '\n'), 0o644); err != nil {
			return err
		}
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "%s, %d MB, %d rounds; %d × %s\n\n", r.At.Format(time.DateOnly), r.Database/1_000_000, r.Rounds, r.Machine.Processors, r.Machine.Model)
	fmt.Fprintln(t, "| what\t| of\t| median\t| least – most\t|")
	fmt.Fprintln(t, "|---\t|---\t|---\t|---\t|")
	for _, f := range r.Figures {
		fmt.Fprintf(t, "| %s\t| %s\t| %s %s\t| %s – %s\t|\n", f.What, f.Of, number(f.Median), f.Unit, number(slices.Min(f.Values)), number(slices.Max(f.Values)))
	}
	fmt.Fprintln(t, "\n| target\t| reached\t| demanded\t|\t|")
	fmt.Fprintln(t, "|---\t|---\t|---\t|---\t|")
	for _, x := range r.Ratios {
		verdict := "missed"
		if x.Met {
			verdict = "met"
		}
		fmt.Fprintf(t, "| %s\t| %.2f\t| %s\t| %s\t|\n", x.What, x.Ratio, x.Target, verdict)
	}
	for _, n := range r.Notes {
		fmt.Fprintf(t, "\nnote: %s\n", n)
	}
	return t.Flush()
}

// number shows three digits that count.
func number(v float64) string {
	switch a := math.Abs(v); {
	case a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}
