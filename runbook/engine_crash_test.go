package runbook_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/runbook"
)

// specimen is a runbook with what must have happened in the world when it is done, however often relight was killed.
type specimen struct {
	name   string
	source string
	keys   map[string]string // step → key of its effect, for those without a probe
	want   map[string]int    // key → how often the effect is had
	broken map[string]int
	state  relight.RunState
}

func specimens() []specimen {
	wait := "needs: [b, c, d]"
	return []specimen{
		{
			name: "line",
			source: head + "## Recover (10 minutes)\n" +
				step("One", `{id: a, do: fake.probed, with: {key: a}, clock: recovered}`) +
				step("Two", `{id: b, do: fake.wipe, with: {key: "{{ steps.a.key }}b"}, danger: data, undo: none, verify: {do: fake.check, with: {key: "{{ steps.b.key }}"}}, clock: verified}`) +
				step("Three", `{id: c, do: fake.blind, with: {key: c}}`) +
				step("Four", `{id: d, ask: Look at it}`),
			keys: map[string]string{"c": "c"}, want: map[string]int{"a": 1, "ab": 1, "c": 1}, state: relight.RunCompleted,
		},
		{
			name: "parallel",
			source: head + "## Recover\n" + step("A", `{id: a, do: fake.plain, with: {key: a}}`) +
				step("B", `{id: b, do: fake.plain, with: {key: b}, needs: [a]}`) +
				step("C", `{id: c, do: fake.wipe, with: {key: c}, danger: data, undo: none, needs: [a]}`) +
				step("D", `{id: d, do: fake.blind, with: {key: d}, needs: [a]}`) +
				step("E", `{id: e, do: fake.plain, with: {key: e}, `+wait+`}`),
			keys: map[string]string{"d": "d"}, want: map[string]int{"a": 1, "b": 1, "c": 1, "d": 1, "e": 1}, state: relight.RunCompleted,
		},
		{
			name:   "retry",
			source: head + "## Recover\n" + step("A", `{id: a, do: fake.plain, with: {key: a}, retry: 3}`),
			broken: map[string]int{"a": 2}, want: map[string]int{"a": 1}, state: relight.RunCompleted,
		},
		{
			name: "if fails",
			source: head + "## Recover\n" + step("A", `{id: a, do: fake.plain, with: {key: a}, if_fails: b}`) +
				step("B", `{id: b, do: fake.wipe, with: {key: b}, danger: data, undo: none}`) +
				step("C", `{id: c, do: fake.plain, with: {key: c}}`),
			broken: map[string]int{"a": 1000}, want: map[string]int{"b": 1, "c": 1}, state: relight.RunWithExceptions,
		},
		{
			name: "choose",
			source: head + "## Recover\n" + step("L", `{id: l, do: fake.list}`) +
				step("Which", "{id: which, choose: {text: Which way, recommend: \"'two'\", options: [{id: one, title: One, steps: [p]}, {id: two, title: Two, steps: [q, r], reason: no list, available: \"'x' in steps.l.list\"}]}}") +
				step("P", `{id: p, do: fake.plain, with: {key: p}}`) +
				step("Q", `{id: q, do: fake.plain, with: {key: q}}`) +
				step("R", `{id: r, do: fake.blind, with: {key: r}}`) +
				step("S", `{id: s, do: fake.plain, with: {key: s}, when: "steps.which.chosen == 'two'"}`),
			keys: map[string]string{"r": "r"}, want: map[string]int{"q": 1, "r": 1, "s": 1}, state: relight.RunCompleted,
		},
		{
			name: "each",
			source: head + "## Recover\n" + step("L", `{id: l, do: fake.list}`) +
				step("E", `{id: e, do: fake.blind, with: {key: "{{ each }}"}, each: steps.l.list}`) +
				step("N", `{id: n, do: fake.plain, with: {key: "n{{ steps.e.count }}"}}`),
			keys: map[string]string{"e[0]": "x", "e[1]": "y", "e[2]": "z"},
			want: map[string]int{"x": 1, "y": 1, "z": 1, "n3": 1}, state: relight.RunCompleted,
		},
	}
}

// life drives a run in one process: start if the journal has no such run, resume otherwise.
func (s specimen) life(t *testing.T, w *world, st *store, m *mortal) (*runbook.State, error) {
	t.Helper()
	e := engine(t, w, m, honest{w, s.keys})
	if len(st.events) == 0 {
		return e.Start(context.Background(), compile(t, w, s.source), runbook.StartOptions{ID: "r1", Actor: "alice"})
	}
	return e.Resume(context.Background(), "r1", runbook.OpenOptions{Actor: "alice"})
}

