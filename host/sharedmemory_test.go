package host_test

import (
	"errors"
	"testing"

	"github.com/toolboxai/relight/host"
	"golang.org/x/sys/unix"
)

func TestSharedMemoryGoesWhenNobodyIsAttached(t *testing.T) {
	t.Parallel()
	id, err := unix.SysvShmGet(unix.IPC_PRIVATE, 4096, unix.IPC_CREAT|0o600)
	if err != nil {
		t.Fatal(err)
	}
	used, err := unix.SysvShmAttach(id, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	var d unix.SysvShmDesc
	if err := host.RemoveSharedMemory(id); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.SysvShmCtl(id, unix.IPC_STAT, &d); err != nil {
		t.Fatal("a segment in use was removed:", err)
	}
	if err := errors.Join(unix.SysvShmDetach(used), host.RemoveSharedMemory(id)); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.SysvShmCtl(id, unix.IPC_STAT, &d); err == nil {
		t.Fatal("the segment is still there")
	}
	if err := host.RemoveSharedMemory(id); err != nil {
		t.Fatal("the second time:", err)
	}
}
