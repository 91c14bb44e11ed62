package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/host"
	"github.com/toolboxai/relight/store/postgres/walfile"
)

// recover replays WAL under a server of our own, up to the target, checks, and shuts the server down.
func (r *restore) recover(ctx context.Context) (err error) {
	r.state.Progress = restoreReplaying
	if err := r.note(); err != nil {
		return err
	}
	place, err := host.MakePrivate("", placePrefix, r.clock)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, place.Remove()) }()
	r.used = append(r.used, place)
	if err := r.furnish(place.Path); err != nil {
		return err
	}
	wal, stop, err := r.serveWAL(ctx, place.Path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	srv, err := r.startServer(ctx, place.Path, wal)
	if err != nil {
		return err
	}
	defer func() {
		if srv.proc != nil { // on every path that did not shut it down
			err = errors.Join(err, srv.kill(ctx))
		}
	}()
	if err := r.follow(ctx, srv, wal); err != nil {
		return err
	}
	if err := r.afterPromotion(ctx, srv); err != nil {
		return errors.Join(err, srv.shutdown(ctx), r.disarm())
	}
	if err := errors.Join(r.check(ctx, srv), srv.shutdown(ctx)); err != nil {
		return errors.Join(err, r.tidy())
	}
	if err := r.tidy(); err != nil {
		return err
	}
	return r.checkStopped(ctx)
}

// checkStopped looks at every page once the server is down and nothing is written any more, and gives the verdict.
func (r *restore) checkStopped(ctx context.Context) error {
	if !r.o.Verify {
		return nil
	}
	began := r.clock()
	if c, err := readControl(r.layout.dir); err != nil {
		return err
	} else if !c.Checksums {
		r.checks = append(r.checks, relight.Check{Name: "page checksums", Verdict: relight.Skipped, Detail: "the cluster has none"})
	} else {
		report, err := r.s.VerifyPages(ctx, r.layout.dir, r.o.Workers, r.o.Progress)
		if err != nil {
			return err
		}
		r.checks = append(r.checks, report.asCheck(began, r.clock()))
	}
	r.phase("check", 0)
	if bad := failedChecks(r.checks); len(bad) > 0 {
		return r.s.fail("verify the recovery of", relight.CodeVerification, "the server is left stopped; look at it, or restore an earlier point", "%s", strings.Join(bad, "; "))
	}
	r.out.Verified = true
	return nil
}

// furnish makes a private directory ready for a server: with empty configuration and short paths for sockets, which only the server's user and root enter.
func (r *restore) furnish(place string) error {
	for name, text := range map[string]string{"postgresql.conf": "", "pg_hba.conf": "local all all trust\n", "pg_ident.conf": ""} {
		path := filepath.Join(place, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return err
		}
		if err := r.own(path); err != nil {
			return err
		}
	}
	if r.lent != "" {
		copied, err := lendProgram(r.lent, place)
		if err != nil {
			return err
		}
		r.lent = copied
	}
	return errors.Join(os.Chmod(place, 0o700), r.own(place))
}

// serveWAL answers the server's restore_command from the repository. stop ends it and waits.
func (r *restore) serveWAL(ctx context.Context, place string) (wal *WALServer, stop func() error, err error) {
	source := newPlannedWAL(r.r, r.s.c.Name, r.plan)
	if source.patches, err = r.spacePatches(); err != nil {
		return nil, nil, err
	}
	cache := filepath.Join(filepath.Dir(r.layout.dir), "."+filepath.Base(r.layout.dir)+".relight-wal")
	wal, err = NewWALServer(ctx, WALServerOptions{
		Repository: source, Store: r.s.c.Name, System: r.plan.Base.Facts.System, Socket: filepath.Join(place, "wal"), CacheDir: cache,
		Own: r.own, Wait: r.s.d.Sleep, Log: r.s.log,
	})
	if err != nil {
		return nil, nil, err
	}
	sctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan error, 1)
	go func() { done <- wal.Serve(sctx) }()
	return wal, func() error { cancel(); return <-done }, nil
}

// server is the postmaster that a restore runs.
type server struct {
	proc *host.Process
	log  *replayLog
	conn string
}

func (r *restore) startServer(ctx context.Context, place string, wal *WALServer) (*server, error) {
	log := newReplayLog(r.clock)
	user := &r.owner
	if os.Geteuid() != 0 {
		user = nil
	}
	argv := append([]string{filepath.Join(r.bin, "postgres"), "-D", r.layout.dir}, r.settings(place, wal)...)
	proc, err := r.s.host.Start(context.WithoutCancel(ctx), host.Command{
		Argv: argv, Dir: place, User: user, Stdout: log, Stderr: log, What: "postgres recovering " + r.layout.dir, StopBy: syscall.SIGINT, Started: r.started,
	})
	if err != nil {
		return nil, err
	}
	conn := fmt.Sprintf("host=%s port=5432 user=%s dbname=template1 sslmode=disable", place, quoteConn(r.plan.Base.Facts.Superuser))
	return &server{proc: proc, log: log, conn: conn}, nil
}

