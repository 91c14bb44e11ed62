package host

import (
	"fmt"
	"syscall"

	"github.com/toolboxai/relight"
)

// Signal sends sig to the process that h names and to nothing else. A process that has ended is no error.
func Signal(h relight.Handle, sig syscall.Signal) error {
	all, err := members(h)
	if err != nil {
		return err
	}
	for _, st := range all {
		if st.pid != h.PID || st.started != h.Started {
			continue
		}
		if err := signalOne(st, sig); err != nil {
			return fmt.Errorf("signal %s (pid %d): %w", h.What, h.PID, err)
		}
	}
	return nil
}
