//go:build pg

package postgres

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/internal/pgtest"
	"github.com/toolboxai/relight/store"
)

// The server writes what pg_backup_stop returns a second time: its backup history file has every line of the label, and two or three of its own.
func TestTrap01LabelAndTablespaceMapAreTheServers(t *testing.T) {
	t.Parallel()
	onEachMajor(t, func(t *testing.T, major int) {
		srv := pgtest.NewMajor(t, major, "--wal-segsize=1")
		srv.Start("checkpoint_timeout=1h", "wal_keep_size=0", "archive_mode=on", "archive_command=false") // a server that archives keeps its history files
		st := standOver(t, srv)
		space := filepath.Join(srv.Root, "a space")
		check(t, os.MkdirAll(space, 0o700))
		check(t, srv.Own(space))
		srv.Exec(fmt.Sprintf("create tablespace far location '%s'", space))
		oid := srv.Query(`select oid from pg_tablespace where spcname = 'far'`)
		st.follow()
		snap := st.backup()
		files, err := filepath.Glob(filepath.Join(srv.Dir, "pg_wal", "*.backup"))
		check(t, err)
		if len(files) != 1 {
			t.Fatalf("history files: %v", files)
		}
		history, err := os.ReadFile(files[0])
		check(t, err)
		var label strings.Builder
		for line := range strings.Lines(string(history)) {
			if !strings.HasPrefix(line, "STOP ") {
				label.WriteString(line)
			}
		}
		if got := st.content(snap.ID, "backup_label"); got != label.String() {
			t.Errorf("backup_label is %q, the server's %q", got, label.String())
		}
		if got, want := st.content(snap.ID, "tablespace_map"), oid+" "+space+"\n"; got != want {
			t.Errorf("tablespace_map is %q, not %q", got, want)
		}
	})
}

// A checkpoint in the midst of the copy is what the stored control file tells of: it was read after everything else.
func TestTrap02ControlFileIsCopiedLast(t *testing.T) {
	t.Parallel()
	st := newPGStand(t)
	st.follow()
	var once sync.Once
	var during relight.LSN
	snap, err := st.tryBackup(func(*Config) {}, store.BackupOptions{Progress: func(p relight.Progress) {
		if p.Phase != "copy" || p.Done < p.Total*3/4 {
			return
		}
		once.Do(func() {
			st.srv.Exec("checkpoint")
			var err error
			during, err = relight.ParseLSN(st.srv.Query("select checkpoint_lsn from pg_control_checkpoint()"))
			check(t, err)
		})
	}})
	check(t, err)
	control, err := parseControl([]byte(st.content(snap.ID, controlName)))
	check(t, err)
	if during == 0 || control.Checkpoint < during {
		t.Errorf("the stored control file tells of a checkpoint at %s; there was one at %s while files were copied", control.Checkpoint, during)
	}
}