// started notes the server's process id in the directory, its handle in what it uses besides, and hands the handle on, before the server does anything.
func (r *restore) started(ctx context.Context, h relight.Handle) error {
	for _, p := range r.used {
		if err := p.Serve(h); err != nil {
			return err
		}
	}
	r.state.Server = h.PID
	if err := r.note(); err != nil || r.o.Started == nil {
		return err
	}
	return r.o.Started(ctx, h)
}

func quoteConn(v string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(v) + "'"
}

// settings are all that the server is told, each as an argument, so that nothing in the restored directory overrides it.
// Settings that could reach outside are off: archiving, replication, subscriptions, other libraries.
func (r *restore) settings(place string, wal *WALServer) []string {
	f := r.plan.Base.Facts.Settings
	segment := int(2 * r.plan.Base.Facts.SegmentSize >> 20) // of WAL; the server wants room for two
	set := [][2]string{
		{"config_file", filepath.Join(place, "postgresql.conf")}, {"hba_file", filepath.Join(place, "pg_hba.conf")}, {"ident_file", filepath.Join(place, "pg_ident.conf")},
		{"listen_addresses", ""}, {"unix_socket_directories", place}, {"unix_socket_permissions", "0700"}, {"port", "5432"}, {"ssl", "off"},
		{"archive_mode", "off"}, {"archive_command", ""}, {"archive_library", ""}, {"primary_conninfo", ""}, {"primary_slot_name", ""},
		{"synchronous_standby_names", ""}, {"max_logical_replication_workers", "0"}, {"hot_standby", "off"}, {"restart_after_crash", "off"},
		{"archive_cleanup_command", ""}, {"recovery_end_command", ""}, {"recovery_min_apply_delay", "0"},
		{"restore_command", wal.RestoreCommand(r.walGet())},
		{"max_connections", atLeast(f.MaxConnections, 100)}, {"max_worker_processes", atLeast(f.MaxWorkers, 8)}, {"max_wal_senders", atLeast(f.MaxWALSenders, 10)},
		{"max_prepared_transactions", atLeast(f.MaxPrepared, 64)}, {"max_locks_per_transaction", atLeast(f.MaxLocksPerXact, 64)},
		{"min_wal_size", atLeast(segment, 80) + "MB"}, {"max_wal_size", atLeast(segment, 1024) + "MB"},
		{"wal_level", "replica"}, {"shared_preload_libraries", r.s.c.Preload}, {"session_preload_libraries", ""}, {"local_preload_libraries", ""},
		{"huge_pages", "off"}, {"dynamic_shared_memory_type", "mmap"}, // which lies in the directory: nothing stays in memory where it is killed
		{"logging_collector", "off"}, {"log_destination", "stderr"}, {"log_line_prefix", ""}, {"lc_messages", "C"},
		{"log_timezone", "UTC"}, {"timezone", "UTC"}, {"log_min_messages", "warning"}, {"log_statement", "none"}, {"autovacuum", "off"}, {"jit", "off"},
		{"fsync", "on"}, {"full_page_writes", "on"}, {"zero_damaged_pages", "off"}, {"ignore_checksum_failure", "off"}, {"ignore_invalid_pages", "off"},
	}
	var args []string
	for _, kv := range append(set, r.targetSettings()...) {
		args = append(args, "-c", kv[0]+"="+kv[1])
	}
	return args
}

func atLeast(n, least int) string { return strconv.Itoa(max(n, least)) }

// targetSettings name exactly one target and clear the others, which ALTER SYSTEM may have left. The server takes arguments in order
// and objects to a second target, even an empty one, once one is set: so the target comes last.
func (r *restore) targetSettings() [][2]string {
	t := r.plan.Server
	inclusive := "on"
	if t.Exclusive {
		inclusive = "off"
	}
	set := [][2]string{
		{"recovery_target_timeline", strconv.FormatUint(uint64(r.plan.Timeline), 10)},
		{"recovery_target_inclusive", inclusive}, {"recovery_target_action", "promote"},
	}
	name, value := serverTarget(t)
	for _, other := range []string{"recovery_target", "recovery_target_time", "recovery_target_lsn", "recovery_target_xid", "recovery_target_name"} {
		if other != name {
			set = append(set, [2]string{other, ""})
		}
	}
	if name != "" {
		set = append(set, [2]string{name, value})
	}
	return set
}

