package platform

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/action"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake is a platform that does what it is told and writes down what it was told.
type fake struct {
	mu     sync.Mutex
	state  map[string]Status
	did    []string
	broken map[string]error
}

func (f *fake) Start(ctx context.Context, service string, started func(context.Context, relight.Handle) error) (relight.Handle, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.did = append(f.did, "start "+service)
	if err := f.broken[service]; err != nil {
		return relight.Handle{}, err
	}
	h := relight.Handle{Kind: "process", What: service}
	f.state[service] = Healthy
	return h, started(ctx, h)
}

func (f *fake) Stop(_ context.Context, service string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.did = append(f.did, "stop "+service)
	if err := f.broken[service]; err != nil {
		return err
	}
	f.state[service] = Exited
	return nil
}

func (f *fake) State(_ context.Context, service string) (State, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return State{Service: service, Status: f.state[service]}, f.broken["state of "+service]
}

func (f *fake) set(service string, s Status) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state[service] = s
}

// stand is an estate of a database, two that write to it, and one that does not.
func stand() (*fake, *actions) {
	f := &fake{state: map[string]Status{"db": Healthy, "api": Up, "worker": Unhealthy, "docs": Absent}, broken: map[string]error{}}
	services := []relight.Service{{Name: "worker", Tier: 2, Writes: []string{"main"}}, {Name: "docs", Tier: 3}, {Name: "api", Tier: 2, Writes: []string{"main", "cache"}}, {Name: "db", Tier: 1, Store: "main"}}
	return f, &actions{open: func() (Platform, []relight.Service, error) { return f, slices.Clone(services), nil }}
}

func environment() action.Env { return action.Env{}.WithDefaults() }

func TestStartBeginsWithTheFirstTier(t *testing.T) {
	t.Parallel()
	f, a := stand()
	var handles []string
	env := environment()
	env.Started = func(_ context.Context, h relight.Handle) error { handles = append(handles, h.What); return nil }
	out, err := a.start(t.Context(), env, selection{All: true})
	if want := []string{"db", "api", "worker", "docs"}; err != nil || !slices.Equal(out.Services, want) || !slices.Equal(handles, want) {
		t.Fatal(out, handles, err)
	}
	if f.did[0] != "start db" || len(f.did) != 4 {
		t.Fatal(f.did)
	}
}

func TestStopGoesTheOtherWayRound(t *testing.T) {
	t.Parallel()
	f, a := stand()
	if _, err := a.stop(t.Context(), environment(), selection{All: true}); err != nil {
		t.Fatal(err)
	}
	if want := []string{"stop docs", "stop worker", "stop api", "stop db"}; !slices.Equal(f.did, want) {
		t.Fatal(f.did)
	}
}

func TestWritersAreChosenByTheirStore(t *testing.T) {
	t.Parallel()
	f, a := stand()
	out, err := a.stop(t.Context(), environment(), selection{WritersOf: "main"})
	if err != nil || !slices.Equal(out.Services, []string{"api", "worker"}) || f.state["db"] != Healthy {
		t.Fatal(out, err)
	}
	out, err = a.stop(t.Context(), environment(), selection{WritersOf: "store-without-writers"})
	if err != nil || len(out.Services) != 0 || len(f.did) != 2 {
		t.Fatal("nobody writes to it, so there is nothing to stop:", out, err, f.did)
	}
}

func TestFailureEndsItAndIsTold(t *testing.T) {
	t.Parallel()
	f, a := stand()
	f.broken["api"] = errors.New("it will not")
	if _, err := a.start(t.Context(), environment(), selection{All: true}); !errors.Is(err, f.broken["api"]) || slices.Contains(f.did, "start worker") {
		t.Fatal(err, f.did)
	}
	f.did = nil
	if _, err := a.stop(t.Context(), environment(), selection{All: true}); !errors.Is(err, f.broken["api"]) || slices.Contains(f.did, "stop db") {
		t.Fatal("the database was stopped under a writer that runs:", err, f.did)
	}
	full := errors.New("the journal is full")
	env := environment()
	env.Started = func(context.Context, relight.Handle) error { return full }
	if _, err := a.start(t.Context(), env, selection{Service: []string{"db"}}); !errors.Is(err, full) {
		t.Fatal(err)
	}
}

func TestSelectionsThatAreRefused(t *testing.T) {
	t.Parallel()
	_, a := stand()
	for want, in := range map[string]selection{
		"the estate has no such service": {Service: []string{"db", "nobody"}},
		"no service is named":            {},
	} {
		_, err := a.start(t.Context(), environment(), in)
		if relight.CodeOf(err) != relight.CodeUsage || !strings.Contains(err.Error(), want) || relight.HintOf(err) == "" {
			t.Errorf("%v: %v", in, err)
		}
	}
	closed := errors.New("no estate")
	none := &actions{open: func() (Platform, []relight.Service, error) { return nil, nil, closed }}
	if _, err := none.health(t.Context(), environment(), healthInput{}); !errors.Is(err, closed) {
		t.Error(err)
	}
}

