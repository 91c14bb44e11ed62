//go:build slow

package crash_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

var (
	seed   = flag.Uint64("seed", 0, "where the random moments come from; 0 takes a new one")
	rounds = flag.Int("rounds", usualRounds, "how often all is gone through, each time with other random moments")
	binary string // relight, built once
)

func TestMain(m *testing.M) {
	for variable, name := range map[string]string{"RELIGHT_CRASH_SEED": "seed", "RELIGHT_CRASH_ROUNDS": "rounds"} {
		if given := os.Getenv(variable); given != "" {
			if err := flag.Set(name, given); err != nil {
				fmt.Fprintf(os.Stderr, "%s=%s: %v\n", variable, given, err)
				os.Exit(2)
			}
		}
	}
	flag.Parse()
	if err := flag.Set("test.parallel", "4"); err != nil { // trials wait for servers more than they work
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano())
	}
	fmt.Printf("crash suite: RELIGHT_CRASH_SEED=%d repeats this run\n", *seed)
	dir, err := os.MkdirTemp("/tmp", "rlcrash-bin-") // PostgreSQL's user must reach it
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	binary = os.Getenv("RELIGHT_CRASH_BINARY")
	if binary == "" {
		binary = filepath.Join(dir, "relight")
		build := exec.CommandContext(context.Background(), "go", "build", "-o", binary, "github.com/toolboxai/relight/cmd/relight")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build relight: %v\n%s", err, out)
			return 1
		}
	}
	return m.Run()
}

// random gives the moments of one test: the same for the same seed, whatever else runs.
func random(name string, round int) *rand.Rand {
	var n uint64
	for _, c := range name {
		n = n*131 + uint64(c)
	}
	return rand.New(rand.NewPCG(*seed+uint64(round), n))
}
