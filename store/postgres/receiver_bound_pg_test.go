//go:build pg

package postgres

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/host"
	"github.com/toolboxai/relight/internal/pgtest"
	"github.com/toolboxai/relight/store/postgres/walfile"
)

// away is a receiver whose repository does not answer, into a spool that is soon full. The server has no bound of its own.
func away(t *testing.T, s *pgtest.Server, o ReceiverOptions) (*following, *memSink, relight.LSN) {
	t.Helper()
	a := newMemSink("a")
	o.Conn, o.Spool = s.DSN("postgres"), spoolDir(t)
	f := follow(t, o, a)
	s.Exec("create table t (id int, v text)")
	end := f.flush(s)
	eventually(t, "the slot follows", func() bool { return restartLSN(t, s) >= end })
	a.setFail(errors.New("the bucket is away"))
	return f, a, end
}

// write makes about a MiB of WAL a time, and lets the server remove what it may.
func write(s *pgtest.Server, times int) {
	for range times {
		s.Exec("insert into t select g, repeat('x', 500) from generate_series(1, 1700) g")
	}
	s.Exec("checkpoint")
}

const smallServer = "max_wal_size=2MB min_wal_size=2MB wal_keep_size=0 max_slot_wal_keep_size=-1 wal_sender_timeout=5s"

func TestTrap12SlotIsReleasedAtItsBoundAndTheGapIsAnnounced(t *testing.T) {
	s := pgtest.New(t, "--wal-segsize=1")
	s.Start(strings.Fields(smallServer)...)
	f, a, _ := away(t, s, ReceiverOptions{SpoolLimit: 3 << 20, Bound: SlotBound{Limit: 8 << 20}})
	eventually(t, "the slot is released", func() bool {
		write(s, 4)
		return f.noticed(NoticeSlotReleased) && strings.Contains(f.position().Alarm, "it retained ")
	})
	if f.noticed(NoticeNeedBase) {
		t.Error("a gap is announced before anybody can know where it ends")
	}
	for range 20 { // for as long as it likes
		write(s, 4)
	}
	eventually(t, "the server keeps no more than the bound, and what it needs itself", func() bool {
		write(s, 1)
		return s.Query("select (count(*) < 20)::text from pg_ls_waldir()") == "true"
	})
	last := f.position().Spooled
	a.setFail(nil)
	eventually(t, "a new base backup is demanded", func() bool {
		return f.noticed(NoticeNeedBase) && strings.Contains(f.position().Alarm, "new base backup")
	})
	write(s, 1)
	to := f.flush(s)
	if len(a.gaps) != 1 || a.gaps[0].From < last || a.gaps[0].To <= a.gaps[0].From || !strings.Contains(a.gaps[0].Why, "was released, as it retained ") {
		t.Fatalf("gaps %+v, the spool ended at %s", a.gaps, last)
	}
	if _, err := a.bytes(1, sampleSegment(a.gaps[0].To), to); err != nil {
		t.Errorf("after the gap: %v", err)
	}
	sameAsServer(t, s, a, 1, 1<<20, to)
	f.BaseTaken()
	eventually(t, "the alarms end with the base", func() bool { return f.position().Alarm == "" })
}

func sampleSegment(lsn relight.LSN) relight.LSN { return walfile.SegmentStart(lsn, 1<<20) }

// Only whole segments leave the spool: one with a limit below that still lets everything through.
func TestSpoolLimitBelowOneSegmentIsNoDeadlock(t *testing.T) {
	s := pgtest.New(t, "--wal-segsize=1")
	s.Start()
	a := newMemSink("a")
	f := follow(t, ReceiverOptions{Conn: s.DSN("postgres"), Spool: spoolDir(t), SpoolLimit: 1}, a)
	s.Exec("create table t (id int, v text)")
	write(s, 4)
	sameAsServer(t, s, a, 1, 1<<20, f.flush(s))
}

// The same bound is kept by a receiver that never comes as far as to stream: it cannot know where the repository stopped.
func TestSlotIsReleasedAlthoughNoSessionStreams(t *testing.T) {
	s := pgtest.New(t, "--wal-segsize=1")
	s.Start(strings.Fields(smallServer)...)
	f, a, _ := away(t, s, ReceiverOptions{SpoolLimit: 3 << 20, Bound: SlotBound{Limit: 8 << 20}})
	eventually(t, "the slot is released", func() bool { write(s, 4); return f.noticed(NoticeSlotReleased) })
	write(s, 4)
	o := f.o
	check(t, f.stop())
	f = follow(t, o, a)
	eventually(t, "it is released once more", func() bool { write(s, 4); return f.noticed(NoticeSlotReleased) })
	a.setFail(nil)
	eventually(t, "a new base backup is demanded", func() bool { return f.noticed(NoticeNeedBase) })
	to := f.flush(s)
	if len(a.gaps) != 1 {
		t.Errorf("gaps %+v", a.gaps)
	}
	sameAsServer(t, s, a, 1, 1<<20, to)
}

