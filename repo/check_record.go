package repo

import (
	"context"
	"time"

	"github.com/toolboxai/relight"
)

const (
	checkedKind   = "checked"
	checkedPrefix = "checked/"
)

// Checked is the signed record that every byte of a snapshot was read back, and whether all matched.
type Checked struct {
	Store    string             `json:"store"`
	Snapshot relight.SnapshotID `json:"snapshot"`
	At       time.Time          `json:"at"`
	OK       bool               `json:"ok"`
	Chunks   int64              `json:"chunks"`
	Bytes    int64              `json:"bytes"` // plain
	Damage   []string           `json:"damage,omitempty"`
}

func checkedName(store string, id relight.SnapshotID, at time.Time) string {
	return checkedPrefix + store + "/" + string(id) + "/" + nameTime(at)
}

// PutChecked records a verification; it makes a snapshot intact when c.OK.
func (m *Meta) PutChecked(ctx context.Context, c Checked) error {
	c.At = c.At.UTC()
	return m.putSigned(ctx, checkedKind, checkedName(c.Store, c.Snapshot, c.At), c, sealedMeta)
}
