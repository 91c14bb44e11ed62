package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/repo"
	"github.com/toolboxai/relight/store/postgres/replication"
	"github.com/toolboxai/relight/store/postgres/walfile"
)

// chooseStart decides where to stream: on from the spool where the server's history allows it, else from where the slot begins.
//
//  1. The spool ends at a position of a timeline that the server's history contains: go on there.
//  2. The server's history left that timeline before the spool's end (point-in-time recovery): the spooled stretch is complete; go on with the
//     timeline that followed, from the segment in which it branched off.
//  3. The server no longer has that WAL, or the spool is empty: begin at the slot's segment. What lies between is a gap.
func (r *Receiver) chooseStart(ctx context.Context, conn *replication.Conn, sp *spool, sinks []repo.Sink, sys replication.System, slot slotState) (*stretch, error) {
	path, texts, err := r.serverPath(ctx, conn, sys)
	if err != nil {
		return nil, err
	}
	last := r.tape.last()
	if last == nil {
		return r.firstStretch(ctx, sp, sinks, path, texts, slot)
	}
	if last.removed {
		return r.behindGap(ctx, sp, sinks, path, texts, slot, last)
	}
	branch, ok := walfile.Find(path, last.tl)
	at := r.tape.view(last, 0).synced
	if ok && at <= branch.End {
		return last, nil
	}
	follow, ok := branchAfter(path, last.tl)
	if !ok {
		return nil, errHard{receiveError(r.o.Store, relight.CodeFailed, "the server was restored from another history: compare the timelines, then move the spool away",
			fmt.Errorf("the spool holds timeline %d up to %s, which is no ancestor of the server's timeline %d", last.tl, at, sys.Timeline))}
	}
	r.send(Notice{Kind: NoticeTimeline, Message: fmt.Sprintf("the server branched off timeline %d at %s, before its end %s: it is on timeline %d", last.tl, follow.Begin, at, sys.Timeline)})
	st := newStretch(follow.Timeline, r.segmentStart(sp, follow.Begin), texts)
	return st, r.begin(sp, st)
}

func newStretch(tl relight.TimelineID, begin relight.LSN, texts map[relight.TimelineID][]byte) *stretch {
	return &stretch{tl: tl, begin: begin, written: begin, synced: begin, history: texts[tl]}
}

// branchAfter gives the branch of path that begins where the WAL of tl, or of the newest timeline before it, was left.
func branchAfter(path []walfile.Branch, tl relight.TimelineID) (walfile.Branch, bool) {
	for _, b := range path {
		if b.Timeline > tl {
			return b, true
		}
	}
	return walfile.Branch{}, false
}

// serverPath reads the history of the server's timeline and those of its ancestors.
func (r *Receiver) serverPath(ctx context.Context, conn *replication.Conn, sys replication.System) ([]walfile.Branch, map[relight.TimelineID][]byte, error) {
	texts := map[relight.TimelineID][]byte{}
	if sys.Timeline == 1 {
		return []walfile.Branch{{Timeline: 1, End: walfile.MaxLSN}}, texts, nil
	}
	text, err := conn.History(ctx, sys.Timeline)
	if err != nil {
		return nil, nil, err
	}
	texts[sys.Timeline] = text
	path, err := walfile.ParseHistory(sys.Timeline, string(text))
	if err != nil {
		return nil, nil, err
	}
	for _, b := range path[:len(path)-1] {
		if b.Timeline == 1 {
			continue
		}
		older, err := conn.History(ctx, b.Timeline)
		if err != nil { // an old history may be gone; the newest contains it
			r.log.Warn("an ancestor's history cannot be fetched", "timeline", b.Timeline, "error", err)
			older = ancestorHistory(text, b.Timeline)
		}
		texts[b.Timeline] = older
	}
	return path, texts, ctx.Err()
}

// ancestorHistory makes the history of an ancestor from a descendant's: the lines of what came before it.
func ancestorHistory(text []byte, tl relight.TimelineID) []byte {
	var out []byte
	for line := range bytes.Lines(text) {
		var id uint32
		if n, _ := fmt.Sscanf(string(line), "%d", &id); n == 1 && relight.TimelineID(id) < tl {
			out = append(out, line...)
		}
	}
	return out
}

// tipper is a sink that can say how far it has ever come; repo's own can.
type tipper interface {
	Tip(ctx context.Context, k repo.WALKey) (relight.LSN, error)
}

// firstStretch begins with an empty spool: where the least advanced repository stopped, if the server still has that, else where the
// slot begins.
func (r *Receiver) firstStretch(ctx context.Context, sp *spool, sinks []repo.Sink, path []walfile.Branch, texts map[relight.TimelineID][]byte, slot slotState) (*stretch, error) {
	branch, ok := walfile.At(path, slot.restart)
	if !ok {
		return nil, fmt.Errorf("slot %s at %s lies on no timeline of the server", r.o.Slot, slot.restart)
	}
	begin, known := r.segmentStart(sp, slot.restart), relight.LSN(0)
	for _, sink := range sinks {
		b, tip, err := r.tip(ctx, sp, sink, path)
		if err != nil {
			return nil, err // not knowing where it stopped, we could not tell a gap
		}
		at := r.segmentStart(sp, tip)
		if tip > 0 && (at < begin || at == begin && b.Timeline < branch.Timeline) {
			branch, begin, known = b, r.segmentStart(sp, tip), tip
		}
	}
	st := newStretch(branch.Timeline, begin, texts)
	st.tip = known
	return st, r.begin(sp, st)
}

