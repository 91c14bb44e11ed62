package coordinator

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/action"
)

// stale is the age at which a status no longer tells what is so.
const stale = 10 * time.Second

// Live is where a store's server stands now, asked from the server itself.
type Live struct {
	Timeline relight.TimelineID
	LSN      relight.LSN // everything before it is flushed
}

// ErrStarting is why a server does not answer yet, and soon will: it starts, or replays what a crash left.
var ErrStarting = errors.New("the server is not ready yet")

// Protection is the coordinator's process as seen from outside it.
type Protection interface {
	Start(ctx context.Context, started func(context.Context, relight.Handle) error) (relight.Handle, error)
	Stop(ctx context.Context) error
	Running() (relight.Handle, bool, error)
	Status() (Status, error)
	Stores() ([]string, error)
	Live(ctx context.Context, store string) (Live, error) // ErrStarting: ask again
}

// Actions are the protect.* capabilities; open is asked when one runs.
func Actions(open func() (Protection, error)) []action.Action {
	p := &actions{open: open}
	return []action.Action{
		action.Define(action.Spec[struct{}, Serving]{Name: "protect.start", Title: "start protection in the background, unless it runs", Danger: action.None,
			Example: "relight protect start", Run: p.start, Probe: p.probeStart}),
		action.Define(action.Spec[struct{}, Stopped]{Name: "protect.stop", Title: "stop protection", Danger: action.Harm,
			Example: "relight protect stop", Run: p.stop, Probe: p.probeStop}),
		action.Define(action.Spec[waitInput, Protected]{Name: "protect.wait", Title: "wait until a store is protected: its timeline streaming, the log durable, a base backup there", Danger: action.None,
			Example: "relight protect wait --store main --timeout 10m", Run: p.wait, Probe: p.probeWait}),
	}
}

type actions struct{ open func() (Protection, error) }

type waitInput struct {
	Store   string        `flag:"store" help:"the store; the only one when not given"`
	Timeout time.Duration `flag:"timeout" help:"how long to wait" default:"10m"`
}

// Serving is the background process.
type Serving struct {
	PID int `json:"pid"`
}

// Stopped says that nothing protects any more.
type Stopped struct {
	Stopped bool `json:"stopped"`
}

// Protected says from when on nothing can be lost that is older.
type Protected struct {
	Store     string             `json:"store"`
	Timeline  relight.TimelineID `json:"timeline"`
	Durable   relight.LSN        `json:"durable_lsn"` // the least of all repositories
	Snapshot  relight.SnapshotID `json:"snapshot"`
	CoveredAt time.Time          `json:"covered_at,omitzero"`
}

func (a *actions) start(ctx context.Context, env action.Env, _ struct{}) (Serving, error) {
	p, err := a.open()
	if err != nil {
		return Serving{}, err
	}
	h, err := p.Start(ctx, env.Started)
	return Serving{PID: h.PID}, err
}

func (a *actions) probeStart(_ context.Context, _ action.Env, _ struct{}) (action.Probed, error) {
	p, err := a.open()
	if err != nil {
		return action.Probed{}, err
	}
	h, running, err := p.Running()
	if err != nil || !running {
		return action.Probed{State: action.NotDone, Detail: "no protection runs"}, err
	}
	return action.Probed{State: action.Done, Detail: fmt.Sprintf("process %d protects", h.PID), Out: Serving{PID: h.PID}}, nil
}

func (a *actions) stop(ctx context.Context, _ action.Env, _ struct{}) (Stopped, error) {
	p, err := a.open()
	if err != nil {
		return Stopped{}, err
	}
	return Stopped{Stopped: true}, p.Stop(ctx)
}

func (a *actions) probeStop(_ context.Context, _ action.Env, _ struct{}) (action.Probed, error) {
	p, err := a.open()
	if err != nil {
		return action.Probed{}, err
	}
	_, running, err := p.Running()
	if err != nil || running {
		return action.Probed{State: action.NotDone, Detail: "protection runs"}, err
	}
	return action.Probed{State: action.Done, Out: Stopped{Stopped: true}}, nil
}

