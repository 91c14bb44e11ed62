package coordinator

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/action"
)

// outside is a coordinator's process as an action sees it.
type outside struct {
	running bool
	status  Status
	live    Live
	asked   func() error // when set, what Live fails with
	stores  []string
	later   func() Status // when set, what Status says
	started int
	stopped int
}

func (o *outside) Start(_ context.Context, started func(context.Context, relight.Handle) error) (relight.Handle, error) {
	h := relight.Handle{Kind: "process", PID: 4711}
	if err := started(context.Background(), h); err != nil {
		return h, err
	}
	o.started++
	o.running = true
	return h, nil
}

func (o *outside) Stop(context.Context) error { o.stopped++; o.running = false; return nil }

func (o *outside) Running() (relight.Handle, bool, error) {
	return relight.Handle{PID: 4711}, o.running, nil
}
func (o *outside) Status() (Status, error) {
	if o.later != nil {
		return o.later(), nil
	}
	return o.status, nil
}
func (o *outside) Stores() ([]string, error) { return o.stores, nil }
func (o *outside) Live(context.Context, string) (Live, error) {
	if o.asked == nil {
		return o.live, nil
	}
	return o.live, o.asked()
}

func newOutside(now time.Time) *outside {
	return &outside{running: true, stores: []string{"main"}, live: Live{Timeline: 2, LSN: 500},
		status: Status{At: now, Stores: map[string]*StoreStatus{"main": {Timeline: 2, Repositories: map[string]*RepositoryStatus{
			"attic": {Durable: 500, Timeline: 2, Snapshot: "s1"}, "vault": {Durable: 600, Timeline: 2, Snapshot: "s2"}}}}}}
}

func actionsOf(t *testing.T, o *outside) *action.Registry {
	t.Helper()
	r, err := action.NewRegistry(Actions(func() (Protection, error) { return o, nil })...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

var now = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// A status counts only if it is of now, of the server's timeline, and durable up to where the server stood when the question was put.
func TestProtectedSince(t *testing.T) {
	t.Parallel()
	for want, spoil := range map[string]func(*outside){
		"":                                func(*outside) {},
		"no protection runs":              func(o *outside) { o.running = false },
		"protection has not reported yet": func(o *outside) { o.status.At = now.Add(-stale - time.Second) },
		"timeline 2 is followed, the server is on 3":         func(o *outside) { o.live.Timeline = 3 },
		"attic: durable to 0/1F4, the server wrote to 0/1F5": func(o *outside) { o.live.LSN = 501 },
		"vault: durable to 0/1F3, the server wrote to 0/1F4": func(o *outside) { o.status.Stores["main"].Repositories["vault"].Durable = 499 },
		"the slot is lost": func(o *outside) { o.status.Stores["main"].Alarm = "the slot is lost" },
		"vault: no base backup on the current timeline": func(o *outside) { o.status.Stores["main"].Repositories["vault"].Timeline = 1 },
	} {
		o := newOutside(now)
		spoil(o)
		got, why, err := protectedSince(o, "main", o.live, now)
		if err != nil || why != want {
			t.Errorf("%q %v, want %q", why, err, want)
		}
		if want == "" && (got.Durable != 500 || got.Timeline != 2 || got.Store != "main") {
			t.Errorf("%+v", got)
		}
		if want != "" && got != (Protected{}) {
			t.Errorf("%q, and yet %+v", why, got)
		}
	}
	o := newOutside(now)
	delete(o.status.Stores, "main")
	if _, why, err := protectedSince(o, "main", o.live, now); err != nil || why != "protection has not reported yet" {
		t.Error(why, err)
	}
}

func TestWaitEndsWhenProtected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOutside(time.Now())
		before := time.Now()
		o.later = func() Status {
			s := newOutside(time.Now()).status
			if time.Since(before) < 5*time.Second {
				s.Stores["main"].Timeline = 1 // as it was before the disaster
			}
			return s
		}
		begun := time.Now()
		a := &actions{open: func() (Protection, error) { return o, nil }}
		got, err := a.wait(t.Context(), action.Env{}.WithDefaults(), waitInput{Store: "main", Timeout: time.Minute})
		if err != nil || got.Durable != 500 || time.Since(begun) < 5*time.Second || time.Since(begun) > 6*time.Second {
			t.Fatal(got, err, time.Since(begun))
		}
	})
}

