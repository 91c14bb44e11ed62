package action

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/toolboxai/relight"
)

type mode string

type restoreIn struct {
	Store   string        `flag:"store" required:"true" help:"the store to restore"`
	At      string        `flag:"at" default:"latest"`
	Verify  bool          `flag:"verify-before" default:"true"`
	Workers int           `flag:"workers"`
	Ratio   float64       `flag:"ratio"`
	Timeout time.Duration `flag:"timeout" default:"10m"`
	Tables  []string      `flag:"tables"`
	Mode    mode          `flag:"mode" enum:"fast,safe" default:"safe"`
	LastLSN int64
}

type restoreOut struct {
	Reached  relight.Point     `json:"reached"`
	Seconds  float64           `json:"seconds"`
	Files    int64             `json:"files"`
	Labels   map[string]string `json:"labels,omitempty"`
	SetAside string            `json:"set_aside,omitempty"`
	Secret   string            `json:"-"`
}

func restoreSpec() Spec[restoreIn, restoreOut] {
	return Spec[restoreIn, restoreOut]{
		Name: "postgres.restore", Title: "restore a PostgreSQL store", Danger: Data,
		Run: func(_ context.Context, _ Env, in restoreIn) (restoreOut, error) {
			return restoreOut{SetAside: in.Store + ".aside", Files: 3, Reached: relight.Point{LSN: 0x16B374D848}}, nil
		},
		Probe: func(context.Context, Env, restoreIn) (Probed, error) { return Probed{State: NotDone}, nil },
		Plan: func(_ context.Context, _ Env, in restoreIn) (Blast, error) {
			return Blast{Target: in.Store, Lines: []string{"removes everything"}}, nil
		},
	}
}

