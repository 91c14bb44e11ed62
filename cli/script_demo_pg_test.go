//go:build pg

package cli_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/toolboxai/relight/demo"
	"github.com/toolboxai/relight/internal/pgtest"
)

// scratch NAME makes a directory $NAME that the server's user can get to.
func scratch(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: scratch NAME")
	}
	root, err := os.MkdirTemp(pgtest.Place(), "rlcli")
	ts.Check(err)
	ts.Defer(func() {
		estates, err := filepath.Glob(filepath.Join(root, "*/estate/relight.yaml")) // demonstrations of a script that failed
		ts.Check(err)
		for _, config := range estates {
			stopAll(ts, config)
		}
		pgtest.Forget(root)
		ts.Check(os.RemoveAll(root))
	})
	ts.Check(os.Chmod(root, 0o755))
	ts.Setenv(args[0], root)
}

// demonstrates SCENARIO ARGUMENT… runs a small demonstration and holds every member of its result to what is promised. How much was on its way into the repository
// when the machine was lost is the machine's to say: more than is allowed has to be owned up to.
func demonstrates(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: demonstrates SCENARIO ARGUMENT…")
	}
	exit := code(ts, ts.Exec("relight", append([]string{"demo", "--json", "--megabytes", "5", "--seconds", "2", "--scenario"}, args...)...))
	jsonl(ts, false, []string{"demo"})
	r := result(ts, exit)
	slow := r.Exposure > 0 && r.RPO > r.Exposure
	for claim, holds := range map[string]bool{
		"scenario":                  r.Scenario == args[0],
		"rto_seconds":               r.RTO > 0 && r.RTO < r.RTOObjective,
		"rpo_seconds":               r.RPO >= 0 && (r.RPO > 0) == (r.Lost > 0),
		"objectives":                r.RTOObjective > 0 && r.RPOObjective > 0 && (r.Exposure > 0) == (args[0] == demo.Infrastructure),
		"acknowledged":              r.Acknowledged > 0 && r.Acknowledged == r.Recovered+r.Lost,
		"lost":                      r.Lost == 0 || args[0] == demo.Infrastructure,
		"unconfirmed":               r.Unconfirmed >= 0 && r.Unconfirmed <= 4, // one a connection
		"verified":                  r.Verified && len(r.Checks) > 0,
		"protected_again":           r.ProtectedAgain,
		"clocks":                    inOrder(r),
		"run":                       r.Run != "",
		"directory, evidence":       r.Directory == "" && r.Evidence == nil,
		"exit code and what missed": (exit == 3) == slow && (exit == 0) == !slow && (len(r.ObjectivesMissed) > 0) == slow,
	} {
		if !holds {
			ts.Fatalf("%s: exit code %d, %+v", claim, exit, r)
		}
	}
}

// result is the record of a demonstration's result: the last, but for the error of one that fell short.
func result(ts *testscript.TestScript, exit int) demo.Result {
	lines := strings.Split(strings.TrimSpace(ts.ReadFile("stdout")), "\n")
	last := lines[len(lines)-1]
	if exit != 0 && len(lines) > 1 {
		last = lines[len(lines)-2]
	}
	var r demo.Result
	dec := json.NewDecoder(strings.NewReader(last))
	dec.DisallowUnknownFields()
	ts.Check(dec.Decode(&r))
	if r.Type != "result" {
		ts.Fatalf("exit code %d, and this is no result: %s", exit, last)
	}
	return r
}

func inOrder(r demo.Result) bool {
	names := []string{"detected", "declared", "started", "recovered", "verified", "re-protected"}
	for i, name := range names {
		if r.Clocks[name].IsZero() || i > 0 && r.Clocks[name].Before(r.Clocks[names[i-1]]) {
			return false
		}
	}
	return true
}