// A server that replays what a crash left will answer.
func TestWaitWaitsForAServerThatStarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, begun := newOutside(time.Now()), time.Now()
		starting := fmt.Errorf("%w: the database system is in recovery mode", ErrStarting)
		o.later = func() Status { return newOutside(time.Now()).status }
		o.asked = func() error {
			if time.Since(begun) < 5*time.Second {
				return starting
			}
			return nil
		}
		a := &actions{open: func() (Protection, error) { return o, nil }}
		var said string
		env := action.Env{Progress: func(p relight.Progress) { said = p.Phase }}.WithDefaults()
		if _, err := a.wait(t.Context(), env, waitInput{Timeout: time.Minute}); err != nil || time.Since(begun) < 5*time.Second || !strings.Contains(said, "recovery mode") {
			t.Fatal(err, time.Since(begun), said)
		}
		o.asked = func() error { return starting }
		_, err := a.wait(t.Context(), env, waitInput{Timeout: time.Minute})
		if !errors.Is(err, ErrStarting) || relight.HintOf(err) == "" || time.Since(begun) < time.Minute {
			t.Fatal(err, time.Since(begun))
		}
	})
}

func TestWaitGivesUpAndSaysWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOutside(time.Now())
		o.live.LSN = 1000
		a := &actions{open: func() (Protection, error) { return o, nil }}
		_, err := a.wait(t.Context(), action.Env{}.WithDefaults(), waitInput{Timeout: time.Minute})
		if err == nil || !strings.Contains(err.Error(), "not after 1m0s") || relight.HintOf(err) == "" {
			t.Fatal(err)
		}
		refused := errors.New("connection refused")
		o.asked = func() error { return refused }
		_, err = a.wait(t.Context(), action.Env{}.WithDefaults(), waitInput{Timeout: time.Minute})
		if !errors.Is(err, refused) || relight.HintOf(err) == "" {
			t.Fatal(err)
		}
		_, err = a.wait(t.Context(), action.Env{}.WithDefaults(), waitInput{Store: "nain", Timeout: time.Minute})
		if relight.CodeOf(err) != relight.CodeUsage || !strings.Contains(relight.HintOf(err), "main") {
			t.Fatal(err)
		}
	})
}

func TestProbes(t *testing.T) {
	t.Parallel()
	env := action.Env{Now: func() time.Time { return now }}.WithDefaults()
	for _, c := range []struct {
		name  string
		spoil func(*outside)
		want  action.ProbeState
	}{
		{"protect.start", func(*outside) {}, action.Done},
		{"protect.start", func(o *outside) { o.running = false }, action.NotDone},
		{"protect.stop", func(*outside) {}, action.NotDone},
		{"protect.stop", func(o *outside) { o.running = false }, action.Done},
		{"protect.wait", func(*outside) {}, action.Done},
		{"protect.wait", func(o *outside) { o.live.Timeline = 9 }, action.NotDone},
		{"protect.wait", func(o *outside) { o.asked = func() error { return errors.New("down") } }, action.NotDone},
	} {
		o := newOutside(now)
		c.spoil(o)
		a, err := actionsOf(t, o).Lookup(c.name)
		if err != nil {
			t.Fatal(err)
		}
		in, err := a.Decode(nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := a.Probe(t.Context(), env, in)
		if err != nil || got.State != c.want {
			t.Errorf("%s: %+v %v", c.name, got, err)
		}
	}
}

func TestStartAndStop(t *testing.T) {
	t.Parallel()
	o := newOutside(now)
	a := &actions{open: func() (Protection, error) { return o, nil }}
	var handle relight.Handle
	env := action.Env{Started: func(_ context.Context, h relight.Handle) error { handle = h; return nil }}.WithDefaults()
	if out, err := a.start(t.Context(), env, struct{}{}); err != nil || out.PID != 4711 || handle.PID != 4711 {
		t.Fatal(out, handle, err)
	}
	if out, err := a.stop(t.Context(), env, struct{}{}); err != nil || !out.Stopped || o.stopped != 1 {
		t.Fatal(out, err)
	}
	closed := errors.New("no estate")
	none := &actions{open: func() (Protection, error) { return nil, closed }}
	for _, err := range []error{second(none.start(t.Context(), env, struct{}{})), second(none.stop(t.Context(), env, struct{}{})), second(none.wait(t.Context(), env, waitInput{}))} {
		if !errors.Is(err, closed) {
			t.Error(err)
		}
	}
}

func second[T any](_ T, err error) error { return err }
