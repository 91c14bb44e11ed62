package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	sampleEvery = 20 * time.Millisecond
	drainWithin = 2 * time.Minute
)

// sample is the server's end of WAL on disk at one moment, and how much of it relight's receiver had synced by its own word.
type sample struct {
	at              time.Time
	flushed, synced int64
}

// sampler asks the server again and again until it is ended.
type sampler struct {
	ask  *session
	stop chan struct{}
	wg   sync.WaitGroup
	all  []sample
	err  error
}

const positions = `select pg_current_wal_flush_lsn() - '0/0', coalesce((select max(flush_lsn) - '0/0' from pg_stat_replication where application_name like 'relight%'), 0)`

func (b *bench) sample(ctx context.Context) (*sampler, error) {
	ask, err := b.pg.session(ctx, "postgres")
	if err != nil {
		return nil, err
	}
	s := &sampler{ask: ask, stop: make(chan struct{})}
	s.wg.Go(func() {
		defer ask.close()
		for {
			select {
			case <-s.stop:
				return
			case <-time.After(sampleEvery):
			}
			one, err := takeSample(ask)
			if err != nil {
				s.err = err
				return
			}
			s.all = append(s.all, one)
		}
	})
	return s, nil
}

func takeSample(ask *session) (sample, error) {
	at := time.Now() // before the question: what is measured against it can only look longer
	row, err := ask.value(positions)
	if err != nil {
		return sample{}, err
	}
	flushed, synced, _ := strings.Cut(row, "|")
	f, err := strconv.ParseInt(flushed, 10, 64)
	y, err2 := strconv.ParseInt(synced, 10, 64)
	return sample{at, f, y}, errors.Join(err, err2)
}

func (s *sampler) end() ([]sample, error) {
	close(s.stop)
	s.wg.Wait()
	return s.all, s.err
}

// wal measures how relight keeps up with a COPY at full speed.
func (b *bench) wal(ctx context.Context) error {
	if err := b.protect(ctx); err != nil {
		return err
	}
	rows := 12_500 * b.o.scale
	if err := b.pg.psql(ctx, "bench", "create table if not exists copied (like docs)",
		fmt.Sprintf("copy (select * from docs limit %d) to '%s/copy.csv'", rows, mounted)); err != nil {
		return err
	}
	for round := range b.o.rounds {
		err := turns(round, func() error { return b.copyIn(ctx, true) }, func() error { return b.copyIn(ctx, false) })
		if err != nil {
			return err
		}
	}
	return errors.Join(b.protect(ctx), b.jail.remove(mounted+"/copy.csv"))
}

// copyIn runs the COPY, with or without protection.
func (b *bench) copyIn(ctx context.Context, protected bool) error {
	if !protected {
		if err := b.unprotect(ctx); err != nil {
			return err
		}
	} else if err := b.protect(ctx); err != nil {
		return err
	}
	if err := b.pg.psql(ctx, "bench", "truncate copied", "checkpoint"); err != nil {
		return err
	}
	if err := b.jail.settle(mounted + "/copy.csv"); err != nil {
		return err
	}
	if !protected {
		began := time.Now()
		if err := b.pg.psql(ctx, "bench", "copy copied from '"+mounted+"/copy.csv'"); err != nil {
			return err
		}
		b.res.add("wal", "COPY without relight", "s", "relight", time.Since(began).Seconds())
		return nil
	}
	return b.copyWatched(ctx)
}

func (b *bench) copyWatched(ctx context.Context) error {
	w, err := watchRepository(b.jail.host(vault), 1<<24)
	if err != nil {
		return err
	}
	defer w.end()
	if _, err := b.ours.relight(ctx, "protect", "wait", "--timeout", "300s"); err != nil {
		return err
	}
	s, err := b.sample(ctx)
	if err != nil {
		return err
	}
	before, err := takeSample(b.pg.ask)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := b.pg.psql(ctx, "bench", "copy copied from '"+mounted+"/copy.csv'"); err != nil {
		return err
	}
	ended := time.Now()
	after, err := takeSample(b.pg.ask)
	if err != nil {
		return err
	}
	durable, err := w.reach(ctx, after.flushed, drainWithin)
	if err != nil {
		return err
	}
	all, err := s.end()
	if err != nil {
		return err
	}
	took := ended.Sub(began).Seconds()
	b.res.add("wal", "COPY with relight", "s", "relight", took)
	b.res.add("wal", "WAL written by the COPY", "MB/s", "relight", float64(after.flushed-before.flushed)/1e6/took)
	b.res.add("wal", "spool behind the server, at most", "MB", "relight", furthest(all, func(x sample) int64 { return x.flushed - x.synced })/1e6)
	b.res.add("wal", "repository behind the server, at most", "MB", "relight", furthest(all, func(x sample) int64 { return x.flushed - w.endAt(x.at) })/1e6)
	b.res.add("wal", "repository drained after the COPY's end", "s", "relight", durable.Sub(ended).Seconds())
	return nil
}

