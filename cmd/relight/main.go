// Command relight is an executable disaster-recovery runbook.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/toolboxai/relight/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := cli.Main(ctx, os.Args, cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr})
	stop()
	os.Exit(code)
}
