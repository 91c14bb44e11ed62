package runbook

import (
	"bytes"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/text"

	"github.com/toolboxai/relight"
)

// section is what stands below one heading, up to the next.
type section struct {
	level     int // 0: before the first heading
	heading   string
	at        pos
	prose     string
	checklist []itemText
	fences    []fence
}

type itemText struct {
	text string
	at   pos
}

// fence is a step fence: the YAML and the number of the file's lines before it.
type fence struct {
	yaml   string
	before int
	at     pos
}

// document reads the Markdown; skip lines at the top belong to the front matter.
type document struct {
	*faults
	source   []byte
	starts   []int // byte offset of each line
	skip     int
	sections []*section
	drop     map[int]bool // lines that are not prose
}

func (f *faults) readMarkdown(source []byte, skip int) []*section {
	d := &document{faults: f, source: source, skip: skip, drop: map[int]bool{}}
	d.starts = append(d.starts, 0)
	for i, c := range source {
		if c == '\n' {
			d.starts = append(d.starts, i+1)
		}
	}
	// The front matter is blanked, not cut, so that offsets are those of the file.
	body := bytes.Clone(source)
	for i := range d.starts[min(skip, len(d.starts)-1)] {
		if body[i] != '\n' {
			body[i] = ' '
		}
	}
	root := goldmark.DefaultParser().Parse(text.NewReader(body))
	d.walk(root)
	return d.sections
}

func (d *document) walk(root ast.Node) {
	d.sections = []*section{{at: pos{d.skip + 1, 1}}}
	first := d.skip // index of the section's first line after its heading
	for n := root.FirstChild(); n != nil; n = n.NextSibling() {
		h, ok := n.(*ast.Heading)
		if !ok || h.Level > 3 {
			d.block(n)
			continue
		}
		line := d.lineOf(n.Pos())
		d.finish(first, line)
		at, last := d.headingAt(h, line)
		d.sections = append(d.sections, &section{level: h.Level, heading: d.headingText(h), at: at})
		first = last + 1
	}
	d.finish(first, len(d.starts))
}

func (d *document) current() *section { return d.sections[len(d.sections)-1] }

// headingAt gives where a heading stands, and the index of its last line (a setext heading has an underline).
func (d *document) headingAt(h *ast.Heading, line int) (pos, int) {
	last := line
	if l := h.Lines(); l.Len() > 0 {
		last = d.lineOf(l.At(l.Len() - 1).Start)
	}
	if !strings.HasPrefix(strings.TrimLeft(d.line(line), " "), "#") {
		last++
	}
	return pos{line + 1, 1}, last
}

func (d *document) headingText(h *ast.Heading) string {
	var parts []string
	for i := range h.Lines().Len() {
		seg := h.Lines().At(i)
		parts = append(parts, strings.TrimSpace(string(d.source[seg.Start:seg.Stop])))
	}
	return strings.Join(parts, " ")
}

// finish collects the prose of the section whose lines are [first, end).
func (d *document) finish(first, end int) {
	var lines []string
	for i := first; i < end && i < len(d.starts); i++ {
		if !d.drop[i] {
			lines = append(lines, strings.TrimRight(d.line(i), " \t\r"))
		}
	}
	joined := strings.Join(lines, "\n")
	for strings.Contains(joined, "\n\n\n") {
		joined = strings.ReplaceAll(joined, "\n\n\n", "\n\n")
	}
	d.current().prose = strings.Trim(joined, "\n")
}

func (d *document) block(n ast.Node) {
	switch x := n.(type) {
	case *ast.FencedCodeBlock:
		d.fenced(x, true)
	case *ast.List:
		d.list(x)
		d.nestedFences(n)
	default:
		d.nestedFences(n)
	}
}

func (d *document) nestedFences(n ast.Node) {
	for c := n.FirstChild(); c != nil; c = c.NextSibling() {
		if f, ok := c.(*ast.FencedCodeBlock); ok {
			d.fenced(f, false)
		}
		if c.Type() == ast.TypeBlock {
			d.nestedFences(c)
		}
	}
}

func (d *document) fenced(f *ast.FencedCodeBlock, top bool) {
	if f.Info == nil {
		return
	}
	info := strings.TrimSpace(string(f.Info.Segment.Value(d.source)))
	open := d.lineOf(f.Info.Segment.Start)
	at := pos{open + 1, 1}
	switch {
	case info == "step" && !top:
		d.add(at, "a step fence must stand at the left margin, outside of lists and quotes")
	case info == "step":
		d.stepFence(open, at)
	case relight.Nearest(info, []string{"step"}) != "" || strings.HasPrefix(info, "step "):
		d.suggest(at, `did you mean "step"?`, "a fence is marked %q", info)
	}
}

