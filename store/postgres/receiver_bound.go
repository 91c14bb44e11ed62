package postgres

import (
	"context"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/store/postgres/replication"
)

// The sources of alarms about what the slot retains.
const (
	slotBound    = "slot at its bound" // and it is held
	slotReleased = "slot released"
	slotRoom     = "room for the server's WAL"
)

// released is WAL that a slot no longer retains and that has not been streamed yet; of the control goroutine, and between sessions of the streaming one.
type released struct {
	to  relight.LSN // 0: none
	why string
}

// retain makes sure of the slot, and that it stays within its bound where no session comes as far as to stream.
func (r *Receiver) retain(ctx context.Context, conn *replication.Conn, c *controlConn) (slotState, error) {
	slot, err := r.ensureSlot(ctx, conn, c)
	if err != nil {
		return slot, err
	}
	if err := r.bound(ctx, c, slot); err != nil {
		return slot, err
	}
	return c.slot(ctx, r.o.Slot)
}

// bound keeps the server from running out of room by what the slot retains. What the spool holds is released first, which loses nothing. Then
// comes what nobody else has: it is streamed if the server still has it once there is room, and what is gone by then is a gap, as after a lost slot.
func (r *Receiver) bound(ctx context.Context, c *controlConn, slot slotState) error {
	over, err := r.o.Bound.at(r.leader() == r.o.Conn).excess(slot)
	if err != nil {
		r.trouble(slotRoom, err.Error(), r.o.AlarmAfter)
	} else {
		r.well(slotRoom)
	}
	r.caughtRelease()
	if over.why == "" {
		r.well(slotBound)
		return nil
	}
	hold, err := r.holds(ctx, c)
	if err != nil {
		return err
	}
	if hold != "" {
		r.trouble(slotBound, r.o.Slot+": "+over.why+"; "+hold, 0)
		return nil
	}
	r.well(slotBound)
	return r.release(ctx, c, slot, over)
}

// at is the bound for a server of this host, or of another, whose file system cannot be seen.
func (b SlotBound) at(here bool) SlotBound {
	if !here {
		b.WALDir = ""
	}
	return b
}

// holds says why nothing is released whatever the slot retains; "" when it may be.
func (r *Receiver) holds(ctx context.Context, c *controlConn) (string, error) {
	if r.o.Bound.Hold {
		return "it is held, as was asked for: the server stops when its disk is full", nil
	}
	s, err := c.synchronous(ctx, r.o.Store)
	if err != nil {
		return "", err
	}
	if s.waitsFor() || s.ours(r.o.Store) {
		return "commits wait for relight, so nothing is released: the server stops when its disk is full", nil
	}
	return "", nil
}

// release moves the slot up to what the spool holds; where that is done, up to the end.
func (r *Receiver) release(ctx context.Context, c *controlConn, slot slotState, over excess) error {
	to := slot.end
	if held := r.spooled(); held > slot.restart {
		to = min(held, slot.end)
		r.log.Warn("the slot no longer retains what the spool holds: until a repository has it, this host alone does", "slot", r.o.Slot, "up_to", to, "because", over.why)
	} else {
		r.letGo(to, over.why)
	}
	if err := c.advance(ctx, r.o.Slot, to); err != nil {
		return err
	}
	if !over.room {
		return nil
	}
	if _, err := c.query(ctx, `CHECKPOINT`); err != nil && ctx.Err() == nil { // else the next one of the server's own
		r.log.Warn("the server removes released WAL at its next checkpoint, and relight may not ask for one", "error", err)
	}
	return ctx.Err()
}

// letGo notes and announces that WAL up to a position is no longer retained.
func (r *Receiver) letGo(to relight.LSN, why string) {
	r.freed = released{to: to, why: why}
	text := "the server no longer retains WAL for " + r.o.Slot + " up to " + to.String() + ": " + why + ". What it removes before it can be streamed is lost, and needs a new base backup"
	r.trouble(slotReleased, text, 0)
	r.send(Notice{Kind: NoticeSlotReleased, Message: text})
}

// caughtRelease ends the alarm once what was released has been streamed, or is a gap behind which streaming goes on.
func (r *Receiver) caughtRelease() {
	if r.freed.to != 0 && r.spooled() >= r.freed.to {
		r.freed = released{}
		r.well(slotReleased)
	}
}

// spooled is up to where the spool holds the WAL that is followed.
func (r *Receiver) spooled() relight.LSN {
	st := r.tape.last()
	if st == nil {
		return 0
	}
	return r.tape.view(st, 0).synced
}
