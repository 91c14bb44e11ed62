package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"filippo.io/age"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/estate"
	"github.com/toolboxai/relight/host"
	"github.com/toolboxai/relight/repo"
	"github.com/toolboxai/relight/secret"
)

// resolveSecret gives the value that a reference stands for. Where the reference no longer leads anywhere, as on a bare machine, the value that the
// estate bundle brought back serves.
func (a *App) resolveSecret(ctx context.Context, reference string) (secret.Value, error) {
	e, err := a.Estate()
	if err != nil {
		return secret.Value{}, err
	}
	v, err := a.readSecret(ctx, e, reference)
	if err == nil {
		return v, nil
	}
	for name, r := range e.Secrets {
		if r != reference {
			continue
		}
		if kept, rerr := a.readSecret(ctx, e, "file:"+stateFile(e, "secrets", name)); rerr == nil {
			return kept, nil
		}
	}
	return secret.Value{}, err
}

func (a *App) readSecret(ctx context.Context, e *estate.Estate, reference string) (secret.Value, error) {
	ref, err := secret.ParseRef(reference)
	if err != nil {
		return secret.Value{}, err
	}
	return secret.NewResolver(secret.Options{Dir: e.Directory, Redactor: a.redactor, Log: a.o.Log,
		Identities: func(context.Context) ([]age.Identity, error) { return a.Identities() }}).Resolve(ctx, ref)
}

// keepEstate stores the estate's bundle when it has changed.
func (a *App) keepEstate(ctx context.Context, m *repo.Meta) error {
	e, err := a.Estate()
	if err != nil {
		return err
	}
	now, err := estate.Load(e.File) // as it is on disk now: it may have been edited since
	if err != nil {
		return err
	}
	b, err := now.Pack(func(reference string) (string, error) {
		v, err := a.resolveSecret(ctx, reference)
		return v.Reveal(), err
	})
	if err != nil {
		return err
	}
	data, err := b.Encode()
	if err != nil {
		return err
	}
	_, err = m.PutEstate(ctx, data)
	return err
}

// unpackEstate writes a bundle back: its files where they lay or under dir, its secrets into the state directory.
func unpackEstate(b estate.Bundle, dir string, force bool) (*estate.Estate, error) {
	if err := b.Unpack(dir, force, host.WriteFileDurable); err != nil {
		return nil, err
	}
	if dir == "" {
		dir = b.Directory
	}
	e, err := estate.Load(filepath.Join(dir, estate.FileName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &relight.Error{Op: "unpack estate", Subject: dir, Err: errors.New("the bundle holds no " + estate.FileName)}
	}
	if err != nil {
		return nil, err
	}
	if len(b.Secrets) == 0 {
		return e, nil
	}
	if err := os.MkdirAll(stateFile(e, "secrets"), 0o700); err != nil {
		return nil, fmt.Errorf("unpack secrets: %w", err)
	}
	for name, value := range b.Secrets {
		if strings.ContainsAny(name, "/\\") || name == ".." {
			return nil, fmt.Errorf("unpack secrets: %q is no name of a secret", name)
		}
		if err := host.WriteFileDurable(stateFile(e, "secrets", name), []byte(value), 0o600); err != nil {
			return nil, err
		}
	}
	return e, nil
}
