package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/toolboxai/relight/store"
)

// synchronousSource names synchronous mode in alarms.
const synchronousSource = "synchronous replication"

// armedState is what the receiver knows of the server's waiting; the control goroutine's.
type armedState struct {
	armed bool    // it was seen waiting for us
	last  syncRow // of the look before
}

// watchSynchronous looks whether the server waits for us, and makes it wait where the estate asks for it.
func (r *Receiver) watchSynchronous(ctx context.Context, c *controlConn, a *armedState) error {
	s, err := c.synchronous(ctx, r.o.Store)
	if err != nil {
		return err
	}
	if r.o.Synchronous == nil {
		r.uninvited(s)
		return nil
	}
	fault, err := r.keepArmed(ctx, c, a, s)
	a.last = s
	switch {
	case err != nil:
		return err
	case fault != "":
		r.trouble(synchronousSource, fault, 0)
	default:
		r.well(synchronousSource)
	}
	return nil
}

// uninvited: without synchronous mode a server must not be made to wait unknowingly for a disk of its own host.
func (r *Receiver) uninvited(s syncRow) {
	switch {
	case !s.waitsFor():
		r.well(synchronousSource)
	case s.commit == "remote_apply":
		r.trouble(synchronousSource, "synchronous_commit is remote_apply and relight is a synchronous standby: it never applies, so commits hang; use on", 0)
	default:
		r.trouble(synchronousSource, "relight is a "+s.standby+" standby: commits wait for this host's spool, not for a repository; "+
			"take relight out of synchronous_standby_names, or say what is wanted (synchronous: in relight.yaml)", 0)
	}
}

// keepArmed says what keeps synchronous mode from being what was asked for; "" when nothing does.
func (r *Receiver) keepArmed(ctx context.Context, c *controlConn, a *armedState, s syncRow) (fault string, err error) {
	if fault := r.o.Synchronous.unfit(r.o.Store, s); fault != "" {
		r.setSynchronous(store.SyncRefused, fault)
		return fault, nil
	}
	if s.waitsFor() {
		if !a.armed {
			r.send(Notice{Kind: NoticeArmed, Message: "commits wait for relight: " + r.o.Synchronous.String()})
		}
		a.armed = true
		r.waiting(a, s)
		return "", nil
	}
	r.well(waitingSource)
	switch {
	case s.ours(r.o.Store): // and the server does not wait: it has not looked yet, or we have not answered yet
		r.setSynchronous(store.SyncArming, "the server has relight on its list and does not count it yet")
		return r.overdue(a), nil
	case a.armed:
		r.setSynchronous(store.SyncDegraded, "commits do not wait for relight any more")
	default:
		r.setSynchronous(store.SyncArming, "relight catches up; commits do not wait yet")
	}
	if r.caughtUp(a, s) && r.guarded() {
		r.log.Info("making the server wait for relight", "names", standbyNames(r.o.Store))
		return "", c.arm(ctx, r.o.Store)
	}
	return r.overdue(a), nil
}

// waitingSource names commits that wait for an answer that does not come.
const waitingSource = "waiting commits"

// waiting tells apart commits that wait their moment and commits that were already waiting at the look before.
func (r *Receiver) waiting(a *armedState, s syncRow) {
	if s.waiting == 0 || a.last.waiting == 0 || s.flush >= a.last.end {
		r.setSynchronous(store.SyncArmed, "")
		r.well(waitingSource)
		return
	}
	text := fmt.Sprintf("WAL after %s is not acknowledged", s.flush)
	r.setSynchronous(store.SyncBlocked, text)
	r.trouble(waitingSource, fmt.Sprintf("%d sessions: %s", s.waiting, text), r.o.AlarmAfter)
}

// overdue: to have been armed and not to be is a fault at once; not to be armed yet is none.
func (r *Receiver) overdue(a *armedState) string {
	if a.armed {
		return "degraded: commits do not wait for relight, and what was committed last can be lost with the host; it is armed again once the receiver has caught up"
	}
	return ""
}

// caughtUp: what the server had flushed at the look before is acknowledged now. Arming a server whose receiver is behind would stop its
// commits for as long as that takes.
func (r *Receiver) caughtUp(a *armedState, s syncRow) bool {
	return s.state == "streaming" && a.last.end > 0 && s.flush >= a.last.end
}

func (r *Receiver) guarded() bool { return r.o.Guarded == nil || r.o.Guarded() }

// setSynchronous notes the state for reports, with the moment it began.
func (r *Receiver) setSynchronous(state store.SyncState, detail string) {
	r.mu.Lock()
	changed := r.waited.State != state || r.waited.Detail != detail
	if r.waited.State != state {
		r.waited.Since = r.now()
	}
	r.waited.State, r.waited.Detail = state, detail
	r.mu.Unlock()
	if changed {
		r.tape.touch()
	}
}

// unanswered notes that nothing is acknowledged while there is no session: the server waits, or does not, without us.
func (r *Receiver) unanswered() {
	if r.o.Synchronous == nil {
		return
	}
	text := "the receiver does not stream: commits wait for it"
	if r.o.Synchronous.Degrade {
		text += " until they are released after " + r.o.Synchronous.DegradeAfter.String()
	}
	r.mu.Lock()
	was := r.waited.State
	r.mu.Unlock()
	if was == store.SyncArmed { // whether they were released meanwhile shows when the server can be asked again
		r.setSynchronous(store.SyncBlocked, text)
	}
}

// takeBack ends the server's waiting when an orderly stop is no reason to stop commits. Where they are to block, they do: a host that shuts
// down stops relight before the server, and what is committed in between must not be lost.
func (r *Receiver) takeBack(ctx context.Context) {
	if r.o.Synchronous == nil || !r.o.Synchronous.Degrade {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	c, err := r.openControl(ctx)
	if err != nil {
		r.log.Warn("the server may still wait for relight, and the guard will release it", "error", err)
		return
	}
	defer c.close(ctx)
	released, err := c.release(ctx, r.o.Store)
	if err != nil {
		r.log.Warn("the server may still wait for relight, and the guard will release it", "error", err)
	}
	if released {
		r.setSynchronous(store.SyncDegraded, "relight stopped in order: commits do not wait for it")
		r.send(Notice{Kind: NoticeReleased, Message: "relight stops in order: commits do not wait for it any more"})
	}
}
