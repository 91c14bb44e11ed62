package runbook_test

import (
	"context"
	"slices"
	"testing"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/runbook"
)

type ctxType = context.Context

func TestDryRunLooksAndTouchesNothing(t *testing.T) {
	t.Parallel()
	w, log := newWorld(), &mortal{store: &store{}}
	w.there["b"] = true
	src := source(
		step("A", `{id: a, do: fake.plain, with: {key: a}}`),
		step("B", `{id: b, do: fake.plain, with: {key: b}}`),
		step("C", `{id: c, do: fake.plain, with: {key: "{{ steps.a.key }}"}}`),
		step("D", `{id: d, do: fake.plain, with: {key: "{{ steps.b.key }}d"}}`),
		step("W", `{id: w, do: fake.wipe, with: {key: w}, danger: data, undo: none, if_fails: f}`),
		step("F", `{id: f, do: fake.plain, with: {key: f}}`),
		step("N", `{id: n, do: fake.plain, with: {key: n}, when: "steps.a.key == 'zzz'"}`),
		step("S", `{id: s, do: fake.plain, with: {key: s}, when: "steps.b.key == 'zzz'"}`),
		step("X", `{id: x, do: fake.blind, with: {key: x}, each: steps.a.list}`),
		step("Q", `{id: q, ask: look}`),
		step("R", `{id: r, run: [rm, -rf, /tmp/nothing], danger: data, target: nothing, undo: none, probe: {do: fake.check, with: {key: r}}}`),
		step("Z", `{id: z, wait: 10m}`),
	)
	e := engine(t, w, log, runbook.Nobody{})
	rb := compile(t, w, src)
	d, err := e.DryRun(ctx, rb, runbook.StartOptions{Actor: "alice"})
	if err != nil {
		t.Fatal(err)
	}
	if len(w.effects) > 0 || len(log.events) > 0 {
		t.Fatalf("a dry run has effects %v and %d events", w.effects, len(log.events))
	}
	want := map[string]runbook.DryVerdict{
		"a": runbook.WouldDo, "b": runbook.AlreadyDone, "c": runbook.CannotKnow, "d": runbook.WouldDo, "w": runbook.WouldDo,
		"f": runbook.WouldDo, "n": runbook.WouldDo, "s": runbook.WouldSkip, "x": runbook.CannotKnow, "q": runbook.WouldAsk,
		"r": runbook.WouldDo, "z": runbook.WouldDo,
	}
	got := map[string]runbook.DryStep{}
	for _, s := range d.Steps {
		got[s.ID] = s
		if s.Verdict != want[s.ID] {
			t.Errorf("%s: %s (%s), not %s", s.ID, s.Verdict, s.Detail, want[s.ID])
		}
	}
	if got["f"].Condition != "w fails" || got["n"].Condition == "" {
		t.Errorf("conditions %q and %q", got["f"].Condition, got["n"].Condition)
	}
	if b := got["w"].Blast; b == nil || b.Target != "target-w" || !got["w"].NoReturn {
		t.Errorf("w is foreseen as %+v", got["w"])
	}
	if b := got["r"].Blast; b == nil || b.Target != "nothing" || !slices.Equal(b.Lines, []string{"runs rm -rf /tmp/nothing"}) {
		t.Errorf("r is foreseen as %+v", got["r"])
	}
	st, err := engine(t, w, log, honest{w: w}).Start(ctx, compile(t, w, source(step("A", `{id: a, do: fake.plain, with: {key: a}}`))), opts())
	if err != nil || st.PlanHash == d.PlanHash {
		t.Errorf("another runbook has the same plan hash (%v)", err)
	}
}

func TestDryRunTellsWhatWouldFail(t *testing.T) {
	t.Parallel()
	w, log := newWorld(), &mortal{store: &store{}}
	rb := compile(t, w, `---
runbook: test
title: Test
objective: {rto: 30m, rpo: 15m}
inputs: {nothing: ""}
---
## Recover
`+step("A", `{id: a, do: fake.plain, with: {key: "{{ inputs.nothing }}"}}`)+step("B", `{id: b, do: fake.plain, with: {key: b}}`))
	d, err := engine(t, w, log, runbook.Nobody{}).DryRun(ctx, rb, runbook.StartOptions{Actor: "alice"})
	if relight.CodeOf(err) != relight.CodeFailed || d.Steps[0].Verdict != runbook.WouldFail || d.Steps[1].Verdict != runbook.WouldDo {
		t.Errorf("report %+v, error %v", d, err)
	}
}
