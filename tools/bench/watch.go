package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// watcher looks at a repository's directory from outside, and notes when which WAL became part of it. It trusts nothing that relight says of itself: a
// range counts when its sidecar stands under its name, and only as far as there is no hole before it.
type watcher struct {
	dir     string
	segment int64
	stop    chan struct{}
	wg      sync.WaitGroup

	mu    sync.Mutex
	seen  map[string]bool
	ahead map[int64]int64 // ranges behind a hole
	marks []mark
	err   error
}

// mark says that the repository held all WAL before end from at on.
type mark struct {
	at  time.Time
	end int64
}

const lookEvery = 10 * time.Millisecond

func watchRepository(dir string, segment int64) (*watcher, error) {
	w := &watcher{dir: filepath.Join(dir, "wal", "main"), segment: segment, stop: make(chan struct{}), seen: map[string]bool{}, ahead: map[int64]int64{}}
	w.look()
	if w.err != nil || len(w.ahead) == 0 {
		return nil, errors.Join(w.err, fmt.Errorf("%s holds no WAL", w.dir))
	}
	w.begin()
	w.wg.Go(func() {
		for {
			select {
			case <-w.stop:
				return
			case <-time.After(lookEvery):
				w.mu.Lock()
				now := time.Now()
				w.look()
				w.advance(now)
				w.mu.Unlock()
			}
		}
	})
	return w, nil
}

func (w *watcher) end() {
	close(w.stop)
	w.wg.Wait()
}

// begin takes what is there for whole: the furthest end.
func (w *watcher) begin() {
	var end int64
	for _, to := range w.ahead {
		end = max(end, to)
	}
	w.ahead = map[int64]int64{}
	w.marks = []mark{{time.Now(), end}}
}

func (w *watcher) look() {
	err := filepath.WalkDir(w.dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // swept meanwhile
		}
		if err != nil {
			return err
		}
		name, ok := strings.CutSuffix(d.Name(), ".meta")
		if d.IsDir() || !ok || w.seen[path] {
			return nil
		}
		w.seen[path] = true
		if from, to, ok := w.span(name); ok {
			w.ahead[from] = max(w.ahead[from], to)
		}
		return nil
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		w.err = err
	}
}

// span reads a segment's or a live range's name.
func (w *watcher) span(name string) (from, to int64, ok bool) {
	if a, b, cut := strings.Cut(name, "-"); cut {
		from, err1 := strconv.ParseInt(a, 16, 64)
		to, err2 := strconv.ParseInt(b, 16, 64)
		return from, to, err1 == nil && err2 == nil
	}
	if len(name) != 24 {
		return 0, 0, false
	}
	log, err1 := strconv.ParseInt(name[8:16], 16, 64)
	seg, err2 := strconv.ParseInt(name[16:], 16, 64)
	from = log<<32 + seg*w.segment
	return from, from + w.segment, err1 == nil && err2 == nil
}

// advance joins what continues the contiguous part.
func (w *watcher) advance(now time.Time) {
	end := w.marks[len(w.marks)-1].end
	for moved := true; moved; {
		moved = false
		for from, to := range w.ahead {
			if from > end {
				continue
			}
			delete(w.ahead, from)
			if to > end {
				end, moved = to, true
			}
		}
	}
	if end > w.marks[len(w.marks)-1].end {
		w.marks = append(w.marks, mark{now, end})
	}
}

// when the repository first held all WAL before lsn.
func (w *watcher) when(lsn int64) (time.Time, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range w.marks {
		if m.end >= lsn {
			return m.at, true
		}
	}
	return time.Time{}, false
}

func (w *watcher) endAt(at time.Time) int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	end := w.marks[0].end
	for _, m := range w.marks {
		if m.at.After(at) {
			break
		}
		end = m.end
	}
	return end
}

// reach waits until the repository holds all WAL before lsn.
func (w *watcher) reach(ctx context.Context, lsn int64, within time.Duration) (time.Time, error) {
	for deadline := time.Now().Add(within); time.Now().Before(deadline); time.Sleep(lookEvery) {
		if at, ok := w.when(lsn); ok {
			return at, nil
		}
		if ctx.Err() != nil {
			return time.Time{}, ctx.Err()
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Time{}, errors.Join(w.err, fmt.Errorf("the repository ends at %d after %s, and %d was written", w.marks[len(w.marks)-1].end, within, lsn))
}
