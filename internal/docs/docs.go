// Package docs reads the project's own pages so that tests can hold them against the program: the README's tour is run as it is
// written, the page on configuration names every key, links lead somewhere. It serves tests only.
package docs

import (
	"fmt"
	"regexp"
	"strings"
)

// Section gives the part of a page below the heading with this text, up to the next heading of its level or above.
func Section(page, heading string) (string, error) {
	level, in, fence := 0, false, false
	var b strings.Builder
	for line := range strings.SplitSeq(page, "\n") {
		if strings.HasPrefix(line, "```") {
			fence = !fence
		}
		marks := len(line) - len(strings.TrimLeft(line, "#"))
		if marks > 0 && !fence {
			switch {
			case in && marks <= level:
				return b.String(), nil
			case !in && strings.TrimSpace(line[marks:]) == heading:
				in, level = true, marks
				continue
			}
		}
		if in {
			b.WriteString(line + "\n")
		}
	}
	if !in {
		return "", fmt.Errorf("there is no heading %q", heading)
	}
	return b.String(), nil
}

// Fences gives the contents of the code blocks of a language, in order.
func Fences(page, language string) []string {
	var found []string
	var b strings.Builder
	fence, wanted := false, false
	for line := range strings.SplitSeq(page, "\n") {
		mark, isMark := strings.CutPrefix(line, "```")
		switch {
		case isMark && fence:
			if wanted {
				found = append(found, b.String())
			}
			b.Reset()
			fence, wanted = false, false
		case isMark:
			fence, wanted = true, mark == language
		case wanted:
			b.WriteString(line + "\n")
		}
	}
	return found
}

var link = regexp.MustCompile(`\]\(([^)\s]+)\)`)

// Links gives where a page's links lead to.
func Links(page string) []string {
	var found []string
	for _, m := range link.FindAllStringSubmatch(page, -1) {
		found = append(found, m[1])
	}
	return found
}
