//go:build pg

package cli_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/toolboxai/relight/internal/pgtest"
)

// TestScriptPostgres runs what needs a real server: testdata/pg/*.txt. The servers are run by relight's own process platform.
func TestScriptPostgres(t *testing.T) {
	t.Parallel()
	if _, err := pgtest.BinDir(); err != nil {
		t.Fatal(err)
	}
	p := params("testdata/pg")
	p.WorkdirRoot = pgtest.Root(t)
	p.Setup = func(e *testscript.Env) error {
		program, err := exec.LookPath("relight")
		if err != nil {
			return err
		}
		e.Vars = append(e.Vars, "TMPDIR=/tmp") // the server's user must get to relight and to its sockets
		return errors.Join(setup(e), os.Chmod(filepath.Dir(program), 0o755), os.Chmod(filepath.Dir(filepath.Dir(program)), 0o755))
	}
	p.Cmds["cluster"], p.Cmds["sql"], p.Cmds["single"], p.Cmds["tmpfs"] = cluster, ask, single, tmpfs
	p.Cmds["scratch"], p.Cmds["demonstrates"], p.Cmds["standby"] = scratch, demonstrates, standby
	testscript.Run(t, p)
}

const pgEstate = `estate: %[1]s
state: %[2]s/state-%[1]s
repositories:
  vault: {url: %[3]s/vault}
stores:
  main:
    kind: postgres
    service: db
    data: %[3]s/db/main
    connection: host=%[3]s/run port=5432 user=postgres dbname=postgres
    binaries: %[4]s
    evidence: %[3]s/evidence
    sandbox: %[3]s/sandbox
    invariants:
      - {name: accounts balance, database: postgres, query: "select coalesce(sum(amount), 0) from account", expect: "0"}
services:
  db:
    tier: 1
    store: main
    process:
      command: [%[4]s/postgres, -D, %[3]s/db/main]
      user: "%[5]s"
      directory: /
      stop_signal: INT
      ready: [%[4]s/pg_isready, -q, -h, %[3]s/run, -p, "5432"]
`

const pgSettings = `
listen_addresses = ''
unix_socket_directories = '%s'
dynamic_shared_memory_type = mmap
timezone = 'UTC'
log_timezone = 'UTC'
lc_messages = 'C'
`

// cluster NAME makes a cluster below $NAME, an estate for it in NAME.yaml with a repository and its key NAME.key, and starts the server.
func cluster(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: cluster NAME")
	}
	name := args[0]
	root := room(ts, name)
	data := filepath.Join(root, "db/main")
	bin, owner := server(ts)
	ts.Check(pgtest.MakeCluster(bin, owner, data))
	appendTo(ts, filepath.Join(data, "postgresql.conf"), fmt.Sprintf(pgSettings, filepath.Join(root, "run")))
	config := describe(ts, name)
	for _, args := range [][]string{{"key", "generate", name + ".key"}, {"repo", "init", "--host", name, "--recipient", name + ".key"},
		{"service", "start", "--service", "db"}, {"service", "wait", "--service", "db", "--timeout", "60s"}} {
		ts.Check(ts.Exec("relight", append([]string{"--config", config}, args...)...))
	}
	ts.Setenv("RELIGHT_CONFIG", config)
}

// standby NAME OF makes a standby of the running cluster OF below $NAME, starts it, and describes it in NAME.yaml as another host that protects the same store in
// OF's repository.
func standby(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: standby NAME OF")
	}
	name, of := args[0], args[1]
	root := room(ts, name)
	data := filepath.Join(root, "db/main")
	byServer(ts, "pg_basebackup", "-D", data, "-R", "-c", "fast", "--no-sync", "-h", filepath.Join(ts.Getenv(of), "run"), "-U", "postgres")
	appendTo(ts, filepath.Join(data, "postgresql.conf"), fmt.Sprintf("unix_socket_directories = '%s'\n", filepath.Join(root, "run")))
	config := describe(ts, name)
	replace(ts, false, []string{config, root + "/vault", ts.Getenv(of) + "/vault"})
	ts.Check(os.MkdirAll(ts.MkAbs("state-"+name+"/credentials"), 0o755))
	for _, args := range [][]string{{"key", "enrol", name, "--identity", of + ".key", "--credential", "state-" + name + "/credentials/vault.json"},
		{"service", "start", "--service", "db"}, {"service", "wait", "--service", "db", "--timeout", "60s"}} {
		ts.Check(ts.Exec("relight", append([]string{"--config", config}, args...)...))
	}
}

// room makes the directory $NAME of a cluster, with what its server needs.
func room(ts *testscript.TestScript, name string) string {
	root, err := os.MkdirTemp(pgtest.Place(), "rlcli") // beside the estate, on one file system
	ts.Check(err)
	ts.Defer(func() { ts.Check(os.RemoveAll(root)) })
	ts.Check(os.Chmod(root, 0o755))
	ts.Setenv(name, root)
	for _, dir := range []string{"db", "run", "vault", "evidence", "sandbox"} {
		ts.Check(os.Mkdir(filepath.Join(root, dir), 0o755))
	}
	if os.Geteuid() == 0 {
		uid, gid := postgresIDs(ts)
		for _, dir := range []string{"db", "run"} {
			ts.Check(os.Chown(filepath.Join(root, dir), int(uid), int(gid)))
		}
	}
	return root
}

