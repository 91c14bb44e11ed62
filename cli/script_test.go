package cli_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/toolboxai/relight/cli"
)

// The test binary is relight when it is called so: scripts, wal-get and serve run it as a real process.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"relight": func() {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		code := cli.Main(ctx, append(called(), os.Args[1:]...), cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr})
		stop()
		os.Exit(code)
	}})
}

// called is the program as it was called, of which testscript leaves the last element in os.Args.
func called() []string {
	line, err := os.ReadFile("/proc/self/cmdline")
	program, _, ok := strings.Cut(string(line), "\x00")
	if err != nil || !ok {
		return os.Args[:1]
	}
	return []string{program}
}

// TestScript runs what needs no server: testdata/script/*.txt. Short is for the race detector, which makes each process dear: only scripts whose commands do much at
// a time are run.
func TestScript(t *testing.T) {
	t.Parallel()
	p := params("testdata/script")
	if testing.Short() {
		p.Dir, p.Files = "", []string{"testdata/script/run.txt", "testdata/script/two-hosts.txt", "testdata/script/repository.txt"}
	}
	testscript.Run(t, p)
}

func params(dir string) testscript.Params {
	return testscript.Params{Dir: dir, RequireUniqueNames: true, Setup: setup, Condition: condition, Cmds: map[string]func(*testscript.TestScript, bool, []string){
		"exits": exits, "jsonl": jsonl, "capture": capture, "refuses": refuses, "replace": replace, "snapshot": treeSnapshot, "untouched": untouched, "nobody": asNobody, "sqlite": sqlite,
	}}
}

func setup(e *testscript.Env) error {
	e.Vars = append(e.Vars, "USER=tester", "RELIGHT_CONFIG=", "RELIGHT_CONFIRM=", "TZ=UTC", "LC_ALL=C.UTF-8")
	return nil
}

func condition(name string) (bool, error) {
	if name == "root" {
		return os.Geteuid() == 0, nil
	}
	return false, errors.New("unknown condition " + name)
}

// exits N COMMAND… asserts an exit code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := code(ts, ts.Exec(args[1], args[2:]...))
	if got != want {
		ts.Fatalf("exit code %d, expected %d", got, want)
	}
}

func code(ts *testscript.TestScript, err error) int {
	var ended *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &ended):
		return ended.ExitCode()
	default:
		ts.Fatalf("run: %v", err)
		return -1
	}
}

// refuses CODE COMMAND… asserts an exit code, silence on stdout, and an error with a hint as the last two lines of stderr.
func refuses(ts *testscript.TestScript, neg bool, args []string) {
	exits(ts, neg, args)
	if out := ts.ReadFile("stdout"); out != "" {
		ts.Fatalf("stdout is not empty: %s", out)
	}
	said := ts.ReadFile("stderr")
	if !regexp.MustCompile(`(?s)(^|\n)error: [^\n]+.*\nhint: [^\n]+\n$`).MatchString(said) {
		ts.Fatalf("stderr does not end with an error and a hint: %s", said)
	}
	for _, bad := range []string{"goroutine ", "panic", "%!", ".go:"} {
		if strings.Contains(said, bad) {
			ts.Fatalf("stderr holds %q: %s", bad, said)
		}
	}
}

// jsonl [STREAM] asserts that stdout is lines of JSON objects; with STREAM the first is the header of that stream.
func jsonl(ts *testscript.TestScript, neg bool, args []string) {
	lines := strings.Split(strings.TrimSuffix(ts.ReadFile("stdout"), "\n"), "\n")
	for i, line := range lines {
		var record map[string]any
		if err := json.Unmarshal([]byte(line), &record); err != nil {
			ts.Fatalf("line %d is no JSON object: %v: %s", i+1, err, line)
		}
		if i == 0 && len(args) == 1 && (record["type"] != "header" || record["stream"] != args[0] || record["version"] != float64(1)) {
			ts.Fatalf("the first record is no header of %s: %s", args[0], line)
		}
	}
}

