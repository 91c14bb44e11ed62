package app

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/toolboxai/relight/estate"
	"github.com/toolboxai/relight/host"
)

// A repository that was recovered from under another address than relight.yaml names (a mirror, another mount) stays there until relight.yaml is
// changed: the address that it named is the one that was lost.

// moved is one repository's new address, and the one in relight.yaml that it stands for.
type moved struct {
	From string `json:"from"`
	To   string `json:"to"`
}

func addressFile(e *estate.Estate) string { return stateFile(e, "addresses.json") }

func readAddresses(e *estate.Estate) (map[string]moved, error) {
	out := map[string]moved{}
	b, err := os.ReadFile(addressFile(e))
	if errors.Is(err, fs.ErrNotExist) {
		return out, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the addresses of repositories: %w", err)
	}
	if err := json.Unmarshal(b, &out); err != nil {
		return nil, fmt.Errorf("read the addresses of repositories in %s: %w", addressFile(e), err)
	}
	return out, nil
}

// move keeps the address that a repository was found at.
func (a *App) move(e *estate.Estate, r estate.Repository, to string) error {
	all, err := readAddresses(e)
	if err != nil {
		return err
	}
	if all[r.Name] == (moved{From: r.URL, To: to}) || all[r.Name] == (moved{}) && to == r.URL {
		return nil
	}
	delete(all, r.Name)
	if to != r.URL {
		all[r.Name] = moved{From: r.URL, To: to}
		a.o.Log.Warn("relight.yaml names another address of the repository; the one that was given is used until relight.yaml is changed",
			"repository", r.Name, "named", r.URL, "used", to)
	}
	b, err := json.Marshal(all)
	if err != nil {
		return fmt.Errorf("keep the address of repository %s: %w", r.Name, err)
	}
	if err := os.MkdirAll(e.State, 0o755); err != nil {
		return fmt.Errorf("keep the address of repository %s: %w", r.Name, err)
	}
	return host.WriteFileDurable(addressFile(e), append(b, '\n'), 0o640)
}

// at gives a repository with the address at which it is now.
func at(e *estate.Estate, r estate.Repository) (estate.Repository, error) {
	all, err := readAddresses(e)
	if err != nil {
		return r, err
	}
	if m, ok := all[r.Name]; ok && m.From == r.URL {
		r.URL = m.To
	}
	return r, nil
}
