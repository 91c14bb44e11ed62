package postgres

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/toolboxai/relight"
)

func sampleSpool(t *testing.T) *spool {
	t.Helper()
	s, err := openSpool(filepath.Join(t.TempDir(), "spool"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.close() })
	if err := s.adopt(spoolIdentity{System: sampleSystem, SegmentSize: 1 << 20, Version: 150014}); err != nil {
		t.Fatal(err)
	}
	return s
}

// reopen is what a process finds after a crash.
func reopen(t *testing.T, s *spool) (*spool, []spoolRun) {
	t.Helper()
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	next, err := openSpool(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = next.close() })
	runs, err := next.load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return next, runs
}

func spoolWAL(t *testing.T, s *spool, tl relight.TimelineID, at relight.LSN, b []byte) {
	t.Helper()
	w := s.writer(&stretch{tl: tl, begin: at}, at)
	for len(b) > 0 {
		n := min(len(b), 100_000)
		if err := w.write(w.pos, b[:n]); err != nil {
			t.Fatal(err)
		}
		if err := w.sync(); err != nil {
			t.Fatal(err)
		}
		b = b[n:]
	}
	if err := w.close(); err != nil {
		t.Fatal(err)
	}
}

func TestTrap10SpoolKeepsExactlyTheValidWAL(t *testing.T) {
	t.Parallel()
	wal := recordedWAL(t, "v15-switch-and-commits")
	second := filepath.Join("wal", "000000010000000000000009")
	const whole = 0x9FF118 // the last record goes on in the next segment
	cases := []struct {
		name   string
		damage func(t *testing.T, dir string)
		end    relight.LSN
	}{
		{"nothing happened", func(*testing.T, string) {}, whole},
		{"the tail was never written", func(t *testing.T, dir string) { truncate(t, filepath.Join(dir, second), 0x5AC00) }, 0x95ABD8},
		{"the tail is zeros", func(t *testing.T, dir string) {
			overwrite(t, filepath.Join(dir, second), 0x5AE00, make([]byte, 1<<20-0x5AE00))
		}, 0x95ADF8},
		{"a page is zeros", func(t *testing.T, dir string) { overwrite(t, filepath.Join(dir, second), 0x10000, make([]byte, 8192)) }, 0},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := sampleSpool(t)
			spoolWAL(t, s, 1, sampleStart, wal)
			c.damage(t, s.dir)
			s, runs := reopen(t, s)
			if len(runs) != 1 || runs[0].begin != sampleStart {
				t.Fatalf("runs %+v", runs)
			}
			if c.end != 0 && runs[0].end != c.end && !(c.name == "the tail is zeros" && runs[0].end > 0x95AC00 && runs[0].end <= 0x95AE00) {
				t.Errorf("valid to %s, want %s", runs[0].end, c.end)
			}
			if c.end == 0 && runs[0].end > 0x910000 {
				t.Errorf("valid to %s, beyond the damage", runs[0].end)
			}
			spoolWAL(t, s, 1, runs[0].end, wal[runs[0].end-sampleStart:]) // streaming goes on there
			_, runs = reopen(t, s)
			got, err := os.ReadFile(filepath.Join(s.dir, second))
			if err != nil || !bytes.Equal(got, wal[1<<20:whole-sampleStart]) || len(runs) != 1 || runs[0].end != whole {
				t.Errorf("after going on: %+v, %v", runs, err)
			}
		})
	}
}

func truncate(t *testing.T, path string, n int64) {
	t.Helper()
	if err := os.Truncate(path, n); err != nil {
		t.Fatal(err)
	}
}

func overwrite(t *testing.T, path string, at int64, b []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(b, at); err != nil {
		t.Fatal(err)
	}
}

func TestSpoolKeepsHistoryAndGap(t *testing.T) {
	t.Parallel()
	s := sampleSpool(t)
	wal := recordedWAL(t, "v15-switch-and-commits")
	gap := relight.Gap{Timeline: 2, From: 0x700000, To: 0x900000, Why: "the slot was lost"}
	st := &stretch{tl: 2, begin: 0x900000, history: []byte("1\t0/900000\tx\n"), gap: &gap, written: 0xA00000}
	if err := s.remember(st); err != nil {
		t.Fatal(err)
	}
	spoolWAL(t, s, 1, 0x800000, wal[:1<<20])
	spoolWAL(t, s, 2, 0x900000, wal[1<<20:])
	s, runs := reopen(t, s)
	if len(runs) != 2 || runs[1].gap == nil || *runs[1].gap != gap || string(runs[1].history) != "1\t0/900000\tx\n" || runs[0].gap != nil {
		t.Fatalf("runs %+v", runs)
	}
	if s.used() != 1<<20+int64(runs[1].end-runs[1].begin) || s.used() < 2<<20-8192 {
		t.Errorf("used %d", s.used())
	}
	if err := s.drop(st, st.written, 0, true); err != nil {
		t.Fatal(err)
	}
	if s.used() != 1<<20 {
		t.Errorf("used %d after the stretch was dropped", s.used())
	}
}

func TestSpoolIsUsedByOneReceiver(t *testing.T) {
	t.Parallel()
	s := sampleSpool(t)
	if _, err := openSpool(s.dir); !errors.Is(err, errSpoolBusy) {
		t.Errorf("error %v", err)
	}
}

func TestSpoolRefusesWALFromElsewhere(t *testing.T) {
	t.Parallel()
	s := sampleSpool(t)
	w := s.writer(&stretch{tl: 1, begin: sampleStart}, sampleStart)
	if err := w.write(sampleStart+8, []byte("x")); err == nil {
		t.Error("accepted bytes that leave a hole")
	}
}

func TestAlarmsLastBeforeTheyAreRaised(t *testing.T) {
	t.Parallel()
	r, err := NewReceiver(ReceiverOptions{Store: "main", Conn: "x", Spool: "x"})
	if err != nil {
		t.Fatal(err)
	}
	var heard []Notice
	r.o.Notify = func(n Notice) { heard = append(heard, n) }
	r.trouble("repository b (live)", "away", r.o.AlarmAfter)
	if r.alarmText() != "" || len(heard) > 0 {
		t.Error("a passing fault raised an alarm")
	}
	r.trouble("repository b (live)", "away", 0)
	if r.alarmText() == "" || len(heard) != 1 || heard[0].Repository != "b" {
		t.Errorf("alarm %q, heard %+v", r.alarmText(), heard)
	}
	r.well("repository b (live)")
	if r.alarmText() != "" || len(heard) != 2 || heard[1].Kind != NoticeCleared {
		t.Errorf("alarm %q, heard %+v", r.alarmText(), heard)
	}
}

func TestNewReceiverRefusesBadOptions(t *testing.T) {
	t.Parallel()
	for _, o := range []ReceiverOptions{{}, {Store: "a", Conn: "x", Spool: "s", Slot: "Bad-Slot"}, {Store: "a", Spool: "s"}} {
		if _, err := NewReceiver(o); relight.CodeOf(err) != relight.CodeUsage {
			t.Errorf("%+v: %v", o, err)
		}
	}
	r, err := NewReceiver(ReceiverOptions{Store: "Main-1", Conn: "x", Spool: "s"})
	if err == nil && r.o.Slot != "relight_main_1" {
		t.Errorf("slot %q", r.o.Slot)
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
