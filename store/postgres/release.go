package postgres

import (
	"context"
	"fmt"
	"strings"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/action"
)

type releaseInput struct {
	Store string `flag:"store" help:"the store; the only one when not given"`
	Why   string `flag:"why" help:"why commits may be acknowledged without relight, for those who come later"`
}

// Released says what a person let go.
type Released struct {
	Store    string      `json:"store"`
	Released bool        `json:"released"` // false: nothing waited for relight
	Sessions int         `json:"sessions"` // whose commit waited
	Unheard  relight.LSN `json:"unheard"`  // what was committed after this was never acknowledged by relight
	Why      string      `json:"why,omitempty"`
	Actor    string      `json:"actor,omitempty"`
}

// releasing is a look at the server whose commits wait, with the connection that was looked through.
type releasing struct {
	c    Cluster
	conn *controlConn
	row  syncRow
}

func (a *actions) releasing(ctx context.Context, store string) (*releasing, error) {
	c, err := a.open(ctx, store)
	if err != nil {
		return nil, err
	}
	const op, hint = "let commits go of", "the server must be reached for that; by hand, on the server: " + releaseLine
	server, err := Lead(ctx, append([]string{c.Store.c.Conn}, c.Store.c.Peers...))
	if err != nil {
		return nil, c.Store.fail(op, relight.CodeFailed, hint, "%w", err)
	}
	conn, err := dialControl(ctx, server, "relight_release")
	if err != nil {
		return nil, c.Store.fail(op, relight.CodeFailed, hint, "%w", err)
	}
	row, err := conn.synchronous(ctx, c.Store.c.Name)
	if err != nil {
		conn.close(context.WithoutCancel(ctx))
		return nil, c.Store.fail(op, relight.CodeFailed, hint, "%w", err)
	}
	return &releasing{c: c, conn: conn, row: row}, nil
}

func (r *releasing) close(ctx context.Context) { r.conn.close(context.WithoutCancel(ctx)) }

// waits tells whether commits wait for relight, or would.
func (r *releasing) waits() bool { return r.row.ours(r.c.Store.c.Name) || r.row.waitsFor() }

// mine refuses a list that relight did not write, or cannot change.
func (r *releasing) mine() error {
	s := r.c.Store
	switch {
	case !r.row.ours(s.c.Name):
		return s.fail("let commits go of", relight.CodeUsage, "take "+standbyNames(s.c.Name)+" off the list where it was written", "synchronous_standby_names is %s, which relight does not change", r.row.names)
	case r.row.fixed:
		return s.fail("let commits go of", relight.CodeUsage, "start the server without it", "synchronous_standby_names is set on the server's command line")
	}
	return nil
}

func (a *actions) planRelease(ctx context.Context, _ action.Env, in releaseInput) (action.Blast, error) {
	r, err := a.releasing(ctx, in.Store)
	if err != nil {
		return action.Blast{}, err
	}
	defer r.close(ctx)
	b := action.Blast{Target: r.c.Store.c.Name, Danger: action.Harm}
	if !r.waits() {
		b.Danger, b.Lines = action.None, []string{"no commit waits for relight: there is nothing to let go"}
		return b, nil
	}
	if err := r.mine(); err != nil {
		return action.Blast{}, err
	}
	heard := "relight has acknowledged nothing after " + r.row.flush.String()
	if r.row.state == "" {
		heard = "no receiver of relight is there"
	}
	b.Lines = []string{fmt.Sprintf("the commits of %d sessions that wait are acknowledged although %s", r.row.waiting, heard),
		"from then on commits do not wait for relight, and are lost with the server, until a `relight serve` has caught up and makes them wait again"}
	return b, nil
}

// release lets go first and records then, as the guard does: whoever waits has waited long enough. The server's own log has the change as well.
func (a *actions) release(ctx context.Context, env action.Env, in releaseInput) (Released, error) {
	r, err := a.releasing(ctx, in.Store)
	if err != nil {
		return Released{}, err
	}
	defer r.close(ctx)
	out := Released{Store: r.c.Store.c.Name, Sessions: r.row.waiting, Unheard: r.row.flush, Why: in.Why, Actor: env.Actor}
	if strings.TrimSpace(in.Why) == "" {
		return out, r.c.Store.fail("let commits go of", relight.CodeUsage, `say why: --why "the repository's host is lost"`, "no reason is given")
	}
	if !r.waits() {
		return Released{Store: out.Store}, nil
	}
	if err := r.mine(); err != nil {
		return out, err
	}
	out.Released, err = r.conn.release(ctx, out.Store)
	if !out.Released {
		return out, err
	}
	if rerr := r.c.Record(context.WithoutCancel(ctx), out); rerr != nil {
		return out, r.c.Store.fail("put on record what was let go of", relight.CodeFailed, "write down yourself that it was done, when and why", "commits do not wait any more, and the journal does not say so: %w", rerr)
	}
	return out, err
}

func (a *actions) probeRelease(ctx context.Context, _ action.Env, in releaseInput) (action.Probed, error) {
	r, err := a.releasing(ctx, in.Store)
	if err != nil {
		return action.Probed{}, err
	}
	defer r.close(ctx)
	if r.waits() {
		return action.Probed{State: action.NotDone, Detail: "commits wait for relight"}, nil
	}
	return action.Probed{State: action.Done, Out: Released{Store: r.c.Store.c.Name}}, nil
}
