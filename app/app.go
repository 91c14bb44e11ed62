// Package app is the composition root: an estate in, the object graph out. It is the one place that knows every room.
//
// It promises that nothing is opened before it is needed (recovery must work where most of the estate is gone), that whatever was opened is closed, and
// that only cli imports it.
package app

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"filippo.io/age"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/estate"
	"github.com/toolboxai/relight/host"
	"github.com/toolboxai/relight/journal"
	"github.com/toolboxai/relight/repo"
	"github.com/toolboxai/relight/secret"
)

// Options of New. Only what a person decides is here; the rest comes from relight.yaml.
type Options struct {
	Config     string   // path of relight.yaml, or "" to search
	Identities []string // files with recovery identities, for what must be read
	Actor      string   // who is at the keyboard
	// WithoutLease is the store that may be destroyed although a repository cannot be asked who else is at it.
	WithoutLease string
	Executable   string // relight itself, for wal-get and serve
	Log          *slog.Logger
	Now          func() time.Time
}

// App is an estate's object graph, opened piece by piece. It is safe for concurrent use.
type App struct {
	o Options

	mu           sync.Mutex
	estate       *estate.Estate
	local        *host.Local
	journal      *journal.Journal
	repositories map[string]*repo.Meta
	readers      map[string]*repo.Reader
	identities   []age.Identity
	redactor     *secret.Redactor // knows every secret that was resolved
}

// New gives an App that has opened nothing yet.
func New(o Options) *App {
	return &App{o: o, repositories: map[string]*repo.Meta{}, readers: map[string]*repo.Reader{}, redactor: &secret.Redactor{}}
}

// Close closes what was opened.
func (a *App) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	var errs []error
	for _, m := range a.repositories {
		errs = append(errs, m.Close())
	}
	for _, r := range a.readers {
		errs = append(errs, r.Meta().Close())
	}
	if a.journal != nil {
		errs = append(errs, a.journal.Close())
	}
	if a.local != nil {
		errs = append(errs, a.local.Close())
	}
	return errors.Join(errs...)
}

// closeRepository closes a repository, which is opened with the keys that lie there when it is asked for again.
func (a *App) closeRepository(name string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	var errs []error
	if m, ok := a.repositories[name]; ok {
		errs = append(errs, m.Close())
	}
	if r, ok := a.readers[name]; ok {
		errs = append(errs, r.Meta().Close())
	}
	delete(a.repositories, name)
	delete(a.readers, name)
	return errors.Join(errs...)
}

// Actor is who is at the keyboard.
func (a *App) Actor() string { return a.o.Actor }

// Now is the app's clock.
func (a *App) Now() time.Time { return a.o.Now() }

// Log is the app's logger.
func (a *App) Log() *slog.Logger { return a.o.Log }

// Estate reads relight.yaml once.
func (a *App) Estate() (*estate.Estate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.loadEstate()
}

func (a *App) loadEstate() (*estate.Estate, error) {
	if a.estate != nil {
		return a.estate, nil
	}
	path, err := estate.Find(a.o.Config)
	if err != nil {
		return nil, err
	}
	e, err := estate.Load(path)
	if err != nil {
		return nil, err
	}
	a.estate = e
	return e, nil
}

// Host runs programs on this machine.
func (a *App) Host() *host.Local {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.local == nil {
		a.local = host.NewLocal(host.Options{Log: a.o.Log})
	}
	return a.local
}

// Journal opens the host's journal, making it and the host's signing key on first use.
func (a *App) Journal(ctx context.Context) (*journal.Journal, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.journal != nil {
		return a.journal, nil
	}
	e, err := a.loadEstate()
	if err != nil {
		return nil, err
	}
	j, err := openJournal(ctx, e, a.o, a.redactor)
	if err != nil {
		return nil, err
	}
	a.journal = j
	return j, nil
}

// Identities reads the files with recovery identities.
func (a *App) Identities() ([]age.Identity, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.loadIdentities()
}

func (a *App) loadIdentities() ([]age.Identity, error) {
	if a.identities != nil {
		return a.identities, nil
	}
	for _, path := range a.o.Identities {
		ids, err := ReadIdentities(path)
		if err != nil {
			return nil, err
		}
		a.identities = append(a.identities, ids...)
	}
	return a.identities, nil
}

// ReadIdentities reads one file of recovery identities.
func ReadIdentities(path string) ([]age.Identity, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, &relight.Error{Op: "read identity", Code: relight.CodeUsage, Err: err, Hint: "name the file with the offline recovery key"}
	}
	defer func() { _ = f.Close() }()
	ids, err := repo.ParseIdentities(io.LimitReader(f, 1<<20))
	if err != nil {
		return nil, &relight.Error{Op: "read identity", Subject: path, Code: relight.CodeUsage, Err: err, Hint: relight.HintOf(err)}
	}
	return ids, nil
}

// stateFile is a path in the estate's state directory.
func stateFile(e *estate.Estate, elements ...string) string {
	return filepath.Join(append([]string{e.State}, elements...)...)
}
