package runbook_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/runbook"
)

// sleeper is a clock that moves only while somebody sleeps; each sleep is noted, and then happens.
type sleeper struct {
	now    time.Time
	slept  []time.Duration
	happen func(n int) // what is true after the n-th sleep
}

func (s *sleeper) config(c *runbook.Config) {
	c.Now = func() time.Time { return s.now }
	c.Poll = -1
	c.Sleep = func(ctx context.Context, d time.Duration) error {
		s.now = s.now.Add(d)
		s.slept = append(s.slept, d)
		s.happen(len(s.slept))
		return ctx.Err()
	}
}

func newSleeper(happen func(n int)) *sleeper {
	return &sleeper{now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), happen: happen}
}

func TestWaitUntil(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		wait  string
		slept []time.Duration // with the third sleep, what is waited for is there
		code  relight.Code
		says  string
	}{
		"an action": {"{until: {do: fake.check, with: {key: x}}, every: 2s, for: 1m}", []time.Duration{2 * time.Second, 2 * time.Second, 2 * time.Second}, "", ""},
		"a command": {"{until: {run: [test, -e, FILE]}, every: 1s, for: 1m}", []time.Duration{time.Second, time.Second, time.Second}, "", ""},
		"without a pace, for as long as it takes": {"{until: {do: fake.check, with: {key: x}}}", []time.Duration{5 * time.Second, 5 * time.Second, 5 * time.Second}, "", ""},
		"just in time": {"{until: {do: fake.check, with: {key: x}}, every: 2s, for: 6s}", []time.Duration{2 * time.Second, 2 * time.Second, 2 * time.Second}, "", ""},
		"not in time": {"{until: {do: fake.check, with: {key: x}}, every: 2s, for: 5s}", []time.Duration{2 * time.Second, 2 * time.Second}, relight.CodeVerification,
			"not within 5s: check x: it is not there"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, log, file := newWorld(), &mortal{store: &store{}}, filepath.Join(t.TempDir(), "there")
			sleep := newSleeper(func(n int) {
				if n < 3 {
					return
				}
				w.there["x"] = true
				if err := os.WriteFile(file, nil, 0o600); err != nil {
					t.Error(err)
				}
			})
			rb := compile(t, w, source(step("A", "id: a\nwait: "+strings.ReplaceAll(c.wait, "FILE", file)), step("B", `{id: b, do: fake.plain, with: {key: b}}`)))
			st, err := engine(t, w, log, runbook.Nobody{}, local(t), sleep.config).Start(ctx, rb, opts())
			wantCode(t, err, c.code)
			if !slices.Equal(sleep.slept, c.slept) {
				t.Errorf("it slept %v, want %v", sleep.slept, c.slept)
			}
			if a := st.Step("a"); !strings.Contains(a.Error, c.says) || c.code == "" && fmt.Sprint(a.Output["seconds"]) != fmt.Sprint(total(c.slept).Seconds()) {
				t.Errorf("a says %q and gives %v", a.Error, a.Output)
			}
			if went := w.effects["b"] == 1; went != (c.code == "") {
				t.Errorf("b was done: %v", went)
			}
		})
	}
}

func total(list []time.Duration) time.Duration {
	var sum time.Duration
	for _, d := range list {
		sum += d
	}
	return sum
}

// A run that is interrupted while it polls polls again when it is resumed.
func TestWaitUntilIsResumed(t *testing.T) {
	t.Parallel()
	w, log := newWorld(), &mortal{store: &store{}}
	rb := compile(t, w, source(step("A", "id: a\nwait: {until: {do: fake.check, with: {key: x}}, every: 2s, for: 1m}")))
	polling, cancel := context.WithCancel(ctx)
	st, err := engine(t, w, log, runbook.Nobody{}, newSleeper(func(int) { cancel() }).config).Start(polling, rb, opts())
	if err == nil || st.Over() {
		t.Fatalf("the run is %s: %v", st.Status, err)
	}
	sleep := newSleeper(func(int) { w.there["x"] = true })
	st, err = engine(t, w, log, runbook.Nobody{}, sleep.config).Resume(ctx, st.Run, runbook.OpenOptions{Actor: "alice"})
	if wantCode(t, err, ""); st.Status != relight.RunCompleted || len(sleep.slept) != 1 {
		t.Errorf("the run is %s after %d polls", st.Status, len(sleep.slept))
	}
}

// What changes anything is never polled: it would be done again and again.
func TestWaitUntilOnlyLooks(t *testing.T) {
	t.Parallel()
	src := source(step("A", "id: a\nwait: {until: {do: fake.wipe, with: {key: x}}, every: 2s, for: 1m}"))
	_, err := runbook.Compile([]byte(src), "test.md", newWorld().registry(t))
	if err == nil || !strings.Contains(err.Error(), "until must only read, and fake.wipe is of danger data") {
		t.Error(err)
	}
}