// tip finds the branch of the server's history, newest first, of which a repository holds WAL, and where that ends. A branch that it holds to
// the end goes on with the next.
func (r *Receiver) tip(ctx context.Context, sp *spool, sink repo.Sink, path []walfile.Branch) (walfile.Branch, relight.LSN, error) {
	t, ok := sink.(tipper)
	if !ok {
		return walfile.Branch{}, 0, nil
	}
	for i := len(path) - 1; i >= 0; i-- {
		tip, err := t.Tip(ctx, r.key(sp, path[i].Timeline))
		if err != nil {
			r.trouble(laneSource(sink.Name(), laneStart), err.Error(), r.o.AlarmAfter)
			return walfile.Branch{}, 0, fmt.Errorf("find where repository %s stopped: %w", sink.Name(), err)
		}
		switch {
		case tip == 0:
		case tip < path[i].End:
			return path[i], tip, nil
		default:
			return path[i+1], path[i].End, nil
		}
	}
	return walfile.Branch{}, 0, nil
}

// behindGap goes on where the server still has WAL, and says what is lost: what neither the spool nor every repository holds.
func (r *Receiver) behindGap(ctx context.Context, sp *spool, sinks []repo.Sink, path []walfile.Branch, texts map[relight.TimelineID][]byte, slot slotState, last *stretch) (*stretch, error) {
	branch, ok := walfile.At(path, slot.restart)
	begin := r.segmentStart(sp, slot.restart)
	end := max(r.tape.view(last, 0).synced, last.tip)
	if !ok || begin < last.begin || branch.Timeline == last.tl && begin < r.tape.view(last, 0).synced {
		return nil, fmt.Errorf("WAL after %s of timeline %d is gone from the server and slot %s does not begin behind it", end, last.tl, r.o.Slot)
	}
	if end < begin && branch.Timeline == last.tl {
		durable, err := r.durable(ctx, sp, sinks, last)
		if err != nil {
			return nil, err
		}
		end = max(end, durable)
	}
	st := newStretch(branch.Timeline, begin, texts)
	if end < begin {
		st.gap = &relight.Gap{Timeline: branch.Timeline, From: end, To: begin, Why: r.gapReason()}
	}
	if err := r.begin(sp, st); err != nil {
		return nil, err
	}
	if st.gap != nil {
		r.needBase(*st.gap)
	}
	return st, nil
}

// durable asks every repository that takes WAL how far it holds a stretch. That may be further than the spool: a receiver that died had shipped more, and
// its successor was given the WAL once more.
func (r *Receiver) durable(ctx context.Context, sp *spool, sinks []repo.Sink, st *stretch) (relight.LSN, error) {
	least := walfile.MaxLSN
	for i, sink := range sinks {
		if r.tape.refused(i) {
			continue
		}
		lsn, err := sink.Durable(ctx, r.key(sp, st.tl), st.begin)
		if err != nil {
			r.trouble(laneSource(sink.Name(), laneStart), err.Error(), r.o.AlarmAfter)
			return 0, fmt.Errorf("find what is durable in repository %s: %w", sink.Name(), err)
		}
		least = min(least, lsn)
	}
	if least == walfile.MaxLSN {
		return 0, nil
	}
	return least, nil
}

// gapReason says why the server no longer had what nobody else has.
func (r *Receiver) gapReason() string {
	if r.freed.why != "" {
		return "the server removed the WAL: slot " + r.o.Slot + " was released, as " + r.freed.why
	}
	return fmt.Sprintf("the server removed the WAL before slot %s could retain it", r.o.Slot)
}

// needBase tells that only a new base backup makes moments after a gap restorable.
func (r *Receiver) needBase(gap relight.Gap) {
	text := fmt.Sprintf("WAL from %s to %s of timeline %d is lost: moments after it need a new base backup", gap.From, gap.To, gap.Timeline)
	r.mu.Lock()
	r.lost = r.now()
	r.mu.Unlock()
	r.trouble("WAL lost", text, 0)
	r.send(Notice{Kind: NoticeNeedBase, Message: text, Gap: gap})
}

// BaseTaken ends the alarm that demanded a new base backup.
func (r *Receiver) BaseTaken() { r.well("WAL lost") }

// ensureSlot finds the slot that retains WAL, or makes it. One that the server has given up is made anew: whether WAL is lost with it shows when the
// next segment is asked for.
func (r *Receiver) ensureSlot(ctx context.Context, conn *replication.Conn, c *controlConn) (slotState, error) {
	slot, err := c.slot(ctx, r.o.Slot)
	if err != nil {
		return slot, err
	}
	if slot.exists && slot.kind != "physical" {
		return slot, errHard{receiveError(r.o.Store, relight.CodeUsage, "give the store a slot name of its own", fmt.Errorf("slot %s is a %s one", r.o.Slot, slot.kind))}
	}
	givenUp := slot.exists && (slot.status == "lost" || slot.restart == 0)
	if slot.exists && !givenUp {
		return slot, nil
	}
	if givenUp {
		if err := c.dropSlot(ctx, r.o.Slot); err != nil {
			return slot, err
		}
	}
	if err := conn.CreateSlot(ctx, r.o.Slot); err != nil {
		return slot, err
	}
	slot, err = c.slot(ctx, r.o.Slot)
	if err == nil && slot.restart == 0 {
		err = errors.New("the new slot retains nothing")
	}
	if err == nil && givenUp {
		r.letGo(slot.restart, "the server gave the slot up")
	}
	return slot, err
}
