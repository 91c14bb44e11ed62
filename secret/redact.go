package secret

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/url"
	"slices"
	"strings"
	"sync"
)

// minRedacted is the least number of bytes that a secret has to have: shorter ones would blank out ordinary words.
const minRedacted = 4

const minLine = 16 // of a secret of several lines, each line this long is a secret too

// Redactor replaces known secrets by the mask: as they are, and as JSON, URLs, hex and base64 spell them. It is safe for
// concurrent use.
type Redactor struct {
	mu       sync.RWMutex
	patterns [][]byte
	longest  int
}

// Add makes v known from now on. It says false for a secret too short to be told from ordinary text.
func (r *Redactor) Add(v Value) bool {
	s := v.Reveal()
	if len(s) < minRedacted {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range spellings(s) {
		r.add([]byte(p))
	}
	if strings.Contains(s, "\n") {
		for line := range strings.SplitSeq(s, "\n") {
			if line = strings.TrimSpace(line); len(line) >= minLine {
				r.add([]byte(line))
			}
		}
	}
	return true
}

func (r *Redactor) add(p []byte) {
	if len(p) < minRedacted || slices.ContainsFunc(r.patterns, func(q []byte) bool { return bytes.Equal(p, q) }) {
		return
	}
	r.patterns = append(slices.Clone(r.patterns), p)
	r.longest = max(r.longest, len(p))
}

func spellings(s string) []string {
	all := []string{s, url.QueryEscape(s), url.PathEscape(s), url.UserPassword("", s).String()[1:]}
	for _, html := range []bool{true, false} {
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(html)
		if enc.Encode(s) == nil {
			q := strings.TrimSuffix(b.String(), "\n")
			all = append(all, q[1:len(q)-1])
		}
	}
	if len(s) < 6 {
		return all
	}
	all = append(all, hex.EncodeToString([]byte(s)), strings.ToUpper(hex.EncodeToString([]byte(s))))
	return append(all, base64Cores(s)...)
}

// base64Cores are the characters that s makes in the base64 of any longer text, one for each way it can lie across
// the groups of three, without those that its neighbours also influence.
func base64Cores(s string) []string {
	var all []string
	for shift := range 3 {
		raw := append(make([]byte, shift), s...)
		from := (shift*8 + 5) / 6
		to := len(raw) * 8 / 6
		std, web := base64.RawStdEncoding.EncodeToString(raw), base64.RawURLEncoding.EncodeToString(raw)
		if to-from >= 8 {
			all = append(all, std[from:to], web[from:to])
		}
	}
	return all
}

// Redact gives a copy of b without the known secrets; b itself when it holds none.
func (r *Redactor) Redact(b []byte) []byte {
	spans := r.find(b)
	if len(spans) == 0 {
		return b
	}
	var out []byte
	at := 0
	for _, s := range spans {
		out = append(append(out, b[at:s.from]...), Mask...)
		at = s.to
	}
	return append(out, b[at:]...)
}

type span struct{ from, to int }

// find gives the merged stretches that secrets cover: where two overlap, no end of one stays visible.
func (r *Redactor) find(b []byte) []span {
	r.mu.RLock()
	patterns := r.patterns
	r.mu.RUnlock()
	var all []span
	for _, p := range patterns {
		for at := 0; ; at++ {
			i := bytes.Index(b[at:], p)
			if i < 0 {
				break
			}
			at += i
			all = append(all, span{at, at + len(p)})
		}
	}
	slices.SortFunc(all, func(x, y span) int { return x.from - y.from })
	merged := all[:0]
	for _, s := range all {
		if n := len(merged); n > 0 && s.from < merged[n-1].to {
			merged[n-1].to = max(merged[n-1].to, s.to)
			continue
		}
		merged = append(merged, s)
	}
	return merged
}

// pending is where the beginning of a secret may lie whose rest has not come yet; len(b) if nowhere.
func (r *Redactor) pending(b []byte) int {
	r.mu.RLock()
	patterns, longest := r.patterns, r.longest
	r.mu.RUnlock()
	for i := max(0, len(b)-longest+1); i < len(b); i++ {
		for _, p := range patterns {
			if len(p) > len(b)-i && bytes.HasPrefix(p, b[i:]) {
				return i
			}
		}
	}
	return len(b)
}

// Writer redacts what passes through it to w. It holds back at most the beginning of a possible secret; Close writes that
// out and leaves w open.
func (r *Redactor) Writer(w io.Writer) io.WriteCloser { return &writer{r: r, w: w} }

type writer struct {
	mu   sync.Mutex
	r    *Redactor
	w    io.Writer
	held []byte
}

func (w *writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := append(w.held, p...)
	cut := w.r.pending(b)
	for _, s := range w.r.find(b) {
		if s.from < cut && cut < s.to { // a secret that may go on into another
			cut = s.from
		}
	}
	if len(b)-cut > maxSize { // a stream of nothing but overlapping secrets
		cut = len(b)
	}
	w.held = nil
	if _, err := w.w.Write(w.r.Redact(b[:cut])); err != nil {
		return 0, err
	}
	w.held = bytes.Clone(b[cut:])
	return len(p), nil
}

func (w *writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.held) == 0 {
		return nil
	}
	_, err := w.w.Write(w.r.Redact(w.held))
	w.held = nil
	return err
}