// wait asks the server where it stands first, so that a status from before a disaster can never pass for protection after it.
func (a *actions) wait(ctx context.Context, env action.Env, in waitInput) (Protected, error) {
	p, store, err := a.choose(in.Store)
	if err != nil {
		return Protected{}, err
	}
	limited, cancel := context.WithTimeout(ctx, in.Timeout)
	defer cancel()
	live, err := p.Live(limited, store)
	for errors.Is(err, ErrStarting) {
		env.Progress(relight.Progress{Phase: "waiting for protection: " + err.Error()})
		if pause(limited, 200*time.Millisecond) != nil {
			break
		}
		live, err = p.Live(limited, store)
	}
	if err != nil {
		return Protected{}, &relight.Error{Op: "ask where the server stands", Subject: "store " + store, Err: err,
			Hint: "`relight service list` shows whether it runs; `relight postgres doctor` finds what else stands in the way"}
	}
	for {
		done, why, err := protectedSince(p, store, live, env.Now())
		if err != nil || why == "" {
			return done, err
		}
		env.Progress(relight.Progress{Phase: "waiting for protection: " + why})
		if err := pause(limited, 200*time.Millisecond); err != nil {
			return done, &relight.Error{Op: "wait for protection of", Subject: store, Err: fmt.Errorf("not after %s: %s", in.Timeout, why),
				Hint: "`relight status` shows what protection does; its log is in the state directory"}
		}
	}
}

func (a *actions) probeWait(ctx context.Context, env action.Env, in waitInput) (action.Probed, error) {
	p, store, err := a.choose(in.Store)
	if err != nil {
		return action.Probed{}, err
	}
	live, err := p.Live(ctx, store)
	if err != nil {
		return action.Probed{State: action.NotDone, Detail: err.Error()}, nil
	}
	done, why, err := protectedSince(p, store, live, env.Now())
	if err != nil || why != "" {
		return action.Probed{State: action.NotDone, Detail: why}, err
	}
	return action.Probed{State: action.Done, Out: done}, nil
}

func (a *actions) choose(name string) (Protection, string, error) {
	p, err := a.open()
	if err != nil {
		return nil, "", err
	}
	stores, err := p.Stores()
	if err != nil {
		return nil, "", err
	}
	if name == "" && len(stores) == 1 {
		return p, stores[0], nil
	}
	if !slices.Contains(stores, name) {
		return nil, "", &relight.Error{Op: "choose store", Subject: name, Code: relight.CodeUsage, Err: errors.New("the estate has no such store"),
			Hint: fmt.Sprintf("name one with --store: %v", stores)}
	}
	return p, name, nil
}

// protectedSince says why the store is not yet protected up to live; "" when it is.
func protectedSince(p Protection, store string, live Live, now time.Time) (Protected, string, error) {
	if _, running, err := p.Running(); err != nil || !running {
		return Protected{}, "no protection runs", err
	}
	st, err := p.Status()
	if err != nil {
		return Protected{}, "", err
	}
	s, ok := st.Stores[store]
	if !ok || now.Sub(st.At) > stale {
		return Protected{}, "protection has not reported yet", nil
	}
	if ok, why := s.Protected(); !ok {
		return Protected{}, why, nil
	}
	if s.Timeline != live.Timeline {
		return Protected{}, fmt.Sprintf("timeline %d is followed, the server is on %d", s.Timeline, live.Timeline), nil
	}
	out := Protected{Store: store, Timeline: s.Timeline}
	for _, name := range slices.Sorted(maps.Keys(s.Repositories)) {
		r := s.Repositories[name]
		if r.Durable < live.LSN {
			return Protected{}, fmt.Sprintf("%s: durable to %s, the server wrote to %s", name, r.Durable, live.LSN), nil
		}
		if out.Durable == 0 || r.Durable < out.Durable {
			out.Durable, out.CoveredAt = r.Durable, r.CoveredAt
		}
		out.Snapshot = r.Snapshot
	}
	return out, "", nil
}
