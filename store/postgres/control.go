package postgres

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"time"

	"github.com/toolboxai/relight"
)

// control is what matters of global/pg_control.
type control struct {
	System     relight.SystemID
	Version    uint32 // of the control file's own format
	Catalog    uint32
	State      controlState
	Time       time.Time
	Checkpoint relight.LSN
	Redo       relight.LSN
	Timeline   relight.TimelineID
	MinEnd     relight.LSN // minimum recovery point
	Segment    int64
	Block      int
	RelSegment int64
	Checksums  bool
}

// controlState is DBState of pg_control.h.
type controlState uint32

const (
	stateStartup controlState = iota
	stateShutdown
	stateShutdownInRecovery
	stateShutdowning
	stateCrashRecovery
	stateArchiveRecovery
	stateProduction
)

func (c controlState) String() string {
	names := []string{"starting up", "shut down", "shut down in recovery", "shutting down", "in crash recovery", "in archive recovery", "in production"}
	if int(c) < len(names) {
		return names[c]
	}
	return fmt.Sprintf("state %d", uint32(c))
}

// Positions in ControlFileData, the same from version 13 to 17 (pg_control.h); 1300 and 1700 are PG_CONTROL_VERSION.
const (
	controlSize = 8192
	controlUsed = 288 // bytes before the CRC
	controlName = "global/pg_control"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// parseControl reads a control file and checks its CRC.
func parseControl(b []byte) (control, error) {
	var c control
	if len(b) < controlUsed+4 {
		return c, fmt.Errorf("pg_control has %d bytes", len(b))
	}
	le := binary.LittleEndian
	c.System = relight.SystemID(le.Uint64(b))
	c.Version = le.Uint32(b[8:])
	if c.Version != 1300 && c.Version != 1700 {
		return c, fmt.Errorf("pg_control has format %d; 1300 and 1700 (PostgreSQL 13 to 17) are known", c.Version)
	}
	if crc32.Checksum(b[:controlUsed], castagnoli) != le.Uint32(b[controlUsed:]) {
		return c, errControlCRC
	}
	c.Catalog = le.Uint32(b[12:])
	c.State = controlState(le.Uint32(b[16:]))
	c.Time = time.Unix(int64(le.Uint64(b[24:])), 0).UTC()
	c.Checkpoint = relight.LSN(le.Uint64(b[32:]))
	c.Redo = relight.LSN(le.Uint64(b[40:]))
	c.Timeline = relight.TimelineID(le.Uint32(b[48:]))
	c.MinEnd = relight.LSN(le.Uint64(b[136:]))
	c.Block = int(le.Uint32(b[216:]))
	c.RelSegment = int64(le.Uint32(b[220:]))
	c.Segment = int64(le.Uint32(b[228:]))
	c.Checksums = le.Uint32(b[252:]) != 0
	return c, nil
}

var errControlCRC = fmt.Errorf("pg_control has a wrong checksum")

func readControl(dir string) (control, error) {
	b, err := os.ReadFile(filepath.Join(dir, controlName))
	if err != nil {
		return control{}, err
	}
	return parseControl(b)
}
