package cli

import (
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/toolboxai/relight"
)

// meter shows progress on stderr: one line that is rewritten on a terminal, a line every five seconds elsewhere.
type meter struct {
	s     *session
	tty   bool
	every time.Duration

	mu    sync.Mutex
	phase string
	begun time.Time
	shown time.Time
	open  bool
}

func (s *session) meter() *meter {
	f, ok := s.Err.(*os.File)
	m := &meter{s: s, tty: ok && term.IsTerminal(int(f.Fd())), every: 5 * time.Second}
	if m.tty {
		m.every = 100 * time.Millisecond
	}
	return m
}

// show takes one report; it may be called from several goroutines.
func (m *meter) show(p relight.Progress) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	if p.Phase != m.phase {
		m.phase, m.begun, m.shown = p.Phase, now, now
		return
	}
	if now.Sub(m.shown) < m.every {
		return
	}
	m.shown = now
	line := progressText(p, now.Sub(m.begun))
	if m.tty {
		fmt.Fprintf(m.s.Err, "\r\x1b[K%s", line)
		m.open = true
		return
	}
	fmt.Fprintln(m.s.Err, line)
}

// close ends an unfinished line.
func (m *meter) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.open {
		fmt.Fprint(m.s.Err, "\r\x1b[K")
		m.open = false
	}
}

// progressText is "copying: 1.2 GB of 2.9 GB, 410.0 MB/s, 4s left".
func progressText(p relight.Progress, elapsed time.Duration) string {
	amount := func(n int64) string { return fmt.Sprintf("%d %s", n, p.Unit) }
	if p.Unit == "bytes" {
		amount = bytesText
	}
	text := fmt.Sprintf("%s: %s", p.Phase, amount(p.Done))
	if p.Total > 0 {
		text += " of " + amount(p.Total)
	}
	seconds := elapsed.Seconds()
	if seconds < 0.5 || p.Done <= 0 {
		return text
	}
	rate := float64(p.Done) / seconds
	text += fmt.Sprintf(", %s/s", amount(int64(rate)))
	if p.Total > p.Done {
		left := time.Duration(float64(p.Total-p.Done) / rate * float64(time.Second))
		text += fmt.Sprintf(", %s left", left.Round(time.Second))
	}
	return text
}
