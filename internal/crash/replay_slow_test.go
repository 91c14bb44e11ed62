//go:build slow

package crash_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/runbook"
)

// TestBucketFailsDuringReplay takes log away from the bucket while the recovering server replays: the run must stop with nothing promoted, and complete
// with nothing lost once the bucket is whole again.
func TestBucketFailsDuringReplay(t *testing.T) {
	t.Parallel()
	s := newEstate(t)
	s.must("protect", "start")
	s.must("protect", "wait", "--timeout", "120s")
	s.underLoad(func() {
		s.muchLog()
		s.must("protect", "wait", "--timeout", "60s")
		s.cutPower("last-seen")
	})
	s.awaitNobody()
	s.copyTree(s.root(), s.template())
	for name, fail := range map[string]func(*stand) (repair func() error, err error){
		"the whole log is gone": (*stand).hideLog, "one late segment is gone": (*stand).hideSegment, "one late segment is cut off": (*stand).cutSegment,
	} {
		t.Run(name, func(t *testing.T) {
			was := s.t
			s.t = t
			defer func() { s.t = was }()
			s.failDuringReplay(fail)
		})
	}
}

// muchLog writes about 110 MB of log, so that replay takes more segments than are fetched ahead.
func (s *stand) muchLog() {
	s.t.Helper()
	conn := s.connect(s.t.Context(), "bank")
	_, err := conn.Exec(s.t.Context(), "create table bulk as select i, repeat(md5(i::text), 30) as body from generate_series(1, 100000) i")
	if err := errors.Join(err, conn.Close(s.t.Context())); err != nil {
		s.t.Fatal(err)
	}
}

func (s *stand) failDuringReplay(fail func(*stand) (func() error, error)) {
	s.t.Helper()
	s.corrupt()
	var repair func() error
	events, code, said := s.watched(func(_ int, e seen) bool {
		if e.Step == "restore" && e.Kind == runbook.EventStepHandle && repair == nil {
			var err error
			if repair, err = fail(s); err != nil {
				s.t.Fatal(err)
			}
		}
		return false
	}, scenarios()[0].start(s)...)
	if repair == nil {
		s.t.Fatalf("no server was started to replay: exit %d\n%s", code, said)
	}
	if code != relight.CodeFailed.Exit() {
		s.t.Fatalf("a bucket that fails during replay: exit %d, want %d\n%s", code, relight.CodeFailed.Exit(), said)
	}
	s.awaitNobody()
	if later, err := filepath.Glob(filepath.Join(s.data(), "pg_wal", "0000000[2-9].history")); err != nil || len(later) > 0 {
		s.t.Errorf("promoted although the bucket failed: %v, %v", later, err)
	}
	if err := repair(); err != nil {
		s.t.Fatal(err)
	}
	run := events[0].Run
	s.relight("run", "retry", string(run), "restore", "--reason", "the bucket is whole again")
	if _, code, said := s.relight("run", "resume", string(run), "--identity", s.identity(), "--confirm", "main", "--yes"); code != 0 {
		s.t.Fatalf("the run does not complete with the bucket repaired: exit %d\n%s", code, said)
	}
	if lost := s.verify(run); lost != 0 {
		s.t.Errorf("%d commits are lost", lost)
	}
}

func (s *stand) hideLog() (func() error, error) {
	dir := s.path("vault", "wal")
	return func() error { return os.Rename(dir+".away", dir) }, os.Rename(dir, dir+".away")
}

func (s *stand) hideSegment() (func() error, error) {
	path, err := s.lateSegment()
	if err != nil {
		return nil, err
	}
	away := s.path("away")
	return func() error { return os.Rename(away, path) }, os.Rename(path, away)
}

func (s *stand) cutSegment() (func() error, error) {
	path, err := s.lateSegment()
	if err != nil {
		return nil, err
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	repair := func() error { return errors.Join(os.Chmod(path, 0o600), os.WriteFile(path, whole, 0o600)) }
	return repair, errors.Join(os.Chmod(path, 0o600), os.Truncate(path, int64(len(whole)/2)))
}

// lateSegment is the body of the last but one whole segment.
func (s *stand) lateSegment() (string, error) {
	var bodies []string
	err := filepath.WalkDir(s.path("vault", "wal"), func(path string, d os.DirEntry, err error) error {
		name := filepath.Base(path)
		if err == nil && d.Type().IsRegular() && len(name) >= 24 && !strings.Contains(path, "/live/") && !strings.Contains(name, "history") {
			bodies = append(bodies, path)
		}
		return err
	})
	slices.Sort(bodies)
	bodies = slices.DeleteFunc(bodies, func(p string) bool { info, err := os.Stat(p); return err != nil || info.Size() < 10_000 })
	if err == nil && len(bodies) < 4 {
		err = errors.New("the repository holds too few segments to take one away")
	}
	if err != nil {
		return "", err
	}
	return bodies[len(bodies)-2], nil
}
