package runbook_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/journal"
	"github.com/toolboxai/relight/runbook"
)

// journaled is a Log on a real journal.
type journaled struct{ j *journal.Journal }

func (l journaled) Append(ctx context.Context, run relight.RunID, after int64, events []relight.Event) ([]relight.Event, error) {
	out, err := l.j.AppendBatch(ctx, events, journal.After(run, after))
	if errors.Is(err, journal.ErrConflict) {
		return nil, errors.Join(err, runbook.ErrStale)
	}
	return out, err
}

func (l journaled) Read(ctx context.Context, run relight.RunID, fn func(relight.Event) error) error {
	return l.j.Read(ctx, journal.Filter{Run: run}, fn)
}

func openJournal(tb testing.TB) journaled {
	tb.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		tb.Fatal(err)
	}
	j, err := journal.Open(context.Background(), filepath.Join(tb.TempDir(), "journal.db"), journal.Options{
		Host: "db1", Actor: "alice", Signer: key, Now: time.Now,
	})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := j.Close(); err != nil {
			tb.Error(err)
		}
	})
	return journaled{j}
}

func line(n int, more string) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(step(fmt.Sprint("Step ", i), fmt.Sprintf("{id: s%d, do: fake.quick, with: {key: k%d}%s}", i, i, more)))
	}
	return source(b.String())
}

// BenchmarkStep measures what the engine adds to a step, durable in a real journal: without a handle, with one, and with
// handle and verification.
func BenchmarkStep(b *testing.B) {
	for _, c := range []struct{ name, action, more string }{
		{"plain", "fake.quick", ""},
		{"handle", "fake.plain", ""},
		{"handle+verify", "fake.plain", ", verify: {do: fake.list}"},
	} {
		b.Run(c.name, func(b *testing.B) {
			const steps = 100
			w, log := newWorld(), openJournal(b)
			rb := compile(b, w, strings.ReplaceAll(line(steps, c.more), "do: fake.quick, with: {key: k", "do: "+c.action+", with: {key: k"))
			e := engine(b, w, log, runbook.Nobody{}, func(c *runbook.Config) { c.Now, c.Poll = time.Now, 0 })
			b.ResetTimer()
			for b.Loop() {
				st, err := e.Start(ctx, rb, runbook.StartOptions{Actor: "alice"})
				if err != nil || st.Status != relight.RunCompleted {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/steps, "µs/step")
		})
	}
}

// TestOnARealJournal: the journal gives its own times and numbers; the state that Start returns is the fold of what it holds.
func TestOnARealJournal(t *testing.T) {
	t.Parallel()
	w, log := newWorld(), openJournal(t)
	e := engine(t, w, log, honest{w: w}, func(c *runbook.Config) { c.Now = time.Now })
	rb := compile(t, w, line(5, "")+step("W", wipe))
	st, err := e.Start(ctx, rb, opts())
	wantCode(t, err, "")
	folded, err := runbook.Fold(ctx, log, "r1")
	if err != nil {
		t.Fatal(err)
	}
	sameState(t, folded, st)
	if _, err := e.Start(ctx, rb, opts()); relight.CodeOf(err) == "" {
		t.Error("a second run of the same id was started")
	}
}

// TestAppendsOfAStep bounds what durability costs, without a clock: the end of a step and the start of the next are one append.
func TestAppendsOfAStep(t *testing.T) {
	t.Parallel()
	const steps = 20
	for _, c := range []struct {
		action, more string
		each         int // appends a step
	}{{"fake.quick", "", 1}, {"fake.plain", "", 2}, {"fake.plain", ", verify: {do: fake.list}", 3}} {
		w, log := newWorld(), &mortal{store: &store{}}
		rb := compile(t, w, strings.ReplaceAll(line(steps, c.more), "do: fake.quick, with: {key: k", "do: "+c.action+", with: {key: k"))
		if _, err := engine(t, w, log, runbook.Nobody{}).Start(ctx, rb, opts()); err != nil {
			t.Fatal(err)
		}
		if log.appends != steps*c.each+2 { // and the start and the end of the run
			t.Errorf("%s%s: %d appends for %d steps", c.action, c.more, log.appends, steps)
		}
	}
}
