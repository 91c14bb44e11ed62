package host

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/toolboxai/relight"
)

// Command is a program to run.
type Command struct {
	Argv   []string // Argv[0] is looked up in the PATH of the child's environment
	Env    []string // "NAME=value", on top of MinimalEnv; the last of a name wins
	Dir    string
	User   *User // nil: as relight itself
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
	What   string         // for people, in the handle: "postgres recovering /data/pg"
	StopBy syscall.Signal // what Stop asks with; 0: SIGTERM (SIGINT is PostgreSQL's fast shutdown)

	// Started, when set, is called with the handle while the program is held at a gate. Its error ends the process
	// before it had any effect.
	Started func(ctx context.Context, h relight.Handle) error
}

// Runner starts programs on one host. Local is this host.
type Runner interface {
	Start(ctx context.Context, c Command) (*Process, error)
}

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// MinimalEnv is what every child gets: a path, a home and a locale that sorts and prints the same everywhere.
func MinimalEnv(home string) []string {
	if home == "" {
		home = "/"
	}
	return []string{"PATH=" + defaultPath, "HOME=" + home, "LANG=C.UTF-8"}
}

func (c Command) environment(token string) []string {
	home := os.Getenv("HOME")
	if c.User != nil {
		home = c.User.Home
	}
	all := append(MinimalEnv(home), c.Env...)
	return dedupe(append(all, markVariable+"="+token))
}

// dedupe keeps the last assignment of each name, in the order of first appearance.
func dedupe(env []string) []string {
	at := make(map[string]int, len(env))
	out := make([]string, 0, len(env))
	for _, kv := range env {
		name, _, _ := strings.Cut(kv, "=")
		if i, ok := at[name]; ok {
			out[i] = kv
			continue
		}
		at[name] = len(out)
		out = append(out, kv)
	}
	return out
}

func (c Command) check() error {
	if len(c.Argv) == 0 || c.Argv[0] == "" {
		return &relight.Error{Op: "start a program", Code: relight.CodeUsage, Err: fmt.Errorf("no program is named")}
	}
	for _, s := range append(append([]string{}, c.Argv...), c.Env...) {
		if strings.IndexByte(s, 0) >= 0 {
			return c.failed(fmt.Errorf("an argument or variable contains a zero byte"), "")
		}
	}
	if c.Dir == "" {
		return nil
	}
	if st, err := os.Stat(c.Dir); err != nil {
		return c.failed(fmt.Errorf("working directory: %w", err), "")
	} else if !st.IsDir() {
		return c.failed(fmt.Errorf("working directory %s is not a directory", c.Dir), "")
	}
	return nil
}

func (c Command) failed(err error, hint string) error {
	return &relight.Error{Op: "start", Subject: c.name(), Err: err, Hint: hint}
}

func (c Command) name() string {
	if c.What != "" {
		return c.What
	}
	return filepath.Base(c.Argv[0])
}

// find resolves the program the way the child would.
func (c Command) find(env []string) (string, error) {
	name := c.Argv[0]
	if strings.Contains(name, "/") {
		if !filepath.IsAbs(name) {
			name = filepath.Join(c.Dir, name)
		}
		abs, err := filepath.Abs(name)
		if err != nil {
			return "", c.failed(err, "")
		}
		if err := executable(abs); err != nil {
			return "", c.failed(err, "check the program's path and its permission to execute")
		}
		return abs, nil
	}
	path := lookup(env, "PATH")
	for dir := range strings.SplitSeq(path, ":") {
		if full := filepath.Join(dir, name); filepath.IsAbs(full) && executable(full) == nil {
			return full, nil
		}
	}
	return "", &relight.Error{Op: "start", Subject: c.name(), Code: relight.CodeNotFound,
		Err:  fmt.Errorf("program %q is not in PATH %s", name, path),
		Hint: "install it, or name it by its full path"}
}

func executable(path string) error {
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	if st.IsDir() || st.Mode()&0o111 == 0 {
		return fmt.Errorf("%s is not an executable file", path)
	}
	return nil
}

func lookup(env []string, name string) string {
	for _, kv := range env {
		if k, v, _ := strings.Cut(kv, "="); k == name {
			return v
		}
	}
	return ""
}
