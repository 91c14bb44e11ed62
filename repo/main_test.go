package repo

import (
	"os"
	"runtime"
	"runtime/debug"
	"testing"

	"github.com/toolboxai/relight/host"
	"go.uber.org/goleak"
)

const memory = "/dev/shm"

func TestMain(m *testing.M) {
	if os.Getenv("RELIGHT_TEST_PHASE") == "" {
		debug.SetGCPercent(400) // storages in memory are cloned thousands of times
	} else {
		debug.SetMemoryLimit(240 << 20) // where memory is measured, it is collected as in cmd/relight
	}
	if free, err := host.FreeSpace(memory); err == nil && free > 8<<30 && os.Getenv("TMPDIR") == "" {
		_ = os.Setenv("TMPDIR", memory) // what is told of power losses here is told by models: a real disk adds only its waiting
	}
	runtime.MemProfileRate = 0 // a twelfth of the time; with -memprofile, -memprofilerate=524288 sets it again
	goleak.VerifyTestMain(m)
}
