package host

import (
	"os"

	"golang.org/x/sys/unix"
)

// behind is how much is written before its way to disk begins.
const behind = 8 << 20

// WriteBehind is a file whose bytes begin their way to disk while others are still being written, so that the sync at the end of a long copy finds
// little left to do. It makes nothing durable by itself. It belongs to one goroutine.
type WriteBehind struct {
	f        *os.File
	from, to int64 // written, and not yet on its way
}

// NewWriteBehind writes to f, which stays the caller's to sync and close.
func NewWriteBehind(f *os.File) *WriteBehind { return &WriteBehind{f: f} }

// WriteAt implements io.WriterAt.
func (w *WriteBehind) WriteAt(p []byte, off int64) (int, error) {
	n, err := w.f.WriteAt(p, off)
	if off != w.to {
		w.send()
		w.from = off
	}
	if w.to = off + int64(n); w.to-w.from >= behind {
		w.send()
	}
	return n, err
}

// send is advice: a file system that does not take it loses nothing but time, and what fails on the way to disk is told by the sync.
func (w *WriteBehind) send() {
	if w.to > w.from {
		_ = unix.SyncFileRange(int(w.f.Fd()), w.from, w.to-w.from, unix.SYNC_FILE_RANGE_WRITE)
	}
	w.from = w.to
}
