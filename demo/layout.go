package demo

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/toolboxai/relight"
)

// layout is where a demonstration keeps its things. Each stands for a place that fails alone.
type layout struct {
	root string
	made bool // the demonstration has made the root itself
}

func (l layout) estate() string   { return filepath.Join(l.root, "estate") } // the host's own disk: configuration, state, spool, journal
func (l layout) config() string   { return filepath.Join(l.estate(), "relight.yaml") }
func (l layout) data() string     { return filepath.Join(l.root, "data", "main") } // the database host's disk
func (l layout) run() string      { return filepath.Join(l.root, "run") }
func (l layout) vault() string    { return filepath.Join(l.root, "vault") }   // the bucket, somewhere else
func (l layout) offline() string  { return filepath.Join(l.root, "offline") } // the safe
func (l layout) identity() string { return filepath.Join(l.offline(), "recovery.key") }
func (l layout) evidence() string { return filepath.Join(l.root, "evidence") }
func (l layout) ledger() string   { return filepath.Join(l.root, "ledger.jsonl") }
func (l layout) dsn() string      { return "host=" + l.run() + " port=5432 user=postgres dbname=bank" }
func (l layout) maintenance() string {
	return "host=" + l.run() + " port=5432 user=postgres dbname=postgres"
}

// claim makes the directory to work in, or takes one that is empty. What holds anything is somebody's own and is refused.
func claim(dir string) (layout, error) {
	if dir == "" {
		root, err := os.MkdirTemp("", "relight-demo-")
		if err != nil {
			return layout{}, noPlace(err, "set TMPDIR to a directory that can be written to, or name a place with --directory")
		}
		return layout{root, true}, os.Chmod(root, 0o755) // the server's user has to get in
	}
	root, err := filepath.Abs(dir)
	if err == nil {
		err = os.Mkdir(root, 0o755)
	}
	if err == nil {
		return layout{root, true}, nil
	}
	if !errors.Is(err, fs.ErrExist) {
		return layout{}, noPlace(err, "name a directory whose parent is there and can be written to")
	}
	held, err := os.ReadDir(root)
	if err == nil && len(held) > 0 {
		err = fmt.Errorf("%s is not empty: it holds %s", root, held[0].Name())
	}
	if err != nil {
		return layout{}, noPlace(err, "name an empty directory, or one that is not there")
	}
	return layout{root, false}, nil
}

func noPlace(err error, hint string) error {
	return &relight.Error{Op: "make a place for the demonstration", Code: relight.CodeUsage, Err: err, Hint: hint}
}

// remove takes away what the demonstration made and nothing else: a directory that the user gave stays, and so does what others put into it.
func (l layout) remove() error {
	var errs []error
	for _, own := range []string{l.estate(), filepath.Dir(l.data()), l.run(), l.vault(), l.offline(), l.evidence(), l.ledger()} {
		errs = append(errs, os.RemoveAll(own))
	}
	if l.made {
		errs = append(errs, os.Remove(l.root))
	}
	return errors.Join(errs...)
}