// serverTarget is the server's setting for a target; none for the end of WAL.
func serverTarget(t relight.RecoveryTarget) (name, value string) {
	switch t.Kind {
	case relight.TargetImmediate:
		return "recovery_target", "immediate"
	case relight.TargetTime:
		return "recovery_target_time", stamp(t.Time)
	case relight.TargetLSN:
		return "recovery_target_lsn", t.LSN.String()
	case relight.TargetXID:
		return "recovery_target_xid", strconv.FormatUint(uint64(t.XID), 10)
	case relight.TargetName:
		return "recovery_target_name", t.Name
	}
	return "", ""
}

// walGet is the command that asks for WAL; the socket, the name and the destination follow.
func (r *restore) walGet() []string {
	command := slices.Clone(r.s.d.WALGet)
	if r.lent != "" {
		command[0] = r.lent
	}
	return command
}

// follow waits until the server is promoted, has ended, or makes no progress any more.
func (r *restore) follow(ctx context.Context, srv *server, wal *WALServer) error {
	total := int64(r.plan.End - r.plan.Base.Facts.StartLSN)
	moved, before := r.clock(), ""
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-srv.proc.Done():
			return r.died(srv, wal)
		case <-ctx.Done():
			return ctx.Err()
		case <-srv.log.changed:
		case <-tick.C:
		}
		st, stats := srv.log.state(), wal.Stats()
		if st.Ready {
			r.replayed(st)
			return nil
		}
		done := max(0, min(int64(stats.Reached)-int64(r.plan.Base.Facts.StartLSN), total))
		r.report("replay", done, total, "bytes")
		if now := fmt.Sprint(st.Heard, stats.Served); now != before {
			moved, before = r.clock(), now
		} else if r.clock().Sub(moved) > r.s.c.ReplayStall {
			return r.s.fail("replay WAL of", relight.CodeFailed, "look at the disk and the repository", "no sign of progress for %s\n%s", r.s.c.ReplayStall, st.Tail)
		}
	}
}

// replayed closes the phases of replay and promotion.
func (r *restore) replayed(st replayState) {
	wal := int64(r.plan.End - r.plan.Base.Facts.StartLSN)
	if done := st.RedoDone; !done.IsZero() && done.After(r.since) {
		r.out.Phases = append(r.out.Phases, relight.Phase{Name: "replay", Seconds: done.Sub(r.since).Seconds(), Bytes: wal})
		r.since = done
	} else {
		r.phase("replay", wal)
	}
	r.out.LastCommit = st.LastCommit
	if st.Stopped != "" {
		r.s.log.Info(st.Stopped)
	}
}

func (r *restore) died(srv *server, wal *WALServer) error {
	srv.proc = nil
	st := srv.log.state()
	code, hint := hintFor(st.Fatal)
	if failed := wal.Stats().Failed; failed != nil {
		return r.s.fail("replay WAL of", code, "repair the repository or its connection and run the restore again; nothing was promoted", "%w", failed)
	}
	return r.s.fail("replay WAL of", code, hint, "the recovering server ended:\n%s", st.Tail)
}

// afterPromotion makes sure that the server is where it had to come.
func (r *restore) afterPromotion(ctx context.Context, srv *server) error {
	conn, err := dialReady(ctx, srv.conn, r.s.d.Sleep)
	if err != nil {
		return err
	}
	defer closeConn(ctx, conn)
	var recovering bool
	var tl int64
	if err := conn.QueryRow(ctx, `select pg_is_in_recovery(), ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int8`).Scan(&recovering, &tl); err != nil {
		return fmt.Errorf("ask the recovered server where it is: %w", err)
	}
	r.out.NewLine = relight.TimelineID(tl)
	if recovering || r.out.NewLine <= r.plan.Timeline {
		return r.s.fail("check the recovery of", relight.CodeVerification, "", "the server was not promoted to a new timeline (it is on %d)", tl)
	}
	text, err := os.ReadFile(filepath.Join(r.layout.dir, walDir, walfile.HistoryName(r.out.NewLine)))
	if err != nil {
		return fmt.Errorf("read where the new timeline begins: %w", err)
	}
	path, err := walfile.ParseHistory(r.out.NewLine, string(text))
	if err != nil {
		return err
	}
	own, _ := walfile.Find(path, r.out.NewLine)
	last, _ := walfile.At(path, max(own.Begin, 1)-1)
	r.out.Reached = relight.Point{Timeline: last.Timeline, LSN: own.Begin, Time: r.out.LastCommit}
	if own.Begin < r.plan.Required {
		return r.s.fail("check the recovery of", relight.CodeVerification, "the WAL in the repository may be damaged; run `relight repo check`",
			"replay ended at %s and had to reach %s; pg_control is set aside so that nobody starts from this", own.Begin, r.plan.Required)
	}
	if err := r.askSpaces(ctx, conn); err != nil {
		return err
	}
	r.out.CoveredAt = r.covered(own.Begin)
	if r.out.LastCommit.IsZero() && own.Begin >= r.plan.reach.LastEnd {
		r.out.LastCommit = r.plan.reach.LastCommit
	}
	r.retain(ctx, conn)
	r.phase("promote", 0)
	return nil
}

