package app

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob"
	"github.com/toolboxai/relight/blob/file"
	"github.com/toolboxai/relight/blob/retry"
	"github.com/toolboxai/relight/estate"
	"github.com/toolboxai/relight/repo"
)

// OpenStorage opens the storage at url with retries.
func (a *App) OpenStorage(url string) (blob.Storage, error) {
	if err := knownScheme(url); err != nil {
		return nil, err
	}
	s, err := file.Open(url)
	if err != nil {
		return nil, err
	}
	return retry.New(s, a.patience()), nil
}

// CreateStorage makes the place at url when it is not there, and opens it.
func (a *App) CreateStorage(url string) (blob.Storage, error) {
	if err := knownScheme(url); err != nil {
		return nil, err
	}
	s, err := file.Create(url)
	if err != nil {
		return nil, err
	}
	return retry.New(s, a.patience()), nil
}

// patience is how storage is tried again: for about half a minute.
func (a *App) patience() retry.Policy {
	return retry.Policy{Attempts: 7, First: 200 * time.Millisecond, Max: 10 * time.Second, Sleep: retry.Sleep, Rand: rand.Float64,
		Tell: func(op, name string, attempt int, err error) {
			a.o.Log.Warn("storage is tried again", "operation", op, "object", name, "attempt", attempt, "error", err)
		}}
}

func knownScheme(url string) error {
	scheme, _, ok := strings.Cut(url, "://")
	if !ok || scheme == "file" {
		return nil
	}
	return &relight.Error{Op: "open storage", Subject: url, Code: relight.CodeUsage, Err: fmt.Errorf("scheme %q is unknown", scheme),
		Hint: "this version knows file:///PATH"}
}

// Repository opens a repository of the estate with this host's credential: it lists and writes.
func (a *App) Repository(ctx context.Context, name string) (*repo.Meta, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if m, ok := a.repositories[name]; ok {
		return m, nil
	}
	e, r, err := a.findRepository(name)
	if err != nil {
		return nil, err
	}
	c, err := repo.ReadCredential(r.Credential)
	if err != nil {
		return nil, err
	}
	k, err := c.Keyring()
	if err != nil {
		return nil, err
	}
	m, err := a.openWith(ctx, e, r, k)
	if err != nil {
		return nil, err
	}
	a.repositories[name] = m
	return m, nil
}

// Reader opens a repository so that content can be read: with a recovery identity if one was given, else with this host's credential, which must then
// be a prover's.
func (a *App) Reader(ctx context.Context, name string) (*repo.Reader, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if r, ok := a.readers[name]; ok {
		return r, nil
	}
	e, r, err := a.findRepository(name)
	if err != nil {
		return nil, err
	}
	k, err := a.readingKeys(ctx, r)
	if err != nil {
		return nil, err
	}
	m, err := a.openWith(ctx, e, r, k)
	if err != nil {
		return nil, err
	}
	reader, err := m.Reader()
	if err != nil {
		return nil, err
	}
	a.readers[name] = reader
	return reader, nil
}

func (a *App) readingKeys(ctx context.Context, r estate.Repository) (*repo.Keyring, error) {
	ids, err := a.loadIdentities()
	if err != nil {
		return nil, err
	}
	if len(ids) > 0 {
		s, err := a.OpenStorage(r.URL)
		if err != nil {
			return nil, err
		}
		return repo.Unlock(ctx, s, ids...)
	}
	c, err := repo.ReadCredential(r.Credential)
	if err != nil {
		return nil, err
	}
	k, err := c.Keyring()
	if err == nil && !k.CanRead() {
		return nil, &relight.Error{Op: "read content", Subject: "repository " + r.Name, Code: relight.CodeUsage,
			Err: errors.New("this host's credential may write and list, not read"), Hint: "give the recovery key with --identity FILE"}
	}
	return k, err
}

func (a *App) openWith(ctx context.Context, e *estate.Estate, r estate.Repository, k *repo.Keyring) (*repo.Meta, error) {
	s, err := a.OpenStorage(r.URL)
	if err != nil {
		return nil, err
	}
	cache := stateFile(e, "cache", r.Name)
	if err := os.MkdirAll(cache, 0o700); err != nil {
		return nil, &relight.Error{Op: "open repository", Subject: r.Name, Err: err, Hint: "the state directory must be writable; run as root"}
	}
	return repo.Open(ctx, s, k, repo.Options{Name: r.Name, Now: a.o.Now, Log: a.o.Log, CacheDir: cache})
}

// findRepository looks a repository up; "" is the only one, or the first by name.
func (a *App) findRepository(name string) (*estate.Estate, estate.Repository, error) {
	e, err := a.loadEstate()
	if err != nil {
		return nil, estate.Repository{}, err
	}
	names := slices.Sorted(maps.Keys(e.Repositories))
	if name == "" && len(names) > 0 {
		name = names[0]
	}
	r, ok := e.Repositories[name]
	if !ok {
		return nil, r, &relight.Error{Op: "find repository", Subject: name, Code: relight.CodeUsage, Err: errors.New("the estate has no such repository"),
			Hint: "the estate's repositories are: " + strings.Join(names, ", ")}
	}
	r, err = at(e, r)
	return e, r, err
}
