package runbook_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/host"
	"github.com/toolboxai/relight/runbook"
)

func local(t *testing.T) func(*runbook.Config) {
	t.Helper()
	l := host.NewLocal(host.Options{})
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return func(c *runbook.Config) { c.Runner = l; c.Processes = runbook.HostProcesses{} }
}

func TestScriptsGetValuesOnlyByEnvironment(t *testing.T) {
	t.Parallel()
	w, log := newWorld(), &mortal{store: &store{}}
	src := source(
		step("A", "id: a\nrun:\n  script: |\n    printf '%s\\n' \"$RELIGHT_WORD\" \"$RELIGHT_STEP\"\n    echo warning >&2\n  env: {word: \"{{ inputs.word }}\"}"),
		step("B", `{id: b, run: [printf, "%s", "{{ steps.a.stdout }}"], verify: {run: [test, "{{ steps.b.stdout }}", "=", "{{ steps.a.stdout }}"]}}`),
	)
	rb := compile(t, w, strings.Replace(src, "objective:", "inputs: {word: x}\nobjective:", 1))
	o := opts()
	o.Inputs = map[string]any{"word": "$(touch /tmp/pwned); `id`"}
	st, err := engine(t, w, log, runbook.Nobody{}, local(t)).Start(ctx, rb, o)
	wantCode(t, err, "")
	want := "$(touch /tmp/pwned); `id`\na"
	if got := st.Step("a").Output; got["stdout"] != want || got["stderr"] != "warning" || got["exit"] != int64(0) {
		t.Errorf("a gives %v", got)
	}
	if got := st.Step("b").Output["stdout"]; got != want {
		t.Errorf("b gives %q", got)
	}
	kinds := log.kinds("a")
	if slices.Index(kinds, runbook.EventStepHandle) != slices.Index(kinds, runbook.EventStepStarted)+1 {
		t.Errorf("the handle is not recorded between start and end: %v", kinds)
	}
}

func TestAFailedCommandSaysWhy(t *testing.T) {
	t.Parallel()
	w, log := newWorld(), &mortal{store: &store{}}
	rb := compile(t, w, source(step("A", "id: a\nrun:\n  script: |\n    echo first >&2\n    echo the disk is full >&2\n    exit 3")))
	st, err := engine(t, w, log, runbook.Nobody{}, local(t)).Start(ctx, rb, opts())
	wantCode(t, err, relight.CodeFailed)
	if got := st.Step("a").Error; !strings.Contains(got, "status 3") || !strings.HasSuffix(got, "the disk is full") {
		t.Errorf("error is %q", got)
	}
}

// TestACommandCannotRunUnrecorded: a process whose handle could not be recorded has had no effect.
func TestACommandCannotRunUnrecorded(t *testing.T) {
	t.Parallel()
	w := newWorld()
	file := filepath.Join(t.TempDir(), "effect")
	rb := compile(t, w, source(step("A", "id: a\nrun: {script: 'touch \"$RELIGHT_FILE\"', env: {file: "+file+"}}")))
	for at := 1; at <= 2; at++ { // run.started with step.started; step.handle
		s := &store{}
		if _, err := engine(t, w, &mortal{store: s, crashAt: at}, runbook.Nobody{}, local(t)).Start(ctx, rb, opts()); err == nil {
			t.Fatal("it was not killed")
		}
		if _, err := os.Stat(file); !os.IsNotExist(err) {
			t.Fatalf("killed at append %d, the command has run (%v)", at, err)
		}
	}
}

// TestProbesOfCommands: exit 0 is done, 1 is not done, any other asks.
func TestProbesOfCommands(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		exit   string
		asks   bool
		effect string
	}{{"0", false, "x"}, {"1", false, "xx"}, {"2", true, "x"}} {
		w, s := newWorld(), &store{}
		file := filepath.Join(t.TempDir(), "effect")
		src := source(step("A", `{id: a, run: {script: 'printf x >> "$RELIGHT_FILE"', env: {file: `+file+`}}, probe: {run: {script: 'exit `+c.exit+`'}}}`))
		rb := compile(t, w, src)
		if _, err := engine(t, w, &mortal{store: s, crashAt: 3}, runbook.Nobody{}, local(t)).Start(ctx, rb, opts()); err == nil {
			t.Fatal("it was not killed")
		}
		st, err := engine(t, w, &mortal{store: s}, runbook.Nobody{}, local(t)).Resume(ctx, "r1", open())
		if c.asks {
			wantCode(t, err, relight.CodeWaiting)
			if q := st.Waiting(); len(q) != 1 || q[0].Kind != runbook.AskUnknown {
				t.Errorf("waits for %+v", q)
			}
		} else {
			wantCode(t, err, "")
		}
		if b, err := os.ReadFile(file); err != nil || string(b) != c.effect {
			t.Errorf("probe exits %s: effect %q, %v", c.exit, b, err)
		}
	}
}
