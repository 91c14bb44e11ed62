package runbook_test

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/runbook"
)

func sameState(t interface {
	Helper()
	Errorf(string, ...any)
}, folded, live *runbook.State) {
	t.Helper()
	if !reflect.DeepEqual(folded, live) {
		t.Errorf("the live state is not the fold of the events:\n%+v\n%+v", folded, live)
	}
}

// randomRunbook draws a graph of steps of all kinds, and which of their effects fail at first.
func randomRunbook(t *rapid.T, w *world) (src string, ids []string) {
	n := rapid.IntRange(1, 7).Draw(t, "steps")
	var b strings.Builder
	for i := range n {
		id := fmt.Sprintf("s%d", i)
		var needs []string
		for _, earlier := range ids {
			if rapid.Bool().Draw(t, "need") {
				needs = append(needs, earlier)
			}
		}
		act := rapid.SampledFrom([]string{"fake.plain", "fake.probed", "fake.wipe"}).Draw(t, "action")
		body := fmt.Sprintf("id: %s, do: %s, with: {key: %s}, needs: [%s]", id, act, id, strings.Join(needs, ", "))
		if act == "fake.wipe" {
			body += ", danger: data, undo: none"
		}
		if act == "fake.probed" {
			body += ", danger: service"
		}
		if rapid.Bool().Draw(t, "verify") {
			body += fmt.Sprintf(", verify: {do: fake.check, with: {key: %s}}", id)
		}
		if rapid.Bool().Draw(t, "retry") {
			body += ", retry: 2"
			w.broken[id] = rapid.IntRange(0, 2).Draw(t, "broken")
		}
		if len(needs) > 0 && rapid.Bool().Draw(t, "when") {
			body += fmt.Sprintf(", when: \"steps.%s.key == '%s'\"", needs[0], rapid.SampledFrom([]string{needs[0], "x"}).Draw(t, "want"))
		}
		b.WriteString(step("Step "+id, "{"+body+"}"))
		ids = append(ids, id)
	}
	return source(b.String()), ids
}

// TestRandomGraphsSurviveKills: however a graph looks and whenever relight is killed, however often, no effect with a probe is
// had twice, the run completes, and the live state is the fold of the events.
func TestRandomGraphsSurviveKills(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		w, s := newWorld(), &store{}
		src, ids := randomRunbook(rt, w)
		rb := compile(t, w, src)
		kill := rapid.SliceOfN(rapid.IntRange(1, 12), 0, 5).Draw(rt, "kills")
		var st *runbook.State
		for life := 0; ; life++ {
			m := &mortal{store: s, durable: rapid.Bool().Draw(rt, "durable")}
			if life < len(kill) {
				m.crashAt = kill[life]
			}
			e := engine(t, w, m, honest{w: w})
			var err error
			if len(s.events) == 0 {
				st, err = e.Start(ctx, rb, opts())
			} else if over(s) {
				st, err = runbook.Fold(ctx, s, "r1")
			} else {
				st, err = e.Resume(ctx, "r1", open())
			}
			if err == nil {
				break
			}
			if !errors.Is(err, errCrash) {
				rt.Fatalf("life %d: %v", life, err)
			}
		}
		if st.Status != relight.RunCompleted {
			rt.Fatalf("run is %s", st.Status)
		}
		for _, id := range ids {
			want := 1
			if st.Step(id).Status == runbook.StepSkipped {
				want = 0
			}
			if w.effects[id] != want {
				rt.Errorf("step %s has had its effect %d times, not %d", id, w.effects[id], want)
			}
		}
		folded, err := runbook.Fold(ctx, s, "r1")
		if err != nil {
			rt.Fatal(err)
		}
		sameState(rt, folded, st)
	})
}
