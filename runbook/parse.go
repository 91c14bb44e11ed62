package runbook

import (
	"bytes"
	"strings"
	"unicode/utf8"

	"github.com/toolboxai/relight/action"
)

// draft is a file that was read but not yet understood as a whole: the runbook, and where each part of it stands.
type draft struct {
	*faults
	rb    *Runbook
	steps []*stepDraft // in the order of the document
	uses  []use        // outside of steps
	at    struct{ inputs map[string]pos }
}

// stepDraft is a step with the places of what it says.
type stepDraft struct {
	step       *Step
	phase      int
	at         pos // of the heading
	keys       map[string]pos
	needsGiven bool
	needsAt    []pos
	stated     action.Danger // the danger that the file states
	optionAt   [][]pos       // of each option's steps
	calls      []callDraft
	uses       []use
}

// where gives the place of a key's value, or the heading.
func (s *stepDraft) where(key string) pos {
	if at, ok := s.keys[key]; ok {
		return at
	}
	return s.at
}

// callDraft is a call to check against the registry.
type callDraft struct {
	call   *Call
	role   string // "do", "probe", "verify", "undo", "until"
	at     pos
	withAt map[string]pos
}

// use is a lookup that some expression makes.
type use struct {
	path  []string
	at    pos
	after bool // evaluated when the step's own output is there: verify and undo
	each  bool // inside the step's `each`
	prose bool
}

// maxSource bounds a runbook file: a procedure for people is never longer.
const maxSource = 256 << 10

// parse reads a file. The draft holds what could be read, even when there are faults.
func parse(src []byte, name string) *draft {
	d := &draft{faults: &faults{file: name}, rb: &Runbook{Phases: []Phase{}}}
	switch {
	case len(src) > maxSource:
		d.add(pos{1, 1}, "the file is larger than %d bytes", maxSource)
		return d
	case !utf8.Valid(src):
		d.add(pos{1 + bytes.Count(src[:firstInvalid(src)], []byte("\n")), 1}, "the file is not UTF-8 text")
		return d
	case bytes.IndexByte(src, 0) >= 0:
		d.add(pos{1, 1}, "the file holds a zero byte; it is not text")
		return d
	}
	src = bytes.ReplaceAll(bytes.TrimPrefix(src, []byte("\ufeff")), []byte("\r\n"), []byte("\n"))
	front, lines := d.cutFront(string(src))
	if lines > 0 {
		d.front(front)
	}
	for _, s := range d.readMarkdown(src, lines) {
		d.section(s)
	}
	if d.rb.Title == "" {
		d.rb.Title = d.rb.Name
	}
	if len(d.steps) == 0 {
		d.suggest(pos{lines + 1, 1}, "a step is a heading with ###, below a phase with ##", "the runbook has no step")
	}
	return d
}

func firstInvalid(src []byte) int {
	for i := 0; i < len(src); {
		r, n := utf8.DecodeRune(src[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return len(src)
}

// cutFront gives the YAML between the first two --- lines and the number of lines that it and they take.
func (d *draft) cutFront(src string) (front string, lines int) {
	all := strings.Split(src, "\n")
	if strings.TrimRight(all[0], " \t") != "---" {
		d.suggest(pos{1, 1}, "begin the file with ---, runbook: NAME, ---", "the front matter is missing")
		return "", 0
	}
	for i := 1; i < len(all); i++ {
		if strings.TrimRight(all[i], " \t") == "---" {
			return strings.Join(all[1:i], "\n") + "\n", i + 1
		}
	}
	d.suggest(pos{1, 1}, "end it with a line ---", "the front matter is not closed")
	return "", 0
}

func (d *draft) section(s *section) {
	switch s.level {
	case 0:
		d.outside(s, "before the first heading")
		d.rb.Intro = s.prose
	case 1:
		d.outside(s, "below the title")
		if len(d.rb.Phases) > 0 {
			d.suggest(s.at, "a phase has ##, a step ###", "a title stands after the first phase")
		}
		if d.rb.Title == "" {
			d.rb.Title = s.heading
		}
		d.rb.Intro = strings.Trim(d.rb.Intro+"\n\n"+s.prose, "\n")
	case 2:
		d.phase(s)
	case 3:
		d.step(s)
	}
	if s.level < 3 {
		d.prose(s.prose, s.at, func(u use) { d.uses = append(d.uses, u) })
	}
}

// outside reports what only a step may hold.
func (d *draft) outside(s *section, place string) {
	for _, f := range s.fences {
		d.suggest(f.at, "put it below a heading with ###", "a step fence stands %s", place)
	}
	for _, c := range s.checklist {
		d.suggest(c.at, "put it below a heading with ###", "a checklist stands %s", place)
	}
}

func (d *draft) phase(s *section) {
	d.outside(s, "in a phase, outside of its steps")
	title, upper := budgetOf(s.heading)
	p := Phase{ID: slug(title), Title: unnumber(title), Prose: s.prose, Budget: upper, Steps: []*Step{}}
	if p.ID == "" {
		d.add(s.at, "the phase has no name")
	}
	for _, o := range d.rb.Phases {
		if o.ID == p.ID {
			d.add(s.at, "there is a phase %q already", p.ID)
		}
	}
	d.rb.Phases = append(d.rb.Phases, p)
}
