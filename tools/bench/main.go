// Command bench measures relight beside pgBackRest and pg_basebackup: the same database, the same machine, one run.
//
// It makes a Debian root with PostgreSQL and pgBackRest (cached), and works in it by chroot, as its user postgres, inside mount and process
// namespaces of its own: whatever happens, no mount, server or daemon outlives it. It needs root, and mmdebstrap for the first run.
//
// Peers and relight take turns, each round in another order; the figure is the median. docs/benchmarks.md explains the method.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

type options struct {
	suite   string
	scale   int
	rounds  int
	cache   string
	work    string
	binary  string
	out     string
	only    string
	keep    bool
	reuse   bool
	verbose bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	o, err := parse()
	if err == nil {
		if os.Getenv(inside) == "" {
			err = enter(ctx)
		} else {
			err = run(ctx, o)
		}
	}
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) && os.Getenv(inside) == "" {
			os.Exit(1) // the child has said why
		}
		fmt.Fprintln(os.Stderr, "error: bench:", err)
		os.Exit(1)
	}
}

func parse() (options, error) {
	var o options
	home, err := os.UserCacheDir()
	if err != nil {
		return o, err
	}
	scale := 120
	if s := os.Getenv("BENCH_SCALE"); s != "" {
		if scale, err = strconv.Atoi(s); err != nil {
			return o, fmt.Errorf("BENCH_SCALE: %w", err)
		}
	}
	flag.StringVar(&o.suite, "suite", "trixie", "Debian suite whose PostgreSQL and pgBackRest are used: trixie (17, 2.55), bookworm (15, 2.45)")
	flag.IntVar(&o.scale, "scale", scale, "pgbench's scale; 25,000 rows of JSON come with each. 120 makes about 3 GB (BENCH_SCALE)")
	flag.IntVar(&o.rounds, "rounds", 3, "rounds")
	flag.StringVar(&o.cache, "cache", filepath.Join(home, "relight"), "where the Debian roots are kept")
	flag.StringVar(&o.work, "work", "", "empty directory to work in (default: one below the cache, removed afterwards)")
	flag.StringVar(&o.binary, "binary", "bin/relight", "the relight to be measured, a static binary")
	flag.StringVar(&o.out, "out", "", "write the results as JSON to this file")
	flag.StringVar(&o.only, "only", "", "only these parts, comma-separated: "+strings.Join(partNames(), ", "))
	flag.BoolVar(&o.keep, "keep", false, "keep the work directory")
	flag.BoolVar(&o.reuse, "reuse", false, "go on with the database of a work directory that -keep left")
	flag.BoolVar(&o.verbose, "verbose", false, "show the commands that are run")
	flag.Parse()
	if flag.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", flag.Arg(0))
	}
	if o.work == "" {
		o.work = filepath.Join(o.cache, "bench-"+o.suite)
	}
	for _, p := range []*string{&o.cache, &o.work, &o.binary} {
		if *p, err = filepath.Abs(*p); err != nil {
			return o, err
		}
	}
	return o, nil
}

// part is one group of measurements.
type part struct {
	name string
	do   func(*bench, context.Context) error
}

func parts() []part {
	return []part{
		{"limits", (*bench).limits}, {"full", (*bench).full}, {"restore", (*bench).restores}, {"incremental", (*bench).incrementals},
		{"wal", (*bench).wal}, {"exposure", (*bench).exposure}, {"replay", (*bench).replay}, {"engine", (*bench).engine},
	}
}

func partNames() []string {
	var out []string
	for _, p := range parts() {
		out = append(out, p.name)
	}
	return out
}

// bench is one run.
type bench struct {
	o     options
	jail  *jail
	pg    *cluster
	ours  *estate
	peer  *pgbackrest
	serve *daemon // relight serve, while it runs
	res   *results
}

func (b *bench) wants(name string) bool {
	return b.o.only == "" || strings.Contains(","+b.o.only+",", ","+name+",")
}

func run(ctx context.Context, o options) (err error) {
	j, err := newJail(ctx, o)
	if err != nil {
		return err
	}
	if !o.keep {
		defer func() { err = errors.Join(err, os.RemoveAll(o.work)) }()
	}
	b := &bench{o: o, jail: j, res: newResults(o)}
	defer func() {
		if b.serve != nil {
			err = errors.Join(err, b.serve.stop())
		}
		if b.pg != nil {
			err = errors.Join(err, b.pg.stop())
		}
	}()
	if err := b.prepare(ctx); err != nil {
		return err
	}
	for _, p := range parts() {
		if !b.wants(p.name) {
			continue
		}
		note("— %s", p.name)
		if err := p.do(b, ctx); err != nil {
			b.res.note("%s was not measured: %v", p.name, err)
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
	}
	return b.res.write(os.Stdout, o.out)
}

// prepare makes the cluster, turns relight's protection on while it is still empty, and fills it. So the base backup that protection takes by
// itself holds next to nothing, and the measured ones find an all but empty repository.
func (b *bench) prepare(ctx context.Context) error {
	began := time.Now()
	build := b.build
	if b.o.reuse {
		build = b.resume
	}
	if err := build(ctx); err != nil {
		return err
	}
	size, err := b.pg.value(ctx, "select sum(pg_database_size(oid)) from pg_database")
	if err != nil {
		return err
	}
	b.res.Database, err = strconv.ParseInt(size, 10, 64)
	note("the database has %d MB; made in %.0f s", b.res.Database/1_000_000, time.Since(began).Seconds())
	return errors.Join(err, b.describe(ctx))
}

func (b *bench) build(ctx context.Context) error {
	pg, err := newCluster(ctx, b.jail)
	if err != nil {
		return err
	}
	b.pg = pg
	if b.peer, err = newPgBackRest(ctx, b.jail, pg); err != nil {
		return err
	}
	if b.ours, err = newEstate(ctx, b.jail, pg); err != nil {
		return err
	}
	if err := b.protect(ctx); err != nil {
		return err
	}
	if err := pg.fill(ctx, b.o.scale); err != nil {
		return err
	}
	if err := b.unprotect(ctx); err != nil {
		return err
	}
	return b.ours.remember()
}

// resume takes up what an earlier run built and kept.
func (b *bench) resume(ctx context.Context) error {
	pg, err := findCluster(b.jail)
	if err != nil {
		return err
	}
	b.pg, b.ours, b.peer = pg, &estate{j: b.jail, pg: pg}, pgBackRest(b.jail, pg)
	return pg.start(ctx)
}

// describe records what is compared.
func (b *bench) describe(ctx context.Context) error {
	for name, argv := range map[string][]string{
		"PostgreSQL": {b.pg.bin + "/postgres", "--version"}, "pgBackRest": {"/usr/bin/pgbackrest", "version"}, "relight": {ourBinary, "version"},
	} {
		out, err := b.jail.output(ctx, argv...)
		if err != nil {
			out = "unknown" // relight has no such command everywhere
		}
		b.res.Versions[name] = strings.TrimSpace(out)
	}
	return nil
}

func note(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
