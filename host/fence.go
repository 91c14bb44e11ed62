package host

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/toolboxai/relight"
)

// fence is who was last admitted to something.
type fence struct {
	Run   relight.RunID `json:"run"`
	Epoch int64         `json:"epoch"`
}

// Fence admits the holder of a run's epoch to what path guards and writes that down, durably. A holder that was replaced within its run, whose epoch is below the
// one admitted last, is refused with code lease_held. Another run is admitted: that no other works there at the same time is what the caller's Lock is for, which
// must be held.
func Fence(path string, run relight.RunID, epoch int64) error {
	var last fence
	b, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(b, &last)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return &relight.Error{Op: "fence", Subject: path, Err: err, Hint: "see which run works there, then remove the file"}
	}
	if last.Run == run && epoch < last.Epoch {
		return &relight.Error{Op: "fence", Subject: filepath.Dir(path), Code: relight.CodeLeaseHeld,
			Err:  fmt.Errorf("epoch %d of run %s is over, epoch %d has taken over", epoch, run, last.Epoch),
			Hint: "look at the run with `relight run show " + string(run) + "`; this process must not continue"}
	}
	if last == (fence{run, epoch}) {
		return nil
	}
	if b, err = json.Marshal(fence{run, epoch}); err != nil {
		return fmt.Errorf("fence %s: %w", path, err)
	}
	return WriteFileDurable(path, append(b, '\n'), 0o640)
}