// capture NAME REGEXP keeps the first match in stdout (or its first group) as $NAME.
func capture(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: capture NAME REGEXP")
	}
	m := regexp.MustCompile(args[1]).FindStringSubmatch(ts.ReadFile("stdout"))
	if m == nil {
		ts.Fatalf("%q is not in stdout", args[1])
	}
	ts.Setenv(args[0], m[len(m)-1])
}

// replace FILE OLD NEW changes every occurrence in a file, which must hold one.
func replace(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: replace FILE OLD NEW")
	}
	text := ts.ReadFile(args[0])
	if !strings.Contains(text, args[1]) {
		ts.Fatalf("%s does not hold %q", args[0], args[1])
	}
	path := ts.MkAbs(args[0])
	info, err := os.Stat(path)
	ts.Check(err)
	ts.Check(os.WriteFile(path, []byte(strings.ReplaceAll(text, args[1], args[2])), info.Mode().Perm()))
}

// sqlite FILE STATEMENT changes a database behind relight's back.
func sqlite(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: sqlite FILE STATEMENT")
	}
	db, err := sql.Open("sqlite", "file:"+ts.MkAbs(args[0])+"?mode=rw")
	ts.Check(err)
	defer func() { ts.Check(db.Close()) }()
	done, err := db.Exec(args[1])
	ts.Check(err)
	if n, err := done.RowsAffected(); err != nil || n == 0 {
		ts.Fatalf("%s changed nothing: %v", args[1], err)
	}
}

// snapshot DIR remembers a directory to the last byte; untouched DIR asserts that it is still so.
func treeSnapshot(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: snapshot DIR")
	}
	ts.Check(os.WriteFile(treeFile(ts, args[0]), []byte(tree(ts, args[0])), 0o600))
}

func untouched(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: untouched DIR")
	}
	was, err := os.ReadFile(treeFile(ts, args[0]))
	ts.Check(err)
	if is := tree(ts, args[0]); string(was) != is {
		ts.Fatalf("%s is no longer what it was:\n%s", args[0], difference(string(was), is))
	}
}

func treeFile(ts *testscript.TestScript, dir string) string {
	return filepath.Join(ts.Getenv("WORK"), ".tmp", "tree-"+strings.NewReplacer("/", "-", ".", "-").Replace(dir))
}

// difference gives the lines that only one of two texts has.
func difference(was, is string) string {
	var out strings.Builder
	for sign, pair := range map[string][2]string{"-": {was, is}, "+": {is, was}} {
		other := strings.Split(pair[1], "\n")
		for line := range strings.SplitSeq(pair[0], "\n") {
			if !slices.Contains(other, line) {
				fmt.Fprintln(&out, sign, line)
			}
		}
	}
	return out.String()
}

// tree describes a directory: names, modes, sizes, times and a digest of everything. The state that relight keeps for itself is another's concern.
func tree(ts *testscript.TestScript, dir string) string {
	cmd := exec.Command("sh", "-c", `find . -path ./.tmp -prune -o -printf '%p %M %u %s %T@\n' | sort; find . -path ./.tmp -prune -o -type f -print0 | sort -z | xargs -0r sha256sum`)
	cmd.Dir = ts.MkAbs(dir)
	var out bytes.Buffer
	cmd.Stdout = &out
	ts.Check(cmd.Run())
	return out.String()
}

// nobody CODE COMMAND… asserts the exit code of a command that an ordinary user runs; as an ordinary user it simply runs.
func asNobody(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: nobody CODE COMMAND…")
	}
	if os.Geteuid() != 0 {
		exits(ts, false, args)
		return
	}
	open(ts, ts.Getenv("WORK"))
	program, err := exec.LookPath(args[1])
	ts.Check(err)
	open(ts, filepath.Dir(program))
	exits(ts, false, append([]string{args[0], "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"}, args[1:]...))
}

// open lets every user pass through the temporary directories that lead to dir.
func open(ts *testscript.TestScript, dir string) {
	for ; dir != os.TempDir() && len(dir) > 1; dir = filepath.Dir(dir) {
		ts.Check(os.Chmod(dir, 0o755))
	}
}
