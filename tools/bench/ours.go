package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

const (
	ours     = mounted + "/ours" // configuration, state and repository
	vault    = ours + "/vault"
	identity = mounted + "/recovery.key"
	config   = ours + "/relight.yaml"
)

// estate is relight protecting the cluster: its command line, as a user calls it.
type estate struct {
	j    *jail
	pg   *cluster
	last snapshot
}

const estateText = `estate: bench
platform: process
state: state
runbooks: [runbooks]
repositories:
  vault: {url: "file://%s"}
stores:
  main:
    kind: postgres
    service: db
    data: %s
    binaries: %s
    connection: host=%s port=%s user=postgres dbname=postgres
    policy: {base_backup: 3650d}
services:
  db:
    store: main
    process: {command: [%[3]s/postgres, -D, %[2]s]}
`

func newEstate(ctx context.Context, j *jail, pg *cluster) (*estate, error) {
	e := &estate{j: j, pg: pg}
	for _, dir := range []string{ours, vault, ours + "/runbooks"} {
		if err := os.MkdirAll(j.host(dir), 0o755); err != nil {
			return nil, err
		}
		if err := os.Chown(j.host(dir), j.uid, j.gid); err != nil {
			return nil, err
		}
	}
	if err := os.WriteFile(j.host(config), fmt.Appendf(nil, estateText, vault, data, pg.bin, mounted, port), 0o644); err != nil {
		return nil, err
	}
	for _, args := range [][]string{{"key", "generate", identity}, {"repo", "init", "--recipient", identity, "--host", "bench"}, {"repo", "key-test", "--identity", identity}} {
		if _, err := e.relight(ctx, args...); err != nil {
			return nil, err
		}
	}
	return e, nil
}

func (e *estate) relight(ctx context.Context, args ...string) (usage, error) {
	return e.j.use(ctx, append([]string{ourBinary, "--config", config, "--json", "--no-input"}, args...)...)
}

// offers tells whether a command has what a later version brings.
func (e *estate) offers(ctx context.Context, text string, args ...string) bool {
	out, err := e.j.output(ctx, append(append([]string{ourBinary}, args...), "--help")...)
	return err == nil && strings.Contains(out, text)
}

// remember keeps the estate as it is now; fresh brings that back.
func (e *estate) remember() error { return e.copyAll(ours, ours+".first") }

func (e *estate) fresh() error {
	return errors.Join(e.j.remove(ours), e.copyAll(ours+".first", ours))
}

func (e *estate) copyAll(from, to string) error {
	out, err := exec.Command("cp", "-a", e.j.host(from), e.j.host(to)).CombinedOutput()
	if err != nil {
		return fmt.Errorf("copy %s: %w: %s", from, err, out)
	}
	return nil
}

// protect starts relight serve, and waits until the server's present WAL is in the repository.
func (b *bench) protect(ctx context.Context) error {
	if b.serve != nil {
		return nil
	}
	d, err := b.jail.start(ctx, mounted+"/serve.log", syscall.SIGTERM, ourBinary, "--config", config, "--verbose", "serve")
	if err != nil {
		return err
	}
	b.serve = d
	if _, err := b.ours.relight(ctx, "protect", "wait", "--timeout", "300s"); err != nil {
		return fmt.Errorf("%w\n%s", err, tail(d.log))
	}
	return nil
}

func (b *bench) unprotect(context.Context) error {
	if b.serve == nil {
		return nil
	}
	n, err := b.serve.memory()
	if err == nil {
		b.res.add("memory", "relight serve, most resident", "MB", "relight", float64(n)/1e6)
	}
	d := b.serve
	b.serve = nil
	return errors.Join(err, d.stop())
}

func tail(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-2000):])
}

// snapshot is the answer of relight backup create.
type snapshot struct {
	ID       string    `json:"id"`
	Finished time.Time `json:"finished"`
	Size     int64     `json:"size"`
	Stored   int64     `json:"stored"`
	Facts    struct {
		Start time.Time `json:"start_time"`
		Stop  time.Time `json:"stop_time"`
	} `json:"facts"`
}

func lastRecord(stdout string, into any) error {
	lines := strings.Split(strings.TrimSpace(stdout), "\n")
	return json.Unmarshal([]byte(lines[len(lines)-1]), into)
}

func (e *estate) backup(ctx context.Context, kind string) (usage, error) {
	u, err := e.relight(ctx, "backup", "create", "--kind", kind)
	if err != nil {
		return u, err
	}
	e.last = snapshot{}
	return u, lastRecord(u.stdout, &e.last)
}

// apart gives what a backup spent on the server's checkpoint (and on starting up), and on waiting for its last WAL (and on committing).
func (s snapshot) apart(u usage) (start, wait float64) {
	return s.Facts.Start.Sub(u.began).Seconds(), s.Finished.Sub(s.Facts.Stop).Seconds()
}

func (e *estate) size() (int64, error) {
	return e.j.sizeOf(vault+"/pack", vault+"/index", vault+"/snap")
}

// restored is the answer of relight postgres restore.
type restored struct {
	Seconds float64 `json:"seconds"`
	Phases  []struct {
		Name    string  `json:"name"`
		Seconds float64 `json:"seconds"`
		Bytes   int64   `json:"bytes"`
	} `json:"phases"`
}

func (r restored) phase(names ...string) float64 {
	var sum float64
	for _, p := range r.Phases {
		for _, n := range names {
			if p.Name == n {
				sum += p.Seconds
			}
		}
	}
	return sum
}

// copying is the part that ends with everything on disk, as pgBackRest's restore does: from the start of the program to the end of its copy.
func (r restored) copying(u usage) float64 { return u.wall - r.Seconds + r.phase("select", "copy") }

func (e *estate) restore(ctx context.Context, dir string, args ...string) (restored, usage, error) {
	var r restored
	u, err := e.relight(ctx, append([]string{"postgres", "restore", "--target", dir, "--identity", identity, "--confirm", "main"}, args...)...)
	if err != nil {
		return r, u, err
	}
	return r, u, lastRecord(u.stdout, &r)
}