// stepFence takes the lines of a fence as they stand in the file, so that columns are the file's.
func (d *document) stepFence(open int, at pos) {
	marker := strings.TrimLeft(d.line(open), " ")
	char := marker[:1]
	length := len(marker) - len(strings.TrimLeft(marker, char))
	end := open + 1
	for end < len(d.starts) && !closes(d.line(end), char, length) {
		end++
	}
	if end == len(d.starts) {
		d.add(at, "the step fence is not closed")
	}
	for i := open; i <= end; i++ {
		d.drop[i] = true
	}
	stop := len(d.source)
	if end < len(d.starts) {
		stop = d.starts[end]
	}
	yamlText := ""
	if open+1 < len(d.starts) {
		yamlText = string(d.source[d.starts[open+1]:stop])
	}
	d.current().fences = append(d.current().fences, fence{yamlText, open + 1, at})
}

func closes(line, char string, length int) bool {
	s := strings.TrimRight(line, " \t\r")
	indent := len(s) - len(strings.TrimLeft(s, " "))
	s = s[indent:]
	return indent <= 3 && len(s) >= length && strings.Trim(s, char) == ""
}

// list takes the items with a box out of the prose.
func (d *document) list(l *ast.List) {
	var boxed, plain []itemText
	d.items(l, &boxed, &plain)
	if len(boxed) == 0 {
		return
	}
	for _, p := range plain {
		d.suggest(p.at, "write - [ ] before it", "an item of a checklist has no box")
	}
	d.current().checklist = append(d.current().checklist, boxed...)
	end := len(d.starts)
	if next := l.NextSibling(); next != nil && next.Pos() >= 0 {
		end = d.lineOf(next.Pos())
	}
	for i := d.lineOf(l.Pos()); i < end; i++ {
		d.drop[i] = true
	}
}

func (d *document) items(l *ast.List, boxed, plain *[]itemText) {
	for item := l.FirstChild(); item != nil; item = item.NextSibling() {
		it := itemText{at: pos{d.lineOf(item.Pos()) + 1, 1}}
		body := item.FirstChild()
		if body == nil || !d.hasBox(body) {
			*plain = append(*plain, it)
		} else {
			it.text = d.itemText(body)
			*boxed = append(*boxed, it)
		}
		for c := body; c != nil; c = c.NextSibling() {
			if nested, ok := c.(*ast.List); ok {
				d.items(nested, boxed, plain)
			}
		}
	}
}

// hasBox tells an item of a task list by itself: goldmark's extensions would cost every start of relight more than a millisecond.
func (d *document) hasBox(body ast.Node) bool {
	if body.Lines().Len() == 0 {
		return false
	}
	first := body.Lines().At(0)
	return box.Match(first.Value(d.source))
}

var box = regexp.MustCompile(`^\s*\[[ xX]\]\s*`)

func (d *document) itemText(body ast.Node) string {
	var parts []string
	for i := range body.Lines().Len() {
		seg := body.Lines().At(i)
		parts = append(parts, strings.TrimSpace(string(seg.Value(d.source))))
	}
	return box.ReplaceAllString(strings.Join(parts, " "), "")
}

func (d *document) line(i int) string {
	end := len(d.source)
	if i+1 < len(d.starts) {
		end = d.starts[i+1] - 1
	}
	return string(d.source[d.starts[i]:end])
}

// lineOf is the index of the line that holds a byte.
func (d *document) lineOf(offset int) int {
	lo, hi := 0, len(d.starts)
	for hi-lo > 1 {
		if mid := (lo + hi) / 2; d.starts[mid] <= offset {
			lo = mid
		} else {
			hi = mid
		}
	}
	return lo
}

var (
	numbered = regexp.MustCompile(`^(?i:(phase|step)\s+)?\d+(\.\d+)*[.):]?\s+`)
	brackets = regexp.MustCompile(`\([^)]*\)`)
	budget   = regexp.MustCompile(`(?i)\s*\(\s*(?:<|≤|~|about|under|up to|within)?\s*(?:\d+(?:\.\d+)?\s*(?:-|–|—|to)\s*)?(\d+(?:\.\d+)?)\s*(s|sec|seconds?|m|min|minutes?|h|hours?)\s*\)`)
	notID    = regexp.MustCompile(`[^a-z0-9]+`)
)

// slug makes an id of a heading.
func slug(heading string) string {
	s := brackets.ReplaceAllString(unnumber(heading), "")
	return strings.Trim(notID.ReplaceAllString(strings.ToLower(s), "-"), "-")
}

func unnumber(heading string) string { return numbered.ReplaceAllString(heading, "") }

// budgetOf takes "(30–60 minutes)" out of a heading: the upper end counts.
func budgetOf(heading string) (title string, upper time.Duration) {
	m := budget.FindStringSubmatchIndex(heading)
	if m == nil {
		return heading, 0
	}
	n, err := strconv.ParseFloat(heading[m[2]:m[3]], 64)
	if err != nil || n > 1e6 {
		return heading, 0
	}
	unit := map[byte]time.Duration{'s': time.Second, 'm': time.Minute, 'h': time.Hour}[heading[m[4]]|0x20]
	return strings.TrimSpace(heading[:m[0]] + heading[m[1]:]), time.Duration(n * float64(unit))
}
