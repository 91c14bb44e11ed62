package host

import (
	"context"
	"time"

	"github.com/toolboxai/relight"
)

// AwaitReaped waits until the process that h names has left the process table. One that has ended stays there until its parent, after relight's own end the
// system's first process, takes its exit status; until then its number is taken, and PostgreSQL believes a lock file that names it. Some first processes of
// containers take minutes, so that the wait is bounded by ctx, whose error is returned.
func AwaitReaped(ctx context.Context, h relight.Handle) error {
	boot, err := BootID()
	if err != nil || h.Boot != boot {
		return err
	}
	for {
		st, err := readStat(h.PID)
		if err != nil || st.started != h.Started {
			return nil // the number is free, or another's
		}
		pause := time.NewTimer(slice)
		select {
		case <-ctx.Done():
			pause.Stop()
			return ctx.Err()
		case <-pause.C:
		}
	}
}
