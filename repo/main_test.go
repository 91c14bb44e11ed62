package repo

import (
	"os"
	"runtime/debug"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv("RELIGHT_TEST_PHASE") == "" { // where memory is measured, it is collected as everywhere
		debug.SetGCPercent(400) // storages in memory are cloned thousands of times
	}
	goleak.VerifyTestMain(m)
}