func TestHeldSlotIsNeverReleased(t *testing.T) {
	s := pgtest.New(t, "--wal-segsize=1")
	s.Start(strings.Fields(smallServer)...)
	f, a, end := away(t, s, ReceiverOptions{SpoolLimit: 3 << 20, Bound: SlotBound{Limit: 8 << 20, Hold: true}})
	eventually(t, "the alarm says so", func() bool {
		write(s, 4)
		return strings.Contains(f.position().Alarm, "it is held, as was asked for")
	})
	write(s, 10)
	if at := restartLSN(t, s); f.noticed(NoticeSlotReleased) || at > end+1<<20 {
		t.Errorf("the slot is at %s, %s was durable", at, end)
	}
	a.setFail(nil)
	to := f.flush(s)
	sameAsServer(t, s, a, 1, 1<<20, to)
	if len(a.gaps) > 0 {
		t.Errorf("gaps %+v", a.gaps)
	}
	eventually(t, "the alarm ends", func() bool { return f.position().Alarm == "" })
}

// What the spool holds is not kept twice when the server is short of room: nothing is lost by that.
func TestWhatTheSpoolHoldsIsReleasedWithoutAGap(t *testing.T) {
	s := pgtest.New(t, "--wal-segsize=1")
	s.Start(strings.Fields(smallServer)...)
	f, a, end := away(t, s, ReceiverOptions{Bound: SlotBound{Limit: 4 << 20}})
	eventually(t, "the slot moves on although no repository does", func() bool { write(s, 4); return restartLSN(t, s) > end+8<<20 })
	if f.noticed(NoticeSlotReleased) || strings.Contains(f.position().Alarm, slotReleased) {
		t.Errorf("a loss is announced: %s", f.position().Alarm)
	}
	a.setFail(nil)
	to := f.flush(s)
	if _, err := a.bytes(1, sampleSegment(end), to); err != nil || len(a.gaps) > 0 {
		t.Errorf("%v, gaps %+v", err, a.gaps)
	}
	sameAsServer(t, s, a, 1, 1<<20, to)
}

// A nearly full file system of pg_wal counts before the slot's limit does.
func TestSlotIsReleasedBeforeTheServersDiskIsFull(t *testing.T) {
	disk := smallDisk(t, "size=64m,mode=0777")
	wal := filepath.Join(disk, "pg_wal")
	s := pgtest.New(t, "--wal-segsize=1", "--waldir="+wal)
	s.Start(strings.Fields(smallServer)...)
	f, a, _ := away(t, s, ReceiverOptions{SpoolLimit: 3 << 20, Bound: SlotBound{KeepFree: 24 << 20, WALDir: filepath.Join(s.Dir, "pg_wal")}})
	eventually(t, "the slot is released", func() bool { write(s, 2); return f.noticed(NoticeSlotReleased) })
	for range 30 { // more than the disk holds
		write(s, 4)
	}
	free, err := host.FreeSpace(disk)
	check(t, errors.Join(err, os.WriteFile(filepath.Join(disk, "fill"), make([]byte, free-10<<20), 0o600))) // by others: no fault of a slot that retains little
	eventually(t, "the slot is left alone", func() bool {
		s.Exec("checkpoint")
		return s.Query("select wal_status from pg_replication_slots") == "reserved" && !strings.Contains(f.position().Alarm, slotRoom)
	})
	a.setFail(nil)
	eventually(t, "a new base backup is demanded", func() bool { return f.noticed(NoticeNeedBase) })
	sameAsServer(t, s, a, 1, 1<<20, f.flush(s))
	if len(a.gaps) == 0 || !strings.Contains(a.gaps[0].Why, "to keep free at") {
		t.Errorf("gaps %+v", a.gaps)
	}
}

// Where commits wait for relight nothing is released: what they were told to be safe would be in the gap.
func TestNothingIsReleasedWhileCommitsWait(t *testing.T) {
	s := pgtest.New(t, "--wal-segsize=1")
	s.Start(strings.Fields(smallServer)...)
	f, a, end := away(t, s, ReceiverOptions{SpoolLimit: 3 << 20, Bound: SlotBound{Limit: 8 << 20}, Synchronous: &Synchronous{SpoolOutside: "a test"}})
	eventually(t, "commits wait", func() bool { return f.noticed(NoticeArmed) })
	s.Exec("alter role current_user set synchronous_commit = local") // the bulk load of somebody who does not wait
	eventually(t, "the alarm says so", func() bool {
		write(s, 4)
		return strings.Contains(f.position().Alarm, "commits wait for relight, so nothing is released")
	})
	if at := restartLSN(t, s); at > end+1<<20 {
		t.Errorf("the slot is at %s, %s was durable", at, end)
	}
	a.setFail(nil)
	sameAsServer(t, s, a, 1, 1<<20, f.flush(s))
	if len(a.gaps) > 0 {
		t.Errorf("gaps %+v", a.gaps)
	}
}

