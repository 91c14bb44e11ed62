package host

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// RemoveSharedMemory removes a System V shared memory segment to which no process is attached; one that is in use is left alone, and one that is gone is no error.
// Whoever names it must be sure that its owner is dead.
func RemoveSharedMemory(id int) error {
	var d unix.SysvShmDesc
	_, err := unix.SysvShmCtl(id, unix.IPC_STAT, &d)
	if err == nil && d.Nattch == 0 {
		_, err = unix.SysvShmCtl(id, unix.IPC_RMID, nil)
	}
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EIDRM) {
		return fmt.Errorf("remove shared memory segment %d: %w", id, err)
	}
	return nil
}
