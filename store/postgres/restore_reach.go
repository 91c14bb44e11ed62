package postgres

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/host"
)

// placePrefix begins the names of a restore's private directories.
const placePrefix = "relight-"

// maxSocketPath is the length of a unix socket's address on Linux, without its final zero.
const maxSocketPath = 107

// reachable makes sure, before anything is touched, that the server's user gets to what a recovery needs: an ordinary user's server that cannot enter
// the temporary directory or run relight would fail only after the old data was set aside.
func (r *restore) reachable(ctx context.Context) error {
	if n := len(filepath.Join(os.TempDir(), placePrefix+"4294967295", ".s.PGSQL.5432")); n > maxSocketPath {
		return r.s.fail("restore", relight.CodeUsage, "set TMPDIR to a directory with a shorter name, such as /tmp", "sockets in %s would have names of %d bytes, and %d are allowed",
			os.TempDir(), n, maxSocketPath)
	}
	if os.Geteuid() != 0 {
		return nil // the server's user is the one that asks
	}
	hints := map[string]string{
		os.TempDir():               "set TMPDIR to a directory that every user may enter, such as /tmp",
		filepath.Dir(r.layout.dir): "let that user enter the directory and those above it, or restore into another",
	}
	for _, sp := range r.layout.spaces {
		at := nearest(filepath.Dir(sp.Place))
		if hints[at] == "" {
			hints[at] = fmt.Sprintf("let that user enter the directory and those above it, or give tablespace %s another place: --tablespace %s=DIRECTORY", sp.label(), sp.Location)
		}
	}
	if err := r.lend(ctx, hints); err != nil {
		return err
	}
	closed, err := r.closed(ctx, hints)
	if err != nil || closed == "" {
		return err
	}
	return r.s.fail("restore", relight.CodeUsage, hints[closed], "%s cannot be used by user %s", closed, r.owner.Name)
}

// nearest is path, or what exists above it.
func nearest(path string) string {
	for !exists(path) && path != filepath.Dir(path) {
		path = filepath.Dir(path)
	}
	return path
}

// lend finds out whether the server's user can run relight where it lies. Where it cannot, as in root's home directory, it will be lent a copy; a temporary
// directory from which nothing may be run is then one more thing that stands in the way.
func (r *restore) lend(ctx context.Context, hints map[string]string) error {
	command := r.s.d.WALGet
	if len(command) == 0 || !strings.Contains(command[0], "/") {
		return nil
	}
	closed, err := r.closed(ctx, map[string]string{command[0]: ""})
	if err != nil || closed == "" {
		return err
	}
	trial, err := host.MakePrivate("", placePrefix, r.clock)
	if err != nil {
		return err
	}
	defer func() { _ = trial.Remove() }() // it holds nothing but the trial
	if err := os.Chmod(trial.Path, 0o755); err != nil {
		return err
	}
	copied, err := lendProgram(command[0], trial.Path)
	if err != nil {
		return err
	}
	if closed, err = r.closed(ctx, map[string]string{copied: ""}); err != nil {
		return err
	}
	if closed != "" {
		hints[command[0]] = "install relight where every user may run it, such as /usr/local/bin: the recovering server fetches its log with it"
		return nil
	}
	r.lent = command[0]
	return nil
}

// lendProgram puts a copy of a program into dir.
func lendProgram(program, dir string) (string, error) {
	b, err := os.ReadFile(program)
	if err != nil {
		return "", fmt.Errorf("lend the server's user %s: %w", program, err)
	}
	to := filepath.Join(dir, "relight")
	return to, os.WriteFile(to, b, 0o755)
}

// closed is the first of the paths that the server's user cannot enter or run; "" when all are open.
func (r *restore) closed(ctx context.Context, paths map[string]string) (string, error) {
	argv := []string{"/bin/sh", "-c", `for p; do test -x "$p" || echo "$p"; done`, "sh"}
	for path := range paths {
		argv = append(argv, path)
	}
	out, err := host.Output(ctx, r.s.host, host.Command{Argv: argv, Dir: "/", User: &r.owner, What: "look where the server's user gets"})
	if err != nil {
		return "", fmt.Errorf("look where the server's user gets: %w", err)
	}
	first, _, _ := strings.Cut(string(out), "\n")
	return first, nil
}
