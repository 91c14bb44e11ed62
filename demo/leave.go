package demo

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/toolboxai/relight"
)

// leave ends a demonstration that gave result and played: it removes everything unless it is to be kept, and says what is left.
func (s *stand) leave(ctx context.Context, result Result, played error) (Result, error) {
	var err error
	if s.o.Keep {
		s.lookAround()
	} else if err = s.tearDown(ctx); err == nil {
		return result, played
	}
	evidence, gerr := filepath.Glob(filepath.Join(s.layout.evidence(), "*"))
	result.Directory, result.Evidence = s.layout.root, evidence
	return result, errors.Join(played, err, gerr)
}

// lookAround says how to inspect what was kept, and how to end it, in command lines to be pasted.
func (s *stand) lookAround() {
	l := s.layout
	if !s.established() {
		s.d.Report.Note("what there is so far is kept in %s", l.root)
		return
	}
	s.d.Report.Note("everything is kept in %s; look around with:", l.root)
	for _, args := range [][]string{
		{"status"}, {"run", "list"}, {"backup", "list"}, {"postgres", "window", "--store", storeName}, {"journal", "verify"},
		{"repo", "check", "--identity", l.identity()},
	} {
		s.d.Report.Command(s.onEstate(args...))
	}
	s.d.Report.Command([]string{filepath.Join(s.server, "psql"), l.dsn()})
	s.d.Report.Note("end it with:")
	s.d.Report.Command(s.onEstate("protect", "stop"))
	s.d.Report.Command(s.onEstate("service", "stop", "--all"))
	s.d.Report.Command([]string{"rm", "-rf", l.root})
}

// onEstate is a relight command on the demonstration's estate as its user would type it.
func (s *stand) onEstate(args ...string) []string {
	return append([]string{s.o.Program, "--config", s.layout.config()}, args...)
}

// established says whether there is an estate, which something may run in.
func (s *stand) established() bool {
	_, err := os.Stat(s.layout.config())
	return err == nil
}

// tearDown stops what runs and removes what was made; nothing is removed while anything still runs in it.
func (s *stand) tearDown(ctx context.Context) error {
	if s.established() {
		_, stopped := s.relight(ctx, "protect", "stop")
		_, down := s.relight(ctx, "service", "stop", "--all")
		if err := errors.Join(stopped, down); err != nil {
			return &relight.Error{Op: "tear down the demonstration", Subject: s.layout.root, Err: err, Hint: "stop what still runs there, then remove the directory"}
		}
	}
	if err := s.layout.remove(); err != nil {
		return &relight.Error{Op: "tear down the demonstration", Subject: s.layout.root, Err: err, Hint: "look at what is left there, and remove it"}
	}
	return nil
}