func (s specimen) world() *world {
	w := newWorld()
	for k, n := range s.broken {
		w.broken[k] = n
	}
	return w
}

// check looks at the world and the journal after the last life.
func (s specimen) check(t *testing.T, w *world, st *store, live *runbook.State, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("the last life ends with: %v", err)
	}
	if live.Status != s.state {
		t.Fatalf("run is %s, not %s", live.Status, s.state)
	}
	want := s.want
	if forced(live) { // a person said that an unprobed effect is there
		if live.Status != relight.RunWithExceptions {
			t.Errorf("what a person forced is not an exception")
		}
	}
	if !reflect.DeepEqual(w.effects, want) {
		t.Fatalf("effects %v, not %v", w.effects, want)
	}
	folded, err := runbook.Fold(context.Background(), st, "r1")
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(folded, live) {
		t.Errorf("the live state is not the fold of the events")
	}
	s.checkAsked(t, w, st)
}

func forced(st *runbook.State) bool {
	return slices.ContainsFunc(st.Exceptions, func(x runbook.Exception) bool { return x.What == "forced done" })
}

// checkAsked: every unprobed step that was in flight at a crash has been asked about, and no other.
func (s specimen) checkAsked(t *testing.T, w *world, st *store) {
	t.Helper()
	asked := map[string]bool{}
	for _, q := range w.asked {
		if q.Kind == runbook.AskUnknown {
			asked[q.Step] = true
		}
	}
	for id := range s.keys {
		doubt := slices.Contains(st.kinds(id), runbook.EventStepUnknown)
		if doubt != asked[id] {
			t.Errorf("step %s: in flight at a crash %v, asked %v", id, doubt, asked[id])
		}
		delete(asked, id)
	}
	if len(asked) > 0 {
		t.Errorf("asked although there is a probe: %v", asked)
	}
}

// TestKilledAtEveryEvent kills relight at every append of every specimen, before and after it is durable, and once more
// at every append of the next life.
func TestKilledAtEveryEvent(t *testing.T) {
	t.Parallel()
	for _, s := range specimens() {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			w, st := s.world(), &store{}
			whole := &mortal{store: st}
			live, err := s.life(t, w, st, whole)
			s.check(t, w, st, live, err)
			every := 1
			if testing.Short() { // the race detector needs a sample
				every = 7
			}
			for first := 1; first <= whole.appends; first += every {
				for _, durable := range []bool{false, true} {
					s.killAt(t, first, durable)
				}
			}
		})
	}
}

func (s specimen) killAt(t *testing.T, first int, durable bool) {
	t.Helper()
	for second := 0; second < 40; second++ {
		w, st := s.world(), &store{}
		victim := &mortal{store: st, crashAt: first, durable: durable}
		if _, err := s.life(t, w, st, victim); !errors.Is(err, errCrash) {
			if durable && err == nil || durable && over(st) {
				return // the last append was durable
			}
			if err == nil && victim.appends < first {
				return // steps beside each other shared appends this time, so that there were fewer
			}
			t.Fatalf("killed at append %d: %v", first, err)
		}
		if over(st) {
			return
		}
		again := &mortal{store: st, crashAt: second, durable: durable}
		live, err := s.life(t, w, st, again)
		died := errors.Is(err, errCrash)
		for died && !over(st) {
			live, err = s.life(t, w, st, &mortal{store: st})
			died = errors.Is(err, errCrash)
		}
		if over(st) && live == nil || died {
			live, err = runbook.Fold(context.Background(), st, "r1")
		}
		name := fmt.Sprintf("killed at append %d and %d, durable %v", first, second, durable)
		t.Run(name, func(t *testing.T) { s.relax(live).check(t, w, st, live, err) })
		if second > 0 && again.crashAt > again.appends {
			return
		}
	}
}

// relax allows exceptions where a person had to say that an effect is there.
func (s specimen) relax(st *runbook.State) specimen {
	if st != nil && forced(st) {
		s.state = relight.RunWithExceptions
	}
	return s
}

func over(st *store) bool {
	s, err := runbook.Fold(context.Background(), st, "r1")
	return err == nil && s.Over()
}
