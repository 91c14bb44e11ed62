package app

import (
	"context"
	"fmt"
	"os"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/estate"
	"github.com/toolboxai/relight/repo"
)

// Bare is what recovery starts from on a bare machine.
type Bare struct {
	URL       string
	Directory string // where relight.yaml is to lie; "": where it lay
	Host      string // this machine's name in signatures
	Force     bool
}

// FromBare brings the estate's configuration back from a repository and gives this machine a credential of its own, so that everything else can be
// recovered by the estate's own runbook. It can be repeated.
func (a *App) FromBare(ctx context.Context, o Bare) (*estate.Estate, error) {
	s, err := a.OpenStorage(o.URL)
	if err != nil {
		return nil, err
	}
	m, err := a.RecoverySide(ctx, s)
	if err != nil {
		return nil, err
	}
	defer func() { _ = m.Close() }()
	r, err := m.Reader()
	if err != nil {
		return nil, err
	}
	kept, err := m.LatestEstate(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("bring the estate back: %w", err)
	}
	b, err := estate.DecodeBundle(kept.Data)
	if err != nil {
		return nil, err
	}
	e, err := unpackEstate(b, o.Directory, o.Force)
	if err != nil {
		return nil, err
	}
	if err := a.adopt(ctx, m, e, o); err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.o.Config, a.estate = e.File, e
	return e, nil
}

// adopt enrols this machine as a writer, unless it holds a credential for the repository already.
func (a *App) adopt(ctx context.Context, m *repo.Meta, e *estate.Estate, o Bare) error {
	r, err := repositoryAt(e, m, o.URL)
	if err != nil {
		return err
	}
	to := m.Storage().String()
	if o.URL == r.URL {
		to = r.URL
	}
	if err := a.move(e, r, to); err != nil {
		return err
	}
	if held, err := repo.ReadCredential(r.Credential); err == nil && held.Repository() == m.Descriptor().ID {
		return nil
	}
	if _, err := os.Stat(r.Credential); err == nil && !o.Force {
		return &relight.Error{Op: "recover", Subject: r.Credential, Code: relight.CodeUsage, Err: os.ErrExist,
			Hint: "it belongs to another repository; move it away, or use --force"}
	}
	role := repo.RoleWriter
	if m.Descriptor().SingleHost {
		role = repo.RoleProver
	}
	c, err := repo.EnrolHost(ctx, m, o.Host, role)
	if err != nil {
		return fmt.Errorf("enrol this machine: %w", err)
	}
	return WriteCredential(c, r.Credential)
}

// repositoryAt finds which of the estate's repositories the open one is. An address may have changed (a mirror, another mount), so that with one repository it is
// taken to be that one.
func repositoryAt(e *estate.Estate, m *repo.Meta, url string) (estate.Repository, error) {
	for _, r := range e.Repositories {
		if r.URL == url || r.URL == m.Storage().String() {
			return r, nil
		}
	}
	if len(e.Repositories) == 1 {
		for _, r := range e.Repositories {
			return r, nil
		}
	}
	return estate.Repository{}, &relight.Error{Op: "recover", Subject: url, Code: relight.CodeUsage,
		Err: fmt.Errorf("relight.yaml names %d repositories, none at this address", len(e.Repositories)), Hint: "use the address under which the estate knows it"}
}
