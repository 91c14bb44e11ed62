package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	data = mounted + "/pg"
	port = "5517"
)

// cluster is the PostgreSQL server that all protect.
type cluster struct {
	j      *jail
	bin    string
	server *daemon
	ask    *session
}

const settings = `
port = %s
listen_addresses = ''
unix_socket_directories = '%s'
shared_buffers = 1GB
max_wal_size = 8GB
max_wal_senders = 10
wal_keep_size = 32GB            # the WAL is replayed from a local directory, too
archive_mode = on
archive_command = '/bin/true'   # pgBackRest's while it is its turn
autovacuum = off                # it would come when it likes
%s
`

// findCluster finds the server's programs.
func findCluster(j *jail) (*cluster, error) {
	found, err := filepath.Glob(filepath.Join(j.root, "usr/lib/postgresql/*/bin/postgres"))
	if err != nil || len(found) != 1 {
		return nil, fmt.Errorf("%s has %d PostgreSQL servers, not one", j.root, len(found))
	}
	return &cluster{j: j, bin: strings.TrimPrefix(filepath.Dir(found[0]), j.root)}, nil
}

func newCluster(ctx context.Context, j *jail) (*cluster, error) {
	c, err := findCluster(j)
	if err != nil {
		return nil, err
	}
	if _, err := j.output(ctx, c.bin+"/initdb", "-D", data, "-k", "-A", "trust"); err != nil {
		return nil, err
	}
	more := ""
	if c.summarizes() {
		more = "summarize_wal = on"
	}
	f, err := os.OpenFile(j.host(data+"/postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	_, err = fmt.Fprintf(f, settings, port, mounted, more)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	return c, c.start(ctx)
}

// summarizes tells whether pg_basebackup has incrementals.
func (c *cluster) summarizes() bool {
	return !strings.Contains(c.bin, "/15/") && !strings.Contains(c.bin, "/16/")
}

func (c *cluster) start(ctx context.Context) error {
	var err error
	c.server, err = c.j.start(ctx, mounted+"/pg.log", syscall.SIGINT, c.bin+"/postgres", "-D", data)
	if err != nil {
		return err
	}
	for range 600 {
		if _, err = c.j.output(ctx, c.bin+"/pg_isready", "-q", "-h", mounted, "-p", port); err == nil {
			c.ask, err = c.session(ctx, "postgres")
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		time.Sleep(100 * time.Millisecond)
	}
	return fmt.Errorf("the server does not start: %w", err)
}

func (c *cluster) stop() error {
	if c.ask != nil {
		c.ask.close()
	}
	return c.server.stop()
}

func (c *cluster) psql(ctx context.Context, database string, statements ...string) error {
	argv := []string{c.bin + "/psql", "-h", mounted, "-p", port, "-qX", "-v", "ON_ERROR_STOP=1", database}
	for _, s := range statements {
		argv = append(argv, "-c", s)
	}
	_, err := c.j.output(ctx, argv...)
	return err
}

// fill makes the mixed database: pgbench's tables, and JSON documents.
func (c *cluster) fill(ctx context.Context, scale int) error {
	if _, err := c.j.output(ctx, c.bin+"/createdb", "-h", mounted, "-p", port, "bench"); err != nil {
		return err
	}
	if _, err := c.j.output(ctx, c.bin+"/pgbench", "-h", mounted, "-p", port, "-i", "-s", fmt.Sprint(scale), "-q", "bench"); err != nil {
		return err
	}
	return c.psql(ctx, "bench", fmt.Sprintf(`create table docs as select g id, md5(g::text)||md5((g*7)::text) k,
		jsonb_build_object('user',md5((g%%5000)::text),'score',random(),'path','/classes/'||(g%%977)||'/lesson/'||(g%%331),
			'note',repeat(md5((g%%20000)::text),4)) body,
		now()-random()*interval '90 days' ts from generate_series(1,%d) g`, 25_000*scale),
		"alter table docs add primary key(id)", "create index on docs(ts)", "vacuum", "checkpoint")
}

// touch changes one row on each of about 1 % of the heap pages.
func (c *cluster) touch(ctx context.Context, round int) error {
	for _, t := range []string{"docs set ts=now()", "pgbench_accounts set abalance=1"} {
		err := c.psql(ctx, "bench", fmt.Sprintf("update %s where (ctid::text::point)[0]::bigint %% 100 = %d and (ctid::text::point)[1]::int = 1", t, 7+round))
		if err != nil {
			return err
		}
	}
	return c.psql(ctx, "bench", "checkpoint")
}

// archive says where finished WAL goes.
func (c *cluster) archive(ctx context.Context, command string) error {
	return c.psql(ctx, "postgres", "alter system set archive_command = '"+command+"'", "select pg_reload_conf()")
}

func (c *cluster) value(_ context.Context, query string) (string, error) { return c.ask.value(query) }

// session is a psql that stays, for questions in quick succession.
type session struct {
	in   io.WriteCloser
	out  *bufio.Reader
	wait func() error
}

func (c *cluster) session(ctx context.Context, database string) (*session, error) {
	cmd := c.j.command(context.WithoutCancel(ctx), c.bin+"/psql", "-h", mounted, "-p", port, "-qXAt", "-v", "ON_ERROR_STOP=1", database)
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	return &session{in: in, out: bufio.NewReader(out), wait: cmd.Wait}, cmd.Start()
}

// value asks for one row.
func (s *session) value(query string) (string, error) {
	if _, err := fmt.Fprintf(s.in, "%s;\n\\echo .\n", query); err != nil {
		return "", err
	}
	var lines []string
	for {
		line, err := s.out.ReadString('\n')
		if err != nil {
			return "", fmt.Errorf("ask %q: %w", query, err)
		}
		if line = strings.TrimSuffix(line, "\n"); line == "." {
			return strings.Join(lines, "\n"), nil
		}
		lines = append(lines, line)
	}
}

func (s *session) close() {
	_ = s.in.Close()
	_ = s.wait()
}
