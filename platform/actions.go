package platform

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/action"
)

// poll is how often a service is looked at while waiting for it.
const poll = 200 * time.Millisecond

// Open gives the platform and the services that run on it. It is asked when an action runs, so that the actions' names and inputs are
// known without an estate.
type Open func() (Platform, []relight.Service, error)

// Actions are the service.* capabilities.
func Actions(open Open) []action.Action {
	s := &actions{open: open}
	return []action.Action{
		action.Define(action.Spec[selection, Changed]{Name: "service.start", Title: "start services, the first tier first", Danger: action.None,
			Example: "relight service start --service postgres", Run: s.start, Probe: s.probeRunning}),
		action.Define(action.Spec[selection, Changed]{Name: "service.stop", Title: "stop services, or whatever writes to a store", Danger: action.Harm,
			Example: "relight service stop --writers-of main", Run: s.stop, Probe: s.probeStopped, Plan: s.planStop}),
		action.Define(action.Spec[waitInput, Listing]{Name: "service.wait", Title: "wait until services answer", Danger: action.None,
			Example: "relight service wait --service postgres --timeout 300s", Run: s.wait, Probe: s.probeWait}),
		action.Define(action.Spec[struct{}, Listing]{Name: "service.list", Title: "show every service and whether it runs", Danger: action.None,
			Example: "relight service list", Run: s.list, Probe: s.probeList}),
		action.Define(action.Spec[healthInput, Listing]{Name: "service.health", Title: "check that services are healthy", Danger: action.None,
			Example: "relight service health --critical-only", Run: s.health, Probe: s.probeHealth}),
	}
}

type actions struct{ open Open }

// chosen is a selection of services on their platform.
type chosen struct {
	Platform
	names []string
}

type selection struct {
	Service   []string `flag:"service" help:"the services by name; several may be given"`
	WritersOf string   `flag:"writers_of" help:"every service that writes to this store"`
	All       bool     `flag:"all" help:"every service of the estate"`
}

type waitInput struct {
	Service []string      `flag:"service" help:"the services to wait for; all when none is named"`
	Timeout time.Duration `flag:"timeout" help:"how long to wait" default:"300s"`
}

type healthInput struct {
	CriticalOnly bool `flag:"critical_only" help:"tier 1 only"`
}

// Changed names the services that an action started or stopped.
type Changed struct {
	Services []string `json:"services"`
}

// Listing is the state of services.
type Listing struct {
	Services []State `json:"services"`
}

// choose resolves a selection to names, tier 1 first.
func (s *actions) choose(in selection) (chosen, error) {
	p, services, err := s.open()
	if err != nil {
		return chosen{}, err
	}
	for _, name := range in.Service {
		if !slices.ContainsFunc(services, func(v relight.Service) bool { return v.Name == name }) {
			return chosen{}, &relight.Error{Op: "find service", Subject: name, Code: relight.CodeUsage, Err: errors.New("the estate has no such service"),
				Hint: "`relight service list` shows those that it has"}
		}
	}
	slices.SortStableFunc(services, func(a, b relight.Service) int {
		return cmp.Or(cmp.Compare(a.Tier, b.Tier), cmp.Compare(a.Name, b.Name))
	})
	c := chosen{Platform: p}
	for _, svc := range services {
		if in.All || slices.Contains(in.Service, svc.Name) || in.WritersOf != "" && slices.Contains(svc.Writes, in.WritersOf) {
			c.names = append(c.names, svc.Name)
		}
	}
	if len(c.names) == 0 && in.WritersOf == "" {
		return chosen{}, &relight.Error{Op: "choose services", Code: relight.CodeUsage, Err: errors.New("no service is named"),
			Hint: "name some with --service, or use --all"}
	}
	return c, nil
}

func (s *actions) start(ctx context.Context, env action.Env, in selection) (Changed, error) {
	c, err := s.choose(in)
	if err != nil {
		return Changed{}, err
	}
	for _, name := range c.names {
		if _, err := c.Start(ctx, name, env.Started); err != nil {
			return Changed{}, err
		}
	}
	return Changed{Services: c.names}, nil
}

// stop goes the other way round: what depends on a database ends before the database.
func (s *actions) stop(ctx context.Context, _ action.Env, in selection) (Changed, error) {
	c, err := s.choose(in)
	if err != nil {
		return Changed{}, err
	}
	for _, name := range slices.Backward(c.names) {
		if err := c.Stop(ctx, name); err != nil {
			return Changed{}, err
		}
	}
	return Changed{Services: c.names}, nil
}

func (s *actions) planStop(ctx context.Context, _ action.Env, in selection) (action.Blast, error) {
	c, err := s.choose(in)
	if err != nil {
		return action.Blast{}, err
	}
	b := action.Blast{Target: strings.Join(c.names, " "), Danger: action.Harm}
	for _, name := range c.names {
		st, err := c.State(ctx, name)
		if err != nil {
			return action.Blast{}, err
		}
		b.Lines = append(b.Lines, fmt.Sprintf("stops %s (%s)", name, st.Status))
	}
	return b, nil
}