func TestExcess(t *testing.T) {
	t.Parallel()
	here := t.TempDir()
	for name, c := range map[string]struct {
		b    SlotBound
		s    slotState
		want string
	}{
		"little":                       {SlotBound{Limit: 100 << 20}, slotState{restart: 1 << 20, end: 101 << 20}, ""},
		"too much":                     {SlotBound{Limit: 100 << 20}, slotState{restart: 1 << 20, end: 102 << 20}, "it retained 101 MB, and the limit is 100 MB"},
		"ahead of a standby":           {SlotBound{Limit: 100}, slotState{restart: 200, end: 100}, ""},
		"no room":                      {SlotBound{Limit: 1 << 30, KeepFree: 1 << 60, WALDir: here}, slotState{status: "extended", end: 5 << 20}, "it retained 5 MB, and of the "},
		"no room by others' doing":     {SlotBound{Limit: 1 << 30, KeepFree: 1 << 60, WALDir: here}, slotState{status: "reserved", end: 5 << 20}, ""},
		"room on a host we cannot see": {SlotBound{Limit: 1 << 30, KeepFree: 1 << 60, WALDir: here}.at(false), slotState{status: "extended", end: 5 << 20}, ""},
		"room":                         {SlotBound{Limit: 1 << 30, KeepFree: 1, WALDir: here}, slotState{status: "extended", end: 5 << 20}, ""},
	} {
		got, err := c.b.excess(c.s)
		if err != nil || (got.why == "") != (c.want == "") || !strings.HasPrefix(got.why, c.want) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	if b := (SlotBound{}).withDefaults(); fmt.Sprint(b) != fmt.Sprint(SlotBound{Limit: 16 << 30, KeepFree: 2 << 30}) {
		t.Errorf("%+v", b)
	}
}

func TestDoctorHoldsTheServersBoundAgainstRelights(t *testing.T) {
	t.Parallel()
	s := pgtest.New(t)
	s.Start()
	for _, c := range []struct {
		keep  string
		bound SlotBound
		want  relight.Verdict
		words string
	}{
		{"-1", SlotBound{}, relight.Passed, "is released when it retains 16384 MB"},
		{"32GB", SlotBound{}, relight.Passed, "is released"},
		{"1GB", SlotBound{}, relight.Failed, "at 1024 MB, before relight releases it at 16384 MB"},
		{"-1", SlotBound{Hold: true}, relight.Unknown, "the disk fills and the server stops"},
		{"32GB", SlotBound{Hold: true}, relight.Failed, "is to be held, and the server gives it up at 32768 MB"},
	} {
		s.Exec("alter system set max_slot_wal_keep_size = '"+c.keep+"'", "select pg_reload_conf()")
		eventually(t, "the setting holds", func() bool { return s.Query("show max_slot_wal_keep_size") == c.keep })
		checks := New(Config{Name: "main", Conn: s.DSN("postgres"), Bound: c.bound}, Deps{}).Doctor(t.Context(), DoctorOptions{})
		i := slices.IndexFunc(checks, func(c relight.Check) bool { return c.Name == "slot bound" })
		if i < 0 || checks[i].Verdict != c.want || !strings.Contains(checks[i].Detail, c.words) {
			t.Errorf("%+v: %+v", c, checks)
		}
	}
}

// A slot that relight keeps on a standby is bounded like that on the primary.
func TestStandingSlotIsReleasedAtItsBound(t *testing.T) {
	primary := pgtest.New(t, "--wal-segsize=1")
	primary.Start(strings.Fields(smallServer)...)
	primary.Exec("create table t (id int, v text)")
	standby := newStandby(t, primary, strings.Fields(smallServer)...)
	a := newMemSink("a")
	f := follow(t, ReceiverOptions{Conn: primary.DSN("postgres"), Peers: []string{standby.DSN("postgres")}, Spool: spoolDir(t), Bound: SlotBound{Limit: 8 << 20}}, a)
	caughtUp(t, standby, f.flush(primary))
	eventually(t, "the standby has the slot", func() bool { return standby.Query("select count(*) from pg_replication_slots") == "1" })
	a.setFail(errors.New("the bucket is away"))
	eventually(t, "the alarm says what a promotion would lose", func() bool {
		primary.Exec("insert into t select g, repeat('x', 500) from generate_series(1, 1700) g", "checkpoint")
		standby.Exec("checkpoint")
		return strings.Contains(f.position().Alarm, "a promotion now would lose")
	})
	if n := standby.Query("select (pg_last_wal_replay_lsn() - restart_lsn < 12 * 1048576)::text from pg_replication_slots"); n != "true" {
		t.Error("the standby retains more than the bound")
	}
	a.setFail(nil)
	caughtUp(t, standby, f.flush(primary))
	eventually(t, "the alarm ends", func() bool { return f.position().Alarm == "" })
	if len(a.gaps) > 0 {
		t.Errorf("gaps %+v", a.gaps)
	}
}
