package host_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/host"
	"go.uber.org/goleak"
)

// The test binary doubles as a relight that can be killed.
func TestMain(m *testing.M) {
	switch os.Getenv("HOST_TEST_ROLE") {
	case "parent":
		playParent()
	case "locker":
		playLocker()
	default:
		goleak.VerifyTestMain(m)
	}
}

// playParent starts a child, a grandchild and a detached service, prints the handles and waits to be killed.
func playParent() {
	l := host.NewLocal(host.Options{})
	ctx := context.Background()
	script := `setsid sh -c 'echo >"$0"; exec sleep 300' "$0" & sleep 300`
	p, err := l.Start(ctx, host.Command{Argv: []string{"sh", "-c", script, os.Getenv("HOST_TEST_DIR") + "/grandchild"}, What: "child",
		Started: func(context.Context, relight.Handle) error { return nil }})
	exitIf(err)
	d, err := l.StartDetached(ctx, host.Command{Argv: []string{"sleep", "300"}, What: "service"},
		host.Detached{Log: os.Getenv("HOST_TEST_DIR") + "/log", Handle: os.Getenv("HOST_TEST_DIR") + "/handle"})
	exitIf(err)
	exitIf(json.NewEncoder(os.Stdout).Encode([]relight.Handle{p.Handle(), d}))
	time.Sleep(time.Hour) // until it is killed
}

func playLocker() {
	_, err := host.Lock(os.Getenv("HOST_TEST_DIR")+"/lock", "restore of main", clock)
	exitIf(err)
	fmt.Println("locked")
	time.Sleep(time.Hour) // until it is killed
}

func exitIf(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
