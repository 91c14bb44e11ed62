package postgres

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/toolboxai/relight/internal/power"
)

// outcomes of a loss of power that are enough here: names as they were synced with whatever was written below them, and names as they are. How files are torn makes no
// difference where each is read again.
func outcomes() []power.Outcome { return []power.Outcome{power.Bytes, power.Torn} }

// The power is lost after every call of a restore that writes its directory. Each time the directory is recognised for what it is, no server could start from what is
// not whole, nothing that was there is lost, and the next restore finishes.
func TestRestoreSurvivesPowerLossAtEveryCall(t *testing.T) {
	exhaustive(t)
	w := newTargets(t)
	for name, prepare := range map[string]func(*target){"fresh": fresh, "set aside": occupiedBefore, "delta": outdated, "replaying": replaying, "shut down": shutDown} {
		t.Run(name, func(t *testing.T) {
			whole := newTarget(t, w, prepare)
			check(t, whole.restore())
			check(t, whole.whole())
			calls := len(whole.disk.Calls())
			if name == "shut down" {
				calls = min(calls, 20) // after that it is as "replaying"
			}
			for last := 1; last <= calls; last++ {
				for _, outcome := range outcomes() {
					g := newTarget(t, w, prepare)
					g.disk.Last = last
					if err := g.restore(); last < calls && !errors.Is(err, power.ErrLost) {
						t.Fatalf("call %d: %v", last, err)
					}
					at := fmt.Sprintf("call %d (%s), what was not synced is %s", last, g.disk.Calls()[last-1], outcome)
					g.lose(outcome)
					if err := g.safe(); err != nil {
						t.Errorf("%s: %v", at, err)
					}
					if err := g.finished(); err != nil {
						t.Errorf("%s: %v", at, err)
					}
					check(t, os.RemoveAll(g.base))
				}
			}
			t.Logf("lost the power after each of %d calls", calls)
		})
	}
}

// Each call fails in its turn. It is an error, and the same restore, in the same boot, brings all to the disk.
func TestRestoreFaultsAtEveryCall(t *testing.T) {
	exhaustive(t)
	w := newTargets(t)
	for name, prepare := range map[string]func(*target){"fresh": fresh, "delta": outdated} {
		whole := newTarget(t, w, prepare)
		check(t, whole.restore())
		for i, call := range whole.disk.Calls() {
			faults := []power.Fault{{Err: syscall.EIO}}
			if strings.HasPrefix(call, "write") {
				faults = append(faults, power.Fault{Err: syscall.ENOSPC, Short: true})
			}
			for _, fault := range faults {
				g := newTarget(t, w, prepare)
				g.disk.Faults[i+1] = fault
				at := fmt.Sprintf("%s, call %d (about %s) failed with %v", name, i+1, call, fault)
				if err := g.restore(); !errors.Is(err, fault.Err) {
					t.Errorf("%s: %v", at, err)
				}
				if err := errors.Join(g.safe(), g.finished()); err != nil {
					t.Errorf("%s: %v", at, err)
				}
				check(t, os.RemoveAll(g.base))
			}
		}
	}
}

// What is written fails behind the restore's back, after each of its writes in turn, and somebody else is told: it is an error all the same.
func TestRestoreHearsOfEveryFailedWrite(t *testing.T) {
	exhaustive(t)
	w := newTargets(t)
	whole := newTarget(t, w, outdated)
	check(t, whole.restore())
	for i, call := range whole.disk.Calls() {
		if !strings.HasPrefix(call, "write") {
			continue
		}
		g := newTarget(t, w, outdated)
		g.disk.Faults[i+1] = power.Fault{Err: syscall.EIO, Late: true}
		if err := g.restore(); !errors.Is(err, syscall.EIO) {
			t.Errorf("call %d (about %s): %v", i+1, call, err)
		}
		if err := g.finished(); err != nil {
			t.Errorf("call %d (about %s): %v", i+1, call, err)
		}
		check(t, os.RemoveAll(g.base))
	}
}

// The power is lost after every call of a restore's end. It is done once that was said, and nobody takes it for done before it is.
func TestEndOfARestoreSurvivesPowerLossAtEveryCall(t *testing.T) {
	t.Parallel()
	w := newTargets(t)
	end := func(g *target) (r *restore, err error) {
		r = g.begin()
		r.state, err = readState(g.dir)
		r.have = []uint32{16385}
		return r, errors.Join(err, r.tidy(), r.finish())
	}
	prepare := func(g *target) {
		replaying(g)
		g.server(cluster(80, stateShutdown))
		check(g.t, os.WriteFile(filepath.Join(g.dir, "postmaster.opts"), nil, 0o600))
	}
	whole := newTarget(t, w, prepare)
	r, err := end(whole)
	check(t, err)
	calls := len(whole.disk.Calls())
	for last := 1; last <= calls; last++ {
		for _, outcome := range outcomes() {
			g := newTarget(t, w, prepare)
			g.disk.Last = last
			_, err := end(g)
			at := fmt.Sprintf("call %d (%s), what was not synced is %s", last, g.disk.Calls()[last-1], outcome)
			g.lose(outcome)
			st, serr := RestoreState(g.dir, r.point)
			check(t, serr)
			if st.State == "unknown" || st.State != "done" && err == nil {
				t.Errorf("%s: the end said %v, the directory is %s: %s", at, err, st.State, st.Detail)
			}
			if err := hasFiles(g.dir, g.old); err != nil {
				t.Errorf("%s: %v", at, err)
			}
		}
	}
}

// A directory that was found to lack data has no pg_control, whatever is lost.
func TestDisarmedDirectoryStaysSo(t *testing.T) {
	t.Parallel()
	g := newTarget(t, newTargets(t), replaying)
	r := g.begin()
	check(t, r.disarm())
	if err := r.failed(errors.New("data are missing")); err == nil {
		t.Fatal("no error")
	}
	g.lose(power.Gone)
	if exists(filepath.Join(g.dir, controlName)) {
		t.Error("after a loss of power a server could start from it")
	}
	if b, err := os.ReadFile(filepath.Join(g.dir, controlName+".unverified")); err != nil || !bytes.Equal(b, []byte(g.old[controlName])) {
		t.Errorf("it is lost: %v", err)
	}
}
