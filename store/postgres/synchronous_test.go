package postgres

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/toolboxai/relight"
)

// What the spool acknowledges must survive what the data directory does not.
func TestASpoolBesideTheDataDoesNotAcknowledge(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	data := filepath.Join(root, "data")
	check := func(s Synchronous, spool, want string) {
		t.Helper()
		err := s.CheckSpool("main", data, spool)
		if want == "" && err == nil {
			return
		}
		if err == nil || want == "" || !strings.Contains(err.Error(), want) || relight.HintOf(err) == "" || relight.CodeOf(err) != relight.CodeUsage {
			t.Errorf("%+v, spool %s: %v, hint %q; want %q", s, spool, err, relight.HintOf(err), want)
		}
	}
	if err := os.MkdirAll(filepath.Join(data, "pg_wal"), 0o700); err != nil {
		t.Fatal(err)
	}
	stated := Synchronous{SpoolOutside: "a volume of another array"}
	check(Synchronous{Repository: true}, filepath.Join(root, "spool"), "")
	check(Synchronous{}, filepath.Join(root, "spool"), "nobody has stated")
	check(Synchronous{SpoolOutside: "  "}, filepath.Join(root, "spool"), "nobody has stated")
	check(stated, filepath.Join(root, "not", "yet", "there"), "lie in one file system")
	other, err := os.MkdirTemp("/dev/shm", "relight")
	if err != nil {
		t.Skip("no second file system: ", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(other) })
	check(stated, other, "")
	if err := os.Remove(filepath.Join(data, "pg_wal")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(other, filepath.Join(data, "pg_wal")); err != nil {
		t.Fatal(err)
	}
	check(stated, filepath.Join(other, "spool"), "pg_wal lie in one file system")
}

func TestWhatAServerMustNotBeSetTo(t *testing.T) {
	t.Parallel()
	good := syncRow{commit: "on", names: standbyNames("main"), standby: "sync", state: "streaming"}
	block := &Synchronous{Repository: true}
	degrade := &Synchronous{Repository: true, Degrade: true}
	for name, c := range map[string]struct {
		with   *Synchronous
		change func(*syncRow)
		want   string
	}{
		"as it should be":              {block, func(*syncRow) {}, ""},
		"empty, to be armed":           {degrade, func(s *syncRow) { s.names, s.standby = "", "async" }, ""},
		"remote_write is as good":      {block, func(s *syncRow) { s.commit = "remote_write" }, ""},
		"remote_apply":                 {block, func(s *syncRow) { s.commit = "remote_apply" }, "commits would hang"},
		"remote_apply for a role":      {block, func(s *syncRow) { s.override = "app/" }, "role/database app/"},
		"local":                        {block, func(s *syncRow) { s.commit = "local" }, "do not wait"},
		"off":                          {block, func(s *syncRow) { s.commit = "off" }, "do not wait"},
		"a standby":                    {block, func(s *syncRow) { s.recovery = true }, "primary"},
		"emptied on the command line":  {block, func(s *syncRow) { s.names, s.standby, s.fixed = "", "async", true }, "command line"},
		"named on the command line":    {block, func(s *syncRow) { s.fixed = true }, ""},
		"and cannot degrade":           {degrade, func(s *syncRow) { s.fixed = true }, "could not degrade"},
		"others first":                 {block, func(s *syncRow) { s.names, s.standby = "FIRST 1 (replica, relight_main)", "potential" }, "first place"},
		"relight first":                {block, func(s *syncRow) { s.names = "FIRST 1 (relight_main, replica)" }, ""},
		"relight first cannot degrade": {degrade, func(s *syncRow) { s.names = "FIRST 1 (relight_main, replica)" }, "could not degrade"},
		"any of several":               {block, func(s *syncRow) { s.names, s.standby = "ANY 1 (relight_main, replica)", "quorum" }, "in relight's place"},
	} {
		s := good
		c.change(&s)
		if got := c.with.unfit("main", s); (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestARecoveredServerDoesNotWaitForRelight(t *testing.T) {
	t.Parallel()
	kept, dropped := withoutRecovery("synchronous_standby_names = '\"relight_main\"'\nwork_mem = '8MB'\n")
	if kept != "work_mem = '8MB'\n" || len(dropped) != 1 {
		t.Errorf("kept %q, dropped %v", kept, dropped)
	}
	kept, dropped = withoutRecovery("synchronous_standby_names = 'replica'\n") // the operator's, and not ours to decide
	if kept == "" || len(dropped) != 0 {
		t.Errorf("kept %q, dropped %v", kept, dropped)
	}
}
