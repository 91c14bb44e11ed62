package pgtest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Majors are the major versions that relight is tested with.
var Majors = []int{15, 17}

// BinDir finds the server binaries that tests use when they do not care for the version: the newest that the machine has installed.
// RELIGHT_TEST_PGBIN overrides it.
func BinDir() (string, error) {
	if dir := os.Getenv("RELIGHT_TEST_PGBIN"); dir != "" {
		return dir, nil
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil {
		return "", err
	}
	slices.SortFunc(found, func(a, b string) int { return majorOf(a) - majorOf(b) })
	if len(found) > 0 {
		return filepath.Dir(found[len(found)-1]), nil
	}
	path, err := exec.LookPath("initdb")
	if err != nil {
		return "", errors.New("no PostgreSQL server is installed: apt-get install postgresql")
	}
	return filepath.Dir(path), nil
}

func majorOf(initdb string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(initdb))))
	return n
}

// binariesFor gives the binaries that a data directory needs.
func binariesFor(dir string) (string, error) {
	version, err := os.ReadFile(filepath.Join(dir, "PG_VERSION"))
	if err != nil {
		return BinDir()
	}
	major, err := strconv.Atoi(strings.TrimSpace(string(version)))
	if err != nil {
		return "", fmt.Errorf("PG_VERSION of %s: %w", dir, err)
	}
	return Binaries(major)
}

// Binaries gives the server binaries of one of Majors: those that are installed, else those of a root that tools/pgroot.sh makes, once for
// this user. `make test` has made it before any test runs.
func Binaries(major int) (string, error) {
	script, err := pgroot()
	if err != nil {
		return "", err
	}
	cmd := exec.Command(script, strconv.Itoa(major))
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("no PostgreSQL %d: %w\n%s", major, err, stderr.String())
	}
	return strings.TrimSpace(stdout.String()), nil
}

// pgroot finds the script in the checkout that the test runs in.
var pgroot = sync.OnceValues(func() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		script := filepath.Join(dir, "tools", "pgroot.sh")
		if _, err := os.Stat(script); err == nil {
			return script, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("tools/pgroot.sh is not above the test's directory: run the test in a checkout")
		}
	}
})
