package runbook_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/runbook"
)

func plainStep(id string, more string) string {
	return step(strings.ToUpper(id), `{id: `+id+`, do: fake.plain, with: {key: `+id+`}`+more+`}`)
}

func TestRollBack(t *testing.T) {
	t.Parallel()
	stop := step("Stop", `{id: stop, ask: go on}`)
	for _, c := range []struct {
		name   string
		source string
		to     string
		undone string
		state  relight.RunState
		code   relight.Code
	}{
		{"everything", source(plainStep("a", ""), plainStep("b", ""), stop), "", "b a", relight.RunAborted, relight.CodeAborted},
		{"to a step", source(plainStep("a", ""), plainStep("b", ""), plainStep("c", ""), stop), "b", "c b", relight.RunPaused, ""},
		{"not past the point of no return", source(plainStep("a", ""), plainStep("b", ", undo: none"), plainStep("c", ""), stop), "", "c", relight.RunPaused, relight.CodeFailed},
		{"not past what has no undo", source(plainStep("a", ""), step("W", `{id: w, do: fake.wipe, with: {key: w}, danger: data, undo: none}`), plainStep("c", ""), stop), "a", "c", relight.RunPaused, relight.CodeFailed},
		{"past what changes nothing", source(plainStep("a", ""), step("L", `{id: l, do: fake.list}`), stop), "", "a", relight.RunAborted, relight.CodeAborted},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w, log := newWorld(), &mortal{store: &store{}}
			e := engine(t, w, log, patient{honest{w: w}})
			if _, err := e.Start(ctx, compile(t, w, c.source), opts()); relight.CodeOf(err) != relight.CodeWaiting {
				t.Fatal(err)
			}
			st, err := e.RollBack(ctx, "r1", c.to, open())
			if relight.CodeOf(err) != c.code {
				t.Fatalf("roll-back gives %v", err)
			}
			wantStatus(t, st, c.state)
			if got := strings.Join(w.undone, " "); got != c.undone {
				t.Errorf("undone: %s, not %s", got, c.undone)
			}
			if c.code == "" { // what was undone is done again
				w.undone = nil
				st, err := engine(t, w, log, honest{w: w}).Resume(ctx, "r1", open())
				wantCode(t, err, "")
				wantStatus(t, st, relight.RunCompleted)
				if w.effects["a"] != 1 || w.effects["b"] != 2 || w.effects["c"] != 2 {
					t.Errorf("effects %v", w.effects)
				}
			}
		})
	}
}

// patient confirms, but is not there to be asked.
type patient struct{ honest }

func (patient) Ask(_ ctxType, _ runbook.Question) (runbook.Answer, error) {
	return runbook.Answer{}, runbook.ErrNobody
}

// TestRollBackKilledAtEveryEvent: a roll-back that dies goes on with the next resume, and undoes nothing twice.
func TestRollBackKilledAtEveryEvent(t *testing.T) {
	t.Parallel()
	src := source(plainStep("a", ""), plainStep("b", ""), plainStep("c", ""), step("Stop", `{id: stop, ask: go on}`))
	for _, durable := range []bool{false, true} {
		for at := 1; ; at++ {
			w, s := newWorld(), &store{}
			if _, err := engine(t, w, &mortal{store: s}, patient{honest{w: w}}).Start(ctx, compile(t, w, src), opts()); relight.CodeOf(err) != relight.CodeWaiting {
				t.Fatal(err)
			}
			_, err := engine(t, w, &mortal{store: s, crashAt: at, durable: durable}, patient{honest{w: w}}).RollBack(ctx, "r1", "", open())
			if !errors.Is(err, errCrash) {
				if at < 8 {
					t.Fatalf("only %d appends", at)
				}
				break
			}
			st, err := runbook.Fold(ctx, s, "r1")
			if err != nil {
				t.Fatal(err)
			}
			if !st.Over() {
				e := engine(t, w, &mortal{store: s}, patient{honest{w: w}})
				if st.RollingTo == nil {
					st, err = e.RollBack(ctx, "r1", "", open())
				} else {
					st, err = e.Resume(ctx, "r1", open())
				}
				wantCode(t, err, relight.CodeAborted)
			}
			wantStatus(t, st, relight.RunAborted)
			if !slices.Equal(w.undone, []string{"c", "b", "a"}) {
				t.Fatalf("killed at append %d (durable %v): undone %v", at, durable, w.undone)
			}
		}
	}
}
