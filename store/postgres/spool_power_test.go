package postgres

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/internal/pgtest"
	"github.com/toolboxai/relight/internal/power"
	"github.com/toolboxai/relight/store/postgres/replication"
	"github.com/toolboxai/relight/store/postgres/walfile"
)

// modelDisk is the model of a disk that loses power, as the spool sees it.
type modelDisk struct{ *power.Disk }

func (d modelDisk) Mkdir(path string) error { return d.Disk.Mkdir(path, 0o700) }

func (d modelDisk) Open(path string) (spoolFile, error) {
	f, err := d.Disk.Open(path)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// onDisk is one receiver's spool on a model of a disk, and what the server was told.
type onDisk struct {
	t     *testing.T
	disk  *power.Disk
	base  string // of the disk
	dir   string // of the spool
	r     *Receiver
	wal   []byte
	first *stretch
	next  *stretch
	told  map[relight.TimelineID]relight.LSN
	freed relight.LSN // segments that end before it have left the spool
}

func newOnDisk(t *testing.T, wal []byte, change func(*power.Disk)) *onDisk {
	t.Helper()
	base := pgtest.Root(t)
	o := &onDisk{t: t, disk: power.New(base), base: base, dir: filepath.Join(base, "state", "spool", "main"), wal: wal, told: map[relight.TimelineID]relight.LSN{}}
	change(o.disk)
	o.receiver()
	return o
}

func (o *onDisk) receiver() {
	r, err := NewReceiver(ReceiverOptions{Store: "main", Conn: "x", Spool: o.dir})
	check(o.t, err)
	r.tape.reset(1)
	o.r = r
	o.first = &stretch{tl: 1, begin: sampleStart, written: sampleStart, synced: sampleStart}
	gap := relight.Gap{Timeline: 2, From: sampleStart + 1, To: sampleStart + 1<<20, Why: "the slot was lost"}
	begin := sampleStart + 1<<20
	o.next = &stretch{tl: 2, begin: begin, written: begin, synced: begin, gap: &gap, history: []byte("1\t0/900000\tx\n")}
}

// open is what Follow does before it streams.
func (o *onDisk) open() (*spool, error) {
	sp, err := openSpoolOn(modelDisk{o.disk}, o.dir)
	if err != nil {
		return nil, err
	}
	o.t.Cleanup(func() { _ = sp.close() })
	return sp, o.r.load(o.t.Context(), sp)
}

// run is a receiver's life: two timelines with a gap between, sessions that begin again where the last one failed, and a segment that leaves.
func (o *onDisk) run() error {
	sp, err := o.open()
	if err == nil {
		err = sp.adopt(spoolIdentity{System: sampleSystem, SegmentSize: 1 << 20, Version: 150014})
	}
	if err != nil {
		return err
	}
	if err := o.again(func() error { return o.stream(sp, o.first) }); err != nil {
		return err
	}
	if err := o.again(func() error { return sp.drop(o.first, o.first.written, sampleStart+1<<20, false) }); err != nil {
		return err
	}
	o.freed = sampleStart + 1<<20
	return o.again(func() error { return o.stream(sp, o.next) })
}

// again is one session after the other.
func (o *onDisk) again(session func() error) (err error) {
	for range 3 {
		if err = session(); err == nil || errors.Is(err, power.ErrLost) {
			break
		}
	}
	return err
}

// stream takes what comes of a stretch, as a session does.
func (o *onDisk) stream(sp *spool, st *stretch) error {
	if o.r.tape.last() != st {
		if err := o.r.begin(sp, st); err != nil {
			return err
		}
	}
	w := sp.writer(st, o.r.resume(st))
	defer func() { _ = w.close() }()
	const piece = 150_000
	end := sampleStart + relight.LSN(len(o.wal))
	for w.pos < end {
		at := w.pos - sampleStart
		m := replication.Message{Kind: replication.Data, Start: w.pos, Bytes: o.wal[at:min(int(at)+piece, len(o.wal))]}
		if err := o.r.spool(w, m); err != nil {
			return o.alarmed(err)
		}
		o.r.tape.mark(st, w.pos)
		if int(w.pos-sampleStart)/piece%2 == 0 || w.pos == end {
			if err := o.r.settle(st, w); err != nil {
				return o.alarmed(err)
			}
			o.told[st.tl] = o.r.acknowledged(st)
		}
	}
	return nil
}

func (o *onDisk) alarmed(err error) error {
	if o.r.alarmText() == "" {
		o.t.Errorf("%v is no alarm", err)
	}
	return err
}

// check looks at what a loss of power leaves: all that the server was told, and no byte that is not as it was sent.
func (o *onDisk) check(what string, outcome power.Outcome) {
	o.t.Helper()
	calls := o.disk.Calls()
	at := fmt.Sprintf("%s, call %d (%s), what was not synced is %s", what, len(calls), calls[len(calls)-1], outcome)
	left := pgtest.Root(o.t)
	defer func() { check(o.t, os.RemoveAll(left)) }() // in memory, hundreds of them
	check(o.t, o.disk.Left(left, outcome))
	sp, err := openSpool(filepath.Join(left, "state", "spool", "main"))
	check(o.t, err)
	defer func() { _ = sp.close() }()
	runs, err := sp.load(o.t.Context())
	if err != nil {
		o.t.Errorf("%s: %v", at, err)
		return
	}
	for tl, told := range o.told {
		o.checkTold(at, runs, tl, told)
	}
	for _, run := range runs {
		o.checkBytes(at, sp, run)
	}
}

func (o *onDisk) checkTold(at string, runs []spoolRun, tl relight.TimelineID, told relight.LSN) {
	from := sampleStart
	if tl == 2 {
		from = o.next.begin
	}
	if tl == 1 && o.freed > from {
		from = o.freed
	}
	told = o.whole(told)
	if told <= from {
		return
	}
	for _, run := range runs {
		if run.tl != tl || run.begin > from || run.end < told {
			continue
		}
		if tl == 2 && (run.gap == nil || *run.gap != *o.next.gap || !bytes.Equal(run.history, o.next.history)) {
			o.t.Errorf("%s: gap %v and history %q", at, run.gap, run.history)
		}
		return
	}
	o.t.Errorf("%s: the server was told that %s of timeline %d is flushed, left is %+v", at, told, tl, runs)
}

// end gives the room back.
func (o *onDisk) end() { check(o.t, os.RemoveAll(o.base)) }

// whole is where the last whole record up to a position ends. The beginning of another behind it may go with a loss of power: nothing was committed by
// it, and the server, whose slot has not moved, sends it once more.
func (o *onDisk) whole(lsn relight.LSN) relight.LSN {
	scan, err := walfile.NewScanner(walfile.Options{Start: sampleStart, SegmentSize: 1 << 20, Check: true, System: sampleSystem, Timeline: 1})
	check(o.t, err)
	check(o.t, scan.Feed(o.wal[:lsn-sampleStart], nil))
	return min(aligned(scan.ValidEnd()), lsn) // behind a switch of segments it is at once at the end
}

func (o *onDisk) checkBytes(at string, sp *spool, run spoolRun) {
	for lsn := run.begin; lsn < run.end; lsn += 1 << 20 {
		got, err := os.ReadFile(sp.path(walfile.SegmentName(run.tl, lsn, 1<<20)))
		want := o.wal[lsn-sampleStart : min(run.end, lsn+1<<20)-sampleStart]
		if err != nil || !bytes.Equal(got, want) {
			o.t.Errorf("%s: segment %s of timeline %d is not what was sent: %d bytes, %v", at, lsn, run.tl, len(got), err)
		}
	}
}

// The power is lost after every call of a receiver's life. What the server was told to be flushed is there each time; what else is there is as it was sent.
func TestSpoolSurvivesPowerLossAtEveryCall(t *testing.T) {
	exhaustive(t)
	wal := recordedWAL(t, "v15-switch-and-commits")
	whole := newOnDisk(t, wal, func(*power.Disk) {})
	check(t, whole.run())
	calls := len(whole.disk.Calls())
	if whole.told[1] != sampleStart+2<<20 || whole.told[2] != whole.told[1] {
		t.Fatalf("told %v", whole.told)
	}
	for last := 1; last <= calls; last++ {
		o := newOnDisk(t, wal, func(d *power.Disk) { d.Last = last })
		if err := o.run(); last < calls && !errors.Is(err, power.ErrLost) {
			t.Fatalf("call %d: %v", last, err)
		}
		for _, outcome := range power.Outcomes() {
			o.check("power lost", outcome)
		}
		o.end()
	}
	t.Logf("lost the power after each of %d calls", calls)
}

// A process dies after every call, and the next one loads the spool and tells the server what it found. Then the power is lost.
func TestSpoolOfADeadProcessSurvivesPowerLoss(t *testing.T) {
	exhaustive(t)
	wal := recordedWAL(t, "v15-switch-and-commits")
	whole := newOnDisk(t, wal, func(*power.Disk) {})
	check(t, whole.run())
	for last := 1; last <= len(whole.disk.Calls()); last++ {
		o := newOnDisk(t, wal, func(d *power.Disk) { d.Last = last })
		_ = o.run() // it dies
		o.disk.Last = 0
		o.receiver()
		o.told = map[relight.TimelineID]relight.LSN{}
		o.freed = sampleStart + 1<<20 // it may have left
		runs, err := o.reload()
		check(t, err)
		for _, run := range runs {
			o.told[run.tl] = run.end
		}
		o.check("process dead", power.Gone)
		o.end()
	}
}

// reload is the next process.
func (o *onDisk) reload() ([]spoolRun, error) {
	sp := &spool{dir: o.dir, disk: modelDisk{o.disk}, files: map[string]int64{}}
	if err := errors.Join(makeDurable(sp.disk, filepath.Join(o.dir, "wal")), sp.readIdentity()); err != nil {
		return nil, err
	}
	return sp.load(o.t.Context())
}

// Each call fails in its turn: with EIO or without room, a write half done. It is an error and, where WAL was not taken, an alarm; never is the server told
// what is not there. One failure is got over by the next session.
func TestSpoolFaultsAtEveryCall(t *testing.T) {
	exhaustive(t)
	wal := recordedWAL(t, "v15-switch-and-commits")
	whole := newOnDisk(t, wal, func(*power.Disk) {})
	check(t, whole.run())
	for n := 1; n <= len(whole.disk.Calls()); n++ {
		for _, fault := range []power.Fault{{Err: syscall.EIO}, {Err: syscall.ENOSPC}, {Err: syscall.ENOSPC, Short: true}} {
			o := newOnDisk(t, wal, func(d *power.Disk) { d.Faults[n] = fault })
			err := o.run()
			if err != nil && !errors.Is(err, fault.Err) {
				t.Fatalf("call %d, %v: %v", n, fault.Err, err)
			}
			if err == nil && o.told[2] != sampleStart+2<<20 {
				t.Errorf("call %d, %v: told %v", n, fault.Err, o.told)
			}
			o.check(fmt.Sprintf("call %d failed with %v", n, fault), power.Gone)
			o.end()
		}
	}
}

// The record under way is not verified before it is whole: a hole in what has come of it would be shipped for the log. So it is received once more.
func TestSpoolKeepsNoHalfRecord(t *testing.T) {
	exhaustive(t)
	wal := recordedWAL(t, "v15-switch-and-commits")
	for cut := 1<<20 + 610_000; cut < 1<<20+690_000; cut += 1777 { // records with images of pages
		s := sampleSpool(t)
		torn := slices.Clone(wal[:cut])
		hole := ((cut-1)/4096 - 1) * 4096
		clear(torn[hole : hole+4096])
		spoolWAL(t, s, 1, sampleStart, torn)
		s, runs := reopen(t, s)
		if len(runs) != 1 || int64(runs[0].end-runs[0].begin) != s.used() {
			t.Fatalf("cut at %d: %+v, %d bytes", cut, runs, s.used())
		}
		o := &onDisk{t: t, wal: wal}
		o.checkBytes(fmt.Sprintf("cut at %d", cut), s, runs[0])
		if end := int(runs[0].end - sampleStart); end > hole || end < hole-16384 {
			t.Errorf("cut at %d, hole at %d: valid up to %d", cut, hole, end)
		}
	}
}
