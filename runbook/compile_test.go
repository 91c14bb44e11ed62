package runbook

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/toolboxai/relight/action"
)

// Every good file compiles, to the JSON, the text and the plan that stand beside it.
func TestGoodFixtures(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/good/*.md")
	if err != nil || len(files) < 2 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, f := range files {
		rb := compileFile(t, f)
		raw, err := rb.Canonical()
		if err != nil {
			t.Fatal(err)
		}
		var pretty bytes.Buffer
		if err := json.Indent(&pretty, raw, "", " "); err != nil {
			t.Fatal(err)
		}
		base := strings.TrimSuffix(f, ".md")
		golden(t, base+".json", pretty.String()+"\n")
		golden(t, base+".show", Show(rb))
		p, err := rb.Plan(nil)
		if err != nil {
			t.Fatal(err)
		}
		plan, err := json.MarshalIndent(p, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		golden(t, base+".plan", string(plan)+"\n")
	}
}

func compileFile(t testing.TB, f string) *Runbook {
	t.Helper()
	src, err := os.ReadFile(f)
	if err != nil {
		t.Fatal(err)
	}
	rb, err := Compile(src, f, lintRegistry(t))
	if err != nil {
		t.Fatal(err)
	}
	return rb
}

const front = "---\nrunbook: example\nobjective: {rto: 2h, rpo: 15m}\ninputs: {point: latest, n: 3}\n---\n"

func compileText(t testing.TB, src string) *Runbook {
	t.Helper()
	rb, err := Compile([]byte(src), "test.md", lintRegistry(t))
	if err != nil {
		t.Fatal(err)
	}
	return rb
}

func stepsOf(rb *Runbook) map[string]*Step {
	m := map[string]*Step{}
	for _, p := range rb.Phases {
		for _, s := range p.Steps {
			m[s.ID] = s
		}
	}
	return m
}

func TestDefaultNeeds(t *testing.T) {
	t.Parallel()
	rb := compileText(t, front+`## Recover
### A
### C
`+fenced("id: choose\nchoose:\n  options:\n    - {id: x, title: X, steps: [x1, x2]}\n    - {id: y, title: Y, steps: [y1]}\n    - {id: z, title: Z}")+`
### X1
### X2
`+fenced("if_fails: fallback")+`
### Y1
### Fallback
### After
### Apart
`+fenced("needs: []")+`
### Last
`)
	want := map[string][]string{
		"a": nil, "choose": {"a"}, "x1": {"choose"}, "x2": {"x1"}, "y1": {"choose"}, "fallback": nil,
		"after": {"choose", "x1", "x2", "y1", "fallback"}, "apart": nil, "last": {"apart"},
	}
	for id, s := range stepsOf(rb) {
		if got := s.Needs; !slices.Equal(got, want[id]) {
			t.Errorf("%s needs %v, want %v", id, got, want[id])
		}
		demand := slices.Contains([]string{"x1", "x2", "y1", "fallback"}, id)
		if s.OnDemand != demand {
			t.Errorf("%s: on demand is %v", id, s.OnDemand)
		}
	}
	var order []string
	for _, s := range rb.order() {
		order = append(order, s.ID)
	}
	if got := strings.Join(order, " "); got != "a choose x1 x2 y1 fallback after apart last" {
		t.Errorf("order %s", got)
	}
}

// A fallback that stands before the step that goes to it must not hold the steps between up.
func TestDefaultNeedsSkipALaterDemander(t *testing.T) {
	t.Parallel()
	rb := compileText(t, front+"## R\n### A\n### Fallback\n### B\n### C\n"+fenced("if_fails: fallback")+"### D\n")
	if got := stepsOf(rb)["b"].Needs; !slices.Equal(got, []string{"a"}) {
		t.Errorf("b needs %v", got)
	}
	var order []string
	for _, s := range rb.order() {
		order = append(order, s.ID)
	}
	if got := strings.Join(order, " "); got != "a b c fallback d" {
		t.Errorf("order %s", got)
	}
}

func fenced(body string) string { return "```step\n" + body + "\n```\n" }

func TestHeadings(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"4. Promote the replica":           "promote-the-replica",
		"Phase 1: Infrastructure (30 min)": "infrastructure",
		"Step 2) Stop":                     "stop",
		"Über-Prüfung":                     "ber-pr-fung",
		"3.2 Check `pg`":                   "check-pg",
		"2025 review":                      "review",
	} {
		if got := slug(in); got != want {
			t.Errorf("slug of %q is %q, want %q", in, got, want)
		}
	}
	for in, want := range map[string]time.Duration{
		"Recover (30-60 minutes)":         time.Hour,
		"Recover (30–60 minutes)":         time.Hour,
		"Recover (1 - 2 hours)":           2 * time.Hour,
		"Recover (1.5 to 2.5 h)":          150 * time.Minute,
		"Immediate actions (< 5 minutes)": 5 * time.Minute,
		"Assess (5 minutes)":              5 * time.Minute,
		"Pause (90s)":                     90 * time.Second,
		"Recover (preferred)":             0,
		"Recover":                         0,
		"Recover (99999999999 hours)":     0,
	} {
		title, got := budgetOf(in)
		if got != want || got > 0 && strings.Contains(title, "(") {
			t.Errorf("budget of %q is %s (title %q), want %s", in, got, title, want)
		}
	}
}

// What an operator reads decides the hash; how the YAML is laid out does not.
func TestHash(t *testing.T) {
	t.Parallel()
	a := front + "## R\n### A\nProse.\n" + fenced("do: postgres.restore\nwith: {store: main, at: \"{{inputs.point}}\"}\ndanger: data\nundo: none\nwhen: (inputs.n)==3")
	b := front + "## R\n### A\nProse.\n\n" + fenced("# a comment\nundo: none\nwhen: 'inputs.n == 3'\n\ndo: \"postgres.restore\"\nwith:\n  at: '{{  inputs.point }}'\n  store: main\ndanger: data\nneeds: []")
	if ha, hb := compileText(t, a).Hash, compileText(t, b).Hash; ha != hb || len(ha) != 64 {
		t.Errorf("layout changes the hash: %s, %s", ha, hb)
	}
	if compileText(t, a).Hash != compileText(t, strings.ReplaceAll(a, "\n", "\r\n")).Hash {
		t.Error("line ends change the hash")
	}
	for from, to := range map[string]string{
		"Prose.": "Other prose.", "==3": "==4", "### A": "### B", "store: main": "store: mian", "rto: 2h": "rto: 3h", "point: latest": "point: now",
	} {
		if compileText(t, a).Hash == compileText(t, strings.Replace(a, from, to, 1)).Hash {
			t.Errorf("%q for %q does not change the hash", to, from)
		}
	}
}

func TestLoadRefuses(t *testing.T) {
	t.Parallel()
	raw, err := compileFile(t, "testdata/good/design.md").Canonical()
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(string) string{
		"cut":          func(s string) string { return s[:len(s)/2] },
		"more":         func(s string) string { return s + "{}" },
		"unknown key":  func(s string) string { return strings.Replace(s, `"title"`, `"titel"`, 1) },
		"no name":      func(s string) string { return strings.Replace(s, `"runbook":"database-corruption"`, `"runbook":""`, 1) },
		"other kind":   func(s string) string { return strings.Replace(s, `"kind":"do"`, `"kind":"run"`, 1) },
		"same id":      func(s string) string { return strings.Replace(s, `"id":"keep-evidence"`, `"id":"stop-the-writers"`, 1) },
		"unknown kind": func(s string) string { return strings.Replace(s, `"kind":"do"`, `"kind":"fly"`, 1) },
	} {
		if rb, err := Load([]byte(change(string(raw)))); err == nil {
			t.Errorf("%s: loaded as %s", name, rb.Name)
		}
	}
	changed, err := Load(bytes.Replace(raw, []byte("in-place"), []byte("elsewhere"), 1))
	if err != nil {
		t.Fatal(err)
	}
	if changed.Hash == compileFile(t, "testdata/good/design.md").Hash {
		t.Error("a changed runbook has the old hash")
	}
}

func TestResolveInputs(t *testing.T) {
	t.Parallel()
	rb := compileText(t, "---\nrunbook: x\ninputs:\n  point: latest\n  count: {type: int}\n  dry: false\n  within: {type: duration, default: 5m}\n"+
		"  when: {type: time}\n  mode: {enum: [fast, safe], required: true, help: how}\n---\n## R\n### A\n")
	got, err := rb.ResolveInputs(map[string]any{"mode": "fast", "count": "7", "dry": true, "when": "2025-10-02 14:30:00"})
	want := map[string]any{"point": "latest", "count": int64(7), "dry": true, "within": "5m", "when": "2025-10-02 14:30:00", "mode": "fast"}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
	again, err := rb.ResolveInputs(got)
	if err != nil || !reflect.DeepEqual(again, want) {
		t.Errorf("what was resolved does not resolve to itself: %v, %v", again, err)
	}
	_, err = rb.ResolveInputs(map[string]any{"piont": "x", "count": "many", "dry": "perhaps", "within": "soon", "when": "noon"})
	for _, part := range []string{
		`there is no input "piont"; did you mean "point"?`, `count: "many" is not`, `dry: "perhaps"`, `within: "soon"`, `when: "noon"`, "mode is missing (how)",
	} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%q is missing from %v", part, err)
		}
	}
	if _, err := rb.ResolveInputs(map[string]any{"mode": "slow"}); err == nil {
		t.Error("a value outside of the enum was taken")
	}
	got, err = rb.ResolveInputs(map[string]any{"mode": "safe"})
	if err != nil || got["count"] != nil || got["when"] != "" {
		t.Errorf("inputs that were not given: %v, %v", got, err)
	}
}

func TestPlanShowsWhatIsUnknown(t *testing.T) {
	t.Parallel()
	rb := compileFile(t, "library/database-corruption.md")
	p, err := rb.Plan(map[string]any{"point": "lsn:0/1"})
	if err != nil {
		t.Fatal(err)
	}
	byID := map[string]PlanStep{}
	for _, s := range p.Steps {
		byID[s.ID] = s
	}
	restore := byID["restore"]
	if restore.With["at"] != "lsn:0/1" || restore.Undo != "none" || restore.Danger != action.Data {
		t.Errorf("restore: %+v", restore)
	}
	options := byID["choose-recovery"].Options
	if len(options) != 3 || options[0].Available != "unknown" || options[2].Available != "no" || options[2].Reason == "" {
		t.Errorf("options: %+v", options)
	}
	if !slices.Equal(byID["restore-full"].Reached, []string{"option full-backup of choose-recovery"}) {
		t.Errorf("restore-full is reached by %v", byID["restore-full"].Reached)
	}
	later := compileText(t, front+"## R\n### A\n"+fenced("do: postgres.window\nwith: {store: main}")+"### B\n"+
		fenced("do: postgres.assess\nwith: {store: \"{{ steps.a.store }}\"}"))
	if p, err := later.Plan(nil); err != nil || p.Steps[1].With["store"] != Unknown {
		t.Errorf("what a step will give is planned as %+v, %v", p.Steps, err)
	}
	if _, err := rb.Plan(map[string]any{"pint": "x"}); err == nil {
		t.Error("an unknown input was planned with")
	}
}

// genSource writes a runbook of random shape that must compile.
func genSource(t *rapid.T) string {
	var b strings.Builder
	b.WriteString(front)
	words := rapid.StringMatching(`[A-Za-z][A-Za-z ]{0,12}[a-z]`)
	n := rapid.IntRange(1, 12).Draw(t, "steps")
	for i := range n {
		if i == 0 || rapid.IntRange(0, 3).Draw(t, "phase") == 0 {
			fmt.Fprintf(&b, "## Phase %s %d (%d minutes)\n%s\n", words.Draw(t, "phase name"), i, i+1, words.Draw(t, "phase prose"))
		}
		fmt.Fprintf(&b, "### %s\n%s\n", words.Draw(t, "title"), words.Draw(t, "prose"))
		if rapid.Bool().Draw(t, "checklist") {
			fmt.Fprintf(&b, "\n- [ ] %s\n- [x] %s\n\n", words.Draw(t, "item"), words.Draw(t, "item"))
		}
		b.WriteString(fenced(genFence(t, i)))
	}
	return b.String()
}

func genFence(t *rapid.T, i int) string {
	lines := []string{fmt.Sprintf("id: s%d", i)}
	lines = append(lines, rapid.SampledFrom([]string{
		"do: postgres.assess\nwith: {store: main}",
		"do: postgres.restore\nwith: {store: main, at: \"{{ inputs.point }}\", force: true}\ndanger: data\nundo: none",
		"run: [echo, \"{{ inputs.n }}\", 5, 1.5, true]",
		"run:\n  script: |\n    echo $RELIGHT_A\n  env: {a: \"x {{ inputs.point }}\"}",
		"ask: {text: \"is {{ inputs.point }} right?\", answer: \"{{ inputs.point }}\"}",
		"wait: 5s",
		"wait: {until: {do: postgres.check, with: {store: main}}, every: 1s, for: 1m}",
		"choose:\n  options:\n    - {id: a, title: A, available: inputs.n == 3, reason: no}\n    - {id: b, title: B}",
	}).Draw(t, "kind"))
	if rapid.Bool().Draw(t, "when") {
		lines = append(lines, "when: "+rapid.SampledFrom([]string{"inputs.n == 3", "not (inputs.point == 'x' or inputs.n != 2.5)"}).Draw(t, "condition"))
	}
	if i > 0 && rapid.Bool().Draw(t, "needs") {
		needs := rapid.SliceOfNDistinct(rapid.IntRange(0, i-1), 0, 3, rapid.ID[int]).Draw(t, "needed")
		list := []string{}
		for _, n := range needs {
			list = append(list, fmt.Sprintf("s%d", n))
		}
		lines = append(lines, "needs: ["+strings.Join(list, ", ")+"]")
	}
	if rapid.Bool().Draw(t, "timeout") {
		lines = append(lines, "timeout: 90s", "retry: 2")
	}
	return strings.Join(lines, "\n")
}

// A run needs the canonical JSON and nothing else: what is loaded from it is what was compiled.
func TestCanonicalRoundTrip(t *testing.T) {
	t.Parallel()
	reg := lintRegistry(t)
	rapid.Check(t, func(t *rapid.T) {
		src := genSource(t)
		rb, err := Compile([]byte(src), "gen.md", reg)
		if err != nil {
			t.Fatalf("%v\n%s", err, src)
		}
		raw, err := rb.Canonical()
		if err != nil {
			t.Fatal(err)
		}
		back, err := Load(raw)
		if err != nil {
			t.Fatalf("%v\n%s", err, raw)
		}
		again, err := back.Canonical()
		if err != nil || !bytes.Equal(raw, again) || back.Hash != rb.Hash {
			t.Fatalf("%v\n%s\n%s", err, raw, again)
		}
		if Show(rb) != Show(back) {
			t.Fatal("the loaded runbook reads otherwise")
		}
		checkOrder(t, rb)
	})
}

// Every step is in the plan once, behind all that it needs.
func checkOrder(t *rapid.T, rb *Runbook) {
	p, err := rb.Plan(nil)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, s := range p.Steps {
		for _, need := range s.Needs {
			if !seen[need] {
				t.Fatalf("%s is planned before %s, which it needs", s.ID, need)
			}
		}
		seen[s.ID] = true
	}
	if len(seen) != len(stepsOf(rb)) || len(p.Steps) != len(seen) {
		t.Fatalf("%d of %d steps are planned", len(p.Steps), len(stepsOf(rb)))
	}
}

func FuzzCompile(f *testing.F) {
	for _, glob := range []string{"testdata/bad/*.md", "testdata/good/*.md", "library/*.md"} {
		files, err := filepath.Glob(glob)
		if err != nil {
			f.Fatal(err)
		}
		for _, name := range files {
			src, err := os.ReadFile(name)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(src)
		}
	}
	reg := lintRegistry(f)
	f.Fuzz(func(t *testing.T, src []byte) {
		hang := time.AfterFunc(10*time.Second, func() { panic(fmt.Sprintf("compiling takes too long: %q", src)) })
		defer hang.Stop()
		rb, err := Compile(src, "fuzz.md", reg)
		if err != nil {
			if len(ProblemsOf(err)) == 0 {
				t.Fatalf("an error without a place: %v", err)
			}
			return
		}
		raw, err := rb.Canonical()
		if err != nil {
			t.Fatal(err)
		}
		back, err := Load(raw)
		if err != nil || back.Hash != rb.Hash {
			t.Fatalf("what compiled does not load: %v", err)
		}
		Show(back)
		if _, err := rb.Plan(nil); err != nil && !strings.Contains(err.Error(), "is missing") {
			t.Fatalf("what compiled cannot be planned: %v", err)
		}
	})
}