// retain makes the receiver's slot before the server checkpoints on its new timeline: without it the first WAL of that timeline would be gone before protection
// begins again. A server that cannot have one is protected by the next base backup instead.
func (r *restore) retain(ctx context.Context, conn *pgx.Conn) {
	if !r.inPlace() {
		return
	}
	if _, err := conn.Exec(ctx, `select pg_create_physical_replication_slot($1, true)`, slotOf(r.s.c.Name)); err != nil {
		r.s.log.Warn("the new timeline's first WAL may not be retained until protection runs", "error", err)
	}
}

// covered is the latest server clock at which the server's WAL end was at or before what was recovered.
func (r *restore) covered(reached relight.LSN) time.Time {
	switch r.plan.Server.Kind {
	case relight.TargetLatest:
		return r.plan.reach.CoveredAt
	case relight.TargetTime:
		return r.plan.Server.Time
	}
	at := r.plan.Base.Facts.StopTime
	for _, p := range r.plan.Pieces {
		if covered := p.CoveredAt.time(); p.End <= reached && covered.After(at) {
			at = covered
		}
	}
	if r.out.LastCommit.After(at) {
		at = r.out.LastCommit
	}
	return at
}

// check runs what Verify asks for on the running server; checkStopped gives the verdict.
func (r *restore) check(ctx context.Context, srv *server) error {
	if !r.o.Verify {
		return nil
	}
	checks, err := r.s.checkServer(ctx, srv.conn, CheckOptions{Integrity: true, Create: true, Progress: r.o.Progress})
	r.checks = checks
	return err
}

func failedChecks(checks []relight.Check) []string {
	var out []string
	for _, c := range checks {
		if c.Verdict == relight.Failed || c.Verdict == relight.Unknown {
			out = append(out, c.Name+": "+c.Detail)
		}
	}
	return out
}

// disarm keeps anybody from starting a server that is known to lack data.
func (r *restore) disarm() error {
	path := filepath.Join(r.layout.dir, controlName)
	if err := r.disk.Rename(path, path+".unverified"); err != nil {
		return err
	}
	return r.disk.SyncDir(filepath.Dir(path))
}

// tidy removes what recovery leaves behind, and notes how the server was shut down. The old label stays: it tells what the directory was restored from (originOf).
func (r *restore) tidy() (err error) {
	disk, err := r.disk.OpenFS(r.layout.dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, disk.Close()) }()
	errs := []error{r.tidySpaces()}
	if c, err := readControl(r.layout.dir); err == nil && c.State == stateShutdown {
		r.state.Checkpoint = c.Checkpoint
		errs = append(errs, r.note())
	}
	for _, name := range []string{mapName + ".old", "recovery.signal", "postmaster.opts"} {
		errs = append(errs, drop(r.disk, filepath.Join(r.layout.dir, name)))
	}
	return errors.Join(append(errs, disk.Sync())...)
}

// shutdown ends the server cleanly and waits for it.
func (s *server) shutdown(ctx context.Context) error {
	if s.proc == nil {
		return nil
	}
	proc := s.proc
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Minute)
	defer cancel()
	if err := proc.Signal(syscall.SIGINT); err != nil {
		return err
	}
	if err := proc.Wait(ctx); err != nil {
		return fmt.Errorf("shut the recovered server down: %w", err) // srv.proc stays: the caller kills it
	}
	s.proc = nil
	return nil
}

// kill ends the server and all its processes now.
func (s *server) kill(ctx context.Context) error {
	proc := s.proc
	s.proc = nil
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	if err := proc.Signal(syscall.SIGQUIT); err != nil {
		slog.Debug("ask the server to quit", "error", err)
	}
	return proc.Stop(ctx, 5*time.Second)
}

// dialReady connects to a server that has just said that it is ready.
func dialReady(ctx context.Context, conn string, sleep func(context.Context, time.Duration) error) (*pgx.Conn, error) {
	for try := 0; ; try++ {
		pg, err := dial(ctx, conn)
		if err == nil || try == 50 {
			return pg, err
		}
		if err := sleep(ctx, 100*time.Millisecond); err != nil {
			return nil, err
		}
	}
}
