package postgres

import (
	"bytes"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/toolboxai/relight"
)

// replayLog reads what a recovering server says, as it says it. The server runs with lc_messages=C, so its sentences are
// known (xlogrecovery.c, xlog.c).
type replayLog struct {
	now func() time.Time

	mu         sync.Mutex
	partial    []byte
	lines      []string // the last ones, for errors
	consistent bool
	ready      bool
	redoDone   time.Time // host's clock
	lastCommit time.Time // server's clock, of the last replayed transaction
	stopped    string    // why replay stopped at a target
	fatal      []string
	heard      int
	changed    chan struct{}
}

const keptLines = 40

func newReplayLog(now func() time.Time) *replayLog {
	return &replayLog{now: now, changed: make(chan struct{}, 1)}
}

var (
	lastCommitLine = regexp.MustCompile(`last completed transaction was at log time (\S+ \S+)(?: \S+)?$`)
	stoppingLine   = regexp.MustCompile(`recovery stopping (before|after) .*$`)
)

// Write implements io.Writer for the server's standard error.
func (l *replayLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.partial = append(l.partial, p...)
	for {
		i := bytes.IndexByte(l.partial, '\n')
		if i < 0 {
			break
		}
		l.line(string(l.partial[:i]))
		l.partial = l.partial[i+1:]
	}
	select {
	case l.changed <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (l *replayLog) line(s string) {
	l.heard++
	l.lines = append(l.lines, s)
	if len(l.lines) > keptLines {
		l.lines = l.lines[1:]
	}
	switch {
	case strings.Contains(s, "consistent recovery state reached"):
		l.consistent = true
	case strings.Contains(s, "redo done at"):
		l.redoDone = l.now()
	case strings.Contains(s, "database system is ready to accept connections"):
		l.ready = true
	case strings.HasPrefix(s, "FATAL:"), strings.HasPrefix(s, "PANIC:"):
		l.fatal = append(l.fatal, s)
	}
	if m := lastCommitLine.FindStringSubmatch(s); m != nil {
		if t, err := time.Parse("2006-01-02 15:04:05.999999-07", m[1]); err == nil {
			l.lastCommit = t.UTC()
		}
	}
	if m := stoppingLine.FindString(s); m != "" {
		l.stopped = m
	}
}

// replayState is a copy of what was heard so far.
type replayState struct {
	Consistent bool
	Ready      bool
	RedoDone   time.Time
	LastCommit time.Time
	Stopped    string
	Fatal      []string
	Heard      int
	Tail       string
}

func (l *replayLog) state() replayState {
	l.mu.Lock()
	defer l.mu.Unlock()
	return replayState{
		Consistent: l.consistent, Ready: l.ready, RedoDone: l.redoDone, LastCommit: l.lastCommit, Stopped: l.stopped,
		Fatal: append([]string(nil), l.fatal...), Heard: l.heard, Tail: strings.Join(l.lines, "\n"),
	}
}

// hintFor turns a server's dying words into what to do.
func hintFor(fatal []string) (relight.Code, string) {
	all := strings.Join(fatal, "\n")
	switch {
	case strings.Contains(all, "recovery ended before configured recovery target was reached"):
		return relight.CodeFailed, "the WAL in the repository ends before the target; see `relight postgres window`"
	case strings.Contains(all, "No space left on device"):
		return relight.CodeFailed, "free some space and run the restore again: it goes on from what is there"
	case strings.Contains(all, "could not restore file"):
		return relight.CodeFailed, "the repository could not be read; repair that and run the restore again, nothing was promoted"
	case strings.Contains(all, "insufficient parameter settings"):
		return relight.CodeFailed, "report this; the settings of the source were not known"
	}
	return relight.CodeFailed, "see the server's words above; nothing was promoted"
}
