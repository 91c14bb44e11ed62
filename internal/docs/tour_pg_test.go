//go:build pg

package docs

import (
	"bytes"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/toolboxai/relight/internal/pgtest"
)

// The README's tour is a program: its commands, in one shell, as they stand there, by a user who is not root.
func TestTour(t *testing.T) {
	t.Parallel()
	tour, err := Section(read(t, "README.md"), "A tour in five minutes")
	if err != nil {
		t.Fatal(err)
	}
	blocks := Fences(tour, "sh")
	if len(blocks) < 8 {
		t.Fatalf("the tour has %d blocks: the search is broken", len(blocks))
	}
	home := pgtest.Root(t)
	build := exec.Command("go", "build", "-o", filepath.Join(home, "bin", "relight"), "./cmd/relight")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v: %s", err, out)
	}
	out, err := shell(t, home, strings.Join(blocks, ""))
	t.Logf("%s", out)
	if err != nil {
		_, serr := shell(t, home, "cd ~/relight-tour && ../bin/relight protect stop; ../bin/relight service stop --all; pg_ctl -D then stop")
		t.Fatalf("the tour ends with %v (tidied up: %v)", err, serr)
	}
	for _, want := range []string{
		"protected\n",                // status
		"exit code 6",                // the mistake is noticed
		"dry run of database-corrup", // and
		"completed",                  // the run
		"verified\n",                 // journal verify
	} {
		if !strings.Contains(out, want) {
			t.Errorf("the tour does not say %q", want)
		}
	}
	if got := strings.Count(out, "2 |    100"); got != 2 { // beside the live database, then in it
		t.Errorf("the deleted row was seen %d times, expected 2", got)
	}
	if _, err := os.Stat(filepath.Join(home, "relight-tour")); !os.IsNotExist(err) {
		t.Errorf("the tour leaves its directory: %v", err)
	}
}

// shell runs a script as a user who is not root, who lives in home.
func shell(t *testing.T, home, script string) (string, error) {
	t.Helper()
	bin, err := pgtest.BinDir()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", script)
	cmd.Dir, cmd.WaitDelay = home, 10*time.Second
	cmd.Env = []string{"HOME=" + home, "PATH=" + os.Getenv("PATH") + ":" + bin, "LC_ALL=C.UTF-8", "TZ=UTC", "USER=tourist"}
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if os.Geteuid() == 0 {
		uid, gid := postgres(t)
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uid, Gid: gid}
		if err := os.Chown(home, int(uid), int(gid)); err != nil {
			t.Fatal(err)
		}
	}
	file, err := os.Create(filepath.Join(t.TempDir(), "out")) // a pipe would wait for what protects in the background
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = file, file
	rerr := cmd.Run()
	out, err := os.ReadFile(file.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(bytes.TrimSpace(out)) + "\n", rerr
}

func postgres(t *testing.T) (uid, gid uint32) {
	t.Helper()
	u, err := user.Lookup("postgres")
	if err != nil {
		t.Fatal(err)
	}
	return number(t, u.Uid), number(t, u.Gid)
}

func number(t *testing.T, text string) uint32 {
	t.Helper()
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(n)
}