func restore(t *testing.T) Action {
	t.Helper()
	a, err := New(restoreSpec())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestNewRefusesWhatCannotKeepThePromises(t *testing.T) {
	t.Parallel()
	bad := func(change func(*Spec[restoreIn, restoreOut]), want string) {
		s := restoreSpec()
		change(&s)
		_, err := New(s)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
		if _, err := NewRegistry(Define(s)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("registry: got %v, want %q", err, want)
		}
	}
	bad(func(s *Spec[restoreIn, restoreOut]) { s.Probe = nil }, "danger data needs both Probe and Plan")
	bad(func(s *Spec[restoreIn, restoreOut]) { s.Danger, s.Plan = Irreversible, nil }, "danger irreversible needs both")
	bad(func(s *Spec[restoreIn, restoreOut]) { s.Name = "Restore" }, "noun.verb")
	bad(func(s *Spec[restoreIn, restoreOut]) { s.Title = "" }, "no title")
	bad(func(s *Spec[restoreIn, restoreOut]) { s.Run = nil }, "no Run")
	bad(func(s *Spec[restoreIn, restoreOut]) { s.Danger = "bad" }, "none of")
}

func TestNewRefusesBadTags(t *testing.T) {
	t.Parallel()
	check := func(err error, want string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	_, err := New(specOf[struct {
		A int `default:"x"`
	}]())
	check(err, "not a whole number")
	_, err = New(specOf[struct {
		A string `required:"true" default:"x"`
	}]())
	check(err, "required and has a default")
	_, err = New(specOf[struct {
		A string `default:"x" enum:"y"`
	}]())
	check(err, `"x" is none of y`)
	_, err = New(specOf[struct{ A map[string]string }]())
	check(err, "cannot be an input")
	_, err = New(specOf[struct {
		A string `flag:"x-y"`
		B string `flag:"x_y"`
	}]())
	check(err, "taken by another")
	_, err = New(specOf[struct{ *restoreIn }]())
	check(err, "only a struct can be embedded")
}

func specOf[In any]() Spec[In, struct{}] {
	return Spec[In, struct{}]{Name: "a.b", Title: "t", Run: func(context.Context, Env, In) (struct{}, error) { return struct{}{}, nil }}
}

func TestFields(t *testing.T) {
	t.Parallel()
	var names []string
	for _, f := range restore(t).Fields() {
		names = append(names, f.Name+":"+string(f.Type)+":"+f.Flag())
	}
	want := "store:string:store at:string:at verify_before:bool:verify-before workers:int:workers ratio:float:ratio " +
		"timeout:duration:timeout tables:strings:tables mode:string:mode last_lsn:int:last-lsn"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestDecode(t *testing.T) {
	t.Parallel()
	a := restore(t)
	defaults := restoreIn{Store: "main", At: "latest", Verify: true, Timeout: 10 * time.Minute, Mode: "safe"}
	tests := []struct {
		name string
		with map[string]any
		want func(*restoreIn)
	}{
		{"defaults", map[string]any{"store": "main"}, func(*restoreIn) {}},
		{"empty is not given", map[string]any{"store": "main", "at": "", "workers": "", "mode": nil}, func(*restoreIn) {}},
		{"strings", map[string]any{
			"store": "main", "verify-before": "false", "workers": "4", "ratio": "0.5", "timeout": "90s", "tables": "a, b", "mode": "fast",
		}, func(r *restoreIn) {
			r.Verify, r.Workers, r.Ratio, r.Timeout, r.Tables, r.Mode = false, 4, 0.5, 90*time.Second, []string{"a", "b"}, "fast"
		}},
		{"typed", map[string]any{
			"store": "main", "verify_before": false, "workers": uint64(4), "ratio": 2, "timeout": time.Minute, "tables": []any{"a", 1},
		}, func(r *restoreIn) {
			r.Verify, r.Workers, r.Ratio, r.Timeout, r.Tables = false, 4, 2, time.Minute, []string{"a", "1"}
		}},
		{"json number", map[string]any{"store": "main", "workers": float64(3), "last_lsn": json.Number("7")}, func(r *restoreIn) { r.Workers, r.LastLSN = 3, 7 }},
	}
	for _, tt := range tests {
		want := defaults
		tt.want(&want)
		got, err := a.Decode(tt.with)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\ngot  %+v\nwant %+v", tt.name, got, want)
		}
	}
}

func TestSplitList(t *testing.T) {
	t.Parallel()
	for in, want := range map[string][]string{
		"": {""}, "a": {"a"}, "a, b ,c": {"a", "b", "c"}, `a\,b,c`: {"a,b", "c"}, `a,b\,`: {"a", "b,"}, `a\`: {`a\`}, `\,\,`: {",,"}, `c:\x,y`: {`c:\x`, "y"},
	} {
		if got := SplitList(in); !slices.Equal(got, want) {
			t.Errorf("%q: %q, expected %q", in, got, want)
		}
	}
}

func TestDecodeReportsEveryFault(t *testing.T) {
	t.Parallel()
	_, err := restore(t).Decode(map[string]any{"stroe": "main", "workers": 1.5, "mode": "fats", "timeout": 5, "tables": map[string]any{}, "verify_before": "maybe"})
	if relight.CodeOf(err) != relight.CodeUsage {
		t.Fatalf("code %s of %v", relight.CodeOf(err), err)
	}
	for _, want := range []string{
		`there is no input "stroe"; did you mean "store"?`, "store is missing (the store to restore)", "workers: 1.5 is not a whole number",
		`mode: "fats" is none of fast, safe; did you mean "fast"?`, "timeout: 5 is not a duration", "tables: a mapping is not a list", "maybe is neither true nor false",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing from %v", want, err)
		}
	}
}

func TestDecodeNeverPanics(t *testing.T) {
	t.Parallel()
	a := restore(t)
	values := rapid.OneOf(rapid.String().AsAny(), rapid.Int().AsAny(), rapid.Float64().AsAny(), rapid.Bool().AsAny(),
		rapid.Uint64().AsAny(), rapid.SliceOf(rapid.String().AsAny()).AsAny(), rapid.Just[any](nil))
	rapid.Check(t, func(t *rapid.T) {
		with := map[string]any{"store": "s"}
		for _, f := range a.Fields() {
			if rapid.Bool().Draw(t, "given") {
				with[f.Name] = values.Draw(t, f.Name)
			}
		}
		in, err := a.Decode(with)
		if err == nil {
			if m := in.(restoreIn).Mode; m != "fast" && m != "safe" {
				t.Fatalf("mode %q is outside the enum", m)
			}
		}
	})
}

func TestRunTakesTypedAndUntypedInput(t *testing.T) {
	t.Parallel()
	a := restore(t)
	for _, in := range []any{restoreIn{Store: "main"}, map[string]any{"store": "main"}} {
		out, err := a.Run(t.Context(), Env{}, in)
		if err != nil {
			t.Fatal(err)
		}
		m, err := Output(out)
		if err != nil {
			t.Fatal(err)
		}
		if m["set_aside"] != "main.aside" || m["files"] != int64(3) || m["reached"].(map[string]any)["lsn"] != "16/B374D848" {
			t.Errorf("output %v", m)
		}
	}
	if _, err := a.Run(t.Context(), Env{}, 5); err == nil {
		t.Error("an int was taken for the input")
	}
}

func TestExecuteAsksOnlyWhenThePlanFindsDanger(t *testing.T) {
	t.Parallel()
	ran := 0
	s := restoreSpec()
	danger := Data
	s.Run = func(context.Context, Env, restoreIn) (restoreOut, error) { ran++; return restoreOut{}, nil }
	s.Plan = func(_ context.Context, _ Env, in restoreIn) (Blast, error) {
		return Blast{Target: in.Store, Danger: danger}, nil
	}
	a, err := New(s)
	if err != nil {
		t.Fatal(err)
	}
	in := restoreIn{Store: "main"}
	_, err = Execute(t.Context(), a, Env{}, in)
	if relight.CodeOf(err) != relight.CodeWaiting || ran != 0 || !strings.Contains(relight.HintOf(err), "--confirm main") {
		t.Errorf("with nobody to ask: %v, ran %d", err, ran)
	}
	typed := "mian"
	env := Env{Confirm: func(_ context.Context, b Blast) error { return b.Match(typed) }}
	if _, err = Execute(t.Context(), a, env, in); relight.CodeOf(err) != relight.CodeWaiting || ran != 0 {
		t.Errorf("with the wrong name: %v, ran %d", err, ran)
	}
	typed = " main\n"
	if _, err = Execute(t.Context(), a, env, in); err != nil || ran != 1 {
		t.Errorf("with the name: %v, ran %d", err, ran)
	}
	danger = None
	if _, err = Execute(t.Context(), a, Env{}, in); err != nil || ran != 2 {
		t.Errorf("with nothing to destroy: %v, ran %d", err, ran)
	}
	danger = "none at all"
	if _, err = Execute(t.Context(), a, env, in); err == nil || ran != 2 {
		t.Errorf("with a word that is no danger: %v, ran %d", err, ran)
	}
}

func TestExecuteRefusesAPlanWithoutTarget(t *testing.T) {
	t.Parallel()
	s := restoreSpec()
	s.Plan = func(context.Context, Env, restoreIn) (Blast, error) { return Blast{}, nil }
	a, err := New(s)
	if err != nil {
		t.Fatal(err)
	}
	env := Env{Confirm: func(context.Context, Blast) error { return nil }}
	if _, err := Execute(t.Context(), a, env, restoreIn{}); err == nil || !strings.Contains(err.Error(), "no target") {
		t.Errorf("got %v", err)
	}
}

func TestPlanFailureTouchesNothing(t *testing.T) {
	t.Parallel()
	s := restoreSpec()
	boom := errors.New("no space")
	s.Plan = func(context.Context, Env, restoreIn) (Blast, error) { return Blast{}, boom }
	s.Run = func(context.Context, Env, restoreIn) (restoreOut, error) { panic("ran") }
	a, err := New(s)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Execute(t.Context(), a, Env{}, restoreIn{}); !errors.Is(err, boom) {
		t.Errorf("got %v", err)
	}
}

func TestUndoGetsTheJournaledOutputBack(t *testing.T) {
	t.Parallel()
	s := restoreSpec()
	var got restoreOut
	s.Undo = func(_ context.Context, _ Env, _ restoreIn, out restoreOut) error { got = out; return nil }
	a, err := New(s)
	if err != nil {
		t.Fatal(err)
	}
	want, _ := a.Run(t.Context(), Env{}, restoreIn{Store: "main"})
	m, _ := Output(want)
	raw, _ := json.Marshal(want)
	for _, out := range []any{want, m, json.RawMessage(raw)} {
		got = restoreOut{}
		if err := a.Undo(t.Context(), Env{}, restoreIn{}, out); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("undo of %T: %v, %+v", out, err, got)
		}
	}
	if err := restore(t).Undo(t.Context(), Env{}, restoreIn{}, want); err == nil || relight.HintOf(err) == "" {
		t.Errorf("an action without undo undid: %v", err)
	}
}

func TestOutFields(t *testing.T) {
	t.Parallel()
	fields, open := restore(t).OutFields()
	raw, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	want := `[{"name":"reached","type":"object","fields":[{"name":"timeline","type":"integer"},{"name":"lsn","type":"string"},{"name":"time","type":"string"}]},` +
		`{"name":"seconds","type":"number"},{"name":"files","type":"integer"},{"name":"labels","type":"object","open":true},{"name":"set_aside","type":"string"}]`
	if string(raw) != want || open {
		t.Errorf("got  %s\nwant %s", raw, want)
	}
}

func TestSchemaIsStableAndCloses(t *testing.T) {
	t.Parallel()
	a, err := New(specOf[struct {
		Store string   `required:"true" help:"which"`
		N     int      `default:"2"`
		Tags  []string `enum:"a,b"`
	}]())
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(a.InputSchema())
	if err != nil {
		t.Fatal(err)
	}
	want := `{"$schema":"https://json-schema.org/draft/2020-12/schema","additionalProperties":false,"description":"t","properties":` +
		`{"n":{"default":2,"type":"integer"},"store":{"description":"which","type":"string"},"tags":{"items":{"enum":["a","b"],"type":"string"},"type":"array"}},` +
		`"required":["store"],"title":"a.b","type":"object"}`
	if string(raw) != want {
		t.Errorf("got  %s\nwant %s", raw, want)
	}
}

func TestRegistry(t *testing.T) {
	t.Parallel()
	a := restore(t)
	if _, err := NewRegistry(a, a); err == nil || !strings.Contains(err.Error(), "registered twice") {
		t.Errorf("duplicate: %v", err)
	}
	if _, err := NewRegistry(Action{}); err == nil {
		t.Error("the zero action was registered")
	}
	b, _ := New(specOf[struct{}]())
	r, err := NewRegistry(a, b)
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(r.Names()); got != "[a.b postgres.restore]" {
		t.Errorf("names %s", got)
	}
	_, err = r.Lookup("postgres.resotre")
	if err == nil || !strings.Contains(err.Error(), `did you mean "postgres.restore"?`) || !strings.Contains(relight.HintOf(err), "postgres has postgres.restore") {
		t.Errorf("lookup: %v", err)
	}
	if relight.CodeOf(err) != relight.CodeUsage {
		t.Errorf("code %s", relight.CodeOf(err))
	}
}
