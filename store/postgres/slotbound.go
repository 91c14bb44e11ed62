package postgres

import (
	"fmt"

	"github.com/toolboxai/relight/host"
)

// SlotBound says how much WAL the replication slot may make a server keep, and what happens then.
type SlotBound struct {
	Limit    int64  // bytes from where the slot begins to the end of WAL. 0: 16 GiB
	KeepFree int64  // bytes that stay free where WALDir lies. 0: 2 GiB
	WALDir   string // the server's pg_wal, if it is on this host; "": its file system is not looked at
	Hold     bool   // nothing is released: the server may run out of room, and stop
}

// withDefaults fills in what is not said.
func (b SlotBound) withDefaults() SlotBound {
	setDefault(&b.Limit, 16<<30)
	setDefault(&b.KeepFree, 2<<30)
	return b
}

// excess is a slot that retains too much.
type excess struct {
	why  string // "": it does not
	room bool   // the file system is what it is too much for
}

// excess judges a slot. A file system that is nearly full is no fault of a slot that retains no more than the server keeps by itself.
func (b SlotBound) excess(s slotState) (excess, error) {
	held := int64(s.end) - int64(s.restart)
	if held > b.Limit {
		return excess{why: fmt.Sprintf("it retained %d MB, and the limit is %d MB", held>>20, b.Limit>>20)}, nil
	}
	if b.WALDir == "" || s.status == "reserved" {
		return excess{}, nil
	}
	free, err := host.FreeSpace(b.WALDir)
	if err != nil || free >= b.KeepFree {
		return excess{}, err
	}
	return excess{why: fmt.Sprintf("it retained %d MB, and of the %d MB to keep free at %s only %d are", held>>20, b.KeepFree>>20, b.WALDir, free>>20), room: true}, nil
}
