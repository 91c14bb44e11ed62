//go:build pg

package postgres

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/internal/pgtest"
	"github.com/toolboxai/relight/store"
)

// TestTargetsDiskFillsDuringARestore: somebody else fills the disk while a restore writes. It ends with an error that says so and with nothing that would
// start; when there is room again, the same directory is completed.
func TestTargetsDiskFillsDuringARestore(t *testing.T) {
	t.Parallel()
	st := newPGStand(t)
	st.follow()
	st.srv.Exec(`create table kept as select g, repeat(md5(g::text), 20) v from generate_series(1, 60000) g`)
	st.backup()
	st.srv.Exec(`insert into kept select g, 'later' from generate_series(1, 1000) g`)
	st.durable()
	want := st.srv.Query(`select md5(string_agg(k::text, ' ' order by g, v)) from kept k`)

	disk := smallDisk(t, "size=400m,mode=0777")
	dir, fill := filepath.Join(disk, "restored"), filepath.Join(disk, "fill")
	var once sync.Once
	full := func(p relight.Progress) {
		if p.Done > 0 {
			once.Do(func() { fillUp(t, fill) })
		}
	}
	_, err := st.restoreInto(dir, relight.RecoveryTarget{Kind: relight.TargetLatest}, store.RestoreOptions{Progress: full})
	if !errors.Is(err, syscall.ENOSPC) && (err == nil || !strings.Contains(err.Error(), "No space left")) {
		t.Fatalf("restored onto a full disk: %v", err)
	}
	if hint := relight.HintOf(err); !strings.Contains(hint, "free space") {
		t.Errorf("no hint: %v", err)
	}
	if err := pgtest.At(t, pgtest.Root(t), dir).Command(t.Context(), "postgres", "-D", dir, "-c", "listen_addresses=", "--single", "postgres").Run(); err == nil {
		t.Error("what is not whole starts")
	}
	check(t, os.Remove(fill))
	_, err = st.restoreInto(dir, relight.RecoveryTarget{Kind: relight.TargetLatest}, store.RestoreOptions{Verify: true})
	check(t, err)
	srv := pgtest.At(t, pgtest.Root(t), dir)
	srv.Start()
	if got := srv.Query(`select md5(string_agg(k::text, ' ' order by g, v)) from kept k`); got != want {
		t.Errorf("the content differs: %s, want %s", got, want)
	}
	srv.Stop()
}

// smallDisk is a file system of its own, which needs root.
func smallDisk(t *testing.T, options string) string {
	t.Helper()
	dir := filepath.Join(pgtest.Root(t), "disk")
	check(t, os.Mkdir(dir, 0o755))
	if err := syscall.Mount("relight-test", dir, "tmpfs", 0, options); err != nil {
		t.Skipf("needs the right to mount: %v", err)
	}
	t.Cleanup(func() { check(t, syscall.Unmount(dir, syscall.MNT_DETACH)) })
	return dir
}

// fillUp writes until there is no room.
func fillUp(t *testing.T, path string) {
	f, err := os.Create(path)
	if err == nil {
		_, err = io.Copy(f, blanks{})
		_ = f.Close()
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("the disk does not fill: %v", err)
	}
}

// blanks never end.
type blanks struct{}

func (blanks) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
