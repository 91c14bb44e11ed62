package postgres

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/store/postgres/walfile"
)

// spoolWriter appends to one stretch of the spool. One goroutine writes while another syncs, so that neither the server nor a
// status update ever waits for more than one of them.
type spoolWriter struct {
	s    *spool
	st   *stretch
	pos  relight.LSN // of the next byte; the writing goroutine's
	cur  spoolFile   // likewise
	name string

	mu    sync.Mutex
	files []spoolFile // written since they were last synced, oldest first; cur is the last
	fresh bool        // a name was made since the directory was last synced
}

func (s *spool) writer(st *stretch, at relight.LSN) *spoolWriter {
	return &spoolWriter{s: s, st: st, pos: at}
}

// write puts p at pos, which must be where the bytes before it ended.
func (w *spoolWriter) write(pos relight.LSN, p []byte) error {
	if pos != w.pos {
		return fmt.Errorf("the server sent WAL from %s, expected from %s", pos, w.pos)
	}
	size := w.s.identity().SegmentSize
	for len(p) > 0 {
		start := walfile.SegmentStart(w.pos, size)
		off := int64(w.pos - start)
		n := min(int64(len(p)), size-off)
		if err := w.open(start, size); err != nil {
			return fmt.Errorf("write the spool: %w", err)
		}
		if _, err := w.cur.WriteAt(p[:n], off); err != nil {
			return fmt.Errorf("write the spool: %w", err)
		}
		w.s.grew(w.name, off+n)
		w.pos += relight.LSN(n)
		p = p[n:]
	}
	return nil
}

// open makes cur the file of the segment at start.
func (w *spoolWriter) open(start relight.LSN, size int64) error {
	name := walfile.SegmentName(w.st.tl, start, size)
	if name == w.name {
		return nil
	}
	f, err := w.s.disk.Open(w.s.path(name))
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.files, w.fresh = append(w.files, f), true
	w.cur, w.name = f, name
	return nil
}

// sync makes everything durable that was written before the call. After an error nothing since the last sync is: the kernel
// may have dropped the pages, and a second fsync would lie.
func (w *spoolWriter) sync() error {
	w.mu.Lock()
	files, fresh := slices.Clone(w.files), w.fresh
	w.mu.Unlock()
	for _, f := range files {
		if err := f.Sync(); err != nil {
			return fmt.Errorf("sync the spool: %w", err)
		}
	}
	if fresh {
		if err := w.s.disk.SyncDir(filepath.Join(w.s.dir, "wal")); err != nil {
			return fmt.Errorf("sync the spool: %w", err)
		}
	}
	return w.retire(files, fresh)
}

// retire closes the files that are complete and synced; the newest may still grow.
func (w *spoolWriter) retire(synced []spoolFile, dirSynced bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if dirSynced && len(w.files) == len(synced) {
		w.fresh = false
	}
	var errs []error
	for len(synced) > 1 || len(synced) == 1 && len(w.files) > 1 {
		errs = append(errs, synced[0].Close())
		synced, w.files = synced[1:], w.files[1:]
	}
	return errors.Join(errs...)
}

// close leaves what is not synced unsynced.
func (w *spoolWriter) close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	var errs []error
	for _, f := range w.files {
		errs = append(errs, f.Close())
	}
	w.files, w.cur, w.name = nil, nil, ""
	return errors.Join(errs...)
}