func furthest(all []sample, of func(sample) int64) float64 {
	var most int64
	for _, x := range all {
		if x.synced > 0 {
			most = max(most, of(x))
		}
	}
	return float64(most)
}

// exposure measures, under pgbench, how long WAL that the server has on disk is in no repository.
func (b *bench) exposure(ctx context.Context) error {
	if err := b.protect(ctx); err != nil {
		return err
	}
	seconds := min(60, max(10, b.o.scale/4))
	for range b.o.rounds {
		if err := b.exposed(ctx, seconds); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) exposed(ctx context.Context, seconds int) error {
	w, err := watchRepository(b.jail.host(vault), 1<<24)
	if err != nil {
		return err
	}
	defer w.end()
	if _, err := b.ours.relight(ctx, "protect", "wait", "--timeout", "300s"); err != nil {
		return err
	}
	s, err := b.sample(ctx)
	if err != nil {
		return err
	}
	u, err := b.jail.use(ctx, b.pg.bin+"/pgbench", "-h", mounted, "-p", port, "-n", "-c", "4", "-j", "2", "-T", strconv.Itoa(seconds), "bench")
	if err != nil {
		return err
	}
	all, err := s.end()
	if err != nil || len(all) == 0 {
		return errors.Join(err, errors.New("no samples"))
	}
	if _, err := w.reach(ctx, all[len(all)-1].flushed, drainWithin); err != nil {
		return err
	}
	var ages []float64
	for _, x := range all {
		at, ok := w.when(x.flushed)
		if !ok {
			return fmt.Errorf("position %d was never seen in the repository", x.flushed)
		}
		ages = append(ages, max(0, at.Sub(x.at).Seconds()))
	}
	slices.Sort(ages)
	b.res.add("exposure", "exposure, median", "s", "relight", ages[len(ages)/2])
	b.res.add("exposure", "exposure, 99 of 100", "s", "relight", ages[len(ages)*99/100])
	b.res.add("exposure", "exposure, most", "s", "relight", ages[len(ages)-1])
	for line := range strings.Lines(u.stdout) {
		if rest, ok := strings.CutPrefix(line, "tps = "); ok {
			if tps, err := strconv.ParseFloat(strings.Fields(rest)[0], 64); err == nil {
				b.res.add("exposure", "transactions meanwhile", "1/s", "relight", tps)
			}
		}
	}
	return nil
}

// replay measures how fast a recovering server gets its WAL: through relight from a sealed repository, or by cp from a local directory.
func (b *bench) replay(ctx context.Context) error {
	if err := b.protect(ctx); err != nil {
		return err
	}
	local := mounted + "/local"
	if err := b.jail.remove(local); err != nil {
		return err
	}
	if _, err := b.plain(ctx, local); err != nil { // both bases begin at about the same position
		return err
	}
	if _, err := b.ours.backup(ctx, "full"); err != nil {
		return err
	}
	base := b.ours.last
	if err := b.pg.psql(ctx, "bench", "create table if not exists copied (like docs)", "truncate copied",
		fmt.Sprintf("insert into copied select * from docs limit %d", 12_500*b.o.scale), "update pgbench_accounts set abalance = abalance + 1 where aid % 10 = 0",
		"checkpoint", "select pg_create_restore_point('bench')", "select pg_switch_wal()", "select pg_sleep(1)"); err != nil {
		return err
	}
	if _, err := b.ours.relight(ctx, "protect", "wait", "--timeout", "300s"); err != nil {
		return err
	}
	if err := b.copySegments(); err != nil {
		return err
	}
	for round := range b.o.rounds {
		err := turns(round, func() error { return b.replayOurs(ctx, base.ID) }, func() error { return b.replayLocal(ctx, local) })
		if err != nil {
			return err
		}
	}
	return b.jail.remove(local, mounted+"/segments", ourDir)
}

// copySegments puts the server's finished WAL where cp finds it.
func (b *bench) copySegments() error {
	if err := b.jail.directory(mounted + "/segments"); err != nil {
		return err
	}
	entries, err := os.ReadDir(b.jail.host(data + "/pg_wal"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if len(e.Name()) != 24 {
			continue
		}
		to := b.jail.host(mounted + "/segments/" + e.Name())
		if err := errors.Join(copyFile(b.jail.host(data+"/pg_wal/"+e.Name()), to, 0o600), os.Chown(to, b.jail.uid, b.jail.gid)); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) replayOurs(ctx context.Context, snapshot string) error {
	if err := b.jail.remove(ourDir); err != nil {
		return err
	}
	if err := b.jail.settle(vault); err != nil {
		return err
	}
	r, _, err := b.ours.restore(ctx, ourDir, "--at", "name:bench", "--snapshot", snapshot)
	if err != nil {
		return err
	}
	b.res.add("replay", "replay", "s", "relight", r.phase("replay"))
	for _, p := range r.Phases {
		if p.Name == "replay" {
			b.res.add("replay", "replayed WAL", "MB", "relight", float64(p.Bytes)/1e6)
		}
	}
	return nil
}

// replayLocal recovers a plain base with the settings that relight recovers with, and reads off the server's log when replay is done.
func (b *bench) replayLocal(ctx context.Context, base string) error {
	dir := mounted + "/replayed"
	if out, err := exec.Command("cp", "-a", b.jail.host(base), b.jail.host(dir)).CombinedOutput(); err != nil {
		return fmt.Errorf("copy: %w: %s", err, out)
	}
	defer func() { _ = b.jail.remove(dir) }()
	signal := b.jail.host(dir + "/recovery.signal")
	if err := errors.Join(os.WriteFile(signal, nil, 0o600), os.Chown(signal, b.jail.uid, b.jail.gid)); err != nil {
		return err
	}
	empty, hba := mounted+"/empty.conf", mounted+"/hba.conf"
	if err := errors.Join(os.WriteFile(b.jail.host(empty), nil, 0o644), os.WriteFile(b.jail.host(hba), []byte("local all all trust\n"), 0o644)); err != nil {
		return err
	}
	if err := b.jail.settle(mounted + "/segments"); err != nil {
		return err
	}
	argv := []string{b.pg.bin + "/postgres", "-D", dir}
	for _, set := range []string{"config_file=" + empty, "hba_file=" + hba, "ident_file=" + empty, "listen_addresses=", "unix_socket_directories=" + mounted + "/tmp", "port=5518",
		"hot_standby=off", "restart_after_crash=off", "max_connections=100", "max_worker_processes=8", "max_wal_senders=10", "max_prepared_transactions=64",
		"wal_level=replica", "huge_pages=off", "logging_collector=off", "log_line_prefix=", "autovacuum=off", "jit=off", "log_min_messages=warning",
		"restore_command=cp " + mounted + "/segments/%f %p", "recovery_target_timeline=1", "recovery_target_name=bench", "recovery_target_action=promote"} {
		argv = append(argv, "-c", set)
	}
	c := b.jail.command(context.WithoutCancel(ctx), argv...)
	stderr, err := c.StderrPipe()
	if err != nil {
		return err
	}
	began := time.Now()
	if err := c.Start(); err != nil {
		return err
	}
	var took float64
	var said []string
	for s := bufio.NewScanner(stderr); s.Scan(); {
		said = append(said, s.Text())
		if strings.Contains(s.Text(), "redo done at") {
			took = time.Since(began).Seconds()
		}
		if strings.Contains(s.Text(), "ready to accept connections") || ctx.Err() != nil {
			_ = c.Process.Signal(syscall.SIGINT)
		}
	}
	_ = c.Wait() // how it was told to end
	if took == 0 {
		return fmt.Errorf("the server did not replay:\n%s", strings.Join(said, "\n"))
	}
	b.res.add("replay", "replay", "s", "cp from a local directory", took)
	return nil
}
