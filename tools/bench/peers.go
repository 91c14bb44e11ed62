package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"
)

// pgbackrest is the peer, set up for speed: as many processes as there are processors, zstd at its fastest level, small files bundled, block incrementals, no
// encryption.
type pgbackrest struct {
	j    *jail
	pg   *cluster
	args []string
}

const (
	peerRepo   = mounted + "/peer/repo"
	peerConfig = mounted + "/peer/pgbackrest.conf"
)

func pgBackRest(j *jail, pg *cluster) *pgbackrest {
	return &pgbackrest{j: j, pg: pg, args: []string{"/usr/bin/pgbackrest", "--config=" + peerConfig, "--stanza=b"}}
}

func newPgBackRest(ctx context.Context, j *jail, pg *cluster) (*pgbackrest, error) {
	p := pgBackRest(j, pg)
	for _, dir := range []string{mounted + "/peer", peerRepo, mounted + "/peer/log", mounted + "/peer/lock"} {
		if err := os.MkdirAll(j.host(dir), 0o750); err != nil {
			return nil, err
		}
		if err := os.Chown(j.host(dir), j.uid, j.gid); err != nil {
			return nil, err
		}
	}
	config := fmt.Sprintf(`[global]
repo1-path=%s
log-path=%s/peer/log
lock-path=%[2]s/peer/lock
process-max=%[3]d
compress-type=zst
compress-level=1
start-fast=y
repo1-retention-full=99
repo1-bundle=y
%[4]s[b]
pg1-path=%[5]s
pg1-port=%[6]s
pg1-socket-path=%[2]s
`, peerRepo, mounted, runtime.NumCPU(), p.block(), data, port)
	if err := os.WriteFile(j.host(peerConfig), []byte(config), 0o644); err != nil {
		return nil, err
	}
	_, err := p.run(ctx, "stanza-create")
	return p, err
}

// block is the block incremental of pgBackRest 2.46 and later.
func (p *pgbackrest) block() string {
	if p.pg.summarizes() {
		return "repo1-block=y\n"
	}
	return ""
}

func (p *pgbackrest) run(ctx context.Context, args ...string) (usage, error) {
	return p.j.use(ctx, append(append([]string(nil), p.args...), args...)...)
}

// empty makes the repository new.
func (p *pgbackrest) empty(ctx context.Context) error {
	if err := p.j.remove(peerRepo); err != nil {
		return err
	}
	if err := os.Mkdir(p.j.host(peerRepo), 0o750); err != nil {
		return err
	}
	if err := os.Chown(p.j.host(peerRepo), p.j.uid, p.j.gid); err != nil {
		return err
	}
	_, err := p.run(ctx, "stanza-create")
	return err
}

// turn has finished WAL archived to pgBackRest until the returned function is called.
func (p *pgbackrest) turn(ctx context.Context) (func() error, error) {
	err := p.pg.archive(ctx, strings.Join(p.args, " ")+" archive-push %p")
	return func() error { return p.pg.archive(context.WithoutCancel(ctx), "/bin/true") }, err
}

// parts of a pgBackRest backup, from its log.
type peerBackup struct {
	usage
	start, wait float64 // seconds: until the backup began on the server; from its end to the last WAL
}

func (p *pgbackrest) backup(ctx context.Context, kind string) (peerBackup, error) {
	u, err := p.run(ctx, "--type="+kind, "--log-level-console=info", "backup")
	b := peerBackup{usage: u}
	if err != nil {
		return b, err
	}
	var first, begun, stopping, stopped time.Time
	for s := bufio.NewScanner(strings.NewReader(u.stdout)); s.Scan(); {
		at, err := time.Parse("2006-01-02 15:04:05.000", s.Text()[:min(23, len(s.Text()))])
		if err != nil {
			continue
		}
		switch line := s.Text(); {
		case first.IsZero():
			first = at
		case strings.Contains(line, "backup start archive"):
			begun = at
		case strings.Contains(line, "backup stop and wait"), strings.Contains(line, "execute exclusive backup stop"):
			stopping = at
		case strings.Contains(line, "new backup label"):
			stopped = at
		}
	}
	if !begun.IsZero() {
		b.start = begun.Sub(first).Seconds()
	}
	if !stopping.IsZero() && !stopped.IsZero() {
		b.wait = stopped.Sub(stopping).Seconds()
	}
	return b, nil
}

func (p *pgbackrest) size() (int64, error) { return p.j.sizeOf(peerRepo + "/backup") }

func (p *pgbackrest) restore(ctx context.Context, dir string, args ...string) (usage, error) {
	return p.run(ctx, append(append([]string{"--pg1-path=" + dir}, args...), "restore")...)
}
