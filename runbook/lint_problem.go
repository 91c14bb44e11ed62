package runbook

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/toolboxai/relight"
)

// Problem is one fault of a runbook file. Lines and columns count from 1; columns count bytes.
type Problem struct {
	File       string `json:"file"`
	Line       int    `json:"line"`
	Column     int    `json:"column"`
	Message    string `json:"message"`
	Suggestion string `json:"suggestion,omitempty"`
}

// String is one line: "file:12:3: there is no step "x"; did you mean "y"?".
func (p Problem) String() string {
	s := fmt.Sprintf("%s:%d:%d: %s", p.File, p.Line, p.Column, p.Message)
	if p.Suggestion != "" {
		s += "; " + p.Suggestion
	}
	return s
}

// Problems are all faults of a file, in its order.
type Problems []Problem

// Error gives one line a problem.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// pos is a place in the file.
type pos struct{ line, column int }

// faults collects problems.
type faults struct {
	file string
	list Problems
}

func (f *faults) add(at pos, format string, args ...any) {
	f.suggest(at, "", format, args...)
}

func (f *faults) suggest(at pos, suggestion, format string, args ...any) {
	f.list = append(f.list, Problem{
		File: f.file, Line: max(at.line, 1), Column: max(at.column, 1),
		Message: fmt.Sprintf(format, args...), Suggestion: suggestion,
	})
}

// unknown reports a word that is none of known.
func (f *faults) unknown(at pos, what, word string, known []string) {
	f.suggest(at, nearOrAll(word, known), "there is no %s %q", what, word)
}

// maxListed bounds how many words a message lists when none is near.
const maxListed = 20

func nearOrAll(word string, known []string) string {
	if near := relight.DidYouMean(word, known); near != "" {
		return strings.TrimPrefix(near, "; ")
	}
	if len(known) == 0 || len(known) > maxListed {
		return ""
	}
	return "there is " + strings.Join(known, ", ")
}

func (f *faults) sorted() Problems {
	slices.SortStableFunc(f.list, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return slices.Compact(f.list)
}

func (f *faults) err() error {
	if len(f.list) == 0 {
		return nil
	}
	list := f.sorted()
	n := "1 problem"
	if len(list) > 1 {
		n = fmt.Sprintf("%d problems", len(list))
	}
	return &relight.Error{
		Op: "compile runbook", Subject: f.file, Code: relight.CodeUsage,
		Err: fmt.Errorf("%s\n%w", n, list), Hint: "the language is described in docs/runbooks.md",
	}
}

// ProblemsOf finds the problems in the error of Compile.
func ProblemsOf(err error) Problems {
	var list Problems
	errors.As(err, &list)
	return list
}