func (s *actions) probeRunning(ctx context.Context, _ action.Env, in selection) (action.Probed, error) {
	return s.probe(ctx, in, Status.Running, "runs")
}

func (s *actions) probeStopped(ctx context.Context, _ action.Env, in selection) (action.Probed, error) {
	return s.probe(ctx, in, func(st Status) bool { return !st.Running() }, "is stopped")
}

func (s *actions) probe(ctx context.Context, in selection, want func(Status) bool, word string) (action.Probed, error) {
	c, err := s.choose(in)
	if err != nil {
		return action.Probed{}, err
	}
	for _, name := range c.names {
		st, err := c.State(ctx, name)
		if err != nil {
			return action.Probed{}, err
		}
		if !want(st.Status) {
			return action.Probed{State: action.NotDone, Detail: fmt.Sprintf("%s: %s", name, st.Status)}, nil
		}
	}
	return action.Probed{State: action.Done, Detail: strings.Join(c.names, ", ") + " " + word, Out: Changed{Services: c.names}}, nil
}

func (s *actions) wait(ctx context.Context, env action.Env, in waitInput) (Listing, error) {
	ctx, cancel := context.WithTimeout(ctx, in.Timeout)
	defer cancel()
	for {
		l, waiting, err := s.look(ctx, in.Service)
		if err != nil || len(waiting) == 0 {
			return l, err
		}
		if ended := ended(l); len(ended) > 0 {
			return l, &relight.Error{Op: "wait for", Subject: strings.Join(ended, ", "), Err: errors.New("it has ended, and nothing will start it again"),
				Hint: "its log says why; `relight config show` says where it lies"}
		}
		env.Progress(relight.Progress{Phase: "waiting for " + strings.Join(waiting, ", "),
			Done: int64(len(l.Services) - len(waiting)), Total: int64(len(l.Services)), Unit: "services"})
		select {
		case <-ctx.Done():
			return l, &relight.Error{Op: "wait for", Subject: strings.Join(waiting, ", "), Err: fmt.Errorf("not ready within %s", in.Timeout),
				Hint: "look at the service's log; `relight service list` shows its state"}
		case <-time.After(poll):
		}
	}
}

// ended names the services that were started and run no more.
func ended(l Listing) []string {
	var names []string
	for _, st := range l.Services {
		if st.Status == Exited {
			names = append(names, st.Service)
		}
	}
	return names
}

func (s *actions) probeWait(ctx context.Context, _ action.Env, in waitInput) (action.Probed, error) {
	l, waiting, err := s.look(ctx, in.Service)
	if err != nil || len(waiting) > 0 {
		return action.Probed{State: action.NotDone, Detail: "not ready: " + strings.Join(waiting, ", ")}, err
	}
	return action.Probed{State: action.Done, Out: l}, nil
}

// look lists the named services (all when none is named) and those of them that are not ready.
func (s *actions) look(ctx context.Context, only []string) (l Listing, waiting []string, err error) {
	c, err := s.choose(selection{Service: only, All: len(only) == 0})
	if err != nil {
		return l, nil, err
	}
	for _, name := range c.names {
		st, err := c.State(ctx, name)
		if err != nil {
			return l, nil, err
		}
		l.Services = append(l.Services, st)
		if !st.Status.Ready() {
			waiting = append(waiting, name)
		}
	}
	return l, waiting, nil
}

func (s *actions) list(ctx context.Context, _ action.Env, _ struct{}) (Listing, error) {
	l, _, err := s.look(ctx, nil)
	return l, err
}

func (s *actions) probeList(ctx context.Context, env action.Env, in struct{}) (action.Probed, error) {
	l, err := s.list(ctx, env, in)
	return action.Probed{State: action.Done, Out: l}, err
}

func (s *actions) health(ctx context.Context, _ action.Env, in healthInput) (Listing, error) {
	_, services, err := s.open()
	if err != nil {
		return Listing{}, err
	}
	var only []string
	for _, svc := range services {
		if !in.CriticalOnly || svc.Tier == 1 {
			only = append(only, svc.Name)
		}
	}
	if len(only) == 0 { // to look at none means to look at all
		return Listing{Services: []State{}}, nil
	}
	l, waiting, err := s.look(ctx, only)
	if err != nil {
		return l, err
	}
	if len(waiting) > 0 {
		return l, &relight.Error{Op: "check health", Subject: strings.Join(waiting, ", "), Code: relight.CodeVerification, Err: errors.New("not healthy"),
			Hint: "`relight service list` shows each service's state"}
	}
	return l, nil
}

func (s *actions) probeHealth(ctx context.Context, env action.Env, in healthInput) (action.Probed, error) {
	l, err := s.health(ctx, env, in)
	if err != nil {
		return action.Probed{State: action.NotDone, Detail: err.Error()}, nil
	}
	return action.Probed{State: action.Done, Out: l}, nil
}
