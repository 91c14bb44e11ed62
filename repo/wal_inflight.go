package repo

import (
	"path"
	"strings"
	"sync"
)

// inflight knows the live ranges whose put is under way in this process. Until its sidecar is there a body looks like what a dead writer left, and the
// sweep, which runs beside the puts, must not take it for that.
type inflight struct {
	mu     sync.Mutex
	open   map[string]int  // by the range's name, without what tells body and sidecar apart
	ended  map[string]bool // while something sweeps: puts that ended since the first of the sweeps began
	sweeps int
}

func rangeOf(object string) string { return strings.TrimSuffix(object, path.Ext(object)) }

// begin is called before a range's body is stored, end when its sidecar is, or the put was given up.
func (f *inflight) begin(base string) (end func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.open == nil {
		f.open = map[string]int{}
	}
	f.open[base]++
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.open[base]--; f.open[base] == 0 {
			delete(f.open, base)
		}
		if f.sweeps > 0 {
			f.ended[base] = true
		}
	}
}

// sweep is called before objects are listed. seen says of a listed object whether a put of its range was under way at any moment since.
func (f *inflight) sweep() (seen func(object string) bool, end func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.sweeps == 0 {
		f.ended = map[string]bool{}
	}
	f.sweeps++
	return f.seen, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.sweeps--
	}
}

func (f *inflight) seen(object string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.open[rangeOf(object)] > 0 || f.ended[rangeOf(object)]
}