// server gives PostgreSQL's binaries, and who must run them: "" is the test's own user.
func server(ts *testscript.TestScript) (bin, owner string) {
	bin, err := pgtest.BinDir()
	ts.Check(err)
	if os.Geteuid() == 0 {
		owner = "postgres"
	}
	return bin, owner
}

// describe writes the estate of a cluster, and ends what runs of it when the script is over.
func describe(ts *testscript.TestScript, name string) string {
	root := ts.Getenv(name)
	bin, owner := server(ts)
	config := ts.MkAbs(name + ".yaml")
	ts.Check(os.WriteFile(config, []byte(fmt.Sprintf(pgEstate, name, ts.Getenv("WORK"), root, bin, owner)), 0o644))
	ts.Defer(func() {
		stopAll(ts, config)
		pgtest.Forget(root)
	})
	return config
}

// byServer runs one of PostgreSQL's programs as the server's user.
func byServer(ts *testscript.TestScript, program string, args ...string) {
	bin, err := pgtest.BinDir()
	ts.Check(err)
	if out, err := asServer(ts, filepath.Join(bin, program), args...).CombinedOutput(); err != nil {
		ts.Fatalf("%s: %v: %s", program, err, out)
	}
}

func appendTo(ts *testscript.TestScript, path, text string) {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	ts.Check(err)
	_, err = f.WriteString(text)
	ts.Check(errors.Join(err, f.Close()))
}

// stopAll ends what runs of an estate when its script is over.
func stopAll(ts *testscript.TestScript, config string) {
	for _, args := range [][]string{{"protect", "stop"}, {"service", "stop", "--all"}} {
		if err := ts.Exec("relight", append([]string{"--config", config}, args...)...); err != nil {
			ts.Logf("%v: %v: %s", args, err, ts.ReadFile("stderr"))
		}
	}
}

func postgresIDs(ts *testscript.TestScript) (uid, gid uint32) {
	u, err := user.Lookup("postgres")
	ts.Check(err)
	i, err := strconv.ParseUint(u.Uid, 10, 32)
	ts.Check(err)
	j, err := strconv.ParseUint(u.Gid, 10, 32)
	ts.Check(err)
	return uint32(i), uint32(j)
}

// asServer prepares a program that the server's user runs.
func asServer(ts *testscript.TestScript, program string, args ...string) *exec.Cmd {
	cmd := exec.Command(program, args...)
	cmd.Dir, cmd.Env = "/", []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C.UTF-8", "TZ=UTC"}
	if os.Geteuid() == 0 {
		uid, gid := postgresIDs(ts)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
	}
	return cmd
}

// sql NAME STATEMENT… asks the running server of a cluster; answers go to stdout.
func ask(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: sql NAME STATEMENT…")
	}
	argv := []string{"-XAtq", "-v", "ON_ERROR_STOP=1", "-h", filepath.Join(ts.Getenv(args[0]), "run"), "-U", "postgres", "-d", "postgres"}
	for _, statement := range args[1:] {
		argv = append(argv, "-c", statement)
	}
	ts.Check(ts.Exec("psql", argv...))
}

// single DIRECTORY QUERY WANT opens a stopped data directory with the server's single-user mode and compares the one value that a query gives.
func single(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: single DIRECTORY QUERY WANT")
	}
	bin, err := pgtest.BinDir()
	ts.Check(err)
	if _, err := os.Stat(filepath.Join(args[0], "postmaster.pid")); err == nil {
		ts.Fatalf("a server runs in %s", args[0])
	}
	cmd := asServer(ts, filepath.Join(bin, "postgres"), "--single", "-j", "-D", args[0], "postgres")
	cmd.Stdin = strings.NewReader(args[1] + ";\n\n")
	out, err := cmd.CombinedOutput()
	if err != nil {
		ts.Fatalf("postgres --single: %v: %s", err, out)
	}
	_, rest, ok := strings.Cut(string(out), `= "`)
	value, _, _ := strings.Cut(rest, `"`)
	if !ok || value != args[2] {
		ts.Fatalf("%s gives %q, expected %q: %s", args[1], value, args[2], out)
	}
}

// tmpfs DIRECTORY SIZE makes a small file system of its own, as root.
func tmpfs(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: tmpfs DIRECTORY SIZE")
	}
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o755))
	ts.Check(syscall.Mount("relight-test", dir, "tmpfs", 0, "size="+args[1]+",mode=0755"))
	ts.Defer(func() {
		err := syscall.Unmount(dir, 0)
		if err != nil { // something still runs in it, which is an error; the mount goes all the same
			_ = syscall.Unmount(dir, syscall.MNT_DETACH)
		}
		ts.Check(err)
	})
}