func TestPlanOfStopNamesEachServiceAndItsState(t *testing.T) {
	t.Parallel()
	f, a := stand()
	b, err := a.planStop(t.Context(), environment(), selection{WritersOf: "main"})
	if err != nil || b.Target != "api worker" || b.Danger != action.Harm || fmt.Sprint(b.Lines) != "[stops api (Up) stops worker (Up (unhealthy))]" {
		t.Fatalf("%+v %v", b, err)
	}
	if len(f.did) != 0 {
		t.Fatal("a plan only looks", f.did)
	}
}

func TestProbes(t *testing.T) {
	t.Parallel()
	f, a := stand()
	for _, c := range []struct {
		what  string
		probe func(context.Context, action.Env, selection) (action.Probed, error)
		in    selection
		want  action.ProbeState
		says  string
	}{
		{"running", a.probeRunning, selection{WritersOf: "main"}, action.Done, "api, worker runs"}, // unhealthy runs
		{"running", a.probeRunning, selection{All: true}, action.NotDone, "docs: Absent"},
		{"stopped", a.probeStopped, selection{Service: []string{"docs"}}, action.Done, "docs is stopped"},
		{"stopped", a.probeStopped, selection{Service: []string{"worker"}}, action.NotDone, "worker: Up (unhealthy)"},
	} {
		got, err := c.probe(t.Context(), environment(), c.in)
		if err != nil || got.State != c.want || got.Detail != c.says {
			t.Errorf("%s of %+v: %+v %v", c.what, c.in, got, err)
		}
	}
	f.broken["state of db"] = errors.New("no /proc")
	if got, err := a.probeRunning(t.Context(), environment(), selection{All: true}); err == nil {
		t.Errorf("a state that cannot be known is %v", got)
	}
}

func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, a := stand()
		f.set("docs", Healthy)
		env := environment()
		var told []relight.Progress
		env.Progress = func(p relight.Progress) { told = append(told, p) }
		if p, err := a.probeWait(t.Context(), env, waitInput{}); err != nil || p.State != action.NotDone || p.Detail != "not ready: worker" {
			t.Fatal(p, err)
		}
		go func() { time.Sleep(3 * time.Second); f.set("worker", Healthy) }()
		begun := time.Now()
		l, err := a.wait(t.Context(), env, waitInput{Timeout: time.Minute})
		if took := time.Since(begun); err != nil || len(l.Services) != 4 || took < 3*time.Second || took > 4*time.Second {
			t.Fatal(l, err, took)
		}
		if len(told) == 0 || told[0].Phase != "waiting for worker" || told[0].Done != 3 || told[0].Total != 4 {
			t.Fatalf("%+v", told)
		}
		if p, err := a.probeWait(t.Context(), env, waitInput{}); err != nil || p.State != action.Done {
			t.Fatal(p, err)
		}
	})
}

func TestWaitGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a := stand()
		begun := time.Now()
		_, err := a.wait(t.Context(), environment(), waitInput{Service: []string{"worker"}, Timeout: time.Minute})
		if err == nil || !strings.Contains(err.Error(), "worker: not ready within 1m0s") || relight.HintOf(err) == "" || time.Since(begun) != time.Minute {
			t.Fatal(err, time.Since(begun))
		}
	})
}

func TestHealth(t *testing.T) {
	t.Parallel()
	f, a := stand()
	l, err := a.health(t.Context(), environment(), healthInput{CriticalOnly: true})
	if err != nil || len(l.Services) != 1 || l.Services[0].Service != "db" {
		t.Fatal(l, err)
	}
	_, err = a.health(t.Context(), environment(), healthInput{})
	if relight.CodeOf(err) != relight.CodeVerification || !strings.Contains(err.Error(), "worker, docs") {
		t.Fatal(err)
	}
	if p, err := a.probeHealth(t.Context(), environment(), healthInput{}); err != nil || p.State != action.NotDone {
		t.Fatal(p, err)
	}
	f.set("worker", Up)
	f.set("docs", Healthy)
	if p, err := a.probeHealth(t.Context(), environment(), healthInput{}); err != nil || p.State != action.Done {
		t.Fatal(p, err)
	}
	if p, err := a.probeList(t.Context(), environment(), struct{}{}); err != nil || p.State != action.Done || len(p.Out.(Listing).Services) != 4 {
		t.Fatal(p, err)
	}
}

// An estate without a service of tier 1 has nothing critical, and must not be asked about all of them instead.
func TestNothingCriticalIsHealthy(t *testing.T) {
	t.Parallel()
	f := &fake{state: map[string]Status{"docs": Exited}}
	a := &actions{open: func() (Platform, []relight.Service, error) {
		return f, []relight.Service{{Name: "docs", Tier: 3}}, nil
	}}
	l, err := a.health(t.Context(), environment(), healthInput{CriticalOnly: true})
	if err != nil || len(l.Services) != 0 {
		t.Fatal(l, err)
	}
}

func TestActionsAreWhole(t *testing.T) {
	t.Parallel()
	_, a := stand()
	r, err := action.NewRegistry(Actions(a.open)...)
	if err != nil || len(r.Names()) != 5 {
		t.Fatal(r, err)
	}
}

func TestStatusWords(t *testing.T) {
	t.Parallel()
	for s, want := range map[Status][2]bool{Healthy: {true, true}, Unhealthy: {true, false}, Up: {true, true}, Exited: {false, false}, Absent: {false, false}} {
		if got := [2]bool{s.Running(), s.Ready()}; got != want {
			t.Errorf("%s: running and ready %v", s, got)
		}
	}
}
