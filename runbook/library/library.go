// Package library holds the built-in runbooks: the scenarios that relight can recover from without any file of the
// estate's own. They are Markdown, embedded in the binary, so that bucket, key and binary suffice.
//
// It promises that every runbook in it is named as its file and compiles; an estate's own runbook of the same name
// comes before it.
package library

import (
	"embed"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/action"
	"github.com/toolboxai/relight/runbook"
)

//go:embed *.md
var files embed.FS

const ending = ".md"

// Sources gives the text of every built-in runbook by its name.
func Sources() map[string][]byte {
	out := map[string][]byte{}
	for _, name := range Names() {
		text, err := Source(name)
		if err == nil { // Names lists only what is embedded
			out[name] = text
		}
	}
	return out
}

// Names lists the built-in runbooks, sorted.
func Names() []string {
	var names []string
	entries, err := fs.ReadDir(files, ".")
	if err != nil {
		return nil // an embedded root can always be read
	}
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ending))
	}
	slices.Sort(names)
	return names
}

// Source gives the Markdown of one built-in runbook.
func Source(name string) ([]byte, error) {
	text, err := files.ReadFile(name + ending)
	if err == nil {
		return text, nil
	}
	return nil, &relight.Error{
		Op: "find runbook", Subject: name, Code: relight.CodeUsage,
		Err:  fmt.Errorf("there is no built-in runbook of this name%s", relight.DidYouMean(name, Names())),
		Hint: "the built-in ones are " + strings.Join(Names(), ", "),
	}
}

// Compile compiles every built-in runbook against the actions of reg.
func Compile(reg *action.Registry) (map[string]*runbook.Runbook, error) {
	out := map[string]*runbook.Runbook{}
	sources := Sources()
	for _, name := range slices.Sorted(maps.Keys(sources)) {
		rb, err := runbook.Compile(sources[name], "library/"+name+ending, reg)
		if err != nil {
			return nil, fmt.Errorf("compile built-in runbook %s: %w", name, err)
		}
		if rb.Name != name {
			return nil, fmt.Errorf("built-in runbook %s calls itself %s", name, rb.Name)
		}
		out[name] = rb
	}
	return out, nil
}
